"""Fingerprints: what changes them and what does not, and that changed code is imported anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from app.domain.jobs import JobKey
from app.domain.strategies import Limits
from app.errors import ConfigurationError
from app.storage.strategies import Revision
from app.strategies.fingerprint import Fingerprint, find_sources, take_fingerprint
from app.strategies.registry import Registry
from workers.runtime.strategies import RuntimeCache

STRATEGY = """
from app.strategies.sdk import Context, Signal, Strategy
from quants.helpers import ACTION

class Simple(Strategy):
    class Params(Strategy.Params):
        strength: float = 0.5

    def on_candle(self, context: Context) -> Signal:
        from . import late
        return Signal(action=ACTION, strength=self.params.strength)
"""
PREFIXES = ("quants",)

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of the package `quants`, which has a strategy, a helper, and one that is imported late."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "quants").mkdir()
    ticks = iter(range(1_700_000_000, 1_800_000_000))

    def write(name: str, source: str) -> None:
        path = tmp_path / "quants" / f"{name}.py"
        path.write_text(source)
        moment = next(ticks)  # Python compares modules by whole seconds
        os.utime(path, (moment, moment))

    write("__init__", "")
    write("simple", STRATEGY)
    write("helpers", "ACTION = 1")
    write("late", "")
    write("unused", "")
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "quants"]:
        del sys.modules[name]


def take(params: dict[str, object] | None = None) -> Fingerprint:
    return take_fingerprint(Registry(PREFIXES).create("quants.simple:Simple", params), PREFIXES)


def test_imported_user_code_is_found_whatever_way_it_is_imported(write: Write) -> None:
    assert sorted(find_sources("quants.simple", PREFIXES)) == [
        "quants",
        "quants.helpers",
        "quants.late",
        "quants.simple",
    ]


@pytest.mark.parametrize("module", ["simple", "helpers", "late", "__init__"])
def test_any_of_its_modules_changes_it(write: Write, module: str) -> None:
    before = take()
    write(module, (STRATEGY if module == "simple" else "ACTION = 1") + "\nmore = 1\n")
    after = take()
    assert (after.code != before.code, after.platform) == (True, before.platform)


def test_other_modules_and_spelled_out_defaults_do_not(write: Write) -> None:
    before = take()
    write("unused", "more = 1")
    assert take() == before
    assert take({"strength": 0.5}) == before
    assert take({"strength": 0.6}).code != before.code


def test_another_numpy_changes_the_other_half(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.strategies import fingerprint

    before = take()
    fingerprint._platform.cache_clear()
    monkeypatch.setattr(fingerprint, "version", lambda name: f"{name} 99")
    after = take()
    fingerprint._platform.cache_clear()
    assert (after.code, after.platform != before.platform) == (before.code, True)


def test_text_of_a_fingerprint_is_read_back(write: Write) -> None:
    assert Fingerprint.read(str(take())) == take()


def test_changed_code_is_imported_anew(write: Write) -> None:
    registry = Registry(PREFIXES)
    first = registry.resolve("quants.simple:Simple")
    assert registry.resolve("quants.simple:Simple") is first
    write("helpers", "ACTION = -1")
    second = registry.resolve("quants.simple:Simple")
    assert second is not first
    assert sys.modules["quants.helpers"].ACTION == -1


def revision(number: int, fingerprint: str | None) -> Revision:
    key = JobKey(1, number)
    return Revision(key, "simple", "quants.simple:Simple", {"strength": 0.5}, Limits(), fingerprint)


def cache_of(known: Mapping[JobKey, Revision]) -> RuntimeCache:
    return RuntimeCache(lambda keys: {key: known[key] for key in keys}, Registry(PREFIXES), most=10)


def test_slot_runs_each_revision_with_its_own_code_and_no_other(write: Write) -> None:
    first = revision(1, str(take()))
    known = {first.key: first}
    cache = cache_of(known)
    (before,) = cache.runtimes([first.key], 1)
    assert before.strategy is not None

    write("helpers", "ACTION = -1")
    second = revision(2, str(take()))
    known[second.key] = second
    old, new = cache.runtimes([first.key, second.key], 2)
    assert old.strategy is before.strategy  # what is under way goes on as it was
    assert new.strategy is not None
    assert type(new.strategy) is not type(old.strategy)

    fresh = cache_of(known)
    refused, runs = fresh.runtimes([first.key, second.key], 2)
    assert (refused.strategy, runs.strategy is None) == (None, False)
    assert isinstance(refused.refusal, ConfigurationError)
    assert "expected the code of revision 1" in str(refused.refusal)


def test_slot_runs_on_another_platform_and_without_a_fingerprint(write: Write) -> None:
    code = take().code
    for number, text in enumerate((f"{code}.another", None), 1):
        wanted = revision(number, text)
        (runtime,) = cache_of({wanted.key: wanted}).runtimes([wanted.key], 1)
        assert runtime.strategy is not None
