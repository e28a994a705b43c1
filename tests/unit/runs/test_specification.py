"""Specifications as people write them: everything that is wrong, all at once, each with its field."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.runs import RunSpec
from app.errors import ConfigurationError
from app.runs.specification import Draft, build_draft, read_draft

SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-01", "to": "2024-02-01"}
EVALUATE = {"kind": "evaluate", "strategies": ["cross"], "timeframe": "1h"}


def fields(draft: Draft) -> list[str]:
    return [problem.partition(": ")[0] for problem in draft.problems]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({**SPEC, "limits": {"retries": -1}, "trading": {"fee_percent": -1, "foo": 2}},
         "limits.retries trading.fee_percent trading.foo"),
        ({**SPEC, "foo": 1, "trading": {"capital": "much", "enabled": True}}, "foo trading.capital trading.enabled"),
        ({**EVALUATE, "selection": {"foo": 1, "min_edge_percent": -5}}, "selection.foo selection.min_edge_percent"),
        ({**EVALUATE, "selection": {"stop_loss_percent": nan}}, "selection.stop_loss_percent"),
        ({**SPEC, "grid": {"fast": [inf]}}, "grid.fast.0"),
        ({**SPEC, "grid": {"cross": {"fast": [1, nan]}}}, "grid.cross.fast.1"),
        ({**SPEC, "symbols": ["%"]}, "symbols.0"),
        ({**SPEC, "symbols": []}, "symbols"),
        ({**SPEC, "key": "a\0b"}, "key"),
        ({**SPEC, "key": "\ud800", "grid": {"fast": ["\0"]}}, "grid.fast.0 key"),
        ({**SPEC, "a\0": 1}, "'a\\x00'"),
        ({"timeframe": "1h"}, "from strategies to"),
        ({**SPEC, "from": "2025-01-01", "limits": {"retries": 11}}, "from, to|limits.retries"),
        ({**SPEC, "from": "soon"}, "from"),
        ({**EVALUATE, "from": "2024-01-01", "trading": {"capital": 1}}, "from trading"),
    ],
)  # fmt: skip
def test_every_problem_is_told_with_the_key_it_is_about(document: dict[str, Any], expected: str) -> None:
    told = sorted(fields(build_draft(document)))
    assert told == (expected.split("|") if "|" in expected else expected.split())


@pytest.mark.parametrize("document", [None, [], "text", {}, {"strategies": None}])
def test_what_is_no_specification_is_refused(document: object) -> None:
    draft = build_draft(document)
    assert draft.problems and draft.spec is None


def test_a_pattern_that_is_none_is_refused_in_words() -> None:
    (told,) = build_draft({**SPEC, "symbols": ["BTC-*", "%"]}).problems
    assert told == "symbols.1: expected letters, digits and . _ : / - with * and ? for what may be anything, found '%'"


def test_a_wrong_one_is_left_with_what_is_right() -> None:
    draft = build_draft({**SPEC, "to": "soon", "symbols": ["BTC-*"], "grid": {"fast": 5}})
    assert draft.spec is not None
    assert (draft.spec.symbols, draft.spec.grid, fields(draft)) == (("BTC-*",), {}, ["to", "grid.fast", "grid.fast"])
    listed = build_draft({**SPEC, "strategies": ["cross", 5], "symbols": ["%", "X"], "grid": {"a": 5, "b": [1]}}).spec
    assert listed is not None
    assert (listed.strategies, listed.symbols, listed.grid) == (("cross",), ("X",), {"b": [1]})
    assert build_draft({**SPEC, "strategies": [5]}).spec is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, "\ud800", "1h"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [field.alias or name for name, field in RunSpec.model_fields.items()]


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), JSON, max_size=6))
def test_whatever_is_written_is_a_specification_or_has_problems_with_keys(changes: dict[str, Any]) -> None:
    draft = build_draft({**SPEC, **changes})
    assert (draft.spec is not None) or draft.problems
    for problem in draft.problems:
        assert problem.partition(": ")[0]
        problem.encode()


def test_nesting_has_no_end_that_hurts() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    assert fields(build_draft({**SPEC, "key": nested})) == ["key"]


def test_flags_win_over_assignments_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(
        'strategies = ["a"]\ntimeframe = "1h"\nfrom = 2024-01-01\nto = 2024-02-01\nkey = "file"\n'
        "[trading]\ncapital = 5.0\nfee_percent = 0.1\n"
    )
    assigned = ("trading.fee_percent=0.2", "limits.retries = 0", "key=set", "timeframe=4h", 'strategies=["b", "c"]')
    draft = read_draft(file, {"key": "flag"}, (*assigned, "from=2024-01-02T00:00:00-05:00"))
    spec = draft.spec
    assert draft.problems == () and spec is not None
    assert spec.trading == {"capital": 5.0, "fee_percent": 0.2}
    assert (spec.limits.retries, spec.key, spec.timeframe, spec.strategies) == (0, "flag", "4h", ("b", "c"))
    assert spec.from_time == datetime(2024, 1, 2, 5, tzinfo=UTC)


def test_an_assignment_is_told_like_any_other_key() -> None:
    draft = read_draft(None, SPEC, ("trading.fee=0.2", "limits.retries=many", "max_age_candles=1"))
    assert fields(draft) == ["trading.fee", "limits.retries", "max_age_candles"]


@pytest.mark.parametrize("assigned", [("trading",), ("=1",), ("a..b=1",), ("key=1", "key.inner=2")])
def test_an_assignment_that_is_none_is_refused(assigned: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="--set"):
        read_draft(None, SPEC, assigned)
