"""Freqtrade strategies in the catalogue: added with the values in force, shown with what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.operations import Operations
from app.settings import PREFIX, Settings
from tests.building import environment

DEFINITIONS = """
[strategies.channel]
implementation = "freqtrade:tests.quant.in_freqtrade_style:Channel"
[strategies.channel-12]
implementation = "freqtrade:tests.quant.in_freqtrade_style:Channel"
params = { buy_period = 12 }
"""


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    for name, value in environment(settings).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)
    return CliRunner().invoke(cli, ["strategies", *arguments])


def add(settings: Settings, file: Path) -> None:
    """Add definitions; the gate takes half a minute for each of these, and has tests of its own."""
    operations = Operations(settings)
    operations.add_unverified(file)
    operations.close()


def test_a_freqtrade_strategy_is_added_and_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEFINITIONS)
    add(settings, file)
    shown = [
        json.loads(run(settings, monkeypatch, "show", name, "--json").stdout) for name in ("channel", "channel-12")
    ]
    assert [each["params"] for each in shown] == [{"buy_period": 10}, {"buy_period": 12}]
    assert [each["provenance"]["params.buy_period"] for each in shown] == ["default", "strategy"]
    assert shown[0]["notes"] == ["confirm_trade_entry() is never called"]
    human = run(settings, monkeypatch, "show", "channel")
    assert "note: confirm_trade_entry() is never called" in human.stderr


def test_notes_of_what_cannot_be_loaded_here_say_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEFINITIONS)
    add(settings, file)
    elsewhere = settings.model_copy(update={"strategies": settings.strategies.model_copy(update={"modules": ()})})
    monkeypatch.delenv(f"{PREFIX}STRATEGIES__MODULES", raising=False)
    (note,) = json.loads(run(elsewhere, monkeypatch, "show", "channel", "--json").stdout)["notes"]
    assert "cannot be loaded here" in note and "not under an allowed prefix" in note
