from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from app.definitions import LoadedDefinition, load_definitions
from app.domain.candles import Timeframe
from app.domain.strategies import Priority, StrategyStatus, Trading
from app.errors import ConfigurationError
from app.strategies.builtin import BUILTINS
from app.strategies.registry import Registry

SHIPPED = Path(__file__).parents[2] / "config" / "strategies.toml"

GOOD_TOML = """
    [base]
    timeframes = ["1h", "4h"]
    weight = 2
    [base.limits]
    timeout_ms = 1000
    retries = 5

    [strategies.ema-cross-fast]
    implementation = "ema_cross"
    priority = "high"
    params = { fast = 9, slow = 21 }

    [strategies.slow]
    implementation = "rsi_reversion"
    symbols = ["BTC-*"]
    timeframes = ["1d"]
    status = "paused"
    limits = { timeout_ms = 50 }
"""

GOOD_YAML = """
    base:
      timeframes: [1h, 4h]
      weight: 2
      limits: {timeout_ms: 1000, retries: 5}
    strategies:
      ema-cross-fast:
        implementation: ema_cross
        priority: high
        params: {fast: 9, slow: 21}
      slow:
        implementation: rsi_reversion
        symbols: ["BTC-*"]
        timeframes: [1d]
        status: paused
        limits: {timeout_ms: 50}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def load(folder: Path, text: str, suffix: str = ".toml", window: int = 512) -> tuple[LoadedDefinition, ...]:
    path = folder / f"mine{suffix}"
    path.write_text(dedent(text))
    return load_definitions(path, Registry(), window)


def refusal(folder: Path, text: str, suffix: str = ".toml", window: int = 512) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text, suffix, window)
    message = str(caught.value)
    assert message.startswith(str(folder / f"mine{suffix}"))
    return message


def section(body: str, implementation: str = "ema_cross") -> str:
    return f'[strategies.mine]\nimplementation = "{implementation}"\n{dedent(body)}'


@pytest.mark.parametrize(("text", "suffix"), [(GOOD_TOML, ".toml"), (GOOD_YAML, ".yaml"), (GOOD_YAML, ".YML")])
def test_sections_are_merged_over_base(folder: Path, text: str, suffix: str) -> None:
    fast, slow = (loaded.definition for loaded in load(folder, text, suffix))
    assert (fast.name, slow.name) == ("ema-cross-fast", "slow")
    assert fast.priority is Priority.HIGH and slow.priority is Priority.NORMAL
    assert fast.subscription.timeframes == (Timeframe.H1, Timeframe.H4)
    assert slow.subscription.timeframes == (Timeframe.D1,), "lists replace"
    assert slow.subscription.symbols == ("BTC-*",)
    assert (slow.limits.timeout_ms, slow.limits.retries, slow.limits.memory_mb) == (50, 5, 512), "tables merge"
    assert fast.weight == slow.weight == 2.0
    assert slow.status is StrategyStatus.PAUSED


def test_params_are_complete(folder: Path) -> None:
    fast, slow = (loaded.definition for loaded in load(folder, GOOD_TOML))
    assert fast.params == {"fast": 9, "slow": 21, "atr_period": 14}
    assert slow.params == {"period": 14, "lower": 30.0, "upper": 70.0}


def test_every_value_says_where_it_came_from(folder: Path) -> None:
    fast, slow = (loaded.provenance for loaded in load(folder, GOOD_TOML))
    assert fast == {
        "implementation": "strategy",
        "priority": "strategy",
        "params.fast": "strategy",
        "params.slow": "strategy",
        "params.atr_period": "default",
        "symbols": "default",
        "timeframes": "base",
        "category": "default",
        "weight": "base",
        "status": "default",
        "limits.timeout_ms": "base",
        "limits.retries": "base",
        "limits.memory_mb": "default",
        "limits.p95_ms": "default",
        "limits.cpu_percent": "default",
        "trading": "default",
    }
    assert slow["limits.timeout_ms"] == slow["timeframes"] == slow["symbols"] == "strategy"
    assert slow["limits.retries"] == "base"


def test_trading_is_merged_with_the_base_and_switched_off_for_one(folder: Path) -> None:
    text = """
        [base.trading]
        fee_percent = 0.2
        stop_percent = 3.0
        [strategies.one]
        implementation = "macd"
        trading = { stop_percent = 2.0 }
        [strategies.two]
        implementation = "macd"
        trading = { enabled = false }
    """
    one, two = load(folder, text)
    assert one.definition.trading == Trading(fee_percent=0.2, stop_percent=2.0)
    assert (one.provenance["trading.fee_percent"], one.provenance["trading.stop_percent"]) == ("base", "strategy")
    assert one.provenance["trading.size_percent"] == "default"
    assert two.definition.trading is not None and not two.definition.trading.enabled


def test_trading_without_the_table_is_none(folder: Path) -> None:
    (loaded,) = load(folder, "[strategies.one]\nimplementation = 'macd'")
    assert loaded.definition.trading is None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("stop_percent = 100.0", "stop_percent"),
        ("size_percent = 0", "size_percent"),
        ("fee_percent = -0.1", "fee_percent"),
        ("trailing = 3.0", "trailing_percent"),
        ("size_by_strength = 1", "size_by_strength"),
    ],
)
def test_wrong_trading_names_the_strategy_and_the_key(folder: Path, line: str, found: str) -> None:
    text = f"[strategies.one]\nimplementation = 'macd'\n[strategies.one.trading]\n{line}"
    with pytest.raises(ConfigurationError, match=rf"(?s)strategies\.one\.trading.*{found}"):
        load(folder, text)


def test_base_params_are_merged_too(folder: Path) -> None:
    text = "[base.params]\nperiod = 10\n[strategies.mine]\nimplementation = 'rsi_reversion'\nparams = {lower = 20.0}"
    (loaded,) = load(folder, text)
    assert loaded.definition.params == {"period": 10, "lower": 20.0, "upper": 70.0}
    assert (loaded.provenance["params.period"], loaded.provenance["params.lower"]) == ("base", "strategy")


BAD_TOML = [
    (section("priority = 'urgent'"), "strategies.mine.priority: .*found 'urgent'; allowed: high, normal, low"),
    (section("prioritty = 'high'"), "strategies.mine.prioritty: unknown key: did you mean 'priority'\\? allowed: "),
    (section("weight = 'x'"), "strategies.mine.weight: .*found 'x'; allowed: number, above 0, at most 1000"),
    (section("weight = '2'"), "strategies.mine.weight: .*found '2'"),
    (section("weight = true"), "strategies.mine.weight: .*found True"),
    (section("weight = nan"), "strategies.mine.weight: expected .* a finite number.* found float nan"),
    (section("weight = 1979-05-27"), "strategies.mine.weight: expected .* found date "),
    (section("category = 5"), "strategies.mine.category: .*found 5"),
    (section("category = 'Big Trend'"), "strategies.mine.category: .*found 'Big Trend'"),
    (section("limits = 5"), "strategies.mine.limits: .*found 5"),
    (section("limits = {timeout = 5}"), "strategies.mine.limits.timeout: unknown key: did you mean 'timeout_ms'"),
    (section("limits = {retries = 11}"), "strategies.mine.limits.retries: .*found 11; allowed: .*at most 10"),
    (section("params = {fats = 5}"), "strategies.mine.params.fats: unknown key: did you mean 'fast'"),
    (section("params = {fast = 30, slow = 20}"), "strategies.mine.params: fast must be below slow, found fast 30"),
    (section("params = [5]"), "strategies.mine.params: .*found \\[5\\]"),
    (section("params = {fast = 1979-05-27}"), "strategies.mine.params.fast: expected .* found date"),
    (section("timeframes = ['1x']"), "strategies.mine.timeframes: unknown timeframe '1x': .*allowed: \\*, 12h, "),
    (section("timeframes = ['1H']"), "strategies.mine.timeframes: unknown timeframe '1H': did you mean '1h'"),
    (section("timeframes = [5]"), "strategies.mine.timeframes: unknown timeframe 5: "),
    (section("timeframes = '1h'"), "strategies.mine.timeframes: .*found '1h'; allowed: array"),
    (section("timeframes = []"), "strategies.mine.timeframes: .*found \\[\\]"),
    (section("symbols = ['BTC USDT']"), "strategies.mine.symbols.0: .*found 'BTC USDT'"),
    (section("status = 'asleep'"), "strategies.mine.status: .*found 'asleep'; allowed: active, paused, unloaded"),
    (section("name = 'other'"), "strategies.mine.name: unknown key"),
    (section("", "ema_crss"), "strategies.mine.implementation: .*'ema_crss': did you mean 'ema_cross'"),
    (section("", "os:system"), "strategies.mine.implementation: .*not under an allowed prefix; allowed: none"),
    ("[strategies.mine]\npriority = 'high'", "strategies.mine.implementation: this key is required"),
    ("[strategies.mine]\nimplementation = 5", "strategies.mine.implementation: .*found 5"),
    ("[strategies.Mine]\nimplementation = 'macd'", "strategies.Mine: not a strategy name: .*found 'Mine'"),
    ("[strategies]\nmine = 5", "strategies.mine: expected a table, found int 5"),
    ("strategies = 5", "strategies: expected a table, found int 5"),
    ("base = 5\n" + section(""), "base: expected a table, found int 5"),
    ("[strategy.mine]\nimplementation = 'macd'", "strategy: unknown key: did you mean 'strategies'"),
    ("[base]\nweight = 1", "expected at least one section strategies.NAME, found none"),
    ("# nothing but a comment", "expected at least one section strategies.NAME, found none"),
    ("[base]\nwieght = 1\n" + section(""), "base.wieght: unknown key: did you mean 'weight'"),
    ("[base]\nweight = 0\n" + section(""), "base.weight: .*found 0"),
    (
        "[base.params]\nx = 0\n" + section(""),
        "base \\(as strategies.mine\\).params.x: unknown key: allowed: atr_period",
    ),
    (section("params = {slow = 500}"), "strategies.mine.params: need 1152 candles of warm-up, found a window of 512"),
]


@pytest.mark.parametrize(("text", "words"), BAD_TOML)
def test_wrong_files_are_refused(folder: Path, text: str, words: str) -> None:
    assert re.search(words, refusal(folder, text))


def test_wider_window_takes_longer_warmup(folder: Path) -> None:
    (loaded,) = load(folder, section("params = {slow = 500}"), window=1152)
    assert loaded.definition.params["slow"] == 500


def test_everything_wrong_is_reported_together_and_once(folder: Path) -> None:
    message = refusal(
        folder,
        """
        [base]
        weight = 0
        [strategies.a]
        implementation = "ema_crss"
        [strategies.b]
        implementation = "ema_cross"
        priority = "urgent"
        params = { fast = 30, slow = 20, d = 1979-05-27 }
        bogus = 1
        """,
    )
    assert sorted(line.split(": ")[0].removeprefix("  - ") for line in message.splitlines()[1:]) == [
        "base.weight",
        "strategies.a.implementation",
        "strategies.b.bogus",
        "strategies.b.params",
        "strategies.b.params.d",
        "strategies.b.priority",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base:\n  on: 1\nstrategies: {}", "base: expected keys to be text, found True .*YAML 1.1"),
        ("strategies:\n  a: {implementation: macd, category: off}", "a.category: .*found False.*YAML 1.1"),
        ("strategies:\n  a: {implementation: macd, params: {fast: yes}}", "a.params.fast: .*found True.*YAML 1.1"),
        ("strategies:\n  a: {implementation: macd, weight: 2024-01-01}", "a.weight: expected .* found date"),
        ("strategies:\n  a: {implementation: macd, weight: .inf}", "a.weight: expected .* found float inf"),
        ("strategies:\n  a:\n", "strategies.a: expected a table, found nothing"),
        ("strategies:\n  1: {implementation: macd}", "strategies: expected keys to be text, found 1"),
        ("# nothing", "expected a table, found nothing"),
        ("- a\n- b", "expected a table, found list"),
        ("strategies:\n  a: {implementation: macd}\n  a: {implementation: macd}", "line 3: .* key 'a' twice"),
        ("strategies:\n  a: [1\n", "line 3: expected YAML"),
        ("strategies:\n\ta: 1", "line 2: expected YAML"),
        ("strategies: !!python/object/apply:os.getcwd []", "line 1: expected YAML.*python/object"),
        ("a: 1\n---\nb: 2", "line 2: expected YAML.*another document"),
        ("a: \x07", "expected YAML.*not allowed"),
        ("strategies:\n  a:\n    implementation: macd\n    params: &p {x: *p}", "found endless nesting"),
    ],
)
def test_wrong_yaml_is_refused(folder: Path, text: str, words: str) -> None:
    assert re.search(words, refusal(folder, text, ".yaml"), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found an empty file"),
        (" \n\t\n", "found an empty file"),
        ("[strategies.a]\nimplementation = \n", "expected TOML, found: .*line 2"),
        ("[strategies.a]\n[strategies.a]\n", "expected TOML, found: .*line 2"),
        ("[strategies.a]\nx = 1\nx = 2\n", "expected TOML, found: .*line 3"),
        ("[strategies.a]\nx = [1,\n", "expected TOML, found: .*line 3"),
    ],
)
def test_broken_files_name_the_line(folder: Path, text: str, words: str) -> None:
    assert re.search(words, refusal(folder, text))


def test_bytes_that_are_no_text_name_the_line(folder: Path) -> None:
    path = folder / "mine.toml"
    path.write_bytes(b"[base]\nweight = 1\n# \xff\n")
    with pytest.raises(ConfigurationError, match="line 3: expected UTF-8 text"):
        load_definitions(path, Registry())


def test_byte_order_mark_is_accepted(folder: Path) -> None:
    path = folder / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + section("").encode())
    assert len(load_definitions(path, Registry())) == 1


@pytest.mark.parametrize("name", ["mine.json", "mine", "mine.toml.bak"])
def test_other_endings_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text(section(""))
    with pytest.raises(ConfigurationError, match=r"expected a file ending in \.toml, \.yaml or \.yml"):
        load_definitions(folder / name, Registry())


def test_unreadable_files_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml: expected a readable file, found: No such file"):
        load_definitions(folder / "absent.toml", Registry())
    (folder / "dir.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"dir\.toml: expected a readable file, found: Is a directory"):
        load_definitions(folder / "dir.toml", Registry())


def test_shipped_definitions_load_and_cover_everything() -> None:
    definitions = [loaded.definition for loaded in load_definitions(SHIPPED, Registry())]
    assert sorted(definition.implementation for definition in definitions) == sorted(BUILTINS)
    assert {definition.priority for definition in definitions} == set(Priority)
    assert {definition.category for definition in definitions} == {"trend", "reversion", "breakout", "momentum"}
    assert all(definition.subscription.matches("BTC-USDT", Timeframe.M1) for definition in definitions)
