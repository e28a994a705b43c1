"""What every log line carries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.settings import LogSettings
from app.telemetry import about_dispatch, configure_logging, enter


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    enter(0)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**structured)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_lines_about_a_dispatch_carry_its_ids_whoever_logs_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(json_lines=True))
    with about_dispatch(7, "abc"):
        structlog.get_logger().info("ours")
        logging.getLogger("somebody.else").warning("theirs")
    structlog.get_logger().info("after")
    ours, theirs, after = lines(capsys)
    for line in (ours, theirs):
        assert (line["dispatch"], line["correlation"]) == (7, "abc")
    assert "correlation" not in after


def test_lines_of_a_strategys_code_name_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(json_lines=True))
    with about_dispatch(7, "abc"):
        enter(3)
        logging.getLogger("quant").warning("theirs")
        structlog.get_logger().info("ours", strategy=4)
        enter(0)
        structlog.get_logger().info("after")
    theirs, ours, after = lines(capsys)
    assert (theirs["strategy"], theirs["job"]) == (3, "7.3")
    assert (ours["strategy"], ours["job"]) == (4, "7.4")
    assert "job" not in after
