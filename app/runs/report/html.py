"""The report as one self-contained page: it works from disk, without a network, and can be read without its script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.runs.report import formats
from app.runs.report.charts import SIZE
from app.runs.report.document import Document
from app.runs.report.page import build_page


def to_html(document: Document) -> str:
    """Build the page. Whatever comes from the document is escaped, and nothing but its own script may run."""
    environment = _environment()
    script = _source("page.js")
    return environment.get_template("page.html").render(
        page=build_page(document),
        document=document,
        style=_source("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        size=SIZE,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.runs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number,
        percent=formats.percent,
        signed=formats.signed,
        price=formats.price,
        length_of=formats.length,
        moment=formats.moment,
        day=formats.day,
        compact=formats.compact,
    )
    return environment


def _source(name: str) -> str:
    return (files("app.runs.report") / "templates" / name).read_text(encoding="utf-8")
