from pathlib import Path

import pytest

from app.benchmark.chart import can_draw
from app.cli import bench
from app.errors import ConfigurationError


def test_without_matplotlib_it_says_that_no_chart_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(bench, "can_draw", lambda: False)  # an installed package cannot be taken away

    assert bench.drawable(tmp_path / "chart.png") is None
    assert "no chart is drawn: matplotlib is not installed" in capsys.readouterr().err


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed: no chart is drawn")
def test_with_matplotlib_it_is_drawn_where_it_was_asked_for(tmp_path: Path):
    assert bench.drawable(tmp_path / "chart.png") == tmp_path / "chart.png"


def test_no_chart_is_drawn_that_nobody_asked_for():
    assert bench.drawable(None) is None


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no folder"):
        bench.drawable(tmp_path / "none" / "chart.png")
