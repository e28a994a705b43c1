"""What people and programs look at: Flower, the API, the log; and which strategies may be loaded."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from app.settings.group import Group

#: A token that a header can carry (b64token of RFC 6750) and nobody guesses.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")


class FlowerSettings(Group):
    """The Flower page."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 5555
    """Port to listen on; 0 takes a free one."""
    user: str = "operator"
    """Who may look."""
    password: SecretStr | None = None
    """None: one is generated, printed once and kept under the data folder."""
    max_tasks: Annotated[int, Field(ge=1)] = 20_000
    """Tasks kept in memory; Flower 2.2 takes about 38 MiB per 10,000."""


class Role(StrEnum):
    """What whoever has a token of the API may do."""

    READ = "read"
    OPERATE = "operate"

    def may(self, wanted: Role) -> bool:
        """Tell whether this role includes another: operating includes reading."""
        return self in (wanted, Role.OPERATE)


def _sendable(token: SecretStr) -> SecretStr:
    # what RFC 6750 lets a client send; the message must not show the value
    if not TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError("expected 16 or more letters, digits and -._~+/= : 'openssl rand -hex 24' makes one")
    return token


class ApiToken(Group):
    """Who may use the API, and for what."""

    token: Annotated[SecretStr, AfterValidator(_sendable)]
    """Sent as `Authorization: Bearer TOKEN`."""
    role: Role = Role.READ
    """read, or operate: also start and steer runs."""

    def __str__(self) -> str:
        return f"{self.role} ********"


class ApiSettings(Group):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8480
    """Port to listen on; 0 takes a free one."""
    tokens: dict[str, ApiToken] = Field(default_factory=dict)
    """Who may use it, as JSON: a name for the log, the token, what it may do, `{"ci": {"token": "...", "role":
    "read"}}`; `operate` includes `read`. Without any the API does not start."""
    open: bool = False
    """True: without tokens, everybody on this machine may operate; only on a loopback address."""
    streams: Annotated[int, Field(ge=1)] = 200
    """Most streams of events at a time; one more is answered with 503."""

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if len({each.token.get_secret_value() for each in self.tokens.values()}) < len(self.tokens):
            raise ValueError("expected a token of its own for every name, found the same one twice")
        return self


class LogSettings(Group):
    """What is logged and how."""

    level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """debug, info, warning or error."""
    json_lines: bool = False
    """True: one JSON object a line, for log collectors; False: readable lines."""


class StrategySettings(Group):
    """Which strategy code may be loaded."""

    modules: tuple[str, ...] = ()
    """Module prefixes from which `package.module:Class` implementations may be imported."""
    file: Path | None = None
    """Definition file that `demo` and `up` load; None means the built-in set."""
