"""Listening to a fleet as Flower does: Celery's own event receiver and state, on the real Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from celery.events.state import State, Task

from app.broker import create_celery
from app.settings import Settings
from tests.waiting import wait_until

Heard = dict[str, Any]


class Listener:
    """What came of events: every message as it was, and Celery's picture of tasks and nodes."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.beats = 0
        self._messages: list[list[Heard]] = []
        self._lock = Lock()
        self._receiver: EventReceiver | None = None
        self.state = State()

    @property
    def messages(self) -> list[list[Heard]]:
        """The events of each message that held any of tasks, in order."""
        with self._lock:
            return list(self._messages)

    def events(self, uuid: str | None = None) -> list[Heard]:
        """Return the task events, of one job or of all, as they came."""
        return [each for message in self.messages for each in message if uuid in (None, each["uuid"])]

    def kinds(self, uuid: str | None = None) -> list[str]:
        """Return the types of the task events, without their prefix."""
        return [event["type"].removeprefix("task-") for event in self.events(uuid)]

    def count(self) -> Counter[str]:
        """Count the task events by type."""
        return Counter(self.kinds())

    def tasks(self, name: str) -> list[Task]:
        """Return the tasks of a name that Celery's state holds."""
        return [task for _, task in self.state.itertasks() if task.name == name]

    def await_task(self, uuid: str, state: str, timeout_s: float = 30.0) -> Task:
        """Wait until a task is in a state; return it."""
        task: Callable[[], Any] = lambda: self.state.tasks.get(uuid)  # noqa: E731  # the value of a moment
        wait_until(lambda: getattr(task(), "state", None) == state, f"task {uuid} is {state}", timeout_s)
        return task()

    def run(self) -> None:
        """Listen until stopped."""
        with self.app.connection_for_read() as connection:
            self._receiver = receiver = EventReceiver(connection, handlers={"*": self._note}, app=self.app)
            receive = receiver._receive

            def keep(body: Any, message: Any) -> None:
                events = [each for each in (body if isinstance(body, list) else [body]) if "uuid" in each]
                receive(body, message)
                if events:
                    with self._lock:
                        self._messages.append(events)

            receiver._receive = keep
            receiver.capture(limit=None, timeout=None, wakeup=False)

    def _note(self, event: Heard) -> None:
        self.state.event(event)
        self.beats += event["type"] == "worker-heartbeat"

    def stop(self) -> None:
        """End."""
        if self._receiver is not None:
            self._receiver.should_stop = True


@contextmanager
def listening(settings: Settings) -> Iterator[Listener]:
    """Listen to a fleet with at least one node, from its next heartbeat on."""
    listener = Listener(create_celery(settings))
    thread = Thread(target=listener.run, name="listener", daemon=True)
    thread.start()
    try:
        wait_until(lambda: listener.state.workers, "a node's heartbeat is heard")
        yield listener
    finally:
        listener.stop()
        thread.join(10)
    assert not thread.is_alive()
