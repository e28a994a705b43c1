from pathlib import Path

import pytest

from app.cli.settings import settings_page
from app.errors import ConfigurationError
from app.settings import known_variables, load_settings


def test_defaults_are_the_documented_ones(monkeypatch):
    settings = load_settings()
    assert (settings.dispatch.chunk_size, settings.dispatch.queue_limit) == (256, 100)
    assert settings.dispatch.jobs_in_chunk == 256
    assert (settings.worker.timeout_ms, settings.decision.quorum) == (5000, 0.5)


def test_chunking_off_means_one_job_a_message(monkeypatch):
    monkeypatch.setenv("CANDLEFLEET_DISPATCH__CHUNKING", "off")
    assert load_settings().dispatch.jobs_in_chunk == 1


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("CANDLEFLEET_DISPATCH__CHUNKIN", "off", "did you mean CANDLEFLEET_DISPATCH__CHUNKING"),
        ("CANDLEFLEET_DATABSE_URL", "x", "did you mean CANDLEFLEET_DATABASE_URL"),
        ("CANDLEFLEET_QQQQQQQQ", "x", "unset it"),
        ("CANDLEFLEET_DISPATCH__CHUNK_SIZE", "0", "CHUNK_SIZE: Input should be greater than or equal to 1"),
        ("CANDLEFLEET_WORKER__WINDOW", "many", "WORKER__WINDOW: Input should be a valid integer"),
        ("CANDLEFLEET_BROKER__VISIBILITY_TIMEOUT_S", "60", "visibility_timeout_s 60 must exceed"),
        ("CANDLEFLEET_BROKER__QUEUE_WEIGHTS", "8,3,1", "broker"),
        ("CANDLEFLEET_LOG__LEVEL", "loud", "LOG__LEVEL"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch, name, value, complaint):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=complaint):
        load_settings()


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("CANDLEFLEET_DATABASE_URL", "")
    assert load_settings().database_url is None


def test_secrets_are_masked_and_the_driver_is_named(monkeypatch):
    monkeypatch.setenv("CANDLEFLEET_DATABASE_URL", "postgresql://someone:hush@db/name")
    settings = load_settings()
    assert "hush" not in repr(settings)
    assert settings.database_dsn == "postgresql+psycopg://someone:hush@db/name"


def test_another_database_is_refused(monkeypatch):
    monkeypatch.setenv("CANDLEFLEET_DATABASE_URL", "mysql://db/name")
    with pytest.raises(ConfigurationError, match=r"expected postgresql://\.\.\., found mysql"):
        _ = load_settings().database_dsn


def test_every_variable_is_listed_once():
    names = [variable.name for variable in known_variables()]
    assert len(names) == len(set(names))
    assert "CANDLEFLEET_WORKER__WINDOW" in names


def test_every_variable_says_what_it_means():
    assert [variable.name for variable in known_variables() if not variable.meaning] == []


def test_the_page_of_settings_is_in_step():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_page(), "run: .venv/bin/candlefleet settings --markdown > docs/settings.md"
