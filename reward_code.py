"""From text to rewards: reward functions are checked here, and run in worker processes that can hurt nothing.

The training process never calls generated code. It reads text, looks at its syntax tree, and hands the source to
reward workers, which prove it on a few transitions, compile it, and evaluate it. What comes back is numbers.
"""

import contextlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import RunError
from processes import Arrays, Header, SharedTable, WorkerDied, WorkerProcess, WorkerTimeout, wait_any
from reward_check import Rejected, check_source
from reward_text import extract

if TYPE_CHECKING:
    from task_specs import Input

__all__ = ["Evaluation", "Failure", "Rejected", "RewardWorkers", "Verdict", "check_source", "extract"]

Columns = Mapping[str, np.ndarray]

_SECONDS_A_ROW = 2e-3  # what an interpreted function may take; a slower one fails its proof
_START_SECONDS = 120.0
_COMPILE_SECONDS = 60.0
_COMPILED_BLOCK = 65536  # rows of one request
_INTERPRETED_BLOCK = 4096
_SMALLEST_BLOCK = 64


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate.

    Attributes:
        accepted: whether it can be used.
        source: its cleaned code; empty if none was found.
        kind: why not, as a word to count by; empty when accepted.
        reason: why not, in one line.
        compiled: whether it runs as machine code.
        note: why it does not, in one line.
        probe_mean: mean reward on the probe.
        probe_std: standard deviation of the reward on the probe.
    """

    accepted: bool
    source: str
    kind: str = ""
    reason: str = ""
    compiled: bool = False
    note: str = ""
    probe_mean: float = 0.0
    probe_std: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A reward function that gave no reward for some row.

    Attributes:
        kind: a word to count by.
        reason: one line.
        row: the row at which it happened, counted as the caller counts rows; None if not known.
        state: the function's possible inputs at that row, by name, to reproduce the failure; None if not known.
    """

    kind: str
    reason: str
    row: int | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Rewards (n,) float32, and the function's own named components, each (n,) float32."""

    rewards: np.ndarray
    components: dict[str, np.ndarray]


@dataclass
class _Job:
    """One request about one source."""

    source: str
    header: Header
    columns: Columns = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _Seat:
    """A worker's place in the pool, and what it is doing there: starting, a job, or nothing."""

    process: WorkerProcess
    progress: int
    starting: bool = True
    job: int | None = None
    deadline: float = 0.0


Answer = tuple[Header, Arrays]


class RewardWorkers:
    """Processes that check and evaluate reward functions.

    Args:
        inputs: where each variable lies in a row (``Task.inputs``).
        count: number of processes.
        table: rows that they can read without being sent them.
        time_limit: seconds of wall-clock time for one request, besides 2 ms for each of its rows.
        memory_limit_mb: memory that a worker may take beyond what it needs itself, in MB.
        check: the check of the syntax tree; tests replace it to try the workers' own containment.

    Raises:
        RunError: when the processes do not start.
    """

    def __init__(
        self,
        inputs: "Mapping[str, Input]",
        count: int = 1,
        table: SharedTable | None = None,
        time_limit: float = 20.0,
        memory_limit_mb: int = 1024,
        check: "Callable[[str, Mapping[str, Input]], str]" = check_source,
    ) -> None:
        self._inputs = dict(inputs)
        self._table = table
        self._time_limit = time_limit
        self._memory_limit_mb = memory_limit_mb
        self._check = check
        self._compiled: dict[str, bool] = {}  # every checked source, and whether it runs as machine code
        self._home: dict[str, _Seat] = {}  # the worker that has compiled a source
        self._seats = [self._start(_progress_cell()) for _ in range(count)]
        self.gap = ""

    def check(self, texts: Sequence[str], probe: Columns) -> list[Verdict]:
        """Find the code in each answer, check it, prove it on the `probe`, and compile it if that can be done."""
        verdicts = []
        for text in texts:
            source = ""
            try:
                source = extract(text)
                source = self._check(source, self._inputs)
                verdicts.append(Verdict(True, source))
            except Rejected as rejected:
                verdicts.append(Verdict(False, source, rejected.kind, rejected.reason))
        return self._prove(verdicts, probe)

    def _prove(self, verdicts: list[Verdict], probe: Columns) -> list[Verdict]:
        rows = len(probe["next_obs"])
        seconds = self._time_limit + rows * _SECONDS_A_ROW
        sources = list(dict.fromkeys(verdict.source for verdict in verdicts if verdict.accepted))
        jobs = [_Job(source, {"do": "prove"}, probe, seconds) for source in sources]
        proofs = dict(zip(sources, self._run(jobs), strict=True))
        proved = [source for source in sources if not isinstance(proofs[source], Failure)]
        jobs = [_Job(source, {"do": "compile"}, probe, seconds + _COMPILE_SECONDS) for source in proved]
        notes: dict[str, str] = {}
        for source, answer in zip(proved, self._run(jobs), strict=True):
            notes[source] = answer.reason if isinstance(answer, Failure) else str(answer[0]["note"])
            self._compiled[source] = not notes[source]
        results = []
        for verdict in verdicts:
            proof = proofs.get(verdict.source) if verdict.accepted else None
            if isinstance(proof, Failure):
                row = "" if proof.row is None else f" (row {proof.row} of the probe)"
                verdict = Verdict(False, verdict.source, proof.kind, proof.reason + row)
            elif proof is not None:
                header, note = proof[0], notes[verdict.source]
                verdict = Verdict(True, verdict.source, "", "", not note, note, header["mean"], header["std"])
            results.append(verdict)
        return results

    def evaluate_rows(self, sources: Sequence[str], start: int, stop: int) -> list[np.ndarray | Failure]:
        """The rewards of rows [start, stop) of the table: for each source (stop - start,) float32, or its failure."""
        return [
            result if isinstance(result, Failure) else result.rewards
            for result in self._evaluate(sources, None, start, stop, components=False)
        ]

    def evaluate(
        self, sources: Sequence[str], columns: Columns, components: bool = False
    ) -> list[Evaluation | Failure]:
        """The rewards of the rows in `columns`, and if asked for, the components that the functions name."""
        return self._evaluate(sources, columns, 0, len(columns["next_obs"]), components)

    def close(self) -> None:
        """End the processes."""
        for seat in self._seats:
            if seat.job is None:
                seat.process.close()
            else:
                seat.process.kill()
            os.close(seat.progress)
        self._seats = []

    def __enter__(self) -> "RewardWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _evaluate(
        self, sources: Sequence[str], columns: Columns | None, start: int, stop: int, components: bool
    ) -> list[Evaluation | Failure]:
        distinct = list(dict.fromkeys(sources))
        jobs = []
        for source in distinct:
            compiled = self._compiled.get(source, False) and not components
            count = stop - start
            if compiled:
                size = _COMPILED_BLOCK
            else:
                size = min(_INTERPRETED_BLOCK, max(_SMALLEST_BLOCK, -(-count // len(self._seats))))
            for first in range(start, stop, size):
                last = min(first + size, stop)
                header = {
                    "do": "evaluate",
                    "compiled": compiled,
                    "components": components,
                    "start": first,
                    "stop": last,
                }
                block = {} if columns is None else {name: column[first:last] for name, column in columns.items()}
                seconds = self._time_limit + (last - first) * _SECONDS_A_ROW + _COMPILE_SECONDS * compiled
                jobs.append(_Job(source, header, block, seconds))
        answers = self._run(jobs)
        results: dict[str, Evaluation | Failure] = {}
        for source in distinct:
            mine = [(job, answer) for job, answer in zip(jobs, answers, strict=True) if job.source == source]
            results[source] = self._join(mine, columns, start, stop)
        return [results[source] for source in sources]

    def _join(
        self, answers: list[tuple[_Job, Answer | Failure]], columns: Columns | None, start: int, stop: int
    ) -> Evaluation | Failure:
        rewards = np.empty(stop - start, np.float32)
        components: dict[str, np.ndarray] = {}
        for job, answer in answers:
            first, last = job.header["start"], job.header["stop"]
            if isinstance(answer, Failure):
                if answer.row is None:
                    return answer
                row = first + answer.row
                where = columns if columns is not None else self._table.columns  # type: ignore[union-attr]
                return Failure(answer.kind, answer.reason, row, self._state(where, row))
            header, arrays = answer
            rewards[first - start : last - start] = arrays["rewards"]
            for index, name in enumerate(header.get("components", [])):
                values = components.setdefault(name, np.zeros(stop - start, np.float32))
                values[first - start : last - start] = arrays["components"][index]
        return Evaluation(rewards, components)

    def _state(self, columns: Columns, row: int) -> dict[str, Any]:
        state = {}
        for name, place in self._inputs.items():
            values = columns[place.column][row, place.start : place.stop].tolist()
            state[name] = values if place.shape else values[0]
        return state

    def _start(self, progress: int) -> _Seat:
        fds = [progress] if self._table is None else [progress, self._table.fd]
        process = WorkerProcess("reward_worker", environment=_environment(), fds=fds)
        table = None if self._table is None else [self._table.fd, self._table.capacity, self._table.widths]
        inputs = {name: [x.column, x.start, x.stop, list(x.shape)] for name, x in self._inputs.items()}
        process.send(
            {"do": "start", "inputs": inputs, "table": table, "progress": progress, "memory_mb": self._memory_limit_mb}
        )
        return _Seat(process, progress, deadline=time.monotonic() + _START_SECONDS)

    def _replace(self, seat: _Seat) -> None:
        seat.process.kill()
        fresh = self._start(seat.progress)
        seat.process, seat.starting, seat.job, seat.deadline = fresh.process, True, None, fresh.deadline
        self._home = {source: home for source, home in self._home.items() if home is not seat}

    def _run(self, jobs: list[_Job]) -> list[Answer | Failure]:
        """Have the workers do the jobs. After a source's first failure its other jobs are not done."""
        answers: dict[int, Answer | Failure] = {}
        waiting = deque(range(len(jobs)))
        failed: dict[str, Failure] = {}
        try:
            while len(answers) < len(jobs):
                for seat in self._seats:
                    if not seat.starting and seat.job is None:
                        self._give(seat, jobs, waiting, failed, answers)
                busy = [seat for seat in self._seats if seat.starting or seat.job is not None]
                if len(answers) == len(jobs):
                    break
                timeout = max(0.0, min(seat.deadline for seat in busy) - time.monotonic())
                ready = wait_any([seat.process for seat in busy], timeout)
                for seat in busy:
                    if seat.process in ready or time.monotonic() >= seat.deadline:
                        job = seat.job
                        answer = self._take(seat)
                        if job is not None and answer is not None:
                            answers[job] = answer
                            if isinstance(answer, Failure):
                                failed[jobs[job].source] = answer
        finally:
            for seat in self._seats:
                if seat.job is not None:
                    self._replace(seat)
        return [answers[index] for index in range(len(jobs))]

    def _give(
        self,
        seat: _Seat,
        jobs: list[_Job],
        waiting: deque[int],
        failed: dict[str, Failure],
        answers: dict[int, Answer | Failure],
    ) -> None:
        for _ in range(len(waiting)):
            index = waiting.popleft()
            job = jobs[index]
            if job.source in failed:
                answers[index] = failed[job.source]
                continue
            if self._home.get(job.source, seat) is not seat:
                waiting.append(index)
                continue
            if job.header["do"] == "compile" or job.header.get("compiled"):
                self._home[job.source] = seat
            seat.job, seat.deadline = index, time.monotonic() + job.seconds
            with contextlib.suppress(WorkerDied):  # the news comes when the answer is read
                seat.process.send({**job.header, "source": job.source}, job.columns)
            return

    def _take(self, seat: _Seat) -> Answer | Failure | None:
        try:
            header, arrays = seat.process.receive(max(0.0, seat.deadline - time.monotonic()))
        except (WorkerTimeout, WorkerDied) as error:
            if seat.starting:
                raise RunError(f"a reward worker does not start: it {error}") from error
            row = int.from_bytes(os.pread(seat.progress, 8, 0), "little")
            self._replace(seat)
            kind = "timeout" if isinstance(error, WorkerTimeout) else "crash"
            return Failure(kind, f"the worker {error}", row)
        if seat.starting:
            seat.starting = False
            self.gap = header["gap"]
            return None
        seat.job = None
        if "failed" in header:
            return Failure(*header["failed"])
        return header, arrays


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**kept, **dict.fromkeys(threads, "1"), "PYTHONHASHSEED": "0"}


def _progress_cell() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("progress")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, 8)
    return fd
