"""Check that requirements.txt is in step with pyproject.toml; offline, in a blink.

Every dependency of pyproject.toml must be pinned to one version inside its range, with hashes.
"""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: A pin at the start of a line: `name==version ; marker \`, with hashes on the lines after it.
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)[^\n]*(?P<hashes>(?:\n\s+--hash=\S+[^\n]*)*)",
    re.M,
)


def main() -> int:
    """Print what is out of step; exit code 1 if anything is."""
    text = Path("requirements.txt").read_text(encoding="utf-8")
    faults = [*find_faults(declared(), text), *find_unhashed(text)]
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    return 1 if faults else 0


def declared() -> list[Requirement]:
    """Read the dependencies of pyproject.toml, the extras and the build system's included.

    An extra that includes another one names the project itself, which is not pinned.
    """
    content = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = (*project["dependencies"], *extras, *content["build-system"]["requires"])
    return [each for each in map(Requirement, lines) if each.name != project["name"]]


def find_faults(wanted: list[Requirement], text: str) -> list[str]:
    """Name every dependency without a pin in its range."""
    pins: dict[str, list[str]] = {}
    for pin in PIN.finditer(text):
        pins.setdefault(canonicalize_name(pin["name"]), []).append(pin["version"])
    return [
        f"pyproject.toml asks for {each}, requirements.txt pins {', '.join(versions) or 'nothing'}: run make lock"
        for each in wanted
        if not (versions := pins.get(canonicalize_name(each.name), []))
        or not all(each.specifier.contains(version, prereleases=True) for version in versions)
    ]


def find_unhashed(text: str) -> list[str]:
    """Name every pin that pip would refuse for want of a hash."""
    return [
        f"requirements.txt: {pin['name']} has no hash: run make lock" for pin in PIN.finditer(text) if not pin["hashes"]
    ]


if __name__ == "__main__":
    sys.exit(main())
