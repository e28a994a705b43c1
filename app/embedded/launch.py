"""Start one server program: give up root, tie its life to its parent, exec.

A script of its own (`python -I -S launch.py ...`, standard library only) and not a `preexec_fn`: code between fork
and exec is unsafe as soon as the parent has threads. The order matters: the kernel forgets the parent-death signal
whenever the user id changes, so it is asked for last.

    launch.py PARENT_PID DEATH_SIGNAL UID GID CAPABILITY exec PROGRAM [ARGUMENT...]
    launch.py PARENT_PID DEATH_SIGNAL UID GID CAPABILITY check PATH:MODE...

UID -1 keeps the user, CAPABILITY -1 keeps none. `check` exits 0 if every PATH can be reached after the drop.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: Linux capability numbers and prctl options. Source: <linux/capability.h>, <linux/prctl.h>, <linux/securebits.h>.
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_PR_SET_PDEATHSIG = 1
_PR_GET_SECUREBITS = 27
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> int:
    """Drop, check or exec; returns only after a check or when the parent is already gone."""
    parent, death_signal, uid, gid, capability = (int(word) for word in arguments[:5])
    verb, rest = arguments[5], arguments[6:]
    os.umask(0o077)
    if uid >= 0:
        _become(uid, gid, capability)
    if verb == "check":
        return 0 if all(_reachable(word) for word in rest) else 1
    if _die_with(parent, death_signal):
        os.execv(rest[0], rest)  # noqa: S606  that is what this script is for
    return 1


def _become(uid: int, gid: int, capability: int) -> None:
    if capability >= 0:
        # Without this bit setuid() clears every capability, and access(2), which Postgres asks about its own files,
        # ignores capabilities for any user but root.
        _prctl(_PR_SET_SECUREBITS, _prctl(_PR_GET_SECUREBITS) | _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capability >= 0:
        _keep_only(capability)


def _keep_only(capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, effective_permitted_inheritable) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _die_with(parent: int, death_signal: int) -> bool:
    if death_signal == 0 or not sys.platform.startswith("linux"):
        return True
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    return os.getppid() == parent  # it may have died before the kernel was asked


def _prctl(option: int, *values: int) -> int:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    answer: int = ctypes.CDLL(None, use_errno=True).prctl(option, *words)
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
    return answer


def _reachable(path_and_mode: str) -> bool:
    path, _, mode = path_and_mode.rpartition(":")
    return os.access(path, int(mode))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"cannot start as asked: {error}")
