"""The list of commands, and that it costs none of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from app.cli.main import Commands, cli

#: What an operator who asks for help has no use for.
HEAVY = ("alembic", "celery", "fastapi", "kombu", "numpy", "pydantic", "redis", "sqlalchemy", "structlog", "talib")
#: What a command that becomes a worker node has no use for.
UNUSED = ("alembic", "app.strategies", "numpy", "pyarrow", "sqlalchemy")

CALLS = """
import sys
from app.cli.main import cli
try:
    cli({words})
except SystemExit as end:
    assert end.code == 0
imported = sorted(set({unwanted}) & set(sys.modules))
assert not imported, imported
"""


@pytest.mark.parametrize("name", Commands.entries)
def test_the_list_says_what_the_command_says(name: str) -> None:
    entry = Commands.entries[name]
    assert entry.load(name).help.partition("\n")[0] == entry.summary


@pytest.mark.parametrize(("words", "unwanted"), [(["--help"], HEAVY), (["worker", "--help"], UNUSED)], ids=str)
def test_a_command_imports_what_it_needs(words: list[str], unwanted: tuple[str, ...]) -> None:
    code = CALLS.format(words=words, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [(["statsu"], "Did you mean 'status'"), (["queues", "lst"], "Did you mean 'list'"), ([], "Usage: candlefleet")],
    ids=" ".join,
)
def test_what_is_no_command(words: list[str], answer: str) -> None:
    result = CliRunner().invoke(cli, words, prog_name="candlefleet")
    assert result.exit_code == 2
    assert answer in result.output


def test_a_group_has_no_options_but_its_own() -> None:
    assert Commands.entries["queues"].load("queues").params == []
