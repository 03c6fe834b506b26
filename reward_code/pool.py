"""The worker processes that run reward functions: which one does what, for how long, and what if one is lost."""

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_code.names import MOST_COMPONENTS
from reward_code.syntax import printable_line
from workers import pool
from workers.pool import Answer, Lost, WorkerPool
from workers.process import Header, WorkerProcess
from workers.shared_table import SharedTable

if TYPE_CHECKING:
    from tasks.task import Input

_COMPILE_SECONDS = 120.0  # on top of a job's own time, if a worker has to compile first
_SOURCES_OF_A_WORKER = 64  # then it is replaced: a compiled function keeps about 4 MB for good
_NO_ROW = -1


@dataclass(frozen=True)
class Failure:
    """A reward function that gave no reward.

    Attributes:
        kind: a word to count by.
        reason: one line.
        row: the row at which it happened, counted as the caller counts rows; None if not known.
        state: every variable at that row by name, to reproduce the failure with; None if the row is not known.
    """

    kind: str
    reason: str
    row: int | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """One request about one source: the `header` for the worker, rows that are not in the table, and the time limit.

    `header["do"]` is "prove", "compile" or "evaluate". An evaluation names the rows [start, stop), whether the function
    is compiled, and whether its components are wanted.
    """

    source: str
    header: Header
    seconds: float
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def compiled(self) -> bool:
        """Whether a worker needs machine code for it."""
        return self.header["do"] == "compile" or bool(self.header.get("compiled"))


class _RewardWorker(WorkerProcess):
    """A process, what it has seen, and the shared integer in which it reports its current row."""

    def __init__(self, start: Header, table: SharedTable | None) -> None:
        self.sources: dict[str, bool] = {}  # that it has seen, and whether it has machine code for each
        fd = _shared_integer()
        try:
            self._progress = np.frombuffer(mmap.mmap(fd, 8), np.int64)
            first = {**start, "do": "start", "progress": fd, "table": None}
            fds = [fd]
            if table is not None:
                first["table"] = table.address
                fds.append(table.fd)
            super().__init__("reward_code.worker", first, fds=fds, environment=_environment())
        finally:
            os.close(fd)

    def prepare(self, job: Job) -> pool.Job:
        """Return the message that gives this worker a job, with its time limit."""
        compiles = job.compiled and not self.sources.get(job.source)
        self.sources[job.source] = job.compiled or self.sources.get(job.source, False)
        self._progress[0] = _NO_ROW
        seconds = job.seconds + (_COMPILE_SECONDS if compiles else 0.0)
        return pool.Job({**job.header, "source": job.source, "seconds": seconds}, seconds, job.columns)

    def row(self, job: Job) -> int | None:
        """The row of its job at which the worker is, or was when it exited; None if it had not reached any."""
        row = int(self._progress[0])
        return row if 0 <= row < job.header.get("stop", row + 1) - job.header.get("start", 0) else None


class RewardPool:
    """`count` reward workers. A worker that hangs or exits is replaced, and the job that it was busy with fails.

    Args:
        inputs: where each variable lies in a row.
        count: number of processes.
        table: rows in shared memory, which need not be sent to them.
        memory_limit_mb: memory that each may take beyond what it has after its start.

    Attributes:
        missing_containment: the parts of their containment that the machine lacks; known once a job is done.
    """

    def __init__(
        self, inputs: "Mapping[str, Input]", count: int, table: SharedTable | None, memory_limit_mb: int
    ) -> None:
        places = {name: [x.column, x.start, x.stop, x.shape] for name, x in inputs.items()}
        first = {"inputs": places, "memory_mb": memory_limit_mb}
        self.missing_containment = ""
        self._workers = WorkerPool(
            "reward worker", count, lambda: _RewardWorker(first, table), self._note_missing_containment
        )

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def run(self, jobs: Sequence[Job]) -> list[Answer | Failure]:
        """Have the jobs done, in any order; their answers are in the order of `jobs`.

        After the first failure of a source its other jobs are not done. Raises RunError if no worker starts.
        """
        answers: dict[int, Answer | Failure] = {}
        waiting = deque(range(len(jobs)))
        at_work: dict[_RewardWorker, int] = {}
        given_again: set[int] = set()
        failed: dict[str, Failure] = {}

        def next_job(worker: _RewardWorker) -> pool.Job | None:
            # Machine code stays where it is: with the worker that has compiled a source, or is about to.
            elsewhere = {source for other in self._workers if other is not worker for source in _compiled(other)}
            for number in list(waiting):
                job = jobs[number]
                if job.source in failed:
                    waiting.remove(number)
                    answers[number] = failed[job.source]
                elif not (job.compiled and job.source in elsewhere):
                    waiting.remove(number)
                    at_work[worker] = number
                    return worker.prepare(job)
            return None

        def done(worker: _RewardWorker, _: pool.Job, outcome: Answer | Lost) -> None:
            number = at_work.pop(worker)
            job = jobs[number]
            if isinstance(outcome, Lost) and number not in given_again and _is_innocent(outcome, worker.row(job)):
                given_again.add(number)
                waiting.appendleft(number)
                return
            answers[number] = answer = self._judge(worker, job, outcome)
            if isinstance(answer, Failure):
                failed[job.source] = answer

        if jobs:
            self._workers.run(next_job, done)
        return [answers[number] for number in range(len(jobs))]

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def _judge(self, worker: _RewardWorker, job: Job, outcome: Answer | Lost) -> Answer | Failure:
        """Return the answer if it is valid, else how the function failed; replace a worker that cannot be kept."""
        if isinstance(outcome, Lost):
            if outcome.kind == "late" or "SIGPROF" in outcome.how:
                return Failure("timeout", f"it did not end within {job.seconds:.3g} s", worker.row(job))
            return Failure("crash", f"the process that ran it {outcome.how}", worker.row(job))
        try:
            _validate(outcome, job)
        except Exception:  # after hostile code a worker may say anything
            self._workers.replace(worker)
            return Failure("crash", "the process that ran it answered nonsense", worker.row(job))
        kind, reason, row = outcome.header.get("failed", ("", "", None))
        if kind == "tampering" or len(worker.sources) >= _SOURCES_OF_A_WORKER:
            self._workers.replace(worker)
        return Failure(kind, printable_line(reason), row) if kind else outcome

    def _note_missing_containment(self, header: Header) -> None:
        self.missing_containment = str(header["missing_containment"])


def _compiled(worker: _RewardWorker) -> list[str]:
    return [source for source, compiled in worker.sources.items() if compiled]


def _is_innocent(lost: Lost, row: int | None) -> bool:
    """Whether a job may have been lost through no fault of its function: its worker had not begun, or was stopped."""
    return lost.kind == "stopped" or (lost.kind == "died" and row is None and "SIGPROF" not in lost.how)


def _validate(answer: Answer, job: Job) -> None:
    """Raise ValueError, or whatever its form leads to, for something that is not an answer to the job."""
    header, arrays = answer.header, answer.arrays
    if "failed" in header:
        kind, reason, row = header["failed"]
        if not (kind and isinstance(kind, str) and isinstance(reason, str) and (row is None or type(row) is int)):
            raise ValueError("failed")
    elif job.header["do"] == "prove":
        if not np.isfinite([header["mean"], header["std"]]).all():
            raise ValueError("statistics")
    elif job.header["do"] == "compile":
        if not isinstance(header["note"], str):
            raise ValueError("note")
    else:
        names = header.get("components", [])
        count = job.header["stop"] - job.header["start"]
        expected = {"rewards": (count,)} | ({"components": (len(names), count)} if job.header["components"] else {})
        if {name: array.shape for name, array in arrays.items()} != expected:
            raise ValueError("shapes")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("values")
        if len(names) > MOST_COMPONENTS:
            raise ValueError("components")
        if not all(isinstance(name, str) and name == printable_line(name) for name in names):
            raise ValueError("names")


def _environment() -> dict[str, str]:
    """All the environment variables that a reward worker gets: no keys, and only the paths that Python needs."""
    needed = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    # For vectors of three, level 1 gives machine code that is a third faster than that of level 3, and compiles sooner.
    return {**needed, **dict.fromkeys(threads, "1"), "NUMBA_OPT": "1", "PYTHONHASHSEED": "0"}


def _shared_integer() -> int:
    """A descriptor of eight bytes that two processes can map."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("progress")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, 8)
    return fd
