"""The process in which reward functions run: it proves, compiles and evaluates them, and does nothing else.

Generated code is executed here and nowhere else. The first message says what the inputs are and which limits to
take; every later one names the source that it is about, and is answered with arrays or with a failure.
"""

import math
import mmap
import time
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import reward_compile
import reward_utils
import sandbox
from processes import Arrays, Header, SharedTable, serve

_LARGEST = float(np.finfo(np.float32).max)
_CHUNK = 8192  # rows converted to float64 at a time
_SECONDS_A_ROW = 2e-3


class Failed(Exception):
    """A reward function that did not give a reward."""

    def __init__(self, kind: str, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.row = row


class RewardFunction:
    """One reward function, interpreted and, on request, compiled.

    Args:
        source: checked source that defines ``compute_reward``.
        inputs: for every accepted argument the column, start, stop and shape of where it lies.
        progress: one integer that says which row is being computed, for the parent to read if this process ends.
    """

    def __init__(self, source: str, inputs: dict[str, Any], progress: np.ndarray) -> None:
        self.source = source
        self.function, self.parameters = _define(source)
        self._layout = [inputs[name] for name in self.parameters]
        self._progress = progress
        self.compiled: Callable[..., None] | None = None

    def arguments(self, columns: Arrays) -> list[np.ndarray]:
        """The arguments of all rows in float64, one array per parameter, in memory that cannot be made writable."""
        arrays = []
        for column, start, stop, shape in self._layout:
            values = columns[column][:, start] if not shape else columns[column][:, start:stop]
            frozen = np.frombuffer(values.astype(np.float64).tobytes(), np.float64)
            arrays.append(frozen.reshape(values.shape))
        return arrays

    def results(self, columns: Arrays, backwards: bool = False) -> Iterator[tuple[int, Any]]:
        """What the interpreted function returns, row by row, and the row's number. Raises Failed."""
        arguments = self.arguments(columns)
        lists = [array.tolist() if array.ndim == 1 else array for array in arguments]
        count = len(next(iter(columns.values())))
        for row in reversed(range(count)) if backwards else range(count):
            self._progress[0] = row
            try:
                result = self.function(**{name: values[row] for name, values in zip(self.parameters, lists)})
            except BaseException as error:  # generated code may raise anything, SystemExit included
                raise _failure(error, row) from None
            yield row, result

    def interpreted(self, columns: Arrays, backwards: bool = False) -> np.ndarray:
        """The rewards (n,) in float64, by the interpreted function. Raises Failed."""
        rewards = np.empty(len(next(iter(columns.values()))))
        for row, result in self.results(columns, backwards):
            rewards[row] = _reward(result, row)
        return rewards

    def compile(self) -> None:
        """Set `compiled`. Raises whatever Numba finds that it cannot compile."""
        self.compiled = reward_compile.compile_rows(self.source, [tuple(shape) for *_, shape in self._layout])

    def rewards(self, columns: Arrays) -> np.ndarray:
        """The rewards (n,) in float64, by the compiled function if there is one. Raises Failed.

        The interpreted function has the last word: whatever the compiled one cannot do, or answers with something
        that is no reward, is computed again.
        """
        if self.compiled is None:
            return self.interpreted(columns)
        rewards = np.empty(len(next(iter(columns.values()))))
        try:
            self.compiled(rewards, *self.arguments(columns))
        except Exception:
            return self.interpreted(columns)
        return rewards if np.all(np.abs(rewards) <= _LARGEST) else self.interpreted(columns)


class Worker:
    """Answers the messages of the parent."""

    def __init__(self) -> None:
        self._functions: OrderedDict[str, RewardFunction] = OrderedDict()

    def handle(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Do what `header["do"]` says."""
        if header["do"] == "start":
            return self._start(header)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return getattr(self, "_" + header["do"])(header, arrays)
        except Failed as failed:
            return {"failed": [failed.kind, failed.reason, failed.row]}, {}

    def _start(self, header: Header) -> tuple[Header, Arrays]:
        self._inputs = header["inputs"]
        self._table = SharedTable.attach(*header["table"]) if header["table"] else None
        self._progress = np.frombuffer(mmap.mmap(header["progress"], 8), np.int64)
        reward_compile.warm_up()
        return {"gap": sandbox.enter(header["memory_mb"])}, {}

    def _function(self, source: str) -> RewardFunction:
        function = self._functions.get(source)
        if function is None:
            function = RewardFunction(source, self._inputs, self._progress)
            self._functions[source] = function
        return function

    def _prove(self, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        function = self._function(header["source"])
        count = len(columns["next_obs"])
        started = time.process_time()
        rewards = function.interpreted(columns)
        seconds = (time.process_time() - started) / count
        if seconds > _SECONDS_A_ROW:
            raise Failed("timeout", f"one call takes {seconds * 1e3:.1f} ms; it may take {_SECONDS_A_ROW * 1e3:g} ms")
        again = function.interpreted(columns, backwards=True)
        if not np.array_equal(rewards, again):
            row = int(np.argmax(rewards != again))
            reason = f"two calls with the same inputs gave {rewards[row]:g} and {again[row]:g}"
            raise Failed("nondeterministic", reason, row)
        return {"mean": float(rewards.mean()), "std": float(rewards.std())}, {}

    def _compile(self, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        function = self._function(header["source"])
        note = ""
        try:
            function.compile()
            rewards = np.empty(len(columns["next_obs"]))
            function.compiled(rewards, *function.arguments(columns))  # type: ignore[misc]
            if not np.allclose(rewards, function.interpreted(columns), rtol=1e-6, atol=1e-9):
                note = "the compiled function gave other values"
        except Failed:
            raise
        except Exception as error:
            note = f"Numba cannot compile it: {_one_line(error)}"
        if note:
            function.compiled = None
        return {"note": note}, {}

    def _evaluate(self, header: Header, columns: Arrays) -> tuple[Header, Arrays]:
        function = self._function(header["source"])
        if header["compiled"] and function.compiled is None:
            function.compile()
        if not columns:
            assert self._table is not None
            rows = slice(header["start"], header["stop"])
            columns = {name: column[rows] for name, column in self._table.columns.items()}
        if header["components"]:
            return self._with_components(function, columns)
        count = len(next(iter(columns.values())))
        rewards = np.empty(count, np.float32)
        for start in range(0, count, _CHUNK):
            chunk = {name: column[start : start + _CHUNK] for name, column in columns.items()}
            try:
                rewards[start : start + _CHUNK] = function.rewards(chunk)
            except Failed as failed:
                if failed.row is not None:
                    failed.row += start
                raise
        return {}, {"rewards": rewards}

    def _with_components(self, function: RewardFunction, columns: Arrays) -> tuple[Header, Arrays]:
        count = len(next(iter(columns.values())))
        rewards = np.empty(count, np.float32)
        components: dict[str, np.ndarray] = {}
        for row, result in function.results(columns):
            rewards[row] = _reward(result, row)
            for name, value in _components(result).items():
                components.setdefault(name, np.zeros(count, np.float32))[row] = value
        named = np.array(list(components.values()), np.float32).reshape(len(components), count)
        return {"components": list(components)}, {"rewards": rewards, "components": named}


def _define(source: str) -> tuple[Callable[..., Any], list[str]]:
    namespace: dict[str, Any] = {"np": np, "math": math, "reward_utils": reward_utils}
    namespace.update({name: getattr(reward_utils, name) for name in reward_utils.__all__})
    try:
        exec(compile(source, "<reward>", "exec", dont_inherit=True), namespace)
    except BaseException as error:
        raise _failure(error, None) from None
    function = namespace.get("compute_reward")
    if not isinstance(function, types.FunctionType):
        raise Failed("no-code", "it defines no function compute_reward")
    code = function.__code__
    return function, list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _failure(error: BaseException, row: int | None) -> Failed:
    if isinstance(error, MemoryError):
        return Failed("memory", "it needs more memory than a reward function may have", row)
    if isinstance(error, RecursionError):
        return Failed("recursion", "it calls itself without end", row)
    if isinstance(error, ValueError) and "read-only" in str(error):
        return Failed("mutation", "it changes its inputs, which are read-only; copy them first", row)
    if isinstance(error, SyntaxError):
        return Failed("syntax", _one_line(error), row)
    return Failed("error", _one_line(error), row)


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"[:300]


def _real(value: Any) -> float | None:
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return float(value)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "fiub":
        return float(value)
    return None


def _reward(result: Any, row: int) -> float:
    if isinstance(result, (tuple, list)) and result:
        result = result[0]
    try:
        reward = _real(result)
    except OverflowError:
        reward = math.inf
    if reward is None:
        shape = f" of shape {result.shape}" if isinstance(result, np.ndarray) else ""
        raise Failed("type", f"the reward is a {type(result).__name__}{shape}, not a number", row)
    if not abs(reward) <= _LARGEST:
        raise Failed("not-finite", f"the reward is {reward}", row)
    return reward


def _components(result: Any) -> dict[str, float]:
    if not (isinstance(result, (tuple, list)) and len(result) > 1 and isinstance(result[1], dict)):
        return {}
    found = {str(name): _real(value) for name, value in result[1].items()}
    return {name: value for name, value in found.items() if value is not None and abs(value) <= _LARGEST}


if __name__ == "__main__":
    serve(Worker().handle)
