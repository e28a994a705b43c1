"""`candlefleet worker`: becomes a worker node. Must import little: what it becomes imports everything again."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.broker import BATCH_QUEUE, CONTROL_QUEUE, QUEUES
from app.cli.session import settings_with_logging
from app.errors import ConfigurationError, did_you_mean
from app.node_name import take_name
from app.processes import run_module
from app.settings import MOST_SLOTS


def worker(
    queues: Annotated[str, typer.Option(help="Queues to consume, separated by commas; batch serves runs.")] = ",".join(
        (CONTROL_QUEUE, *QUEUES)
    ),
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=MOST_SLOTS, help="Slots of this node.", show_default="one per core")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of this node; %h is the host.", show_default="worker@%h, worker-2@%h, ...")
    ] = None,
) -> None:
    """Execute jobs: one worker node."""
    settings = settings_with_logging()
    if not settings.worker.enabled:
        raise ConfigurationError("this node is taken out of the fleet: CANDLEFLEET_WORKER__ENABLED is off")
    known = (CONTROL_QUEUE, *QUEUES, BATCH_QUEUE)
    for queue in queues.split(","):
        if queue not in known:
            raise ConfigurationError(f"--queues: no queue {queue!r}: {did_you_mean(queue, known)}")
    slots = concurrency or settings.worker.slots or os.cpu_count() or 1
    own = take_name(settings, name)
    run_module("celery", ["-A", "workers.main", "--quiet", "worker", "-Q", queues, "-c", str(slots), "-n", own])
