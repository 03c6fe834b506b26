"""The process in which reward functions run: it proves, compiles and evaluates them, and does nothing else.

Generated code is executed here and nowhere else, within the limits of `sandbox.py`. The first message says what the
inputs are and how much memory may be used; every later one names the source that it is about, and is answered with
numbers or with a failure: ``{"failed": [kind, reason, row]}``.
"""

import itertools
import math
import mmap
import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reward_code import names, sandbox
from reward_code.compile import compile_rows, warm_up
from reward_code.constants import Constants
from reward_code.syntax import ANNOTATIONS_STAY_TEXT, Rejected, printable_line
from workers.process import Arrays, Header, serve
from workers.shared_table import SharedTable

_LARGEST = float(np.finfo(np.float32).max)
_CHUNK = 8192  # rows that are converted to float64 at a time
_SECONDS_A_ROW = 2e-3
_AGREEMENT = 1e-6  # relative, between the compiled function and the interpreted one
_SHARED = (
    "builtins",
    "math",
    "numpy",
    "reward_utils",
    "reward_code.names",
)  # modules that all functions share
_MOST_GAPS = 0.05  # share of rows that the compiled function may leave to the interpreted one


class Failed(Exception):
    """A reward function that gave no reward.

    Attributes:
        kind: a short word to count by.
        reason: one line.
        row: the row at which it happened, counted from the first of the request; None if it was at none.
    """

    def __init__(self, kind: str, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.row = row


class Executable:
    """One reward function, interpreted and, when asked for, compiled.

    Args:
        source: code that defines ``compute_reward``.
        inputs: for every argument that it may have, where it lies in a row: column, start, stop and shape.
        progress: one integer, the row that is being computed, for the parent to read if this process dies.
    """

    def __init__(self, source: str, inputs: dict[str, Any], progress: np.ndarray) -> None:
        self._source = source
        self._progress = progress
        self._function, self._parameters = _define(source)
        self._places = [inputs[name] for name in self._parameters]
        self._compiled: Callable[..., None] | None = None
        self.returns_arrays = False

    def interpreted(self, columns: Arrays, backwards: bool = False) -> np.ndarray:
        """The reward of every row (n,) float64, in order or from the last row to the first. Raises Failed."""
        rewards = np.empty(_length(columns))
        for row, result in self._results(columns, backwards):
            rewards[row] = _reward(result, row)
            self.returns_arrays |= isinstance(_first(result), np.ndarray)
        return rewards

    def components(self, columns: Arrays) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The rewards (n,) and the function's own parts of them by name, each (n,) float32. Raises Failed.

        A part that is missing in a row, or is not a finite number there, counts as 0.
        """
        rewards = np.empty(_length(columns))
        parts: dict[str, np.ndarray] = {}
        for row, result in self._results(columns):
            rewards[row] = _reward(result, row)
            for name, value in _parts(result):
                if name in parts or len(parts) < names.MOST_COMPONENTS:
                    parts.setdefault(name, np.zeros(len(rewards), np.float32))[row] = value
        return rewards, parts

    def fast(self, columns: Arrays) -> np.ndarray:
        """The reward of every row (n,) float64, compiled if possible. Raises Failed.

        The interpreted function is authoritative: it recomputes every row on which the compiled one raises or has no
        finite reward.
        """
        if self._compiled is None:
            return self.interpreted(columns)
        rewards = self._by_machine_code(columns)
        gaps = np.flatnonzero(~(np.abs(rewards) <= _LARGEST))
        if len(gaps):
            try:
                rewards[gaps] = self.interpreted({name: column[gaps] for name, column in columns.items()})
            except Failed as failed:
                failed.row = None if failed.row is None else int(gaps[failed.row])
                raise
        return rewards

    def compile(self) -> None:
        """Have :meth:`fast` use machine code. Raises whatever Numba does when it cannot."""
        if self._compiled is None:
            self._compiled = compile_rows(self._source, [tuple(shape) for *_, shape in self._places])

    def disagreement(self, columns: Arrays) -> str:
        """Why the compiled function cannot replace the interpreted one, judged by `columns`; or nothing."""
        expected = self.interpreted(columns)
        compiled = self._by_machine_code(columns)
        there = np.isfinite(compiled)
        if np.mean(~there) > _MOST_GAPS:
            return f"compiled, it fails on {np.mean(~there):.0%} of the probe"
        apart = np.abs(compiled - expected) > _AGREEMENT * np.maximum(np.abs(expected), 1e-3)
        if np.any(apart & there):
            row = int(np.argmax(apart & there))
            return f"compiled, it gives {compiled[row]:.9g} instead of {expected[row]:.9g} (row {row} of the probe)"
        return ""

    def _by_machine_code(self, columns: Arrays) -> np.ndarray:
        assert self._compiled is not None
        rewards = np.empty(_length(columns))
        self._compiled(rewards, *self._arguments(columns))
        return rewards

    def _arguments(self, columns: Arrays) -> list[np.ndarray]:
        """For each parameter a read-only copy of its values in all rows, (rows,) or (rows, n) float64."""
        arguments = []
        for column, start, stop, shape in self._places:
            values = columns[column][:, start:stop] if shape else columns[column][:, start]
            arguments.append(values.astype(np.float64))
            arguments[-1].setflags(write=False)
        return arguments

    def _results(self, columns: Arrays, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        """Each row's number and what the interpreted function returns for it. Raises Failed."""
        arguments = [_immutable(array) if array.ndim > 1 else array.tolist() for array in self._arguments(columns)]
        rows = list(enumerate(zip(*arguments, strict=True)))
        for row, values in reversed(rows) if backwards else rows:
            self._progress[0] = row
            try:
                result = self._function(**dict(zip(self._parameters, values, strict=True)))
            except BaseException as error:  # generated code may raise anything, SystemExit included
                raise _failure(error, row) from None
            yield row, result


class Worker:
    """Answers the messages of the parent."""

    def __init__(self) -> None:
        self._functions: dict[str, Executable] = {}
        self._pristine: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def handle(self, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        """Do what `header["do"]` says."""
        if header["do"] == "start":
            return self._start(header)
        self._progress[0] = -1
        signal.setitimer(signal.ITIMER_PROF, header["seconds"])  # kills the process, even when nobody watches it
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self._answer(header, columns)
        except Failed as failed:
            answer = {"failed": [failed.kind, failed.reason, failed.row]}, {}
        except MemoryError as error:
            answer = {"failed": [*_kind_and_reason(error), None]}, {}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if header["do"] == "prove" and not self._is_pristine():
            return {"failed": ["tampering", "it changes what other functions use", None]}, {}
        return answer

    def _answer(self, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        source = header["source"]
        if source not in self._functions:
            self._functions[source] = Executable(source, self._inputs, self._progress)
        function = self._functions[source]
        if header["do"] == "prove":
            return self._prove(function, columns)
        if header["do"] == "compile":
            return self._compile(function, columns)
        return self._evaluate(function, header, columns)

    def _is_pristine(self) -> bool:
        return all(now.get(name) is value for now, then in self._pristine for name, value in then.items())

    def _start(self, header: Header) -> tuple[Header, Arrays]:
        self._inputs = header["inputs"]
        self._progress = np.frombuffer(mmap.mmap(header["progress"], 8), np.int64)
        os.close(header["progress"])
        self._table: dict[str, np.ndarray] = {}
        if header["table"] is not None:
            self._table = SharedTable.attach(*header["table"]).columns
            os.close(header["table"][0])
        warm_up()
        shared = [module for name, module in sys.modules.items() if name.split(".")[0] in _SHARED]
        self._pristine = [(vars(module), dict(vars(module))) for module in shared]
        return {"missing_containment": sandbox.enter(header["memory_mb"])}, {}

    def _prove(self, function: Executable, columns: Arrays) -> tuple[Header, Arrays]:
        started = time.process_time()
        rewards = function.interpreted(columns)
        half_way = time.process_time()
        again = function.interpreted(columns, backwards=True)
        # The faster of the two: first calls may cost extra, and the machine may be busy with other things.
        seconds = min(half_way - started, time.process_time() - half_way) / len(rewards)
        if seconds > _SECONDS_A_ROW:
            raise Failed("timeout", f"a call takes {seconds * 1e3:.1f} ms; {_SECONDS_A_ROW * 1e3:g} ms are allowed")
        if not np.array_equal(rewards, again):
            row = int(np.argmax(rewards != again))
            reason = f"the same inputs gave first {rewards[row]:.9g} and then {again[row]:.9g}"
            raise Failed("nondeterministic", reason, row)
        statistics = {"mean": float(rewards.mean()), "std": float(rewards.std())}
        return {**statistics, "one_element": function.returns_arrays}, {}

    def _compile(self, function: Executable, columns: Arrays) -> tuple[Header, Arrays]:
        try:
            function.compile()
        except Exception as error:
            return {"note": f"Numba cannot compile it: {_line(error)}"}, {}
        return {"note": function.disagreement(columns)}, {}

    def _evaluate(self, function: Executable, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        if not columns:
            rows = slice(header["start"], header["stop"])
            columns = {name: column[rows] for name, column in self._table.items()}
        if header["components"]:
            rewards, parts = function.components(columns)
            values = np.array([*parts.values()], np.float32).reshape(len(parts), len(rewards))
            return {"components": [*parts]}, {"rewards": rewards.astype(np.float32), "components": values}
        if header["compiled"]:
            try:
                function.compile()
            except Exception as error:  # it worked before; the parent will ask for the interpreted function
                raise Failed("error", _line(error)) from None
        compute = function.fast if header["compiled"] else function.interpreted
        rewards = np.empty(_length(columns), np.float32)
        for start in range(0, len(rewards), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            try:
                rewards[chunk] = compute({name: column[chunk] for name, column in columns.items()})
            except Failed as failed:
                failed.row = None if failed.row is None else failed.row + start
                raise
        return {}, {"rewards": rewards}


def _length(columns: Arrays) -> int:
    return len(next(iter(columns.values())))


def _immutable(array: np.ndarray) -> np.ndarray:
    """A copy in memory that nothing can make writable again; a mere flag can be reset on the array's owner."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def _define(source: str) -> tuple[Callable[..., Any], list[str]]:
    """The function that `source` defines, and the names of its parameters. Raises Failed."""
    namespace = names.namespace()
    given = dict(namespace)
    try:
        exec(compile(source, "<reward>", "exec", ANNOTATIONS_STAY_TEXT, dont_inherit=True), namespace)
    except BaseException as error:
        raise _failure(error, None) from None
    modules = [vars(value) for value in given.values() if isinstance(value, types.ModuleType)]
    constants = Constants(value for names in (given, given["__builtins__"], *modules) for value in names.values())
    try:
        namespace.update(
            {name: constants.frozen(name, value) for name, value in namespace.items() if value is not given.get(name)}
        )
    except Rejected as rejected:
        raise Failed(rejected.kind, rejected.reason) from None
    function = namespace.get("compute_reward")
    if not isinstance(function, types.FunctionType):
        raise Failed("no-code", "the code defines no function named compute_reward")
    code = function.__code__
    return function, list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _failure(error: BaseException, row: int | None) -> Failed:
    return Failed(*_kind_and_reason(error), row)


def _kind_and_reason(error: BaseException) -> tuple[str, str]:
    line = _line(error)
    if isinstance(error, MemoryError):
        return "memory", "it needs more memory than a reward function may have"
    if isinstance(error, RecursionError):
        return "recursion", "it calls itself without end"
    if isinstance(error, SyntaxError):
        return "syntax", line
    if "read-only" in line or "does not support item assignment" in line:
        return "mutation", f"its inputs and constants cannot be changed; copy them first ({line})"
    return "error", line


def _line(error: BaseException) -> str:
    """The error's type and text in one line."""
    try:
        lines = str(error).splitlines()
    except BaseException:  # the text of an error may run generated code, too
        lines = []
    telling = [line for line in lines if line.strip() and not line.startswith("Failed in nopython")]
    return printable_line(f"{type(error).__name__}: {' '.join(telling[:4])}")[:240]


def _number(value: Any) -> float | None:
    """A real scalar of Python or NumPy, or the only element of an array, as float; None for everything else.

    A boolean counts as 0 or 1.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if not isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) and result else result


def _reward(result: Any, row: int) -> float:
    result = _first(result)
    reward = _number(result)
    if reward is None:
        shape = f" of shape {result.shape}" if isinstance(result, np.ndarray) else ""
        raise Failed("type", f"the reward is a {type(result).__name__}{shape} and not a real number", row)
    if not abs(reward) <= _LARGEST:
        raise Failed("not-finite", f"the reward is {reward:g}, which is not finite as float32", row)
    return reward


def _parts(result: Any) -> Iterator[tuple[str, float]]:
    if isinstance(result, (tuple, list)) and len(result) > 1 and isinstance(result[1], dict):
        for name, part in itertools.islice(result[1].items(), names.MOST_COMPONENTS):
            if not isinstance(name, str):  # the text of anything else may be too long, or too deeply nested
                number = _number(name)
                name = "" if number is None else f"{number:g}"
            value = _number(part)
            if name and value is not None and abs(value) <= _LARGEST:
                yield printable_line(name[:60]), value


if __name__ == "__main__":
    serve(Worker().handle)
