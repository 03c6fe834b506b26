"""From text to rewards: reward functions are checked here, and run in sandboxed worker processes.

The training process never calls generated code. It reads text, inspects its syntax tree, and hands the source to
reward workers, which prove it on a few transitions, compile it, and evaluate it. What comes back is numbers.

``python -m reward_code check FILE --task TASK [--state STATE]`` does all of that with the code in a file.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_code.answers import extract
from reward_code.check import check_code
from reward_code.pool import Answer, Failure, Job, RewardPool
from reward_code.syntax import Code, Rejected, parse
from workers.shared_table import SharedTable

if TYPE_CHECKING:
    from tasks.task import Input


Columns = Mapping[str, np.ndarray]

_SECONDS_A_ROW = 5e-3  # of a request's time limit; an interpreted function may take less than half of it
_COMPILED_ROWS = 65536  # of one request
_INTERPRETED_ROWS = 4096
_FEWEST_ROWS = 64  # for which another worker is worth asking


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate.

    Attributes:
        accepted: whether it can be used.
        source: its code, as it was written; if it is rejected, as much as was found of it.
        kind: why it is rejected, as a word to count by. From the check of its syntax tree "no-code", "syntax",
            "import", "name", "attribute", "construct", "signature" and "recursion", from the proof "type",
            "not-finite", "nondeterministic", "error", "timeout", "memory", "crash" and "tampering", from either
            "mutation".
        reason: why it is rejected, in one line.
        compiled: whether it runs as machine code.
        note: why it does not, in one line.
        probe_mean: mean reward on the probe.
        probe_std: standard deviation of the reward on the probe.
        unwrapped: what was stripped from the code and from its reward, one phrase for each.
    """

    accepted: bool
    source: str
    kind: str = ""
    reason: str = ""
    compiled: bool = False
    note: str = ""
    probe_mean: float = 0.0
    probe_std: float = 0.0
    unwrapped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Rewards (n,) float32, and the function's own named components, each (n,) float32."""

    rewards: np.ndarray
    components: dict[str, np.ndarray]


class RewardWorkers:
    """Processes that check and evaluate reward functions, each one function at a time.

    A worker that hangs or exits is replaced, and only the function that it was busy with fails.

    Args:
        inputs: where each variable lies in a row (``Task.inputs``).
        count: number of processes.
        table: rows in shared memory, which need not be sent to them.
        time_limit: seconds of wall-clock time for one request, plus 5 ms for each of its rows.
        memory_limit_mb: memory that a worker may take beyond what it has after its start, in MB.
        check: the check of the syntax tree; tests leave it out, to try the workers' own containment.

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
        check: "Callable[[Code, Mapping[str, Input]], Code]" = check_code,
    ) -> None:
        self._inputs = dict(inputs)
        self._table = table
        self._time_limit = time_limit
        self._check = check
        self._forms: dict[str, str] = {}  # every source that has passed the check, and its form that runs
        self._compiled: dict[str, bool] = {}  # every form that has been proved, and whether it is machine code
        self._workers = max(count, 1)
        self._pool = RewardPool(inputs, self._workers, table, memory_limit_mb)

    @property
    def missing_containment(self) -> str:
        """The parts of the workers' containment that the machine lacks; known after the first request."""
        return self._pool.missing_containment

    def check(self, texts: Sequence[str], probe: Columns, known: Collection[str] = ()) -> list[Verdict]:
        """Find the code in each answer, check it, prove it on the `probe`, and compile it if that can be done.

        Args:
            texts: answers of a language model, or plain sources.
            probe: columns of at least one row.
            known: the :func:`~reward_code.normal_form.canonical` forms of functions that an answer may repeat besides
                the one that counts.

        Returns:
            The verdicts, in the order of `texts`.
        """
        verdicts = []
        for text in texts:
            source, unwrapped = "", tuple[str, ...]()
            try:
                code = extract(text, known)
                source, unwrapped = code.source, code.unwrapped
                verdicts.append(Verdict(True, source, unwrapped=self._checked(code).unwrapped))
            except Rejected as rejected:
                verdicts.append(Verdict(False, source, rejected.kind, rejected.reason, unwrapped=unwrapped))
        proofs = self._prove([self._forms[verdict.source] for verdict in verdicts if verdict.accepted], probe)
        return [
            _joined_verdict(verdict, proofs[self._forms[verdict.source]]) if verdict.accepted else verdict
            for verdict in verdicts
        ]

    def evaluate_rows(self, sources: Sequence[str], start: int, stop: int) -> list[np.ndarray | Failure]:
        """The rewards of rows [start, stop) of the table.

        Returns:
            For each source an array (stop - start,) float32, or its failure, with the row as numbered in the table.
        """
        if self._table is None:
            raise ValueError("these workers have no table; hand over the columns")
        results = self._evaluate(sources, self._table.columns, start, stop, sent=False)
        return [result if isinstance(result, Failure) else result.rewards for result in results]

    def evaluate(
        self, sources: Sequence[str], columns: Columns, components: bool = False, compiled: bool = True
    ) -> list[Evaluation | Failure]:
        """The rewards of the rows in `columns`, and the components that the functions name, if they are asked for.

        A source that :meth:`check` has not seen must pass the check of its syntax tree, and runs interpreted, as all do
        with `components` or without `compiled`.
        """
        compiled = compiled and not components
        rows = _rows(columns)
        return self._evaluate(sources, columns, 0, rows, sent=True, components=components, compiled=compiled)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def __enter__(self) -> "RewardWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prove(self, sources: Sequence[str], probe: Columns) -> dict[str, Verdict]:
        sources = list(dict.fromkeys(sources))
        seconds = self._time_limit + _rows(probe) * _SECONDS_A_ROW
        proofs = self._pool.run([Job(source, {"do": "prove"}, seconds, probe) for source in sources])
        verdicts: dict[str, Verdict] = {}
        statistics: dict[str, dict[str, float]] = {}
        for source, proof in zip(sources, proofs, strict=True):
            if isinstance(proof, Failure):
                where = "" if proof.row is None else f" (row {proof.row} of the probe)"
                verdicts[source] = Verdict(False, source, proof.kind, proof.reason + where)
            else:
                statistics[source] = proof.header
        answers = self._pool.run([Job(source, {"do": "compile"}, seconds, probe) for source in statistics])
        for (source, header), answer in zip(statistics.items(), answers, strict=True):
            note = answer.reason if isinstance(answer, Failure) else answer.header["note"]
            self._compiled[source] = not note
            unwrapped = ("a reward of one element",) if header.get("one_element") else ()
            verdicts[source] = Verdict(True, source, "", "", not note, note, header["mean"], header["std"], unwrapped)
        return verdicts

    def _checked(self, code: Code) -> Code:
        """Return the normal form of `code`, and remember it. Raises Rejected."""
        form = self._check(code, self._inputs)
        self._forms[code.source] = form.source
        return form

    def _form_of(self, source: str) -> str | Failure:
        """Return the form of `source` that runs, or why there is none."""
        if source not in self._forms:
            try:
                self._checked(Code(source, parse(source)))
            except Rejected as rejected:
                return Failure(rejected.kind, rejected.reason)
        return self._forms[source]

    def _evaluate(
        self,
        sources: Sequence[str],
        columns: Columns,
        start: int,
        stop: int,
        sent: bool,
        components: bool = False,
        compiled: bool = True,
    ) -> list[Evaluation | Failure]:
        """Evaluate rows [start, stop) of `columns`, which are `sent` to the workers, or else are the table's."""
        forms = [self._form_of(source) for source in sources]
        results: dict[str | Failure, Evaluation | Failure] = {form: form for form in forms if isinstance(form, Failure)}
        while open_forms := [form for form in dict.fromkeys(forms) if isinstance(form, str) and form not in results]:
            asked = (columns, start, stop, sent, components, compiled)
            jobs = [job for form in open_forms for job in self._jobs(form, *asked)]
            answers = self._pool.run(jobs)
            for form in open_forms:
                mine = [(job, answer) for job, answer in zip(jobs, answers, strict=True) if job.source == form]
                failed = next((answer for _, answer in mine if isinstance(answer, Failure)), None)
                if failed is not None and failed.row is None and mine and mine[0][0].compiled:
                    # Machine code hung or crashed. The interpreted function decides, and can tell the row.
                    self._compiled[form] = False
                else:
                    results[form] = self._joined(mine, columns, start, stop)
        return [results[form] for form in forms]

    def _jobs(
        self, source: str, columns: Columns, start: int, stop: int, sent: bool, components: bool, compiled: bool
    ) -> Iterator[Job]:
        """The jobs that evaluate one source: machine code stays with one worker, all else is split over all workers."""
        compiled = compiled and self._compiled.get(source, False)
        share = -(-(stop - start) // self._workers)
        size = _COMPILED_ROWS if compiled else min(_INTERPRETED_ROWS, max(_FEWEST_ROWS, share))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            header = {"do": "evaluate", "compiled": compiled, "components": components, "start": first, "stop": last}
            seconds = self._time_limit + (last - first) * _SECONDS_A_ROW
            block = {name: column[first:last] for name, column in columns.items()} if sent else {}
            yield Job(source, header, seconds, block)

    def _joined(
        self, answers: Sequence[tuple[Job, Answer | Failure]], columns: Columns, start: int, stop: int
    ) -> Evaluation | Failure:
        rewards = np.empty(stop - start, np.float32)
        components: dict[str, np.ndarray] = {}
        for job, answer in answers:
            first, last = job.header["start"], job.header["stop"]
            if isinstance(answer, Failure):
                if answer.row is None:
                    return answer
                row = first + answer.row
                return Failure(answer.kind, answer.reason, row, _state(self._inputs, columns, row))
            place = slice(first - start, last - start)
            rewards[place] = answer.arrays["rewards"]
            for name, values in zip(
                answer.header.get("components", []), answer.arrays.get("components", []), strict=True
            ):
                components.setdefault(name, np.zeros(stop - start, np.float32))[place] = values
        return Evaluation(rewards, components)


def _joined_verdict(checked: Verdict, proved: Verdict) -> Verdict:
    return replace(proved, source=checked.source, unwrapped=checked.unwrapped + proved.unwrapped)


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _state(inputs: "Mapping[str, Input]", columns: Columns, row: int) -> dict[str, Any]:
    """Every variable at one row: a number, or a list of numbers."""
    state = {}
    for name, place in inputs.items():
        values = columns[place.column][row, place.start : place.stop].tolist()
        state[name] = values if place.shape else values[0]
    return state
