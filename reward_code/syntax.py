"""A source's syntax tree, or the reason why it has none, and what a tree tells."""

import __future__

import ast
import dis
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

# How reward code is compiled to bytecode: annotations are never evaluated.
ANNOTATIONS_STAY_TEXT = __future__.annotations.compiler_flag

_LONGEST_SOURCE = 30_000


def printable_line(text: str) -> str:
    """Return `text`, which may have been written to do harm, in a form that is safe for a log and a terminal."""
    printable = "".join(character if character.isprintable() else " " for character in text[:1000])
    return " ".join(printable.split())[:500]


class Rejected(Exception):
    """A candidate that cannot be used.

    Attributes:
        kind: a short word to count by.
        reason: one line for the log and for the model.
        line: where Python's own parser stopped, counted from 1.
    """

    def __init__(self, kind: str, reason: str, line: int | None = None) -> None:
        self.reason = printable_line(reason)
        super().__init__(self.reason)
        self.kind = kind
        self.line = line


@dataclass(frozen=True)
class Code:
    """Code that defines ``compute_reward``.

    Attributes:
        source: its text.
        tree: the syntax tree of the text.
        unwrapped: what was stripped from it, one phrase for each.
    """

    source: str
    tree: ast.Module = field(compare=False, repr=False)
    unwrapped: tuple[str, ...] = ()


def parse(source: str) -> ast.Module:
    """Return the syntax tree of `source`. Raises Rejected, whatever the text."""
    if len(source) > _LONGEST_SOURCE:
        raise Rejected("syntax", f"the code has {len(source)} characters; it may have {_LONGEST_SOURCE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        text = " ".join((error.text or "").split())[:80]
        where = f" in line {error.lineno}" if error.lineno else ""
        reason = f"the code is not Python: {error.msg}{where}{text and f' (`{text}`)'}"
        raise Rejected("syntax", reason, error.lineno) from None
    except (ValueError, MemoryError, RecursionError, SystemError) as error:
        raise Rejected("syntax", f"the code is not Python: {str(error) or 'nested too deeply'}") from None


def unparse(tree: ast.Module) -> str:
    """Return the code of `tree`, laid out by Python. Raises Rejected for a tree that is too deep."""
    try:
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    except (RecursionError, ValueError):
        raise Rejected("syntax", "the code is nested too deeply") from None


def dotted(node: ast.AST | None) -> str | None:
    """Return a dotted name such as ``np.linalg`` as text, and None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def bindings(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield every name that code in `tree` binds (imports aside), with the node that binds it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, node
        elif isinstance(node, ast.arg):
            yield node.arg, node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node


def names_read(*trees: ast.AST) -> Iterator[str]:
    """Yield every name that `trees` read when they run, which annotations do not."""
    waiting = list(trees)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        types = {id(getattr(node, part, None)) for part in ("annotation", "returns")}
        waiting += [child for child in ast.iter_child_nodes(node) if id(child) not in types]


def globals_read(*trees: ast.stmt) -> list[str]:
    """Return every name that statements outside functions look up outside functions, in order.

    Raises Rejected for what parses and is no Python all the same, such as a ``return`` outside a function.
    """
    module = ast.fix_missing_locations(ast.Module(list(trees), []))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(module, "<reward>", "exec", flags=ANNOTATIONS_STAY_TEXT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", str(error)) or "nested too deeply"
        raise Rejected("syntax", f"the code is not Python: {reason}") from None
    return list(_looked_up(code))


def _looked_up(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _looked_up(constant)


def names_imported(tree: ast.AST) -> Iterator[str]:
    """Yield every name that an import in `tree` binds."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def names_lacked(tree: ast.AST) -> set[str]:
    """Return the names that `tree` reads and does not bind."""
    return {*names_read(tree)} - {name for name, _ in bindings(tree)} - {*names_imported(tree)}
