"""From text to rewards: reward functions are checked here, and run in worker processes that can hurt nothing.

The training process never calls generated code. It reads text, looks at its syntax tree, and hands the source to
reward workers, which prove it on a few transitions, compile it, and evaluate it. What comes back is numbers.

``python reward_code.py check FILE --task TASK [--state STATE]`` does all of that with the code in a file.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import RunError, UsageError, nearest
from processes import Arrays, Header, SharedTable, WorkerDied, WorkerProcess, WorkerTimeout, wait_any
from reward_check import Rejected, check_source
from reward_text import extract

if TYPE_CHECKING:
    from task_specs import Input

__all__ = ["Evaluation", "Failure", "Rejected", "RewardWorkers", "Verdict", "check_source", "extract"]

Columns = Mapping[str, np.ndarray]

_SECONDS_A_ROW = 5e-3  # of a request's time limit; an interpreted function may take less than half of it
_COMPILE_SECONDS = 120.0  # on top, for a request that has to compile
_START_SECONDS = 120.0
_COMPILED_ROWS = 65536  # of one request
_INTERPRETED_ROWS = 4096
_NO_ROW = -1
_FEWEST_ROWS = 64  # for which it pays to ask one more worker
_SOURCES_OF_A_WORKER = 128  # then it makes room for a fresh one: machine code is never freed


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate.

    Attributes:
        accepted: whether it can be used.
        source: its cleaned code; what was found of it, if it is rejected.
        kind: why it is rejected, as a word to count by.
        reason: why it is rejected, in one line.
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
        state: every variable at that row by name, to reproduce the failure with; None if the row is not known.
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


@dataclass(frozen=True)
class _Job:
    """One request about one source."""

    source: str
    header: Header
    seconds: float
    columns: Columns = field(default_factory=dict)

    @property
    def needs_machine_code(self) -> bool:
        return self.header["do"] == "compile" or self.header.get("compiled", False)


@dataclass
class _Answer:
    header: Header
    arrays: Arrays


@dataclass(eq=False)
class _Seat:
    """A worker's place in the pool. `job` is the number of the job that it is doing, if it is doing one."""

    process: WorkerProcess
    progress: int  # file descriptor of the integer in which the worker says at which row it is
    deadline: float
    starting: bool = True
    job: int | None = None
    sources: set[str] = field(default_factory=set)  # all that it has seen
    compiled: set[str] = field(default_factory=set)  # those of which it has machine code


class RewardWorkers:
    """Processes that check and evaluate reward functions, each one function at a time.

    A worker that hangs or ends is replaced, and the function that it was busy with fails; nothing else does.

    Args:
        inputs: where each variable lies in a row (``Task.inputs``).
        count: number of processes.
        table: rows that they can read without being sent them.
        time_limit: seconds of wall-clock time for one request, beside 5 ms for each of its rows.
        memory_limit_mb: memory that a worker may take beyond what it has after its start, in MB.
        check: the check of the syntax tree; tests leave it out, to try the workers' own containment.

    Attributes:
        gap: what the machine cannot give the workers of their containment, in words; empty if all is there. Known
            after the first request.

    Raises:
        RunError: (from any request) when the processes do not start.
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
        self._compiled: dict[str, bool] = {}  # every source that has passed a check, and whether it is machine code
        self._home: dict[str, _Seat] = {}  # the worker that has compiled a source
        self.gap = ""
        self._seats = [self._new_seat() for _ in range(count)]

    def check(self, texts: Sequence[str], probe: Columns) -> list[Verdict]:
        """Find the code in each answer, check it, prove it on the `probe`, and compile it if that can be done.

        Args:
            texts: answers of a language model, or plain sources.
            probe: columns of at least one row.

        Returns:
            The verdicts, in the order of `texts`.
        """
        verdicts = []
        for text in texts:
            source = ""
            try:
                source = extract(text)
                source = self._check(source, self._inputs)
                verdicts.append(Verdict(True, source))
            except Rejected as rejected:
                verdicts.append(Verdict(False, source, rejected.kind, rejected.reason))
        proved = self._prove([verdict.source for verdict in verdicts if verdict.accepted], probe)
        return [proved[verdict.source] if verdict.accepted else verdict for verdict in verdicts]

    def evaluate_rows(self, sources: Sequence[str], start: int, stop: int) -> list[np.ndarray | Failure]:
        """The rewards of rows [start, stop) of the table.

        Returns:
            For each source an array (stop - start,) float32, or its failure, whose row counts as the table's do.
        """
        results = self._evaluate(sources, None, start, stop, components=False)
        return [result if isinstance(result, Failure) else result.rewards for result in results]

    def evaluate(
        self, sources: Sequence[str], columns: Columns, components: bool = False
    ) -> list[Evaluation | Failure]:
        """The rewards of the rows in `columns`, and the components that the functions name, if they are asked for.

        A source that :meth:`check` has not seen must pass the check of its syntax tree, and runs interpreted.
        """
        return self._evaluate(sources, columns, 0, _rows(columns), components)

    def close(self) -> None:
        """End the processes."""
        for seat in self._seats:
            seat.process.kill()
            os.close(seat.progress)
        self._seats = []

    def __enter__(self) -> "RewardWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is asked of the workers

    def _prove(self, sources: Sequence[str], probe: Columns) -> dict[str, Verdict]:
        sources = list(dict.fromkeys(sources))
        seconds = self._time_limit + _rows(probe) * _SECONDS_A_ROW
        proofs = self._run([_Job(source, {"do": "prove"}, seconds, probe) for source in sources])
        verdicts: dict[str, Verdict] = {}
        statistics: dict[str, Header] = {}
        for source, proof in zip(sources, proofs, strict=True):
            if isinstance(proof, Failure):
                where = "" if proof.row is None else f" (row {proof.row} of the probe)"
                verdicts[source] = Verdict(False, source, proof.kind, proof.reason + where)
            else:
                statistics[source] = proof.header
        answers = self._run([_Job(source, {"do": "compile"}, seconds, probe) for source in statistics])
        for (source, header), answer in zip(statistics.items(), answers, strict=True):
            note = answer.reason if isinstance(answer, Failure) else answer.header["note"]
            self._compiled[source] = not note
            verdicts[source] = Verdict(True, source, "", "", not note, note, header["mean"], header["std"])
        return verdicts

    def _evaluate(
        self, sources: Sequence[str], columns: Columns | None, start: int, stop: int, components: bool
    ) -> list[Evaluation | Failure]:
        results: dict[str, Evaluation | Failure] = {}
        for source in sources:
            if source not in self._compiled:
                try:
                    self._check(source, self._inputs)
                    self._compiled[source] = False
                except Rejected as rejected:
                    results[source] = Failure(rejected.kind, rejected.reason)
        while open_sources := list(dict.fromkeys(source for source in sources if source not in results)):
            jobs = [job for source in open_sources for job in self._blocks(source, columns, start, stop, components)]
            answers = self._run(jobs)
            for source in open_sources:
                mine = [(job, answer) for job, answer in zip(jobs, answers, strict=True) if job.source == source]
                failed = next((answer for _, answer in mine if isinstance(answer, Failure)), None)
                if failed is not None and failed.row is None and mine and mine[0][0].needs_machine_code:
                    # Machine code has hung or crashed. The interpreted function has the last word, and knows the row.
                    self._compiled[source] = False
                else:
                    results[source] = self._joined(mine, columns, start, stop)
        return [results[source] for source in sources]

    def _blocks(self, source: str, columns: Columns | None, start: int, stop: int, components: bool) -> list[_Job]:
        """The jobs that evaluate one source: machine code is at home in one worker, the rest is split over all."""
        compiled = self._compiled[source] and not components
        share = -(-(stop - start) // max(len(self._seats), 1))
        size = _COMPILED_ROWS if compiled else min(_INTERPRETED_ROWS, max(_FEWEST_ROWS, share))
        jobs = []
        for first in range(start, stop, size):
            last = min(first + size, stop)
            header = {"do": "evaluate", "compiled": compiled, "components": components, "start": first, "stop": last}
            seconds = self._time_limit + (last - first) * _SECONDS_A_ROW
            block = {} if columns is None else {name: column[first:last] for name, column in columns.items()}
            jobs.append(_Job(source, header, seconds, block))
        return jobs

    def _joined(
        self, answers: "Sequence[tuple[_Job, _Answer | Failure]]", columns: Columns | None, start: int, stop: int
    ) -> Evaluation | Failure:
        rewards = np.empty(stop - start, np.float32)
        components: dict[str, np.ndarray] = {}
        for job, answer in answers:
            first, last = job.header["start"], job.header["stop"]
            if isinstance(answer, Failure):
                if answer.row is None:
                    return answer
                row = first + answer.row
                rows = self._table.columns if columns is None and self._table else columns or {}
                return Failure(answer.kind, answer.reason, row, _state(self._inputs, rows, row))
            place = slice(first - start, last - start)
            rewards[place] = answer.arrays["rewards"]
            for name, values in zip(
                answer.header.get("components", []), answer.arrays.get("components", []), strict=True
            ):
                components.setdefault(name, np.zeros(stop - start, np.float32))[place] = values
        return Evaluation(rewards, components)

    # Who does it

    def _run(self, jobs: Sequence[_Job]) -> "list[_Answer | Failure]":
        """Have the workers do the jobs. After the first failure of a source its other jobs are not done."""
        answers: dict[int, _Answer | Failure] = {}
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
                busy = [seat for seat in self._seats if seat.starting or seat.job is not None]
                if not busy:
                    continue
                first_deadline = min(seat.deadline for seat in busy)
                ready = wait_any([seat.process for seat in busy], max(0.0, first_deadline - time.monotonic()))
                for seat in busy:
                    if seat.process not in ready and time.monotonic() < seat.deadline:
                        continue
                    if seat.starting:
                        self._welcome(seat)
                    elif seat.job is not None:
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
                if seat.job is not None:  # an interrupt came; what this worker will answer, nobody waits for
                    self._replace(seat)
        return [answers[number] for number in range(len(jobs))]

    def _next_job(self, seat: _Seat, jobs: Sequence[_Job], waiting: deque[int]) -> int | None:
        """Take the first job that waits for this worker, or for any."""
        for number in waiting:
            if not jobs[number].needs_machine_code or self._home.get(jobs[number].source, seat) is seat:
                waiting.remove(number)
                return number
        return None

    def _give(self, seat: _Seat, number: int, job: _Job) -> None:
        if job.needs_machine_code:
            self._home[job.source] = seat
        seconds = job.seconds
        if job.needs_machine_code and job.source not in seat.compiled:
            seconds += _COMPILE_SECONDS
        seat.job, seat.deadline = number, time.monotonic() + seconds
        seat.sources.add(job.source)
        os.pwrite(seat.progress, _NO_ROW.to_bytes(8, sys.byteorder, signed=True), 0)
        with contextlib.suppress(WorkerDied):  # the news comes when the answer is read
            seat.process.send({**job.header, "source": job.source, "seconds": seconds}, job.columns)

    def _take(self, seat: _Seat, job: _Job) -> "_Answer | Failure":
        try:
            answer = _Answer(*seat.process.receive(max(0.0, seat.deadline - time.monotonic())))
            _validate(answer, job)
        except (WorkerTimeout, WorkerDied, ValueError, TypeError, KeyError) as error:
            row = int.from_bytes(os.pread(seat.progress, 8, 0), sys.byteorder, signed=True)
            self._replace(seat)
            known_row = row if 0 <= row < job.header.get("stop", row + 1) - job.header.get("start", 0) else None
            if isinstance(error, WorkerTimeout) or "SIGPROF" in str(error):
                return Failure("timeout", f"it did not end within {job.seconds:.3g} s", known_row)
            what = str(error) if isinstance(error, WorkerDied) else "answered nonsense"
            return Failure("crash", f"the process that ran it {what}", known_row)
        seat.job = None
        kind, reason, row = answer.header.get("failed", ("", "", None))
        if job.needs_machine_code:
            seat.compiled.add(job.source)
        if kind == "tampering" or len(seat.sources) >= _SOURCES_OF_A_WORKER:
            self._replace(seat)
        if kind:
            return Failure(kind, " ".join(reason.split())[:300], row)
        return answer

    def _new_seat(self) -> _Seat:
        progress = _shared_integer()
        return _Seat(self._start(progress), progress, time.monotonic() + _START_SECONDS)

    def _start(self, progress: int) -> WorkerProcess:
        fds, table = [progress], None
        if self._table is not None:
            fds.append(self._table.fd)
            table = [self._table.fd, self._table.capacity, self._table.widths]
        process = WorkerProcess("reward_worker", environment=_environment(), fds=fds)
        inputs = {name: [place.column, place.start, place.stop, place.shape] for name, place in self._inputs.items()}
        limits = {"progress": progress, "memory_mb": self._memory_limit_mb}
        process.send({"do": "start", "inputs": inputs, "table": table, **limits})
        return process

    def _welcome(self, seat: _Seat) -> None:
        try:
            header, _ = seat.process.receive(max(0.0, seat.deadline - time.monotonic()))
        except (WorkerTimeout, WorkerDied) as error:
            raise RunError(f"a reward worker does not start: {error}; its own words stand above") from error
        self.gap = str(header["gap"])
        seat.starting = False

    def _replace(self, seat: _Seat) -> None:
        seat.process.kill()
        seat.process, seat.deadline = self._start(seat.progress), time.monotonic() + _START_SECONDS
        seat.starting, seat.job, seat.sources, seat.compiled = True, None, set(), set()
        self._home = {source: home for source, home in self._home.items() if home is not seat}


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _validate(answer: _Answer, job: _Job) -> None:
    """Raise ValueError, TypeError or KeyError for what is no answer: after hostile code a worker may say anything."""
    header, arrays = answer.header, answer.arrays
    if "failed" in header:
        kind, reason, row = header["failed"]
        if not (isinstance(kind, str) and isinstance(reason, str) and (row is None or type(row) is int)):
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
        if not all(isinstance(name, str) for name in names):
            raise ValueError("names")


def _state(inputs: "Mapping[str, Input]", columns: Columns, row: int) -> dict[str, Any]:
    """Every variable at one row: a number, or a list of numbers."""
    state = {}
    for name, place in inputs.items():
        values = columns[place.column][row, place.start : place.stop].tolist()
        state[name] = values if place.shape else values[0]
    return state


def _environment() -> dict[str, str]:
    """All of the environment variables that a reward worker gets: no keys, no paths but those that Python needs."""
    needed = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**needed, **dict.fromkeys(threads, "1"), "PYTHONHASHSEED": "0"}


def _shared_integer() -> int:
    """A descriptor of eight bytes that can be mapped by two processes."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("progress")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, 8)
    return fd


def _columns_of(task: Any, state: Any, columns: Columns) -> dict[str, np.ndarray]:
    """One row for `state`; what it does not name is as in the first row of `columns`."""
    if not isinstance(state, dict):
        raise UsageError("a state is a JSON object: the name of each variable with a number or a list of numbers")
    row = {name: column[:1].copy() for name, column in columns.items()}
    for name, value in state.items():
        place = task.inputs.get(name)
        if place is None:
            raise UsageError(f"the state names {name}, which is no variable of {task.name}{nearest(name, task.inputs)}")
        try:
            row[place.column][0, place.start : place.stop] = np.asarray(value, np.float32).reshape(place.shape).ravel()
        except (TypeError, ValueError):
            raise UsageError(f"in the state, {name} must have the shape {place.shape}") from None
    return row


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Check reward functions as a run does.")
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check", help="the whole check on one file: syntax tree, proof on a probe, compilation")
    check.add_argument("file", type=Path, help="Python code, or an answer of a language model that has some in it")
    check.add_argument("--task", required=True, help="the task whose variables the function reads")
    check.add_argument("--task_file", help="a file with tasks of your own")
    check.add_argument("--state", type=Path, help="JSON file with a state to try: what a failure has left in a run")
    options = parser.parse_args()
    try:
        return _check_file(options.file, options.task, options.task_file, options.state)
    except (UsageError, RunError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _check_file(file: Path, task_name: str, task_file: str | None, state_file: Path | None) -> int:
    from environments import record_probe  # the simulator is needed for this command alone
    from task_specs import get_task

    task = get_task(task_name, task_file)
    text = file.read_text(encoding="utf-8", errors="replace")
    probe = record_probe(task, seed=0)
    row = None
    if state_file is not None:
        try:
            row = _columns_of(task, json.loads(state_file.read_text()), probe)
        except ValueError as error:
            raise UsageError(f"{state_file} is not JSON: {error}") from None
    with RewardWorkers(task.inputs) as workers:
        verdict = workers.check([text], probe)[0]
        if workers.gap:
            print(f"note: on this machine {workers.gap}")
        if not verdict.accepted:
            print(f"rejected ({verdict.kind}): {verdict.reason}")
            return 1
        form = "runs as machine code" if verdict.compiled else f"runs interpreted: {verdict.note}"
        print(f"accepted; {form}")
        print(f"reward on the {_rows(probe)} rows of the probe: {verdict.probe_mean:g} ± {verdict.probe_std:g}")
        if row is not None:
            result = workers.evaluate([verdict.source], row, components=True)[0]
            if isinstance(result, Failure):
                print(f"in the state of {state_file}: fails ({result.kind}): {result.reason}")
                return 1
            parts = "".join(f", {name} {values[0]:g}" for name, values in result.components.items())
            print(f"in the state of {state_file}: reward {result.rewards[0]:g}{parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
