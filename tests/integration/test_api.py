"""The API as a client meets it: who may do what, what is wrong with a request, what a run answers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from app import embedded
from app.settings import BatchSettings, Settings
from app.storage.candles import record_candles
from app.storage.engine import build_engine
from tests.building import REPOSITORY, candle, definition, environment, outcome, register, walk
from tests.conftest import Deploy
from tests.integration.api import OPERATE, READ, SPEC, Api, command, let_in, serving
from tests.integration.ledger import build_dispatcher, land_on
from tests.waiting import wait_until

#: Everything that needs a token, with one that would be allowed to.
READING = ("/api/runs", "/api/runs/1", "/api/runs/1/units", "/api/runs/1/events", "/api/batch/config", "/api/status")
LISTS = ("/api/strategies", "/api/outcomes", "/api/decisions")
STEERING = ("/api/runs", "/api/runs/1/pause", "/api/runs/1/resume", "/api/runs/1/cancel", "/api/runs/1/retry")


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> Iterator[Settings]:
    """A deployment with a strategy and two series, for all tests of this module."""
    with deploy() as settings:
        engine = build_engine(settings.database_dsn, name="tests")
        register(engine, definition("cross"))
        for symbol in ("AAA", "BBB"):
            with engine.begin() as connection:
                record_candles(connection, walk(symbol, 1500), "test")
        engine.dispose()
        yield settings


@pytest.fixture(scope="module")
def api(deployed: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(deployed, tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.mark.parametrize("token", [None, "guessed", READ[:-1], OPERATE + "x", "ü"])
def test_nobody_gets_in_without_a_token(api: Api, token: str | None) -> None:
    asked = [api.get(path, token) for path in READING + LISTS] + [api.post(path, SPEC, token) for path in STEERING]
    assert {answer.status for answer in asked} == {401}
    assert all(answer.headers["www-authenticate"].startswith('Bearer realm="candlefleet"') for answer in asked)
    assert {answer.headers["content-type"] for answer in asked} == {"application/problem+json"}


def test_a_token_that_may_only_read_changes_nothing(api: Api) -> None:
    asked = [api.post(path, SPEC, READ) for path in STEERING]
    assert {answer.status for answer in asked} == {403}
    assert asked[0].body["detail"] == "the token of 'looker' may only read"
    assert 'error="insufficient_scope"' in asked[0].headers["www-authenticate"]


@pytest.mark.parametrize("token", [READ, OPERATE])
def test_both_roles_read(api: Api, token: str) -> None:
    assert {api.get(path, token).status for path in (*LISTS, "/api/runs", "/api/status")} == {200}


def test_health_and_documentation_need_no_token_and_no_internet(api: Api) -> None:
    assert api.get("/api/health", None).body == {"status": "ok"}
    page = api.get("/api/docs", None).body
    assert "/api/docs-assets/swagger-ui-bundle.js" in page
    assert "https://" not in page
    assert api.get("/api/docs-assets/swagger-ui-bundle.js", None).status == 200


def test_every_secret_stays_inside(api: Api, deployed: Settings) -> None:
    secrets = (READ, OPERATE, deployed.database_dsn, deployed.broker_dsn)
    told = [str(api.get(path).body) for path in (*LISTS, "/api/batch/config", "/api/status", "/api/openapi.json")]
    assert not any(secret in text for secret in secrets for text in (*told, api.log.read_text()))


def test_openapi_describes_tokens_problems_and_an_example(api: Api) -> None:
    document = api.get("/api/openapi.json", None).body
    start = document["paths"]["/api/runs"]["post"]
    assert start["security"] == [{"HTTPBearer": []}]
    assert {"200", "201", "401", "403", "422", "503"} <= set(start["responses"])
    assert "application/problem+json" in start["responses"]["422"]["content"]
    assert start["requestBody"]["content"]["application/json"]["examples"]
    assert "text/event-stream" in document["paths"]["/api/runs/{run}/events"]["get"]["responses"]["200"]["content"]
    assert "security" not in document["paths"]["/api/health"]["get"]
    schemas = document["components"]["schemas"]
    assert set(schemas["ProblemDetails"]["properties"]) == {"title", "status", "detail", "errors"}
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= set(schemas)
    assert "ProblemDetails" in references


def test_many_ask_for_the_status_at_once(api: Api) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.get("/api/status"), range(40)))
    assert {answer.status for answer in answers} == {200}
    assert all(answer.body["queues"] == {"high": 0, "normal": 0, "low": 0} for answer in answers)


def test_the_batch_settings_in_force_are_told(api: Api, deployed: Settings) -> None:
    told = api.get("/api/batch/config").body
    assert told == {**BatchSettings().model_dump(mode="json"), "most_units": deployed.runs.most_units}


def test_the_batch_settings_come_from_the_environment(deployed: Settings, tmp_path: Path) -> None:
    with serving(deployed, tmp_path, BATCH__MIN_EDGE_PERCENT="7.5", BATCH__ENABLED="false") as api:
        told = api.get("/api/batch/config").body
        refused = api.post("/api/runs", SPEC)
    assert (told["min_edge_percent"], told["enabled"]) == (7.5, False)
    assert refused.status == 422
    assert "CANDLEFLEET_BATCH__ENABLED" in refused.body["detail"]


#: Changes of a good specification, and the field that the answer must name.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"from": "2024-03-01T00:00Z", "to": "2024-03-01T00:00Z"}, "from, to"),
    ({"from": "2031-01-01T00:00Z", "to": "2031-02-01T00:00Z"}, "from, to"),
    ({"from": "yesterday"}, "from"),
    ({"timeframe": "2x"}, "timeframe"),
    ({"timeframe": None}, "timeframe"),
    ({"strategies": []}, "strategies"),
    ({"strategies": ["cros"]}, "strategies"),
    ({"strategies": ["config/strategies.toml"]}, "strategies"),
    ({"symbols": ["NONE-*"]}, "symbols"),
    ({"grid": {"fast": 5}}, "grid.fast"),
    ({"grid": {"fast": []}}, "grid.fast"),
    ({"grid": {"fats": [5]}}, "grid.fats"),
    ({"grid": {"fast": list(range(1000)), "slow": list(range(1000))}}, "grid"),
    ({"limits": {"retries": 11}}, "limits.retries"),
    ({"limits": {"tries": 1}}, "limits.tries"),
    ({"trading": {"capital": -1}}, "trading.capital"),
    ({"trading": {"enabled": True}}, "trading.enabled"),
    ({"to": "9999-12-31T23:59:59-23:00"}, "to"),
    ({"key": "a\0b"}, "key"),
    ({"strategies": ["a\0b"]}, "strategies.0"),
    ({"grid": {"fast": ["a\0b"]}}, "grid.fast.0"),
    ({"key": "\ud800"}, "key"),
    ({"simbols": ["*"]}, "simbols"),
    ({"key": ""}, "key"),
]


@pytest.mark.parametrize(
    ("changes", "field"), WRONG, ids=[f"{field}-{number}" for number, (_, field) in enumerate(WRONG)]
)
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_bad_specification_names_the_field(api: Api, changes: dict[str, Any], field: str, query: str) -> None:
    before = api.get("/api/runs").body
    answer = api.post(f"/api/runs{query}", {**SPEC, **changes})
    assert answer.status == 422
    assert set(answer.fields) == {field}, answer.body
    assert all(each["problem"] for each in answer.body["errors"])
    assert api.get("/api/runs").body == before


def test_all_that_is_wrong_is_told_at_once(api: Api) -> None:
    answer = api.post("/api/runs", {"strategies": [], "timeframe": "1h", "from": "x", "to": "y", "more": 1})
    assert sorted(answer.fields) == ["from", "more", "strategies", "to"]
    wrong = {"strategies": ["cros", "x.toml"], "symbols": ["NONE"], "grid": {"fast": []}, "limits": {"retries": -1}}
    answer = api.post("/api/runs", {**SPEC, **wrong, "trading": {"fee_percent": -1}, "to": SPEC["from"]})
    fields = ["from, to", "grid.fast", "limits.retries", "strategies", "strategies", "symbols", "trading.fee_percent"]
    assert sorted(answer.fields) == fields
    assert "x.toml" in str(answer.body) and "readable file" not in str(answer.body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_what_is_no_specification_is_refused(api: Api, body: bytes) -> None:
    answer = api.post("/api/runs", body)
    assert answer.status in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 1e308 * 10])
def test_values_that_cannot_be_stored_are_refused(api: Api, value: Any) -> None:
    answers = [api.post("/api/runs", {**SPEC, **wrong}) for wrong in ({"key": value}, {"grid": {"fast": [value]}})]
    assert {answer.status for answer in answers} == {422}


def test_a_body_is_bounded_before_its_token_is_known(api: Api) -> None:
    assert api.post("/api/runs", b" " * (2 << 20), None).status == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/999", 404),
        ("/api/runs/999/units", 404),
        ("/api/runs/999/events", 404),
        ("/api/nothing", 404),
        ("/api/runs/0", 422),
        ("/api/runs/x", 422),
        ("/api/runs/99999999999999999999", 422),
        ("/api/runs?limit=0", 422),
        ("/api/runs/1/units?state=lost", 422),
        ("/api/outcomes?strategy=%00", 422),
        ("/api/outcomes?since=2024-01-01", 422),
        ("/api/outcomes?dispatch=9223372036854775808", 422),
        ("/api/decisions?action=2", 422),
    ],
)
def test_what_is_not_there_or_makes_no_sense(api: Api, path: str, status: int) -> None:
    answer = api.get(path)
    assert (answer.status, answer.body["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        *("/api/runs", "/api/runs/1", "/api/runs/1/units", "/api/runs/1/units/0/trades", "/api/runs/1/selection"),
        *("/api/runs/1/report", "/api/runs/1/events", "/api/batch/config", "/api/status", "/api/health"),
        *("/api/strategies", "/api/outcomes", "/api/decisions"),
    ],
)
def test_a_query_parameter_that_means_nothing_is_refused(api: Api, path: str) -> None:
    answer = api.get(f"{path}?foo=1&bar=2")
    assert (answer.status, answer.fields) == (422, ["foo", "bar"])


def test_unknown_query_parameters_are_told_to_who_may_ask_only(api: Api) -> None:
    assert (
        api.get("/api/runs?ofset=3")
        .body["errors"][0]["problem"]
        .startswith("unknown query parameter: did you mean 'offset'?")
    )
    assert api.get("/api/runs?foo=1", None).status == 401
    assert api.post("/api/runs?foo=1", SPEC, READ).status == 403
    posts = [api.post(f"/api/runs{path}?foo=1", SPEC) for path in ("", "/1/pause", "/1/retry")]
    assert {answer.status for answer in posts} == {422}


def test_lists_are_paged(api: Api) -> None:
    run = api.start(grid={"fast": [5, 6, 7]}, symbols=["AAA"])
    api.start(symbols=["AAA"])
    for path in ("/api/runs", f"/api/runs/{run}/units"):
        whole = api.get(f"{path}?limit=1000").body
        pages = [api.get(f"{path}?limit=1&offset={offset}").body for offset in range(len(whole) + 1)]
        assert [row for page in pages for row in page] == whole
        assert pages[-1] == []
        assert api.get(f"{path}?offset=-1").status == 422


def test_a_filter_that_postgres_does_not_take_is_named(api: Api) -> None:
    assert api.get("/api/outcomes?symbol=AAA&strategy=%00").fields == ["strategy"]


def test_a_specification_is_described_though_a_wrong_one_gets_further(api: Api) -> None:
    document = api.get("/api/openapi.json", None).body
    body = document["paths"]["/api/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"] == "#/components/schemas/RunSpec"
    assert {"strategies", "from", "trading"} <= set(document["components"]["schemas"]["RunSpec"]["properties"])


def test_steering_a_run_that_is_not_there(api: Api) -> None:
    assert {api.post(f"/api/runs/999/{verb}").status for verb in ("pause", "resume", "cancel", "retry")} == {404}


def test_a_dry_run_plans_and_starts_nothing(api: Api) -> None:
    before = api.get("/api/runs").body
    answer = api.post("/api/runs?dry_run=true", {**SPEC, "grid": {"fast": [5, 8], "slow": [20, 30, 40]}})
    assert answer.status == 200
    assert {"units": 12, "variants": 6, "symbols": 2, "candles": 12 * 1272}.items() <= answer.body.items()
    assert api.get("/api/runs").body == before


def test_a_run_is_started_and_steered(api: Api) -> None:
    answer = api.post("/api/runs", {**SPEC, "grid": {"fast": [5, 8]}})
    path = answer.headers["location"]
    assert (answer.status, answer.body["state"], answer.body["pending"]) == (201, "running", 4)
    assert api.get(path).body["spec"]["grid"] == {"fast": [5, 8]}
    assert path.endswith(str(api.get("/api/runs?limit=1").body[0]["id"]))
    assert [api.post(f"{path}/pause").body["state"] for _ in range(2)] == ["paused", "paused"]
    assert api.post(f"{path}/resume").body["state"] == "running"
    refused = api.ask("DELETE", path, OPERATE)
    assert (refused.status, "runs cancel" in refused.body["detail"]) == (409, True)
    assert [api.post(f"{path}/cancel").body["state"] for _ in range(2)] == ["cancelled", "cancelled"]
    assert {api.post(f"{path}/{verb}").status for verb in ("pause", "resume")} == {409}
    units = api.get(f"{path}/units?state=cancelled&limit=3").body
    assert [unit["state"] for unit in units] == ["cancelled"] * 3
    assert api.get(f"{path}/units?state=failed").body == []
    assert api.post(f"{path}/retry").body == {"units": 0}
    assert api.ask("DELETE", path, READ).status == 403
    assert [api.ask("DELETE", path, OPERATE).status for _ in range(2)] == [204, 404]
    assert api.get(path).status == 404
    log = api.log.read_text()
    assert all(f"a run was {what}" in log for what in ("started", "paused", "resumed", "cancelled", "deleted"))
    assert "operator" in log


def test_a_repeated_start_is_the_same_run(api: Api) -> None:
    body = {**SPEC, "key": "again"}
    first, second = api.post("/api/runs", body), api.post("/api/runs", body)
    by_header = api.post("/api/runs", SPEC, Idempotency_Key="again")
    assert [answer.status for answer in (first, second, by_header)] == [201, 200, 200]
    assert len({answer.body["id"] for answer in (first, second, by_header)}) == 1
    other = api.post("/api/runs", {**body, "symbols": ["AAA"]})
    assert (other.status, other.fields) == (422, ["key"])
    both = api.post("/api/runs", body, Idempotency_Key="another")
    assert (both.status, both.fields) == (422, ["key"])


def test_the_ledger_is_listed_by_filters(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    strategies = register(engine, definition("cross"), definition("other"))
    first, second = build_dispatcher(engine).write([candle(0, "AAA"), candle(0, "BBB")]).dispatch_ids
    land_on(engine, first, [outcome(each.id) for each in strategies])
    with serving(settings, tmp_path) as api:

        def jobs(query: str) -> list[tuple[str, str]]:
            return [(row["symbol"], row["strategy"]) for row in api.get(f"/api/outcomes?{query}").body]

        assert (
            jobs("")
            == jobs(f"dispatch={first}&symbol=AAA&timeframe=1h&status=succeeded")
            == [("AAA", "cross"), ("AAA", "other")]
        )
        assert jobs("strategy=other&since=2024-01-01T00:00Z") == [("AAA", "other")]
        assert jobs("limit=1") == [("AAA", "cross")]
        nothing = (
            "symbol=BBB",
            "timeframe=4h",
            "status=failed",
            "since=2025-01-01T00:00Z",
            "correlation=x",
            f"dispatch={second}",
        )
        assert [jobs(query) for query in nothing] == [[]] * len(nothing)
        [decision] = api.get("/api/decisions?symbol=AAA&timeframe=1h&action=1").body
        assert (decision["dispatch_id"], decision["action"], decision["closed_by"]) == (first, 1, "complete")
        assert api.get("/api/decisions?action=-1").body == []
        assert [row["name"] for row in api.get("/api/strategies?status=active").body] == ["cross", "other"]
        assert api.get("/api/strategies?status=paused").body == []
        assert api.get("/api/status").body["jobs"] == {"total": 4, "succeeded": 2, "failed": 0, "waiting": 2}


def test_a_postgres_that_is_away_is_waited_for(servers: embedded.Servers, settings: Settings, tmp_path: Path) -> None:
    with serving(settings, tmp_path) as api:
        assert api.get("/api/status").status == 200
        let_in(servers, settings, allowed=False)
        away = api.get("/api/runs")
        assert (away.status, away.headers["content-type"]) == (503, "application/problem+json")
        assert int(away.headers["retry-after"]) > 0
        assert api.get("/api/health", None).status == 200
        let_in(servers, settings, allowed=True)
        wait_until(lambda: api.get("/api/runs").status == 200, "it answers again")


def refusal(settings: Settings, home: Path, *arguments: str, **variables: str) -> str:
    """Start an API that must refuse to, and return what it said."""
    own = {f"CANDLEFLEET_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        command(home, *arguments),
        env={**environment(settings), **own},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_tokens_it_does_not_start(settings: Settings, tmp_path: Path) -> None:
    assert "CANDLEFLEET_API__TOKENS" in refusal(settings, tmp_path)
    assert "other machines" in refusal(settings, tmp_path, "--host", "0.0.0.0", API__OPEN="true")


def test_a_port_that_is_taken_is_said_in_one_line(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = refusal(settings, tmp_path, "--port", str(port), API__OPEN="true")
    assert f"the API cannot listen on 127.0.0.1:{port}" in told


def test_an_open_api_lets_this_machine_in_but_no_other_sites_page(settings: Settings, tmp_path: Path) -> None:
    with serving(settings, tmp_path, API__TOKENS="", API__OPEN="true") as api:
        assert api.get("/api/runs", None).status == 200
        assert api.get("/api/runs", None, Sec_Fetch_Site="same-origin").status == 200
        assert api.post("/api/runs/1/cancel", token=None, Sec_Fetch_Site="cross-site").status == 403
        assert api.post("/api/runs/1/cancel", token=None, Host="leads-here.example.org").status == 403


def test_a_token_is_made_kept_and_said_once(settings: Settings, tmp_path: Path) -> None:
    with serving(settings, tmp_path, "--make-token", API__TOKENS="") as api:
        token = (tmp_path / "api-token").read_text().strip()
        assert api.log.read_text().count(token) == 1
        assert api.post("/api/runs/1/cancel", token=token).status == 404
        assert api.get("/api/runs", None).status == 401
