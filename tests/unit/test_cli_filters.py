"""What commands read from their arguments before they look at anything."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import typer
from typer.testing import CliRunner

from app.cli.filters import parse_moment
from app.cli.main import cli
from app.cli.runs import _read_grid
from app.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2024-01-08", 0), ("2024-01-08T05:00", 5), ("2024-01-08 05:00:00Z", 5), ("2024-01-08T00:00-05:00", 5)],
)
def test_a_moment_with_an_offset_is_converted_and_one_without_is_utc(text: str, hour: int) -> None:
    moment = parse_moment(text)
    assert (moment, moment.tzinfo) == (datetime(2024, 1, 8, hour, tzinfo=UTC), UTC)


@pytest.mark.parametrize("text", ["yesterday", "", "2024-13-01", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00+05:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a date or a moment"):
        parse_moment(text)


NUMBER = "99999999999999999999"
RUNS = ("show", "watch", "pause", "resume", "cancel", "report", "delete", "selection", "compare")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("runs", command, NUMBER) for command in RUNS),
        ("runs", "retry", NUMBER, "--failed"),
        ("runs", "trades", NUMBER, "--unit", "0"),
        ("runs", "compare", "1", NUMBER),
        ("dispatches", "show", NUMBER),
        ("dispatches", "cancel", NUMBER),
        ("replay", NUMBER),
    ],
    ids=" ".join,
)
def test_a_number_that_nothing_can_have_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2, result.output
    assert "less than or equal to" in result.output


def test_values_of_one_param_join() -> None:
    given = ("fast=5,8", "cross.slow=20", "fast=12", "cross.slow=30", "mode=quick,slow")
    assert _read_grid(given) == {"fast": [5, 8, 12], "cross": {"slow": [20, 30]}, "mode": ["quick", "slow"]}


@pytest.mark.parametrize("given", [("a=1", "a.b=2"), ("a.b=2", "a=1"), ("a",)])
def test_a_grid_that_makes_no_sense_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="--grid"):
        _read_grid(given)
