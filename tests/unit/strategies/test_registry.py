from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.strategies import registry as registry_module
from app.strategies.builtin import BUILTINS
from app.strategies.builtin.ema_cross import EmaCross
from app.strategies.registry import Registry

SOURCE = """
import numpy as np
from app.strategies.sdk import Indicator, Signals, Strategy

class Mine(Strategy):
    class Params(Strategy.Params):
        period: int
        levels: tuple[float, ...] = (1.0, 2.0)

    def indicators(self):
        return {"rsi": Indicator.rsi(self.params.period)}

    def signals(self, bars, indicators):
        return Signals(np.zeros(len(bars), np.int8), np.zeros(len(bars)))

number = 7
"""


@pytest.fixture
def quants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of user strategies that can be imported during the test."""
    package = tmp_path / "quants_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "trend.py").write_text(SOURCE)
    (package / "broken.py").write_text("import a_module_that_is_missing\n")
    (package / "leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith("quants_of_test")]:
        del sys.modules[name]


def test_every_builtin_is_created_with_its_defaults() -> None:
    registry = Registry()
    assert set(BUILTINS) <= set(registry.names)
    assert len(BUILTINS) == 10
    for name in BUILTINS:
        strategy = registry.create(name)
        assert (strategy.name, type(strategy)) == (name, BUILTINS[name])


def test_params_and_name_are_used() -> None:
    strategy = Registry().create("ema_cross", {"fast": 9, "slow": 21}, name="ema-cross-fast")
    assert isinstance(strategy, EmaCross)
    assert (strategy.params.fast, strategy.params.slow, strategy.name) == (9, 21, "ema-cross-fast")


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigurationError, match="'ema_crss': did you mean 'ema_cross'\\? allowed: adx_trend, "):
        Registry().resolve("ema_crss")


@pytest.mark.parametrize(
    "implementation",
    ["os:system", "os.path:join", "quants_of_test:Mine", "quants_of_testing.trend:Mine", "app.strategies.sdk:Strategy"],
)
def test_modules_off_the_list_are_not_imported(implementation: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not under an allowed prefix; allowed: quants_of_test\.trend"):
        Registry(("quants_of_test.trend",)).resolve(implementation)


def test_a_prefix_ends_at_a_dot() -> None:
    with pytest.raises(ConfigurationError, match="is not under an allowed prefix; allowed: quants"):
        Registry(("quants",)).resolve("quants_of_test.trend:Mine")


@pytest.mark.parametrize("text", ["", ":", "a:", ":B", "a b:C", "a..b:C", "a:B.c", "a:B()", "../a:B", "a:B\n", "é:B"])
def test_malformed_references_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown implementation"):
        Registry(("a",)).resolve(text)


@pytest.mark.usefixtures("quants")
def test_allowed_module_is_loaded() -> None:
    strategy = Registry(("quants_of_test",)).create("quants_of_test.trend:Mine", {"period": 9, "levels": [3.0]})
    assert strategy.params.model_dump() == {"period": 9, "levels": (3.0,)}
    assert strategy.warmup > 9


@pytest.mark.usefixtures("quants")
@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("quants_of_test.trend:Missing", "cannot be imported: AttributeError: .*Missing"),
        ("quants_of_test.trend:number", "expected a subclass of Strategy, found 7"),
        ("quants_of_test.trend:Strategy", "expected a subclass of Strategy"),
        ("quants_of_test.broken:Mine", "cannot be imported: ModuleNotFoundError: .*a_module_that_is_missing"),
        ("quants_of_test.leaving:Mine", "cannot be imported: SystemExit: 3"),
        ("quants_of_test.absent:Mine", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_modules_that_cannot_be_used_are_refused(implementation: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{implementation}'.*{words}"):
        Registry(("quants_of_test",)).resolve(implementation)


@pytest.mark.usefixtures("quants")
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "params.period: this key is required"),
        ({"period": 1}, "params: cannot be used: ConfigurationError: indicator rsi: expected a period of 2"),
        ({"period": object()}, "params: cannot be used: TypeError"),
    ],
)
def test_user_params_are_explained(params: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy 'mine' \\(quants_of_test.trend:Mine\\): {words}"):
        Registry(("quants_of_test",)).create("quants_of_test.trend:Mine", params, name="mine")


@pytest.mark.usefixtures("quants")
def test_entry_points_are_found_by_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry_module.ENTRY_POINT_GROUP
    points = EntryPoints(
        (
            EntryPoint("my_trend", "quants_of_test.trend:Mine", group),
            EntryPoint("my_broken", "quants_of_test.broken:Mine", group),
            EntryPoint("macd", "quants_of_test.trend:Mine", group),
        )
    )
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points.select(group=group))
    registry = Registry()
    assert {"my_trend", "my_broken", "macd"} <= set(registry.names)
    assert registry.resolve("my_trend").__name__ == "Mine"
    assert registry.resolve("macd") is BUILTINS["macd"], "a package cannot replace a built-in"
    with pytest.raises(ConfigurationError, match="'my_broken' cannot be imported"):
        registry.resolve("my_broken")


def test_all_problems_are_named_together() -> None:
    with pytest.raises(ConfigurationError, match=r"params\.fast: .*; params\.slow: .*; params\.typo: "):
        Registry().create("ema_cross", {"fast": 0, "slow": "x", "typo": 1})
