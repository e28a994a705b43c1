"""`strategies new`: what it writes passes its test and the gate, is added, and works as an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.scaffold.writing import Form
from app.settings import Settings
from tests.building import REPOSITORY, environment

CLI = (sys.executable, "-m", "app.cli.main", "strategies")


class Shell:
    """A user's shell in a new folder, on the servers of this test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self._variables = {**environment(settings), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY)}

    def run(self, command: Sequence[str], *, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join((*variables.pop("path", "").split(), str(REPOSITORY)))
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env={**self._variables, "PYTHONPATH": paths, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def document(self, *words: str, **options: Any) -> Any:
        return json.loads(self.run([*CLI, *words, "--json"], **options).stdout)


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    worker = settings.worker.model_copy(update={"window": 512})
    return Shell(settings.model_copy(update={"worker": worker}), tmp_path)


@pytest.mark.parametrize("form", Form)
def test_what_is_written_works(shell: Shell, form: Form) -> None:
    new = shell.document("new", "dip-buyer", "--form", form)
    shell.folder /= "dip-buyer"
    assert sorted(new["files"]) == sorted(f"dip-buyer/{path}" for path in files(shell.folder))
    shell.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"])
    user = {"path": str(shell.folder), "CANDLEFLEET_STRATEGIES__MODULES": '["dip_buyer"]'}
    (verified,) = shell.document("verify", "dip-buyer.toml", **user)
    assert verified["verdict"] == "passed"
    (added,) = shell.document("add", "dip-buyer.toml", **user)
    assert (added["name"], added["was"], added["status"]) == ("dip-buyer", "added", "active")


def files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def test_installed_package_is_found_by_its_entry_point(shell: Shell) -> None:
    shell.document("new", "dip-buyer")
    folder, site = shell.folder / "dip-buyer", shell.folder / "site"
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--target", str(site))
    shell.run([sys.executable, "-m", "pip", "install", *offline, str(folder)])
    definition = folder / "dip-buyer.toml"
    text = definition.read_text()
    definition.write_text(
        text.replace('implementation = "dip_buyer.strategy:DipBuyer"', 'implementation = "dip_buyer"')
    )
    refused = shell.run([*CLI, "add", str(definition)], code=2)  # not installed here
    assert "unknown implementation 'dip_buyer'" in refused.stderr
    (added,) = shell.document("add", str(definition), path=str(site))
    assert (added["implementation"], added["status"]) == ("dip_buyer", "active")


def test_nothing_is_overwritten(shell: Shell) -> None:
    kept = shell.folder / "dip-buyer" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert "dip-buyer exists, nothing was written" in shell.run([*CLI, "new", "dip-buyer"], code=2).stderr
    assert files(shell.folder) == ["dip-buyer/mine.txt"]


def test_what_is_written_is_told_with_what_to_do_next(shell: Shell) -> None:
    told = shell.run([*CLI, "new", "dip_buyer"])
    assert "dip_buyer/dip_buyer/strategy.py" in told.stdout.splitlines()
    assert """CANDLEFLEET_STRATEGIES__MODULES='["dip_buyer"]'""" in told.stderr
    assert "candlefleet strategies verify dip-buyer.toml" in told.stderr
    assert "its name in a definition is: dip_buyer" in told.stderr
