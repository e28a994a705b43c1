"""Secrets that a deployment makes for itself: said once, kept under its data folder, readable for its owner only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from app.errors import ConfigurationError


def keep_secret(path: Path, what: str, say: Callable[[str], object]) -> str:
    """Return the secret that a file keeps; the first call makes it, keeps it and says it.

    Args:
        path: of the file.
        what: it is, for people, such as ``Flower's password``.
        say: tells the operator.

    Raises:
        ConfigurationError: the file is empty.
    """
    if path.exists():
        return _read(path, what)
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(18)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-") as file:  # made for its owner only
        file.write(secret + "\n")
        file.flush()
        try:
            os.link(file.name, path)  # whole or not at all, and never over another process's
        except FileExistsError:
            return _read(path, what)
    say(f"{what}, said once and kept in {path}: {secret}")
    return secret


def keep_api_token(home: Path, say: Callable[[str], object]) -> str:
    """Return the API's generated token, as `keep_secret` does."""
    return keep_secret(home / "api-token", "The API's token", say)


def _read(path: Path, what: str) -> str:
    # an empty one would let everybody in
    if secret := path.read_text().strip():
        return secret
    raise ConfigurationError(f"expected {what} in {path}, found nothing: delete the file for a new one")
