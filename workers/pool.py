"""A pool of worker processes, any of which may die, hang or be stopped at any moment.

Collectors, learners and reward workers differ in what a job is, in who may do it, and in what a lost one means.
Everything that happens between a job and a process is here.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from errors import RunError
from workers.process import Arrays, Header, WorkerDied, WorkerProcess, wait_any

_START_SECONDS = 120.0
_STARTS = 3  # consecutive failures in one place of the pool, after which the run ends
_STOPPED_SECONDS = 2.0  # tolerated, since a whole run may be stopped and continued, process by process
_LONGEST_WAIT = 0.5  # seconds; a stopped worker does not report it, so workers are polled
_CLOSE_SECONDS = 1.0  # in which idle workers exit by themselves


@dataclass(frozen=True, eq=False)
class Job:
    """A message to a worker, and the seconds within which the answer must come."""

    header: Header
    seconds: float
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a worker answered to a job."""

    header: Header
    arrays: Arrays


@dataclass(frozen=True)
class Lost:
    """A job whose worker has ended, or had to be killed.

    Attributes:
        kind: "died" by itself or by a signal, "late" (no answer in time), or "stopped" by a signal.
        how: the same in words that complete "the worker …".
    """

    kind: Literal["died", "late", "stopped"]
    how: str


@dataclass
class _Task:
    """What a worker is doing: a job, or, without one, starting."""

    job: Job | None
    deadline: float
    stopped_since: float | None = None


W = TypeVar("W", bound=WorkerProcess)
J = TypeVar("J", bound=Job)


class WorkerPool(Generic[W]):
    """Workers, each of which is replaced when it ends, hangs or is stopped.

    Args:
        name: what a worker is called in messages.
        count: number of workers.
        start: starts one.
        started: takes the header of each new worker's first answer; may raise.
    """

    def __init__(
        self, name: str, count: int, start: Callable[[], W], started: Callable[[Header], Any] = lambda _: None
    ) -> None:
        self._name, self._start, self._started = name, start, started
        self._tasks: dict[W, _Task] = {}  # of the workers that are not idle
        self._failed_starts = [0] * count  # in a row, in each place
        self._workers: list[W] = []
        for _ in range(count):
            self._workers.append(self._new())

    def __iter__(self) -> Iterator[W]:
        return iter(self._workers)

    def __getitem__(self, place: int) -> W:
        return self._workers[place]

    def run(self, next_job: Callable[[W], J | None], done: Callable[[W, J, Answer | Lost], Any]) -> None:
        """Have jobs done until there are no more.

        A job whose worker is lost is not retried, unless next_job returns it again. When an exception ends the run,
        the jobs in progress are abandoned.

        Args:
            next_job: returns a job for a worker that is ready, None if there is none for it until another is done.
            done: takes the worker, the job and its outcome. If the job is lost, the worker is no longer in the pool.

        Raises:
            RunError: workers do not start.
        """
        try:
            while True:
                ready = self._ready()
                for worker in ready:
                    if job := next_job(worker):
                        worker.send(job.header, job.arrays)
                        self._tasks[worker] = _Task(job, time.monotonic() + job.seconds)
                at_work = any(task.job for task in self._tasks.values())
                if ready and not at_work:
                    return
                self._wait()
                for worker, task in list(self._tasks.items()):
                    outcome = self._outcome(worker, task)
                    if outcome is not None and task.job is not None:
                        done(worker, task.job, outcome)  # type: ignore[arg-type]  # it came from next_job
        finally:
            for worker in [worker for worker, task in self._tasks.items() if task.job]:
                self.replace(worker)

    def replace(self, worker: W) -> None:
        """End a worker and start another in its place."""
        place = self._workers.index(worker)
        self._tasks.pop(worker, None)
        worker.kill()
        self._workers[place] = self._new()

    def close(self) -> None:
        """End all workers: idle ones exit when their parent hangs up, the others are killed soon after."""
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in self._workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                worker.kill()
        self._workers, self._tasks = [], {}

    def _new(self) -> W:
        try:
            worker = self._start()
        except OSError as error:  # the system has no process, memory or descriptor left
            raise RunError(f"a {self._name} cannot be started: {error.strerror}") from error
        self._tasks[worker] = _Task(None, time.monotonic() + _START_SECONDS)
        return worker

    def _ready(self) -> list[W]:
        """Return the idle workers, after replacing those that have ended, are stopped, or send unasked."""
        for worker in [worker for worker in self._workers if worker not in self._tasks]:
            try:
                well = worker.receive() is None and not worker.stopped
            except WorkerDied:
                well = False
            if not well:
                self.replace(worker)
        return [worker for worker in self._workers if worker not in self._tasks]

    def _wait(self) -> None:
        """Wait for news from the workers that are starting or at work, or until it is time to check on them."""
        began = time.monotonic()
        first = min(task.deadline for task in self._tasks.values())
        timeout = min(max(0.0, first - began), _LONGEST_WAIT)
        wait_any(self._tasks, timeout)
        overslept = time.monotonic() - began - timeout
        if overslept > 1.0:  # this process has been stopped itself, and probably the workers with it
            for task in self._tasks.values():
                task.deadline += overslept
                task.stopped_since = None

    def _outcome(self, worker: W, task: _Task) -> Answer | Lost | None:
        """Return how a worker's task has ended, if it has; replace a lost worker."""
        now = time.monotonic()
        task.stopped_since = (task.stopped_since or now) if worker.stopped else None
        try:
            message = worker.receive()
        except WorkerDied as death:
            return self._lost(worker, task, Lost("died", str(death)))
        if message:
            del self._tasks[worker]
            if task.job is None:
                self._failed_starts[self._workers.index(worker)] = 0
                self._started(message[0])
            return Answer(*message)
        if task.stopped_since and now - task.stopped_since > _STOPPED_SECONDS:
            return self._lost(worker, task, Lost("stopped", "was stopped by a signal"))
        if now > task.deadline:
            seconds = task.job.seconds if task.job else _START_SECONDS
            return self._lost(worker, task, Lost("late", f"did not answer within {seconds:.3g} s"))
        return None

    def _lost(self, worker: W, task: _Task, lost: Lost) -> Lost:
        if task.job is None:
            place = self._workers.index(worker)
            self._failed_starts[place] += 1
            if self._failed_starts[place] == _STARTS:
                raise RunError(
                    f"a {self._name} does not start: it {lost.how}, {_STARTS} times in a row; "
                    "what it printed, if anything, is above"
                )
        self.replace(worker)
        return lost
