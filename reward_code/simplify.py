"""Rewrites reward code into the part of Python that Numba supports: the same rewards, and nothing else.

What the reward does not depend on is removed from the syntax tree, above all the components; the numbers in a dict of
weights are put where they are read; and some spellings are exchanged for others.
"""

import ast
from collections import Counter

from reward_code.syntax import bindings


def simplified(tree: ast.Module) -> ast.Module:
    """`tree`, changed in place, with a ``compute_reward`` that returns only the reward.

    The builtins ``abs``, ``all``, ``any``, ``float`` and ``sum`` are called as ``__abs``, ``__all`` and so on.
    """
    _Respelled(tree).visit(tree)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "compute_reward":
            _RewardOnly().visit_body(function)
            while _drop_unread(function):
                pass
    return ast.fix_missing_locations(tree)


# ---------------------------------------------------------------------------------------------------------------------
# Other spellings

_OF_SEQUENCES = ("concatenate", "hstack", "vstack", "stack", "column_stack")


def _np(name: str) -> ast.Attribute:
    return ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())


class _Respelled(ast.NodeTransformer):
    def __init__(self, tree: ast.Module) -> None:
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        self._renamed = {"abs", "all", "any", "float", "sum"} - own
        self._weights = _weights(tree)

    def visit_AnnAssign(self, statement: ast.AnnAssign) -> ast.AST:
        self.generic_visit(statement)
        return ast.Pass() if statement.value is None else ast.Assign([statement.target], statement.value)

    def visit_Assert(self, statement: ast.Assert) -> ast.AST:
        self.generic_visit(statement)
        return ast.Assert(statement.test, None)

    def visit_Delete(self, statement: ast.Delete) -> ast.AST:
        return ast.Pass() if all(isinstance(target, ast.Name) for target in statement.targets) else statement

    def visit_BinOp(self, operation: ast.BinOp) -> ast.AST:
        self.generic_visit(operation)
        if isinstance(operation.op, ast.MatMult):
            return ast.Call(_np("dot"), [operation.left, operation.right], [])
        return operation

    def visit_GeneratorExp(self, generator: ast.GeneratorExp) -> ast.AST:
        self.generic_visit(generator)
        return ast.ListComp(generator.elt, generator.generators)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        self.generic_visit(call)
        function = call.func
        if isinstance(function, ast.Name) and function.id in self._renamed:
            call.func = ast.Name(f"__{function.id}", ast.Load())
        if isinstance(function, ast.Attribute) and function.attr in _OF_SEQUENCES and call.args:
            arrays = call.args[0]
            call.args[0] = ast.Tuple(arrays.elts, ast.Load()) if isinstance(arrays, ast.List) else arrays
        if isinstance(function, ast.Attribute) and function.attr == "dot" and len(call.args) == 1:
            return ast.Call(_np("dot"), [function.value, *call.args], [])
        return call

    def visit_Subscript(self, subscript: ast.Subscript) -> ast.AST:
        self.generic_visit(subscript)
        if isinstance(subscript.value, ast.Name) and isinstance(subscript.slice, ast.Constant):
            numbers = self._weights.get(subscript.value.id, {})
            return numbers.get(subscript.slice.value, subscript)
        return subscript

    def visit_keyword(self, keyword: ast.keyword) -> ast.AST:
        self.generic_visit(keyword)
        if keyword.arg == "dtype" and isinstance(keyword.value, ast.Name) and keyword.value.id in ("float", "int"):
            keyword.value = _np(f"{keyword.value.id}64")
        return keyword


def _weights(tree: ast.Module) -> dict[str, dict[object, ast.expr]]:
    """Return the numbers in each dict outside the functions whose name nothing else binds."""
    bound = Counter(name for name, _ in bindings(tree))
    weights: dict[str, dict[object, ast.expr]] = {}
    for statement in tree.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        table = getattr(statement, "value", None)
        if isinstance(target, ast.Name) and isinstance(table, ast.Dict) and bound[target.id] == 1:
            items = zip(table.keys, table.values, strict=True)
            weights[target.id] = {
                key.value: value
                for key, value in items
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
    return weights


# ---------------------------------------------------------------------------------------------------------------------
# Only the reward


class _RewardOnly(ast.NodeTransformer):
    """``return reward, components`` becomes ``return reward``; inner functions keep what they return."""

    def visit_body(self, function: ast.FunctionDef) -> None:
        function.body = [self.visit(statement) for statement in function.body]

    def visit_FunctionDef(self, function: ast.FunctionDef) -> ast.AST:
        return function

    def visit_Return(self, statement: ast.Return) -> ast.AST:
        value = statement.value
        if isinstance(value, (ast.Tuple, ast.List)) and value.elts and not isinstance(value.elts[0], ast.Starred):
            return ast.Return(value.elts[0])
        return statement


def _drop_unread(function: ast.FunctionDef) -> bool:
    """Replace statements that only change names which nothing reads by ``pass``; return whether there were any."""
    shared = _may_be_shared(function)
    changes = {id(node): name for node in ast.walk(function) if (name := _changed_name(node)) and name.id not in shared}
    of_changes = set(map(id, changes.values()))
    read = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in of_changes
    }
    unread = {statement for statement, name in changes.items() if name.id not in read}
    for node in ast.walk(function):
        if isinstance(node, (ast.For, ast.If)) and all(
            isinstance(inner, ast.Pass) for inner in node.body + node.orelse
        ):
            targets = ast.walk(node.target) if isinstance(node, ast.For) else ()
            if not any(isinstance(target, ast.Name) and target.id in read for target in targets):
                unread.add(id(node))
    _Drop(unread).visit(function)
    return bool(unread)


def _changed_name(statement: ast.AST) -> ast.Name | None:
    """The one name that `statement` assigns, changes an item of, or calls a changing method of."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        changed = statement.targets[0]
    elif isinstance(statement, ast.AugAssign):
        changed = statement.target
    elif (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Attribute)
        and statement.value.func.attr in ("append", "extend", "setdefault", "update")
    ):
        changed = statement.value.func.value
    else:
        return None
    while isinstance(changed, ast.Subscript):
        changed = changed.value
    return changed if isinstance(changed, ast.Name) else None


def _may_be_shared(function: ast.FunctionDef) -> set[str]:
    """Return the names that are changed in place while another name may have the same value, such as an array."""
    shared = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    changed_in_place = set()
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [part.id for target in targets if isinstance(target, (ast.Name, ast.Tuple)) for part in _names(target)]
        if isinstance(node, ast.For) or (isinstance(node, (ast.Assign, ast.NamedExpr)) and not _is_new(node.value)):
            shared.update(names)
        if not (isinstance(node, ast.Assign) and names) and (name := _changed_name(node)):
            changed_in_place.add(name.id)
    return shared & changed_in_place


def _names(target: ast.expr) -> list[ast.Name]:
    return [part for part in ast.walk(target) if isinstance(part, ast.Name)]


def _is_new(value: ast.expr) -> bool:
    """Return whether an expression cannot return what another name has."""
    function = value.func if isinstance(value, ast.Call) else None
    if isinstance(function, ast.Name):
        return function.id in _COPIES
    return isinstance(value, _NEW_VALUES) or (isinstance(function, ast.Attribute) and function.attr in _NEW_ARRAYS)


_COPIES = ("dict", "list", "set", "float", "int", "bool", "len", "__abs", "__float", "__sum")
_NEW_ARRAYS = ("array", "copy", "norm", "ones", "zeros")
_NEW_VALUES = (
    *(ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.JoinedStr, ast.Dict, ast.List, ast.Set),
    *(ast.DictComp, ast.ListComp, ast.SetComp),
)


class _Drop(ast.NodeTransformer):
    def __init__(self, statements: set[int]) -> None:
        self._statements = statements

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.Pass() if id(node) in self._statements else self.generic_visit(node)
