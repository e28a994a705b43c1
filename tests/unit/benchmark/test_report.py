import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from app.benchmark.chart import can_draw, draw
from app.benchmark.floors import Floor
from app.benchmark.plan import Plan
from app.benchmark.report import Report, build_ratio_table
from app.benchmark.results import CELERY, FLEET, JOBS_PER_S, LIMIT, P50_MS, Results

FLOORS = {
    "throughput_vs_celery": Floor("throughput_vs_celery", 15.0, 30.0, is_least=True),
    "latency_vs_celery": Floor("latency_vs_celery", 0.1, 0.08, is_least=False),
}


def report_of(fleet_per_s: float, fleet_ms: float = 5.0, floors: dict[str, Floor] = FLOORS) -> Report:
    results = Results()
    for contender, rate in ((FLEET, fleet_per_s), (CELERY, 1000.0), (LIMIT, 60_000.0)):
        results.add("light-50", contender, JOBS_PER_S, rate)
    results.add("light-50", FLEET, P50_MS, fleet_ms)
    results.add("light-50", CELERY, P50_MS, 100.0)
    machine = {"cores": 2, "processor": "a processor"}
    return Report(Plan(), results, machine, {"python": "3.11"}, 12.34, floors)


def text_of(report: Report) -> str:
    return shown(*report.tables())


def shown(*tables: Table) -> str:
    page = io.StringIO()
    console = Console(file=page, width=200)
    for table in tables:
        console.print(table)
    return page.getvalue()


def test_a_report_passes_when_every_ratio_meets_its_floor():
    assert report_of(20_000.0).passed


@pytest.mark.parametrize(("fleet_per_s", "fleet_ms"), [(14_000.0, 5.0), (20_000.0, 11.0)])
def test_one_ratio_on_the_wrong_side_of_its_floor_fails_the_report(fleet_per_s: float, fleet_ms: float):
    assert not report_of(fleet_per_s, fleet_ms).passed


def test_a_report_of_which_nothing_has_a_floor_does_not_pass():
    assert not report_of(20_000.0, floors={}).passed


def test_the_document_is_json_and_holds_machine_versions_medians_ratios_and_checks():
    document = json.loads(json.dumps(report_of(20_000.0).document(), allow_nan=False))

    assert set(document) == {"machine", "versions", "plan", "elapsed_s", "measurements", "ratios", "checks"}
    assert document["ratios"] == {
        "throughput_vs_celery": 20.0,
        "throughput_vs_limit": pytest.approx(0.3333),
        "latency_vs_celery": 0.05,
    }
    assert [check["passed"] for check in document["checks"]] == [True, True]
    assert {"workload", "contender", "measure", "median", "min", "max", "values"} == set(document["measurements"][0])


def test_the_tables_say_every_median_and_every_verdict():
    text = text_of(report_of(20_000.0, fleet_ms=11.0))

    assert "20,000" in text and "1,000" in text and "60,000" in text
    assert "target not reached" in text and "WORSE THAN THE FLOOR" in text


def test_a_ratio_that_reached_its_target_is_said_to():
    assert "target reached" in shown(build_ratio_table(report_of(31_000.0).verdicts))


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed: no chart is drawn")
def test_the_chart_is_a_png(tmp_path: Path):
    path = tmp_path / "chart.png"
    draw(report_of(20_000.0), path)

    assert path.read_bytes().startswith(b"\x89PNG")
