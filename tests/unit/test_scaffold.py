"""New strategies: which names are refused, and that nothing is written then."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.scaffold.writing import Form, write_strategy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dip", "expected a name of lower-case words joined by - or _"),
        ("../dip", "expected a name of lower-case words"),
        ("dip-", "expected a name of lower-case words"),
        ("d" * 41, "40 characters at most"),
        ("ema-cross", "'ema_cross' is an implementation already"),
        ("composite", "'composite' is an implementation already"),
        ("class", "'class' means something in Python here already"),
        ("json", "'json' means something in Python here already"),
        ("numpy", "'numpy' means something in Python here already"),
    ],
)
def test_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        write_strategy(name, Form.SIGNALS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected an existing folder .*nowhere"):
        write_strategy("dip-buyer", Form.SIGNALS, tmp_path / "nowhere")


@pytest.mark.parametrize("form", Form)
def test_strategy_is_called_the_same_whatever_joins_its_words(tmp_path: Path, form: Form) -> None:
    dashed, joined = (write_strategy(name, form, tmp_path) for name in ("dip-buyer-2", "dip_buyer_2"))
    assert dashed.files == joined.files
    for path in dashed.files:
        assert (dashed.folder / path).read_text() == (joined.folder / path).read_text()
