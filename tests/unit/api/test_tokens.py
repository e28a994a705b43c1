"""Who is let in, and when an API without tokens may be."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from app.api.tokens import Guard, build_guard
from app.errors import ConfigurationError
from app.settings import ApiSettings, ApiToken, Role

LONG = "0123456789abcdef"


def token(text: str, role: Role = Role.READ) -> ApiToken:
    return ApiToken(token=SecretStr(text), role=role)


def test_each_token_is_its_own_callers() -> None:
    guard = Guard({"one": token(LONG + "1"), "two": token(LONG + "2", Role.OPERATE)})
    found = [guard.find(LONG + end) for end in ("1", "2", "3", "")]
    assert [caller and (caller.name, caller.role) for caller in found] == [
        ("one", Role.READ),
        ("two", Role.OPERATE),
        None,
        None,
    ]


def test_operating_includes_reading_and_not_the_other_way_round() -> None:
    assert [[role.may(wanted) for wanted in Role] for role in Role] == [[True, False], [True, True]]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_may_be_let_in_without_tokens(host: str) -> None:
    assert build_guard(ApiSettings(host=host, open=True)).is_open


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "localhost.example.org", ""])
def test_others_may_not(host: str) -> None:
    with pytest.raises(ConfigurationError, match="can be reached from other machines"):
        build_guard(ApiSettings(host=host, open=True))


def test_without_tokens_it_must_be_meant() -> None:
    with pytest.raises(ConfigurationError, match="CANDLEFLEET_API__TOKENS"):
        build_guard(ApiSettings())


def test_tokens_win_over_open() -> None:
    assert not build_guard(ApiSettings(open=True, tokens={"one": token(LONG)})).is_open


@pytest.mark.parametrize("text", ["", "short", LONG + " ", LONG + "\n", "ü" * 20, LONG + "=x"])
def test_a_token_that_is_easy_to_guess_or_cannot_be_sent_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValidationError, match="16 or more") as raised:
        token(text)
    told = str([each["msg"] for each in raised.value.errors()]) + str(raised.value)
    assert not text or text not in told


def test_two_names_may_not_share_a_token() -> None:
    with pytest.raises(ValidationError, match="the same one twice"):
        ApiSettings(tokens={"one": token(LONG), "two": token(LONG, Role.OPERATE)})
