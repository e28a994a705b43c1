"""A composite in a deployment: added from a file, shown with where each value came from, and run beside others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.broker import create_celery
from app.domain.candles import Timeframe
from app.strategies.registry import Registry
from tests.building import walk
from tests.integration.ledger import build_dispatcher
from tests.integration.stage import Run, Stage
from workers.lifecycle import open_slot
from workers.shared import Shared

#: The soft limit of a job and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

DEFINITION = """
[base]
timeframes = ["1h"]
[base.params]
hold = 12

[strategies.mix]
implementation = "composite"
limits = { p95_ms = 5000 }

[strategies.mix.params]
entry = { long = 0.3, short = 0.3 }
exit = { long = 0.1, short = 0.1 }
filters.volatility = { least_percent = 0.01 }
gate = { timeframe = "4h", period = 3 }

[strategies.mix.params.analyzers]
zeta = { implementation = "ema_cross", weight = 2.0, params = { fast = 5 } }
alpha = { implementation = "tests.quant.wrong:Follows" }
"""


@pytest.fixture
def added(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "definitions.toml"
    path.write_text(DEFINITION)
    result = run("strategies", "add", path)
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("added")
def test_show_prints_what_it_is_made_of_and_where_each_value_came_from(run: Run) -> None:
    table = run("strategies", "show", "mix").stdout
    rows = {cells[0]: cells[1:] for line in table.splitlines() if len(cells := line.split()) == 3}
    assert rows["params.analyzers.zeta.implementation"] == ["ema_cross", "strategy"]
    assert rows["params.analyzers.zeta.weight"] == ["2.0", "strategy"]
    assert rows["params.analyzers.zeta.params.slow"] == ["26", "default"]
    assert rows["params.analyzers.alpha.weight"] == ["1.0", "default"]
    assert rows["params.entry.long"] == ["0.3", "strategy"]
    assert rows["params.exit.short"] == ["0.1", "strategy"]
    assert rows["params.hold"] == ["12", "base"]
    assert rows["params.filters.volatility.least_percent"] == ["0.01", "strategy"]
    assert rows["params.filters.volatility.period"] == ["14", "default"]
    assert rows["params.filters.session"] == ["None", "default"]
    assert rows["params.gate.timeframe"] == ["4h", "strategy"]
    shown = json.loads(run("strategies", "show", "mix", "--json").stdout)
    assert shown["verification"]["verdict"] == "passed"


@pytest.mark.usefixtures("added")
def test_slot_answers_as_the_class_does(stage: Stage) -> None:
    slot = open_slot(create_celery(stage.settings), stage.settings, Shared())
    chunks = [each.chunk for each in build_dispatcher(stage.operations.engine).write(walk("BTC-USD", 200)).envelopes]
    for chunk in chunks:
        slot.executor.execute([chunk])
    slot.close()
    rows = stage.ask("SELECT status, action, strength, detail->'extras' AS extras FROM outcomes ORDER BY dispatch_id")
    assert {row.status for row in rows} == {"succeeded"}
    assert {row.action for row in rows} == {-1, 0, 1}
    params = dict(stage.ask("SELECT params FROM strategies")[0].params)
    built = Registry(("tests.quant",)).create("composite", params)
    assert rows[0].extras == {"warmup": built.warmups[Timeframe.H1] - 1}
    assert set(rows[-1].extras["analyzers"]) == {"alpha", "zeta"}


def test_verified_on_generated_candles_of_the_timeframe_that_it_subscribes_to(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "definitions.toml"
    path.write_text(DEFINITION.replace('["1h"]', '["15m"]').replace('"4h", period = 3', '"1h", period = 3'))
    (verified,) = json.loads(run("strategies", "verify", path, "--json").stdout)
    assert verified["verdict"] == "passed", verified["finding"]  # hours of the gate would not make the higher candles
