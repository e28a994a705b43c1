"""The stage: the contenders that most measurements share, their markets, and the results so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self, TypeVar

from app.benchmark.celery_baseline import CeleryContender
from app.benchmark.fleet import FleetContender
from app.benchmark.ground import Ground, Node
from app.benchmark.limit import LimitContender
from app.benchmark.market import Close, Market
from app.benchmark.measuring import Contender
from app.benchmark.plan import Plan
from app.benchmark.results import FLEET, UNCHUNKED, Results
from app.benchmark.workloads import Workload

SEED = 7
#: A warm-up that took so many seconds is enough: what is created once is a small part of it.
LONG_S = 1.0
#: Candles from which a producer learns what strategies cost: more jobs of each than it takes to be trusted.
LESSONS = 4
#: Seconds within which a producer looks at outcomes again.
LEARNT_WITHIN_S = 2.5

T = TypeVar("T")


class Stage:
    """Contenders start when they are first asked for and live to the end: they stay warm.

    Args:
        ground: to stand on.
        plan: what is measured.
        say: told what is under way.
    """

    def __init__(self, ground: Ground, plan: Plan, say: Callable[[str], None]) -> None:
        self.ground = ground
        self.plan = plan
        self.say = say
        self.results = Results()
        self._markets: dict[tuple[str, str], Market] = {}
        self._rates: dict[tuple[str, str], float] = {}
        self._open = ExitStack()
        self._node: Node | None = None
        self._fleet: FleetContender | None = None
        self._unchunked: FleetContender | None = None
        self._celery: CeleryContender | None = None
        self._limit: LimitContender | None = None

    @property
    def node(self) -> Node:
        """The worker node of this system as it ships."""
        if self._node is None:
            self._node = self._enter(self.ground.node(FLEET))
        return self._node

    @property
    def fleet(self) -> FleetContender:
        """This system as it ships."""
        if self._fleet is None:
            self._fleet = self._enter(self.ground.fleet(self.node, FLEET))
            self.teach(self._fleet, self.plan.measured())
        return self._fleet

    @property
    def unchunked(self) -> FleetContender:
        """This system with one message a job."""
        if self._unchunked is None:
            self._unchunked = self._enter(self.ground.unchunked(UNCHUNKED))
        return self._unchunked

    @property
    def celery(self) -> CeleryContender:
        """Plain Celery."""
        if self._celery is None:
            self._celery = self._enter(self.ground.celery())
        return self._celery

    @property
    def limit(self) -> LimitContender:
        """What the machine can do."""
        if self._limit is None:
            self._limit = self._enter(self.ground.limit())
        return self._limit

    def market(self, contender: Contender, workload: Workload) -> Market:
        """Return a contender's own market of a workload: it goes on where it was left."""
        key = contender.name, workload.name
        if key not in self._markets:
            self._markets[key] = Market(workload.symbols_of(contender.name, contender.most_symbols), SEED)
        return self._markets[key]

    def take(self, contender: Contender, workload: Workload, candles: int) -> list[Close]:
        """Return the next candles of a contender's market."""
        return self.market(contender, workload).take(candles)

    def teach(self, fleet: FleetContender, workloads: Iterable[Workload]) -> None:
        """Let a producer find out what strategies cost: in service it has known that for long.

        A few candles of every workload, whose jobs travel alone, then a pause until it looks at their outcomes.
        """
        for workload in workloads:
            fleet.run(self.take(fleet, workload, LESSONS))
        self.ground.stop.wait(LEARNT_WITHIN_S)

    def warm_up(self, contender: Contender, workload: Workload) -> float:
        """Let every symbol close, twice unless that takes long; return the jobs per second of the last time.

        Once for each contender and workload.
        """
        key = contender.name, workload.name
        if key not in self._rates:
            symbols = min(workload.symbols, contender.most_symbols)
            run = contender.run(self.take(contender, workload, symbols))
            if run.elapsed_s < LONG_S:
                run = contender.run(self.take(contender, workload, symbols))
            self._rates[key] = run.jobs_per_s
        return self._rates[key]

    def close(self) -> None:
        """End the contenders."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self, opened: AbstractContextManager[T]) -> T:
        return self._open.enter_context(opened)


def in_turns(contenders: Sequence[T], round_number: int) -> Sequence[T]:
    """Return the contenders of a round, forwards and backwards in turns: none always follows the same one."""
    return contenders if round_number % 2 == 0 else contenders[::-1]
