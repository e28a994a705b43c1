from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.strategies import registry as registry_module
from app.strategies.evaluation import evaluate
from app.strategies.freqtrade.analysis import analyse
from app.strategies.freqtrade.loading import load_file
from app.strategies.freqtrade.standins import FREQTRADE, standing_in
from app.strategies.registry import Registry
from tests.unit.strategies.freqtrade.sources import TREND, strategy, written
from tests.unit.strategies.market import random_walk

WITHOUT_PANDAS = """
import sys
sys.modules["pandas"] = None
from app.errors import ConfigurationError
from app.strategies.registry import Registry
assert Registry().create("macd")
try:
    Registry(("quants",)).resolve("freqtrade:quants.mine:Mine")
except ConfigurationError as error:
    print(error)
"""
NAMES = [(module, name) for module, content in FREQTRADE.items() for name in content]


@pytest.fixture
def quants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a freqtrade strategy that can be imported during the test."""
    package = tmp_path / "freqtrade_quants"
    package.mkdir()
    (package / "__init__.py").write_text("")
    written(package, TREND, "trend.py")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith("freqtrade_quants")]:
        del sys.modules[name]


@pytest.mark.usefixtures("quants")
def test_an_allowed_module_is_loaded_by_name() -> None:
    created = Registry(("freqtrade_quants",)).create("freqtrade:freqtrade_quants.trend:Trend", name="mine")
    assert (created.name, created.warmup) == ("mine", 60)
    assert evaluate(created, random_walk(200)).action in (-1, 0, 1)


@pytest.mark.usefixtures("quants")
@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("freqtrade:freqtrade_quants.trend:Missing", "expected a class Missing .* classes in it: Trend"),
        ("freqtrade:freqtrade_quants.absent:Trend", "cannot be imported: ModuleNotFoundError"),
        ("freqtrade:os:system", "is not under an allowed prefix; allowed: freqtrade_quants"),
        ("freqtrade:freqtrade_quants/trend.py", "unknown implementation"),
        ("freqtrade_quants.trend:Trend", "No module named 'freqtrade'"),
    ],
)
def test_names_that_cannot_be_used_are_refused(implementation: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Registry(("freqtrade_quants",)).resolve(implementation)


@pytest.mark.usefixtures("quants")
def test_installed_packages_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry_module.FREQTRADE_ENTRY_POINT_GROUP
    points = EntryPoints((EntryPoint("trend", "freqtrade_quants.trend:Trend", group),))
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points.select(group=group))
    assert Registry().resolve("freqtrade:trend").__name__ == "Trend"


def test_what_stands_in_is_gone_afterwards(tmp_path: Path) -> None:
    load_file(written(tmp_path, TREND))
    assert not [name for name in sys.modules if name.split(".")[0] == "freqtrade"]
    with pytest.raises(ModuleNotFoundError, match="No module named 'freqtrade'"):
        __import__("freqtrade.strategy")


def test_what_was_there_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(sys)("freqtrade")
    monkeypatch.setitem(sys.modules, "freqtrade", real)
    with standing_in(), standing_in():
        assert sys.modules.get("freqtrade") is not real
    assert sys.modules["freqtrade"] is real


def test_an_installed_package_is_the_real_one(tmp_path: Path) -> None:
    source = strategy(tmp_path, head="from technical import qtpylib as real\nimport technical\n")
    module = sys.modules["technical"]
    assert module.__file__ is not None
    assert source.cls.populate_indicators.__globals__["real"].__file__.startswith(str(Path(module.__file__).parent))


def test_ours_stands_in_for_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = PathFinder.find_spec
    for name in [name for name in sys.modules if name.partition(".")[0] == "technical"]:
        monkeypatch.delitem(sys.modules, name)
    hidden = classmethod(lambda _, name, *rest: None if name.startswith("technical") else find(name, *rest))
    monkeypatch.setattr(PathFinder, "find_spec", hidden)
    analyse(
        strategy(tmp_path, head="from technical import qtpylib", indicators="qtpylib.sma(df.close)"), random_walk(5)
    )
    with pytest.raises(ConfigurationError, match=r"indicators\.hma is not offered; .*typical_price"):
        analyse(strategy(tmp_path, indicators="qtpylib.hma(df['close'], 9)"), random_walk(5))
    with pytest.raises(ConfigurationError, match=r"technical\.indicators is not offered"):
        strategy(tmp_path, head="import technical.indicators")


def test_without_pandas_only_freqtrade_strategies_are_refused() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], capture_output=True, text=True, check=False)
    assert "freqtrade strategies need pandas: install candlefleet[freqtrade]" in done.stdout, done.stderr


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_everything_offered_can_be_imported(tmp_path: Path, module: str, name: str) -> None:
    strategy(tmp_path, head=f"import {module}\nfrom {module} import {name}")


@pytest.mark.parametrize(
    "line",
    [
        "from freqtrade.vendor.qtpylib import indicators as qtpylib",
        "from freqtrade import strategy, exchange",
        "import freqtrade.vendor.qtpylib.indicators\nfreqtrade.vendor.qtpylib.indicators.sma",
        "from freqtrade.strategy import *\nIStrategy, IntParameter",
        "try:\n    from freqtrade.plugins import nothing\nexcept ImportError:\n    nothing = None",
    ],
)
def test_other_ways_of_importing(tmp_path: Path, line: str) -> None:
    assert strategy(tmp_path, head=line).name == "Mine"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("from freqtrade.strategy import Unheard", r"freqtrade\.strategy\.Unheard is not offered; .* has .*IStrategy"),
        ("import freqtrade.optimize.space", r"module freqtrade\.optimize.* is not offered; of freqtrade there are"),
        ("from freqtrade.data.history import load", r"module freqtrade\.data\.history is not offered"),
        ("from freqtrade import data, plugins", r"freqtrade\.plugins is not offered"),
        ("import a_package_that_is_missing", "No module named 'a_package_that_is_missing'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "line [0-9]+: cannot be imported: ZeroDivisionError"),
    ],
)
def test_what_is_not_offered_is_refused_by_file_and_name(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        strategy(tmp_path, head=line)
    assert str(tmp_path / "mine.py") in str(caught.value)


def test_trades_may_be_named_and_not_used(tmp_path: Path) -> None:
    head = "from freqtrade.persistence import Trade\nfrom typing import Optional"
    body = "def custom_exit(self, trade: Trade | None = None, other: Optional[Trade] = None):\n    pass"
    analyse(strategy(tmp_path, head=head, body=body), random_walk(5))
    source = strategy(tmp_path, head=head, indicators="Trade.get_trades()")
    with pytest.raises(ConfigurationError, match=r"'Mine' on BTC-USDT .*mine\.py, line .*Trade\.get_trades is not off"):
        analyse(source, random_walk(5))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("self.dp.orderbook('BTC/USDT', 1)", r"dp\.orderbook is not offered; dp has .*get_pair_dataframe"),
        ("self.dp.get_pair_dataframe('ETH/USDT', '1h')", r"candles of ETH/USDT \(1h\) are not offered; only BTC/USDT"),
        ("self.dp.get_pair_dataframe(metadata['pair'], '5m')", "cannot be made: expected a multiple of 1h, found 5m"),
        ("self.wallets.get_total('BTC')", r"Wallets\.get_total is not offered"),
        ("from freqtrade.util import now", r"module freqtrade\.util is not offered"),
    ],
)
def test_what_a_strategy_asks_for_while_it_runs_is_refused_by_name(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        analyse(strategy(tmp_path, indicators=code), random_walk(5))
    assert "strategy 'Mine' on BTC-USDT 1h candle opened 1970-01-01T04:00:00+00:00" in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "expected a class mine derived from IStrategy; classes in it: none"),
        ("class A(IStrategy):\n  pass\nclass B(IStrategy):\n  pass", "classes in it: A, B"),
        ("class A(IStrategy):\n  stoploss = -1", "expected a method populate_indicators, .*populate_entry_trend"),
        (
            "class A(IStrategy):\n  startup_candle_count = -1",
            "stoploss .* found None; expected startup_candle",
        ),
    ],
)
def test_files_without_a_strategy_that_can_run_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_file(written(tmp_path, f"from freqtrade.strategy import IStrategy\n{text}\n"))


def test_one_of_several_classes_is_chosen_by_its_name_or_the_files(tmp_path: Path) -> None:
    text = TREND + "\nclass Other(Trend):\n    pass\n"
    assert load_file(written(tmp_path, text), "Other").name == "Other"
    assert load_file(written(tmp_path, text, "Trend.py")).name == "Trend"


def test_a_path_that_is_no_python_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a Python file"):
        load_file(tmp_path / "absent.py")


def test_neighbours_of_a_file_can_be_imported(tmp_path: Path) -> None:
    written(tmp_path, "period = 7\n", "neighbour_of_mine.py")
    try:
        source = strategy(tmp_path, head="import neighbour_of_mine")
    finally:
        del sys.modules["neighbour_of_mine"]
    assert source.name == "Mine"
    assert str(tmp_path) not in sys.path
