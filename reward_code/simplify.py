"""Reward code in the part of Python that Numba knows: the same rewards, and nothing else.

What does not bear on the reward is taken out of the syntax tree, the components above all; a dict of named parts or
weights becomes plain variables; and some spellings are exchanged for others.
"""

import ast
import copy
from collections.abc import Iterator


def simplified(tree: ast.Module) -> ast.Module:
    """`tree`, changed in place, with a ``compute_reward`` that returns the reward alone.

    The builtins ``abs``, ``all``, ``any`` and ``float`` are called as ``__abs``, ``__all``, ``__any``, ``__float``.
    """
    _Respelled(tree).visit(tree)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "compute_reward":
            _RewardOnly().visit_body(function)
            while _drop_unread(function):
                pass
            for name, _ in list(_dicts(function.body)):
                _scatter(function.body, name)
    for name, _ in list(_dicts(tree.body)):
        _scatter(tree.body, name)
    return ast.fix_missing_locations(tree)


# ---------------------------------------------------------------------------------------------------------------------
# Other spellings

_OF_SEQUENCES = ("concatenate", "hstack", "vstack", "stack", "column_stack")


def _np(name: str) -> ast.Attribute:
    return ast.Attribute(ast.Name("np", ast.Load()), name, ast.Load())


class _Respelled(ast.NodeTransformer):
    def __init__(self, tree: ast.Module) -> None:
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        self._renamed = {"abs", "all", "any", "float"} - own

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

    def visit_keyword(self, keyword: ast.keyword) -> ast.AST:
        self.generic_visit(keyword)
        if keyword.arg == "dtype" and isinstance(keyword.value, ast.Name) and keyword.value.id in ("float", "int"):
            keyword.value = _np(f"{keyword.value.id}64")
        return keyword


# ---------------------------------------------------------------------------------------------------------------------
# The reward alone


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
    """Put ``pass`` in the place of statements that change nothing but names which nothing reads; whether any did."""
    changes = {id(node): name for node in ast.walk(function) if (name := _changed_name(node))}
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


class _Drop(ast.NodeTransformer):
    def __init__(self, statements: set[int]) -> None:
        self._statements = statements

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.Pass() if id(node) in self._statements else self.generic_visit(node)


# ---------------------------------------------------------------------------------------------------------------------
# Dicts with constant keys as variables


class _NotPlain(Exception):
    """The dict is used in a way that variables cannot stand for."""


def _dicts(body: list[ast.stmt]) -> Iterator[tuple[str, ast.Dict]]:
    """The names that a statement of `body` makes a dict with constant keys, and the dicts."""
    for statement in body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            if (
                isinstance(target, ast.Name)
                and isinstance(value, ast.Dict)
                and all(isinstance(key, ast.Constant) for key in value.keys)
            ):
                yield target.id, value


def _scatter(body: list[ast.stmt], name: str) -> None:
    """Make variables of the dict `name`, if all that is done with it in `body` is to set and read single items."""
    stored = [
        node
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
    ]
    parameters = [
        node for statement in body for node in ast.walk(statement) if isinstance(node, ast.arg) and node.arg == name
    ]
    if len(stored) != 1 or parameters:
        return
    scatter = _Scatter(name)
    new_body: list[ast.stmt] = []
    try:
        for statement in copy.deepcopy(body):
            new_body.extend(scatter.statement(statement))
    except _NotPlain:
        return
    body[:] = new_body


class _Scatter(ast.NodeTransformer):
    """Exchanges the items of one dict for variables, statement by statement in the order in which they run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._variables: dict[object, str] = {}

    def statement(self, statement: ast.stmt) -> list[ast.stmt]:
        """What stands for one statement of the body in which the dict is made. Raises _NotPlain."""
        target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
        if isinstance(statement, ast.Assign) and isinstance(target, ast.Name) and target.id == self._name:
            assert isinstance(statement.value, ast.Dict)
            assignments: list[ast.stmt] = []
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                new = self.visit(value)
                assignments.append(ast.Assign([ast.Name(self._variable(key, new=True), ast.Store())], new))
            return assignments or [ast.Pass()]
        if isinstance(statement, ast.Assign) and self._is_item(target):
            assert isinstance(target, ast.Subscript)
            value = self.visit(statement.value)
            return [ast.Assign([ast.Name(self._variable(target.slice, new=True), ast.Store())], value)]
        return [self.visit(statement)]

    def visit_Subscript(self, subscript: ast.Subscript) -> ast.AST:
        if self._is_item(subscript):
            return ast.Name(self._variable(subscript.slice), subscript.ctx)
        return self.generic_visit(subscript)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr == "values" and self._is_dict(function.value):
            return ast.List([ast.Name(variable, ast.Load()) for variable in self._variables.values()], ast.Load())
        return self.generic_visit(call)

    def visit_Name(self, name: ast.Name) -> ast.AST:
        if name.id == self._name:
            raise _NotPlain
        return name

    def _is_dict(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == self._name

    def _is_item(self, node: ast.AST | None) -> bool:
        return isinstance(node, ast.Subscript) and self._is_dict(node.value)

    def _variable(self, key: ast.AST | None, new: bool = False) -> str:
        if not isinstance(key, ast.Constant) or not (new or key.value in self._variables):
            raise _NotPlain
        return self._variables.setdefault(key.value, f"__{self._name}_{len(self._variables)}")
