"""What tasks and queues are called."""

from __future__ import annotations

from app.domain.strategies import Priority

#: The one task that live work uses.
EXECUTE_TASK = "strategies.execute"
#: Tasks of the fleet itself, on the control queue.
BURY_TASK, DEAD_LETTER_TASK, CANARY_TASK = "fleet.bury", "fleet.dead_letter", "fleet.canary"
#: The gate's task, which travels with jobs of low priority: it may take minutes.
VERIFY_TASK = "fleet.verify"
#: The task of batch runs: a ticket, which makes a slot work on a run's units for about a second.
WORK_TASK = "runs.work"

#: Queues of jobs, in order of urgency.
QUEUES: tuple[str, ...] = tuple(priority.value for priority in Priority)
#: Queue of the fleet's own small tasks: what a dead slot leaves behind, canaries.
CONTROL_QUEUE = "control"
#: Queue of tickets of batch runs, which anything live passes.
BATCH_QUEUE = "batch"
