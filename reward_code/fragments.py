"""Which code is a complete reward function, and what an incomplete one lacks."""

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reward_code.names import BUILTINS, MODULE_NAMES
from reward_code.syntax import Code, Rejected, bindings, names_imported, names_lacked, parse

_GIVEN = {"print", "__name__", *BUILTINS, *MODULE_NAMES["reward_utils"]}  # but code may define its own
_MOST_FUNCTIONS = 8  # versions of the function in one text that are looked at


def functions_in(code: Code) -> Iterator[Code]:
    """Yield `code` with one of the functions ``compute_reward`` that it defines, the last one first.

    A method is taken out of its class; one that needs the class is refused later for using ``self``.
    """
    defined = [statement for statement in code.tree.body if _is_reward(statement)]
    classes = [
        statement
        for statement in code.tree.body
        if isinstance(statement, ast.ClassDef) and any(map(_is_reward, statement.body))
    ]
    if len(defined) == 1:
        yield code
    for kept in reversed(defined[-_MOST_FUNCTIONS:] if len(defined) > 1 else []):
        source = _without(code.source, [statement for statement in defined if statement is not kept])
        yield Code(source, parse(source), code.unwrapped)
    if not defined and len(classes) == 1:
        try:
            source = _without_the_class(code.source, classes[0])
            yield Code(source, parse(source), (*code.unwrapped, f"a class {classes[0].name}"))
        except Rejected:
            yield code
    elif not defined and re.search(r"^[ \t]*def[ \t]+compute_reward\b", code.source, re.MULTILINE):
        yield code  # not where a function is allowed, as the check will say


def is_whole(code: Code) -> bool:
    """Return whether the function returns something, leaves nothing out (``...``), and lacks no name."""
    functions = [statement for statement in code.tree.body if _is_reward(statement)]
    if not functions:
        return False
    parts = list(ast.walk(functions[-1]))
    returns = any(isinstance(part, ast.Return) and part.value is not None for part in parts)
    left_out = any(isinstance(part, ast.Expr) and _is_ellipsis(part.value) for part in parts)
    return returns and not left_out and not _lacking(code.tree) - _GIVEN


def with_helpers(code: Code, helpers: Iterable[Code | None]) -> Code:
    """Return `code` preceded by the functions and constants of `helpers` that it needs and lacks.

    Of two that define the same name, the one in the first helper counts. A statement about variables is never taken.
    """
    lacking = _lacking(code.tree)
    if not lacking:
        return code
    pieces: dict[str, _Piece] = {}
    for helper in filter(None, helpers):
        for statement in helper.tree.body:
            text = ast.get_source_segment(helper.source, statement)
            if text and isinstance(statement, (ast.FunctionDef, ast.Assign, ast.AnnAssign)):
                piece = _Piece(text, names_lacked(statement), isinstance(statement, ast.FunctionDef))
                for name in _bound_by(statement):
                    pieces.setdefault(name, piece)
    parameters = {name for statement in code.tree.body for name in _parameters(statement)}
    chosen: dict[str, None] = {}
    for name in sorted(lacking):
        chosen.update(_take(name, pieces, {"compute_reward", *parameters}))
    if not chosen:
        return code
    source = "\n\n".join([*chosen, code.source])
    return Code(source, parse(source), (*code.unwrapped, "what it needs of another block"))


@dataclass(frozen=True)
class _Piece:
    """A statement from another block: its text, the names that it lacks, and whether it is a function."""

    text: str
    lacks: set[str]
    is_function: bool


def _take(name: str, pieces: dict[str, _Piece], excluded: set[str]) -> dict[str, None]:
    """Return the texts that define `name`, dependencies first; nothing if one of them depends on a variable."""
    piece = pieces.get(name)
    if piece is None or name in excluded:
        return {}
    taken: dict[str, None] = {}
    for lack in sorted(piece.lacks - set(MODULE_NAMES)):
        needed = _take(lack, pieces, {*excluded, name})
        if not needed and not piece.is_function and lack not in _GIVEN:
            return {}
        taken.update(needed)
    return {**taken, piece.text: None}


def _lacking(tree: ast.Module) -> set[str]:
    """Return the names that ``compute_reward`` and what it needs in `tree` read and nothing in `tree` defines."""
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return set()
    needed, waiting = {"compute_reward"}, ["compute_reward"]
    bound: set[str] = set()
    while waiting:
        name = waiting.pop()
        for statement in tree.body:
            if name in _bound_by(statement):
                bound.add(name)
                new = names_lacked(statement) - needed
                needed |= new
                waiting += new
    return needed - bound - set(MODULE_NAMES) - {"numpy"}


def _bound_by(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    return {name for name, _ in bindings(statement)} | set(names_imported(statement))


def _is_reward(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef) and statement.name == "compute_reward"


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _parameters(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef) and _is_reward(statement):
        yield from (argument.arg for argument in [*statement.args.args, *statement.args.kwonlyargs])


def _without(source: str, functions: list[ast.stmt]) -> str:
    """Return `source` without the lines of `functions`."""
    lines: list[str | None] = list(source.split("\n"))
    for function in functions:
        first, last = _lines_of(function)
        lines[first:last] = [None] * (last - first)
    return "\n".join(line for line in lines if line is not None).strip("\n") + "\n"


def _without_the_class(source: str, of_class: ast.ClassDef) -> str:
    """Return `source` with the body of `of_class` in its place, and its methods without their decorators."""
    lines = source.split("\n")
    first, last = _lines_of(of_class)
    body = textwrap.dedent("\n".join(lines[_lines_of(of_class.body[0])[0] : last]))
    body = re.sub(r"^@(staticmethod|classmethod)[ \t]*\n", "", body, flags=re.MULTILINE)
    return "\n".join([*lines[:first], body, *lines[last:]]).strip("\n") + "\n"


def _lines_of(statement: ast.stmt) -> tuple[int, int]:
    """Return the first line of `statement`, counted from 0 and with its decorators, and the line after its last."""
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
    return first - 1, statement.end_lineno or first
