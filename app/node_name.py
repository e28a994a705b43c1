"""The name of a worker node: no two nodes of one deployment on one machine have the same.

Nodes of one name would share a row in `nodes`, a queue and every control command. Other machines have other host names.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from itertools import count
from pathlib import Path

from app.embedded.files import Lock
from app.errors import ConfigurationError
from app.settings import Settings

#: %h is the host.
DEFAULT = "worker@%h"


def take_name(settings: Settings, wanted: str | None) -> str:
    """Take a name for as long as this process, or what it becomes by exec, lives.

    Args:
        settings: of the deployment.
        wanted: the name; None takes ``worker@%h``, or ``worker-2@%h`` and so on when there is one already.

    Raises:
        ConfigurationError: a node of the wanted name runs on this machine.
    """
    folder = _folder(settings)
    if wanted is not None:
        if not _take(folder, wanted):
            raise ConfigurationError(f"--name: a node {wanted!r} runs on this machine: choose another name")
        return wanted
    names = (DEFAULT if number == 1 else f"worker-{number}@%h" for number in count(1))
    return next(name for name in names if _take(folder, name))


def _folder(settings: Settings) -> Path:
    broker = settings.broker_url.get_secret_value() if settings.broker_url else str(settings.home.resolve())
    deployment = hashlib.sha256(f"{broker} {settings.broker.key_prefix}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"candlefleet-nodes-{os.getuid()}" / deployment
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _take(folder: Path, name: str) -> bool:
    lock = Lock.take(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock")
    if lock is not None:
        os.set_inheritable(lock.fileno(), True)
    return lock is not None
