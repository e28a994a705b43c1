"""The broker: the Celery application, the queues, their fairness, and how chunks are published. Redis only carries."""

from app.broker.application import create_celery, queue_weights
from app.broker.names import (
    BATCH_QUEUE,
    BURY_TASK,
    CANARY_TASK,
    CONTROL_QUEUE,
    DEAD_LETTER_TASK,
    EXECUTE_TASK,
    QUEUES,
    VERIFY_TASK,
    WORK_TASK,
)
from app.broker.order import WeightedCycle
from app.broker.packing import Envelope, envelope, pack
from app.broker.publisher import PIPELINE_SIZE, Publisher

__all__ = [
    "BATCH_QUEUE",
    "BURY_TASK",
    "CANARY_TASK",
    "CONTROL_QUEUE",
    "DEAD_LETTER_TASK",
    "EXECUTE_TASK",
    "PIPELINE_SIZE",
    "QUEUES",
    "VERIFY_TASK",
    "WORK_TASK",
    "Envelope",
    "Publisher",
    "WeightedCycle",
    "create_celery",
    "envelope",
    "pack",
    "queue_weights",
]
