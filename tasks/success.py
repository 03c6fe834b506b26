"""What a task's success criterion measures: how far a state is from success."""

import ast
import builtins
from collections.abc import Set

from tasks.tidy_source import loaded_names


def success_measure(expression: str) -> str | None:
    """Return the distance of a state from success as code: zero exactly when, or shortly after, `expression` holds.

    ``norm(obj - target) <= 0.05`` gives the norm itself, which keeps falling inside the threshold; other comparisons
    give what is missing; ``and`` adds, ``or`` takes the minimum. None for a criterion that compares no numbers.
    """
    try:
        return _missing(_parsed(expression))
    except SyntaxError:
        return None


def compared_quantities(expression: str, variables: Set[str]) -> list[str]:
    """Return the sides of the comparisons in a success criterion that depend on one of `variables`, as code.

    Sides that depend on the expression's own local names (``all(abs(x) < 0.1 for x in joints)``) are left out.
    """
    if not expression:
        return []
    compared = [node for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Compare)]
    sides = [side for node in compared for side in (node.left, *node.comparators)]
    known = variables | {"np", *dir(builtins)}
    return [ast.unparse(side) for side in sides if variables & (names := set(loaded_names(side))) and names <= known]


def _parsed(expression: str) -> ast.expr:
    return ast.parse(f"(\n{expression}\n)", mode="eval").body  # it may span several lines


def _missing(node: ast.expr) -> str | None:
    if isinstance(node, ast.BoolOp):
        found = [_missing(value) for value in node.values]
        known = [part for part in found if part is not None]
        if len(known) < len(found):
            return None
        return " + ".join(known) if isinstance(node.op, ast.And) else f"min({', '.join(known)})"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"float", "bool"} and len(node.args) == 1:
        return _missing(node.args[0])
    if not isinstance(node, ast.Compare):
        return None
    parts, left = [], node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        small, large = (left, right) if isinstance(operator, (ast.Lt, ast.LtE)) else (right, left)
        if not isinstance(operator, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            return None
        is_distance = isinstance(small, ast.Call) and ast.unparse(small.func) in {"abs", "np.abs", "np.linalg.norm"}
        if is_distance and set(loaded_names(large)) <= {"np", "math"}:
            parts.append(ast.unparse(small))
        else:
            parts.append(f"max(0.0, {ast.unparse(ast.BinOp(small, ast.Sub(), large))})")
        left = right
    return " + ".join(parts)
