"""The worker processes that run reward functions: who does what, for how long, and what if one does not come back."""

import contextlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import RunError
from reward_code.check import one_line
from reward_code.names import MOST_COMPONENTS
from workers.process import Arrays, Header, WorkerDied, WorkerProcess, WorkerTimeout, wait_any
from workers.shared_table import SharedTable

if TYPE_CHECKING:
    from tasks.task import Input

_START_SECONDS = 120.0
_COMPILE_SECONDS = 120.0  # on top of a job's own time, where a worker has to compile first
_SOURCES_OF_A_WORKER = 64  # then it makes room for a fresh one: a compiled function keeps about 4 MB for good
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
    """One request about one source: what the worker gets as `header`, its rows if they are not in the table, its time.

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


@dataclass(frozen=True)
class Answer:
    """What a worker said to a job; of the form that the job asked for."""

    header: Header
    arrays: Arrays


@dataclass(eq=False)
class _Seat:
    """A worker's place, and what it is doing there: starting, the job with that number, or nothing."""

    process: WorkerProcess
    progress: int  # descriptor of the integer in which the worker says at which row it is
    deadline: float
    starting: bool = True
    job: int | None = None
    sources: set[str] = field(default_factory=set)  # all that it has seen
    compiled: set[str] = field(default_factory=set)  # those of which it has machine code


class RewardPool:
    """`count` reward workers. A worker that hangs or ends is replaced, and the job that it was busy with fails.

    Args:
        inputs: where each variable lies in a row.
        count: number of processes.
        table: rows that they can read without being sent them.
        memory_limit_mb: memory that each may take beyond what it has after its start.

    Attributes:
        gap: what the machine cannot give them of their containment; known once a job is done.
    """

    def __init__(
        self, inputs: "Mapping[str, Input]", count: int, table: SharedTable | None, memory_limit_mb: int
    ) -> None:
        self._inputs = {name: [x.column, x.start, x.stop, x.shape] for name, x in inputs.items()}
        self._table = table
        self._memory_limit_mb = memory_limit_mb
        self._home: dict[str, _Seat] = {}  # the worker that has compiled a source, or is about to
        self.gap = ""
        self._seats = [self._new_seat() for _ in range(count)]

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [seat.process.pid for seat in self._seats]

    def run(self, jobs: Sequence[Job]) -> list[Answer | Failure]:
        """Have the jobs done, in any order; their answers are in the order of `jobs`.

        After the first failure of a source its other jobs are not done. Raises RunError if no worker starts.
        """
        answers: dict[int, Answer | Failure] = {}
        waiting = deque(range(len(jobs)))
        asked_twice: set[int] = set()
        failed: dict[str, Failure] = {}
        try:
            while len(answers) < len(jobs):
                for seat in self._seats:
                    while not seat.starting and seat.job is None:
                        number = self._next_job(seat, jobs, waiting)
                        if number is None:
                            break
                        if jobs[number].source in failed:
                            answers[number] = failed[jobs[number].source]
                        else:
                            self._give(seat, number, jobs[number])
                for seat in self._news():
                    if seat.job is None:
                        self._welcome(seat)
                        continue
                    number = seat.job
                    answer = self._take(seat, jobs[number])
                    if isinstance(answer, Failure):
                        if answer.kind == "crash" and answer.row is None and number not in asked_twice:
                            asked_twice.add(number)  # the worker may have been killed while it was idle
                            waiting.appendleft(number)
                            continue
                        failed[jobs[number].source] = answer
                    answers[number] = answer
        finally:
            for seat in self._seats:
                if seat.job is not None:  # an interrupt came: nobody waits for what this worker will answer
                    self._replace(seat)
        return [answers[number] for number in range(len(jobs))]

    def close(self) -> None:
        """End the processes."""
        for seat in self._seats:
            seat.process.kill()
            os.close(seat.progress)
        self._seats = []

    # Jobs

    def _next_job(self, seat: _Seat, jobs: Sequence[Job], waiting: deque[int]) -> int | None:
        """Take out the first job that waits for this worker, or for any."""
        for number in waiting:
            if not jobs[number].compiled or self._home.get(jobs[number].source, seat) is seat:
                waiting.remove(number)
                return number
        return None

    def _give(self, seat: _Seat, number: int, job: Job) -> None:
        seconds = job.seconds
        if job.compiled:
            self._home[job.source] = seat
            seconds += 0.0 if job.source in seat.compiled else _COMPILE_SECONDS
        seat.job, seat.deadline = number, time.monotonic() + seconds
        seat.sources.add(job.source)
        os.pwrite(seat.progress, _NO_ROW.to_bytes(8, sys.byteorder, signed=True), 0)
        with contextlib.suppress(WorkerDied):  # the news comes when the answer is read
            seat.process.send({**job.header, "source": job.source, "seconds": seconds}, job.columns)

    def _news(self) -> list[_Seat]:
        """Wait for messages; the seats from which one can be read, or should have come by now."""
        busy = [seat for seat in self._seats if seat.starting or seat.job is not None]
        if not busy:
            return []
        first_deadline = min(seat.deadline for seat in busy)
        ready = wait_any([seat.process for seat in busy], max(0.0, first_deadline - time.monotonic()))
        return [seat for seat in busy if seat.process in ready or time.monotonic() >= seat.deadline]

    def _take(self, seat: _Seat, job: Job) -> Answer | Failure:
        try:
            answer = Answer(*seat.process.receive(max(0.0, seat.deadline - time.monotonic())))
            _validate(answer, job)
        except Exception as error:  # whatever a worker says is to be survived
            row = int.from_bytes(os.pread(seat.progress, 8, 0), sys.byteorder, signed=True)
            self._replace(seat)
            known_row = row if 0 <= row < job.header.get("stop", row + 1) - job.header.get("start", 0) else None
            if isinstance(error, WorkerTimeout) or "SIGPROF" in str(error):
                return Failure("timeout", f"it did not end within {job.seconds:.3g} s", known_row)
            what = str(error) if isinstance(error, WorkerDied) else "answered nonsense"
            return Failure("crash", f"the process that ran it {what}", known_row)
        seat.job = None
        if job.compiled:
            seat.compiled.add(job.source)
        kind, reason, row = answer.header.get("failed", ("", "", None))
        if kind == "tampering" or len(seat.sources) >= _SOURCES_OF_A_WORKER:
            self._replace(seat)
        return Failure(kind, one_line(reason), row) if kind else answer

    # Processes

    def _new_seat(self) -> _Seat:
        progress = _shared_integer()
        return _Seat(self._start(progress), progress, time.monotonic() + _START_SECONDS)

    def _start(self, progress: int) -> WorkerProcess:
        fds, table = [progress], None
        if self._table is not None:
            fds.append(self._table.fd)
            table = [self._table.fd, self._table.capacity, self._table.widths]
        process = WorkerProcess("reward_code.worker", environment=_environment(), fds=fds)
        limits = {"progress": progress, "memory_mb": self._memory_limit_mb}
        with contextlib.suppress(WorkerDied):  # the news comes with the welcome
            process.send({"do": "start", "inputs": self._inputs, "table": table, **limits})
        return process

    def _welcome(self, seat: _Seat) -> None:
        try:
            header, _ = seat.process.receive(max(0.0, seat.deadline - time.monotonic()))
        except (WorkerTimeout, WorkerDied) as error:
            raise RunError(f"a reward worker does not start: it {error}; its own words stand above") from error
        self.gap = str(header["gap"])
        seat.starting = False

    def _replace(self, seat: _Seat) -> None:
        seat.process.kill()
        seat.process, seat.deadline = self._start(seat.progress), time.monotonic() + _START_SECONDS
        seat.starting, seat.job, seat.sources, seat.compiled = True, None, set(), set()
        self._home = {source: home for source, home in self._home.items() if home is not seat}


def _validate(answer: Answer, job: Job) -> None:
    """Raise ValueError, or what comes of it, for what is no answer: after hostile code a worker may say anything."""
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
        if len(names) > MOST_COMPONENTS or not all(isinstance(name, str) and name == one_line(name) for name in names):
            raise ValueError("names")


def _environment() -> dict[str, str]:
    """All of the environment variables that a reward worker gets: no keys, no paths but those that Python needs."""
    needed = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    # For vectors of three, level 1 gives machine code that is a third faster than that of level 3, and gives it sooner.
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
