"""A group of commands that are imported when they run: who asks for one waits for no other.

Knows of each command its name, place and summary; must not know what any of them does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, and how the list of commands shows it."""

    place: str
    """module:name of a function, or of a Typer with commands of its own."""
    summary: str
    """The first line of its own help."""

    def load(self, name: str) -> Any:
        """Import the command."""
        module, _, attribute = self.place.partition(":")
        with _nothing_collected():
            found = getattr(import_module(module), attribute)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
        return typer.main.get_group(app).commands[name]


@contextmanager
def _nothing_collected() -> Iterator[None]:
    # what an import makes stays: looking through it for garbage takes a sixth of its time
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class LazyGroup(TyperGroup):
    """Lists commands by their entries, and imports the one that runs. Subclasses say which there are."""

    entries: ClassVar[Mapping[str, Entry]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=entry.summary) for name, entry in self.entries.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is to run, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.entries[name].load(name), rest
