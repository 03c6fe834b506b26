"""The numbers in a reward function: finding them, replacing them, and the rewards as they vary."""

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_code.evaluator import Columns, RewardWorkers
from reward_code.pool import Failure
from reward_code.syntax import bindings, names_read, parse, unparse
from tasks.task import Input
from workers.shared_table import SharedTable

MOST_NUMBERS = 40  # of a function; any further ones stay as they are
MOST_SETS = 2 * (MOST_NUMBERS + 1) + 1  # of numbers at a time: enough for central differences in all of them

_NUMBERS = "fitted_numbers"  # the argument by which a function with open numbers gets them
_SMALLEST = 1e-3  # anything smaller guards against a division by zero
_PROBE_ROWS = 50


@dataclass(frozen=True)
class Number:
    """A weight, a width or a threshold in a source.

    Attributes:
        value: its value.
        line: its line, counted from 0.
        start, stop: its bytes in the line.
        node: its node in the syntax tree.
    """

    value: float
    line: int
    start: int
    stop: int
    node: ast.Constant


def numbers_in(source: str) -> list[Number]:
    """Return the numbers of a checked `source` that can be varied, in order of appearance.

    They are fractions, and whole numbers that multiply or divide. What belongs to the form of a formula is left out:
    zeros, unnamed ones that multiply nothing, exponents, array indices, and parameter defaults; and so is anything
    outside the functions other than a named number or a dict of numbers.
    """
    return _Opened(source).numbers


def with_numbers(source: str, values: Sequence[float]) -> str:
    """Return `source` with its numbers, in the order of :func:`numbers_in`, replaced by `values`, to three digits."""
    lines = [line.encode() for line in source.split("\n")]
    for number, value in reversed(list(zip(numbers_in(source), values, strict=True))):
        line = lines[number.line]
        text = repr(float(f"{value:.3g}")).encode()
        lines[number.line] = line[: number.start] + text + line[number.stop :]
    return b"\n".join(lines).decode()


class VariedRewards:
    """The rewards of some rows, under functions whose numbers vary, by machine code in a process of its own.

    Args:
        inputs: where each variable lies in a row.
        columns: the R rows.
    """

    def __init__(self, inputs: Mapping[str, Input], columns: Columns) -> None:
        self._count = len(next(iter(columns.values())))
        widths = {name: column.shape[1] for name, column in columns.items()}
        # The rows once for each set of numbers: one request for all sets costs a worker little more than for one set.
        self._table = SharedTable.create(MOST_SETS * self._count, widths | {"numbers": MOST_NUMBERS})
        for name, column in columns.items():
            self._table.columns[name].reshape(MOST_SETS, *column.shape)[:] = column
        place = Input("numbers", 0, MOST_NUMBERS, (MOST_NUMBERS,))
        self._workers = RewardWorkers({**inputs, _NUMBERS: place}, 1, self._table)

    def of(self, source: str) -> Callable[[np.ndarray], np.ndarray | None] | None:
        """Return a function that gives the rewards (k, R) for k sets of numbers (k, n), or None if one of them fails.

        k may be up to MOST_SETS. Returns None instead if the source has no numbers, or cannot be compiled with open
        numbers.
        """
        opened = _Opened(source)
        if not opened.numbers:
            return None
        self._set(np.array([[number.value for number in opened.numbers]]))
        probe = {name: column[:_PROBE_ROWS] for name, column in self._table.columns.items()}
        [verdict] = self._workers.check([opened.source], probe)
        if not (verdict.accepted and verdict.compiled):
            return None

        def rewards(values: np.ndarray) -> np.ndarray | None:
            self._set(values)
            [found] = self._workers.evaluate_rows([verdict.source], 0, len(values) * self._count)
            return None if isinstance(found, Failure) else found.reshape(len(values), self._count)

        return rewards

    def close(self) -> None:
        """End the process."""
        self._workers.close()

    def __enter__(self) -> "VariedRewards":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, values: np.ndarray) -> None:
        sets, width = values.shape
        self._table.columns["numbers"][: sets * self._count, :width] = np.repeat(values, self._count, 0)


class _Opened:
    """A source whose numbers are read from an argument, which is handed on to every function that needs it.

    Attributes:
        numbers: those that are open.
        source: the code, in which item n of the argument takes the place of number n.
    """

    def __init__(self, source: str) -> None:
        tree = parse(source)
        self._lines = source.split("\n")
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        # A function that is passed around as a value is called by code that does not know the argument.
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        uncalled = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
        values = set(names_read(*uncalled))
        bodies = [part for name, function in functions.items() if name not in values for part in function.body]
        constants = _constants(tree)
        waiting = [number for part in bodies for number in self._measures(part)]
        waiting += [number for table in constants.values() for node in table.values() for number in self._at(node)]
        waiting.sort(key=lambda number: (number.line, number.start))
        self.numbers = waiting[:MOST_NUMBERS]
        places = {id(number.node): place for place, number in enumerate(self.numbers)}
        named = {
            (name, key): places[id(node)]
            for name, table in constants.items()
            for key, node in table.items()
            if id(node) in places
        }
        self.source = unparse(_Opener(places, named, functions.keys() - values).visit(tree)) if self.numbers else source

    def _measures(self, tree: ast.AST, form: bool = False) -> Iterator[Number]:
        """Yield the numbers below a node; with `form`, the node itself is not one."""
        if isinstance(tree, ast.Constant):
            yield from () if form else self._at(tree)
            return
        for name, value in ast.iter_fields(tree):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.arguments) and name != "slice":
                    yield from self._measures(child, _is_form(tree, name, child))

    def _at(self, node: ast.Constant) -> Iterator[Number]:
        """Yield the number that a node is, if the source has it literally."""
        line = node.lineno - 1
        start, stop = node.col_offset, node.end_col_offset or 0
        text = self._lines[line].encode()[start:stop].decode(errors="replace") if line < len(self._lines) else ""
        try:
            if float(text.replace("_", "")) == node.value and abs(node.value) >= _SMALLEST:
                yield Number(float(text.replace("_", "")), line, start, stop, node)
        except (TypeError, ValueError):
            return


def _is_form(parent: ast.AST, name: str, child: ast.AST) -> bool:
    """Return whether a constant is part of a formula, not a weight, width or threshold."""
    if not isinstance(child, ast.Constant):
        return False
    if isinstance(parent, ast.BinOp):
        exponent = isinstance(parent.op, ast.Pow) and name == "right"
        factor = isinstance(parent.op, ast.Mult) or (isinstance(parent.op, ast.Div) and child.value != 1)
        return exponent or not (factor or (isinstance(child.value, float) and child.value != 1.0))
    named = isinstance(parent, (ast.Assign, ast.AnnAssign, ast.Dict))
    return not isinstance(child.value, float) or (child.value == 1.0 and not named)


def _constants(tree: ast.Module) -> dict[str, dict[object, ast.Constant]]:
    """Return the fractions outside the functions by name, those of a dict by key, a single one by None.

    Left out are names that are bound again anywhere, those that other constants or defaults are made of, and dicts that
    are read in any other way than by one of their keys.
    """
    bound = Counter(name for name, _ in bindings(tree))
    bodies = [part for node in tree.body if isinstance(node, ast.FunctionDef) for part in node.body]
    inside = [node for part in bodies for node in ast.walk(part)]
    by_key = {
        id(node.value) for node in inside if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
    }
    within = set(map(id, inside))
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    outside = {node.id for node in reads if id(node) not in within}
    whole = {node.id for node in reads if id(node) not in by_key}
    found: dict[str, dict[object, ast.Constant]] = {}
    for statement in tree.body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        if not isinstance(target, ast.Name) or bound[target.id] != 1 or target.id in outside:
            continue
        items: list[tuple[object, ast.AST | None]] = [(None, statement.value)]
        if isinstance(statement.value, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in statement.value.keys]
            items = [] if target.id in whole else list(zip(keys, statement.value.values, strict=True))
        found[target.id] = {
            key: node for key, node in items if isinstance(node, ast.Constant) and isinstance(node.value, float)
        }
    return found


class _Opener(ast.NodeTransformer):
    """Replaces numbers by items of the argument, and hands the argument on to the `functions` that need it."""

    def __init__(self, places: Mapping[int, int], named: Mapping[tuple[str, object], int], functions: set[str]) -> None:
        self._places = places
        self._named = named
        self._functions = functions

    def visit_Module(self, module: ast.Module) -> ast.AST:
        module.body = [self.visit(node) if isinstance(node, ast.FunctionDef) else node for node in module.body]
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name in self._functions:
                node.args.args.insert(0, ast.arg(_NUMBERS))
        return module

    def visit_Constant(self, constant: ast.Constant) -> ast.AST:
        return self._item(self._places.get(id(constant)), constant)

    def visit_Name(self, name: ast.Name) -> ast.AST:
        return self._item(self._named.get((name.id, None)), name)

    def visit_Subscript(self, subscript: ast.Subscript) -> ast.AST:
        if isinstance(subscript.value, ast.Name) and isinstance(subscript.slice, ast.Constant):
            place = self._named.get((subscript.value.id, subscript.slice.value))
            if place is not None:
                return self._item(place, subscript)
        return self.generic_visit(subscript)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        self.generic_visit(call)
        if isinstance(call.func, ast.Name) and call.func.id in self._functions:
            call.args.insert(0, ast.Name(_NUMBERS, ast.Load()))
        return call

    @staticmethod
    def _item(place: int | None, otherwise: ast.expr) -> ast.AST:
        if place is None:
            return otherwise
        return ast.Subscript(ast.Name(_NUMBERS, ast.Load()), ast.Constant(place), ast.Load())
