"""`candlefleet drill`: break things on purpose, on servers of the drill's own, and certify that nothing was lost."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.output import Json, out, print_json, say
from app.cli.session import settings_with_logging, stop_on_signals
from app.drill.certificate import Certificate, Finding
from app.drill.faults import Fault, build_faults
from app.drill.load import Load
from app.drill.run import hold_drill
from app.errors import ConfigurationError, did_you_mean

#: Seconds a server is away in the long outages.
OUTAGE_S = 30.0

#: Columns of a terminal from which on the table says what was done.
WIDE = 150


def drill(
    only: Annotated[list[str] | None, typer.Option(help="One fault; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated candles.")] = Load().seed,
    candles: Annotated[int, typer.Option(min=60, help="Candles of each of three symbols.")] = Load().per_symbol,
    outage: Annotated[float, typer.Option(min=0.0, help="Seconds of the long outages.")] = OUTAGE_S,
    as_json: Json = False,
) -> None:
    """Inject faults under load and certify that nothing is lost, doubled or different."""
    faults = _choose(build_faults(outage), only or [])
    settings = settings_with_logging()
    with stop_on_signals() as stop:
        certificate = hold_drill(settings, Load(candles, seed), faults, stop, say)
    if as_json:
        print_json(certificate.document())
    else:
        _print(certificate)
    if not certificate.is_good:
        raise typer.Exit(1)


def _choose(faults: tuple[Fault, ...], only: list[str]) -> tuple[Fault, ...]:
    names = [fault.name for fault in faults]
    for word in only:
        if word not in names:
            raise ConfigurationError(f"--only: no fault {word!r}: {did_you_mean(word, names)}")
    return tuple(fault for fault in faults if not only or fault.name in only)


def _print(certificate: Certificate) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("fault", "expected", "landed", "lost", "doubled", "digest", "right again", "verdict"):
        table.add_column(column, justify="left" if column in ("fault", "digest", "verdict") else "right", no_wrap=True)
    is_wide = out.width >= WIDE
    if is_wide:
        table.add_column("what was done")
    for finding in certificate.findings:
        table.add_row(*(_cells(finding) if is_wide else _cells(finding)[:-1]))
    out.print(table)
    for finding in certificate.findings:
        for problem in finding.problems:
            out.print(f"{finding.fault}: {problem}", style="red", markup=False)
    _print_verdict(certificate)


def _cells(finding: Finding) -> tuple[str | Text, ...]:
    recovery = "-" if finding.recovery_s is None else f"{finding.recovery_s:.1f} s"
    return (
        finding.fault,
        f"{finding.expected:,}",
        f"{finding.landed:,}",
        _zero(finding.lost),
        _zero(finding.doubled),
        Text("equal", "green") if finding.is_equal else Text("different", "bold red"),
        recovery,
        Text("well", "green") if finding.is_good else Text("NOT WELL", "bold red"),
        finding.title + _ends(finding),
    )


def _zero(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "green")


def _ends(finding: Finding) -> str:
    ends = ", ".join(f"{count} {status}" for status, count in finding.guilty.items())
    return f" (its own jobs: {ends})" if ends else ""


def _print_verdict(certificate: Certificate) -> None:
    jobs = sum(finding.landed for finding in certificate.findings)
    lost = sum(finding.lost for finding in certificate.findings)
    doubled = sum(finding.doubled for finding in certificate.findings)
    out.print(
        f"\n{len(certificate.findings) - 1} faults, {jobs:,} jobs landed, {lost} lost, {doubled} doubled, in "
        f"{certificate.elapsed_s:.0f} s; seed {certificate.seed}, undisturbed digest {certificate.digest[:16]}",
        highlight=False,
    )
    verdict = Text("Nothing was lost, doubled or different.", "bold green")
    out.print(verdict if certificate.is_good else Text("The fleet did NOT stand every fault.", "bold red"))
