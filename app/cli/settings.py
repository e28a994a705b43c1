"""`candlefleet settings`: every environment variable, its meaning and the value in force."""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from app.cli.output import Json, build_table, out, print_json
from app.settings import Settings, known_variables, load_settings

_HEAD = """# Settings

Every setting is an environment variable; one that starts with `CANDLEFLEET_` and is not in this list is refused, with a
suggestion. Lists are JSON (`[8, 3, 1]`). An empty variable counts as unset. `candlefleet settings` prints the values in
force.

| variable | default | meaning |
| --- | --- | --- |
"""


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the documentation.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting, its meaning and the value in force; secrets are masked."""
    if markdown:
        print(settings_page(), end="")  # noqa: T201 - a page, not a message
        return
    loaded = load_settings()
    rows = [{"variable": v.name, "value": _value(loaded, v.path), "meaning": v.meaning} for v in known_variables()]
    if as_json:
        print_json(rows)
    else:
        out.print(build_table(rows, ("variable", "value", "meaning")))


def settings_page() -> str:
    """Build docs/settings.md."""
    rows = (f"| `{v.name}` | {f'`{v.default}`' if v.default else ''} | {v.meaning} |" for v in known_variables())
    return _HEAD + "\n".join(rows).replace("*", "\\*") + "\n"


def _value(loaded: Settings, path: tuple[str, ...]) -> str:
    value: Any = reduce(getattr, path, loaded)
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    return "" if value is None else str(getattr(value, "value", value))
