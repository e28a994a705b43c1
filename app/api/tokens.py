"""Who asks, and whether they may: bearer tokens with roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.errors import ConfigurationError
from app.settings import ApiSettings, ApiToken, Role

_BEARER = HTTPBearer(auto_error=False, description="A token of `CANDLEFLEET_API__TOKENS`; its role is read or operate.")

#: Values of Sec-Fetch-Site that are no other site's page in somebody's browser.
OWN_SITES = (None, "same-origin", "none")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    role: Role


class Guard:
    """Knows the tokens. Without any, everybody may operate: `build_guard` sees to it that this is meant.

    Args:
        tokens: by the name of whoever has it.
    """

    def __init__(self, tokens: Mapping[str, ApiToken]) -> None:
        # digests are of one length, so that a comparison does not tell that of a token
        self._callers = [
            (_digest(each.token.get_secret_value()), Caller(name, each.role)) for name, each in tokens.items()
        ]

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._callers

    def find(self, token: str) -> Caller | None:
        """Return whose token this is. Takes the same time whatever it is: all are compared, each in constant time."""
        found, digest = None, _digest(token)
        for known, caller in self._callers:
            if compare_digest(known, digest):
                found = caller
        return found


def build_guard(settings: ApiSettings) -> Guard:
    """Build the guard of an API.

    Raises:
        ConfigurationError: it has no tokens, and the settings do not say that this is meant, or it can be reached
            from other machines.
    """
    if not settings.tokens:
        _require_meant(settings)
    return Guard(settings.tokens)


def _require_meant(settings: ApiSettings) -> None:
    if not settings.open:
        raise ConfigurationError(
            "the API has no tokens: set CANDLEFLEET_API__TOKENS (docs/api.md), let one be made with --make-token, or "
            "let everybody on this machine in with CANDLEFLEET_API__OPEN=true"
        )
    if not _is_loopback(settings.host):
        raise ConfigurationError(
            f"CANDLEFLEET_API__OPEN lets everybody in and {settings.host} can be reached from other machines: set "
            "CANDLEFLEET_API__TOKENS, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may mean any address
        return False


async def may_read(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Let in whoever may read."""
    return _identify(request, credentials)


async def may_operate(caller: Annotated[Caller, Security(may_read)]) -> Caller:
    """Let in whoever may operate."""
    if not caller.role.may(Role.OPERATE):
        challenge = {"WWW-Authenticate": 'Bearer realm="candlefleet", error="insufficient_scope", scope="operate"'}
        raise HTTPException(403, f"the token of {caller.name!r} may only {caller.role}", challenge)
    return caller


def _identify(request: Request, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    guard: Guard = request.app.state.guard
    if guard.is_open:
        _refuse_other_sites(request)
        return Caller("everybody", Role.OPERATE)
    if credentials is None:
        raise _unknown("expected a header 'Authorization: Bearer TOKEN'", "")
    caller = guard.find(credentials.credentials)
    if caller is None:
        raise _unknown("the token is not one of this API", ', error="invalid_token"')
    return caller


def _refuse_other_sites(request: Request) -> None:
    # without tokens, any page that somebody on this machine looks at could start and cancel runs: as another site, or
    # as this one under a name of its own that leads here
    if request.headers.get("sec-fetch-site") not in OWN_SITES or not _is_loopback(request.url.hostname or ""):
        raise HTTPException(403, "an API without tokens serves 127.0.0.1 and localhost, and no other site's pages")


def _unknown(detail: str, reason: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": f'Bearer realm="candlefleet"{reason}'})


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
