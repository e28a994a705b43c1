from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from app.errors import ConfigurationError
from app.strategies.freqtrade.loading import Source, find_parameters, load_file, try_out
from app.strategies.freqtrade.native import adapt
from app.strategies.freqtrade.parameters import CategoricalParameter, DecimalParameter, IntParameter, NumericParameter
from app.strategies.registry import build
from tests.unit.strategies.freqtrade.sources import strategy

HEAD = """
from freqtrade.strategy import IntParameter, DecimalParameter, RealParameter, BooleanParameter, CategoricalParameter
"""
BODY = """
buy_params = {"buy_a": 25, "buy_d": 0.123456, "buy_c": "zz", "x_b": False, "buy_kept": 3, "sell_y": 99}
sell_params = {"sell_y": 7, "buy_other": 4}
buy_a = IntParameter(1, 50, default=10)
buy_d = DecimalParameter(0, 1, default=0.55555, decimals=2)
buy_e = DecimalParameter(0, 1, default=0.55555)
buy_r = RealParameter(0, 1, default=0.55555)
buy_c = CategoricalParameter(["a", "b"], default="a")
x_b = BooleanParameter(default=True, space="buy")
buy_kept = IntParameter(1, 5, default=2, load=False)
buy_other = IntParameter(1, 5, default=2)
sell_y = IntParameter(1, 5, default=2)
"""
#: What freqtrade 2026.9 has in force for the same declarations.
IN_FORCE = {
    "buy_a": 25,
    "buy_c": "zz",
    "buy_d": 0.12,
    "buy_e": 0.556,
    "buy_kept": 2,
    "buy_other": 2,
    "buy_r": 0.55555,
    "sell_y": 7,
    "x_b": False,
}


def values(source: Source) -> dict[str, Any]:
    return {name: parameter.value for name, parameter in find_parameters(try_out(source)).items()}


def beside(folder: Path, params: dict[str, Any], *, file: str = "mine.json", name: str = "Mine") -> None:
    (folder / file).write_text(json.dumps({"strategy_name": name, "params": params, "ft_stratparam_v": 1}))


def test_class_dicts_win_over_defaults_in_their_space(tmp_path: Path) -> None:
    assert values(strategy(tmp_path, head=HEAD, body=BODY)) == IN_FORCE


@pytest.mark.parametrize("file", ["mine.json", "Mine.json"])
def test_a_json_file_wins_over_class_dicts(tmp_path: Path, file: str) -> None:
    beside(tmp_path, {"buy": {"buy_a": 33, "buy_d": 0.777}, "sell": {"sell_y": 55, "buy_other": 12}}, file=file)
    expected = {**IN_FORCE, "buy_a": 33, "buy_d": 0.78, "sell_y": 55}
    assert values(strategy(tmp_path, head=HEAD, body=BODY)) == expected


def test_a_json_file_sets_roi_stop_and_trailing(tmp_path: Path) -> None:
    trailing = {"trailing_stop": True, "trailing_stop_positive": 0.02}
    beside(tmp_path, {"roi": {"0": 0.5}, "stoploss": {"stoploss": -0.33}, "trailing": trailing})
    made = try_out(strategy(tmp_path))
    assert (made.minimal_roi, made.stoploss) == ({"0": 0.5}, -0.33)
    assert (made.trailing_stop, made.trailing_stop_positive) == (True, 0.02)


@pytest.mark.parametrize(
    "text", ["{broken", "[]", '{"strategy_name": "Other", "params": {}}', '{"params": {"buy": 3}}']
)
def test_a_json_file_that_is_not_of_the_strategy_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"mine\.json: expected"):
        strategy(tmp_path)


def test_a_definition_wins_over_everything_and_is_checked(tmp_path: Path) -> None:
    beside(tmp_path, {"buy": {"buy_a": 33}})
    adapted = adapt(strategy(tmp_path, head=HEAD, body=BODY))
    assert adapted.Params().model_dump() == {**IN_FORCE, "buy_a": 33}
    made, problems = build(adapted, {"buy_a": 44, "x_b": True}, "mine")
    assert made is not None and made.params.model_dump() == {**IN_FORCE, "buy_a": 44, "x_b": True}
    again, _ = build(adapted, made.params.model_dump(mode="json"), "mine")
    assert again is not None and again.params == made.params, "what the catalogue holds says the same"
    for wrong, words in {"buy_b": "unknown key: did you mean", "buy_a": "integer"}.items():
        made, problems = build(adapted, {wrong: "text"}, "mine")
        assert made is None and words in str(problems[0])


def test_a_value_of_another_kind_than_declared_may_be_anything(tmp_path: Path) -> None:
    body = 'buy_params = {"buy_a": 2.5}\nbuy_a = IntParameter(1, 5, default=2)'
    adapted = adapt(strategy(tmp_path, head=HEAD, body=body))
    assert build(adapted, {"buy_a": 2.5}, "mine")[0] is not None


def test_a_parameter_without_a_space_is_refused(tmp_path: Path) -> None:
    source = strategy(tmp_path, head=HEAD, body="thing = IntParameter(1, 5, default=2)")
    with pytest.raises(ConfigurationError, match=r"mine\.py: strategy Mine cannot be created: parameter 'thing': exp"):
        adapt(source)


def test_values_come_after_init_and_bot_start(tmp_path: Path) -> None:
    body = """
    buy_params = {"buy_a": 4, "buy_late": 5}
    buy_a = IntParameter(1, 5, default=2)
    def __init__(self, config):
        super().__init__(config)
        self.in_init = self.buy_a.value
    def bot_start(self, **kwargs):
        self.in_start = self.buy_a.value
        self.buy_late = IntParameter(1, 9, default=1, space="buy")
    """
    made: Any = try_out(strategy(tmp_path, head=HEAD, body=dedent(body)))
    assert (made.in_init, made.in_start, made.buy_a.value, made.buy_late.value) == (2, 2, 4, 5)


def test_two_instances_share_no_value(tmp_path: Path) -> None:
    source = strategy(tmp_path, head=HEAD, body=BODY)
    first: Any = try_out(source)
    first.buy_a.value = 1
    first.buy_params["buy_a"] = 1
    assert values(source) == IN_FORCE


def test_range_is_the_one_value_in_force() -> None:
    assert list(IntParameter(1, 9, default=3).range) == [3]
    assert list(DecimalParameter(0, 1, default=0.25).range) == [0.25]
    assert list(CategoricalParameter(["a", "b"], default="b").range) == ["b"]


def test_bounds_are_a_pair() -> None:
    assert (IntParameter([1, 9], default=3).low, NumericParameter(0, 2.5, default=1).high) == (1, 2.5)
    for wrong in (lambda: IntParameter(1, default=3), lambda: IntParameter([1, 2], 4, default=3)):
        with pytest.raises(ConfigurationError, match="IntParameter: expected low and high"):
            wrong()
    with pytest.raises(ConfigurationError, match="expected two categories"):
        CategoricalParameter(["a"])


def test_load_file_reads_the_json_of_the_file(tmp_path: Path) -> None:
    beside(tmp_path, {"buy": {"buy_a": 33}})
    strategy(tmp_path, head=HEAD, body=BODY)
    assert load_file(tmp_path / "mine.py").overrides == {"buy": {"buy_a": 33}}
