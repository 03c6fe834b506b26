"""MetaWorld's human-designed rewards as plain functions of named variables.

Nothing is copied: the functions are derived from the installed package. :func:`derive` takes the syntax tree of an
environment class's ``compute_reward``, replaces its lookups in the environment by the task's variables, its methods by
functions, and its settings by numbers, and removes what has then become redundant. The result is a reward function
like any other: it can be shown to a language model, checked, compiled, and compared with the environment's own reward.
"""

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from errors import UsageError
from tasks import tidy_source
from tasks.tidy_source import Substitute, loaded_names, stored_names, tidy, to_source

# MetaWorld's shorthands for a lookup, so that each lookup has one spelling.
_SHORTHANDS = (
    (r"self\._get_site_pos\(('\w+')\)", r"self.data.site(\1).xpos"),
    (r"self\.get_body_com\(('\w+')\)", r"self.data.body(\1).xpos"),
    (r"self\._get_pos_objects\(\)", "obs[4:7]"),
    # It is a view of the simulator's memory: not where the pad was at first, but where it is now.
    (r"self\.init_(left|right)_pad", r"self.data.body('\1pad').xpos"),
    (r"\.item\(\)$", ""),
)


@dataclass(frozen=True)
class HumanReward:
    """A human-designed reward as source text.

    `source` defines ``compute_reward`` and its helpers, under the contract of reward functions; `success_source`
    defines ``success``, the environment's own criterion, as a function of the variables.
    """

    source: str
    success_source: str


def derive(environment_class: type, reads: Mapping[str, str]) -> HumanReward:
    """Derive the human reward of a MetaWorld environment.

    Args:
        environment_class: a subclass of `SawyerXYZEnv`.
        reads: for each variable the expression over ``env`` and ``obs`` that gives its value after a step, in the order
            in which functions take them.

    Raises:
        UsageError: the reward needs something that no variable has, or is not written like MetaWorld's.
    """
    try:
        return HumanReward(
            _Derivation(environment_class, reads, tidy_source.parse).reward_source(),
            _Derivation(environment_class, reads, ast.parse).success_source(),
        )
    except UsageError:
        raise
    except Exception as error:  # it is not written as MetaWorld writes its rewards, and may lack anything
        raise UsageError(
            f"the human reward of {environment_class.__name__} cannot be derived ({type(error).__name__}: {error}); "
            "expected its source in the task's field 'human_reward'"
        ) from error


class _Derivation:
    """Turns methods of an environment class, as `parse` reads them, into functions of variables."""

    def __init__(self, environment_class: type, reads: Mapping[str, str], parse: Callable[[str], ast.Module]) -> None:
        self.environment_class = environment_class
        self.parse = parse
        self.names = {_canonical(_expression(re.sub(r"\benv\b", "self", read))): name for name, read in reads.items()}
        self.inputs = [*reads, "obs", "action"]
        self.helpers: dict[str, ast.FunctionDef] = {}

    def reward_source(self) -> str:
        """Return ``compute_reward``: the reward, and those of the reported parts that are computed on the way."""
        body, parts = self.reward_body()
        names = [name for name, _ in parts]
        body, _ = self.finished([*body, ast.Return(ast.Tuple([value for _, value in parts], ast.Load()))])
        numbers = {name for name, values in _assigned(body).items() if all(isinstance(v, ast.Constant) for v in values)}
        booleans = _boolean_names(body)
        returned: Any = body[-1]
        reward, *values = returned.value.elts
        components = ast.Dict([], [])
        for name, value in zip(names[1:], values, strict=True):
            key = value.id if isinstance(value, ast.Name) else name
            if key not in self.inputs and key not in numbers:
                components.keys.append(ast.Constant(key))
                components.values.append(_call("float", value) if _is_boolean(value, booleans) else value)
        returned.value = ast.Tuple([reward, components], ast.Load())
        body, read = tidy(body, self.inputs)
        return self.source("compute_reward", body, read)

    def success_source(self) -> str:
        """Return ``success``: the part of ``evaluate_state`` and ``compute_reward`` that decides success."""
        body, parts = self.reward_body()
        body += [_assign(name, value) for name, value in parts if ast.unparse(value) != name]
        for statement in self.method("evaluate_state").body:
            if not isinstance(statement, ast.Return) and not _calls_compute_reward(statement):
                # What is reported as a number is a boolean here.
                body += ast.parse(ast.unparse(statement).replace("float(", "bool(")).body
        info: Any = _assigned(body)["info"][0]
        success = next(value for key, value in zip(info.keys, info.values, strict=True) if key.value == "success")
        body, read = self.finished([*body, ast.Return(success)])
        return self.source("success", body, read)

    def source(self, name: str, body: list[ast.stmt], read: set[str]) -> str:
        """Return the text of the function and its helpers."""
        functions = [_function(name, [parameter for parameter in self.inputs if parameter in read], body)]
        for helper in reversed(self.helpers.values()):
            if helper.name in loaded_names(*functions):
                functions.insert(0, helper)
        return to_source(functions)

    def reward_body(self) -> tuple[list[ast.stmt], list[tuple[str, ast.expr]]]:
        """Return the statements of ``compute_reward`` up to its return, and what it returns, by its reported names.

        Only MetaWorld's second version of the reward, the one in use, is kept.
        """
        body: list[Any] = _ChooseVersion().visit(ast.Module(self.method("compute_reward").body, [])).body
        end = next(index for index, statement in enumerate(body) if isinstance(statement, ast.Return))
        returned = body[end].value
        report: Any = next(s for s in self.method("evaluate_state").body if _calls_compute_reward(s))
        names = [ast.unparse(name) for name in report.targets[0].elts]
        values: list[ast.expr] = []
        for value in returned.elts:
            if isinstance(value, ast.Starred):
                spread = range(len(names) - len(returned.elts) + 1)
                values += [_element(value.value, index) for index in spread]
            else:
                values.append(value)
        return body[:end], list(zip(names, values, strict=True))

    def finished(self, body: list[ast.stmt]) -> tuple[list[ast.stmt], set[str]]:
        """Return the statements of methods as those of a function, and the names that they read from outside."""
        body, _ = tidy(body, ())
        stores = stored_names(body)
        renamed = {name: name.lstrip("_").lower() for name in stores if name.startswith("_")}
        renamed |= {name: f"shifted_{name}" for name in stores if name in self.inputs}
        body = _Rewrite(self).visit(_Rename(renamed).visit(ast.Module(body, []))).body
        for _ in range(2):  # simplifying can allow more tidying, and the reverse
            body = _Simplify(body).visit(ast.Module(body, [])).body
            body, read = tidy(body, self.inputs)
        return body, read

    def method(self, name: str) -> ast.FunctionDef:
        """Return a fresh copy of the method's syntax tree, from the class that defines it."""
        owner = next(cls for cls in self.environment_class.__mro__ if name in vars(cls))
        source = textwrap.dedent(inspect.getsource(owner))
        tree: Any = self.parse(re.sub(r"`self\._?(\w+)`", r"`\1`", source)).body[0]
        return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)

    def attribute_name(self, node: ast.expr) -> str | None:
        """Return the name in ``self.name`` or ``Class.name``."""
        owners = ("self", self.environment_class.__name__)
        return node.attr if isinstance(node, ast.Attribute) and ast.unparse(node.value) in owners else None

    def method_name(self, node: ast.expr) -> str | None:
        """Return the same, if it is a method's."""
        name = self.attribute_name(node)
        return name if name and inspect.isroutine(getattr(self.environment_class, name, None)) else None

    def setting(self, name: str) -> int | float:
        """Return the number that the class, or its ``__init__``, permanently gives the attribute `name`."""
        value = getattr(self.environment_class, name, None)
        for target, assigned in _assigned(self.method("__init__").body).items():
            if target == f"self.{name}" and isinstance(assigned[-1], ast.Constant):
                value = assigned[-1].value
        changes = f"self.{name}" in _assigned(self.method("reset_model").body)
        if changes or not isinstance(value, (int, float)):
            raise UsageError(
                f"the human reward of {self.environment_class.__name__} reads self.{name}, which is not a variable of "
                f"the task; expected a variable with 'read': 'env.{name}'"
            )
        return value

    def helper_call(self, call: ast.Call, name: str) -> ast.Call:
        """Return a method's call as that of a function derived from it, with the variables that it reads in front.

        Flags, which the call fixes, are resolved in the function; parameters that then have no effect are removed.
        """
        method = self.method(name)
        parameters = [argument.arg for argument in method.args.args if argument.arg != "self"]
        given = dict(zip(parameters, call.args, strict=False))
        given |= {str(keyword.arg): keyword.value for keyword in call.keywords}
        defaults = dict(zip(parameters[::-1], method.args.defaults[::-1], strict=False))
        flags = {name: value for name, value in (defaults | given).items() if _is_flag(value)}
        body, read = self.finished([Substitute(flags).visit(statement) for statement in method.body])
        variables = [variable for variable in self.inputs if variable in read]
        own = [parameter for parameter in parameters if parameter in read and parameter not in self.inputs]
        function_name = re.sub("^reward", "compute_reward", name.lstrip("_"))
        function = _function(function_name, [*variables, *own], body)
        function.args.defaults = [defaults[parameter] for parameter in own if parameter not in given]
        if ast.dump(self.helpers.setdefault(function.name, function)) != ast.dump(function):
            raise NotImplementedError(f"{name} is called with different flags")
        arguments = [value for parameter, value in zip(parameters, call.args, strict=False) if parameter in own]
        keywords = [keyword for keyword in call.keywords if keyword.arg in own]
        return ast.Call(_expression(function.name), [*map(_expression, variables), *arguments], keywords)


class _ChooseVersion(ast.NodeTransformer):
    """Keeps the second of MetaWorld's two reward functions."""

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        return node.body if ast.unparse(node.test) == "self.reward_function_version == 'v2'" else node


class _Rename(ast.NodeTransformer):
    """Gives local names other names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class _Rewrite(ast.NodeTransformer):
    """Replaces what refers to the environment: lookups, settings and methods."""

    def __init__(self, derivation: _Derivation) -> None:
        self.derivation = derivation

    def visit(self, node: ast.AST) -> Any:
        name = self.derivation.names.get(_canonical(node)) if isinstance(node, ast.expr) else None
        return super().visit(node) if name is None else _expression(name)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:
        assert node.value is not None
        return _assign(ast.unparse(node.target), self.visit(node.value))

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("action", node.ctx) if node.id == "actions" else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if self.derivation.attribute_name(node):
            return ast.Constant(self.derivation.setting(node.attr))
        if ast.unparse(node.value) == "reward_utils":
            return _expression(node.attr)
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        text = ast.unparse(node)
        element = re.fullmatch(r"obs\[(\d+)\]", text)
        for lookup, name in self.derivation.names.items():
            part = re.fullmatch(r"obs\[(\d*):(\d+)\]", lookup)
            if element and part and int(part[1] or 0) <= int(element[1]) < int(part[2]):
                return _element(_expression(name), int(element[1]) - int(part[1] or 0))
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        method = self.derivation.method_name(node.func)
        if method is None:
            return self.generic_visit(node)
        node.func = _expression("call")  # nothing to rewrite in it
        self.generic_visit(node)
        return self.derivation.helper_call(node, method)


class _Simplify(ast.NodeTransformer):
    """Simplifies what was needed while values were objects of the environment, or what Numba cannot compile."""

    def __init__(self, body: list[ast.stmt]) -> None:
        self.assigned = _assigned(body)
        self.booleans = _boolean_names(body)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        function, first = ast.unparse(node.func), node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute) and node.func.attr == "item":
            return node.func.value
        if first is None:
            return node
        if function == "bool" or (function == "float" and not _is_boolean(first, self.booleans)):
            return first
        if function == "np.linalg.norm" and _is_number(first):
            return _call("abs", first)
        if function == "np.hstack" and isinstance(first, ast.Tuple) and all(map(_is_number, first.elts)):
            return _call("np.array", ast.List(first.elts, ast.Load()))
        if function == "sum" and isinstance(first, ast.Tuple):
            return functools.reduce(lambda total, term: ast.BinOp(total, ast.Add(), term), first.elts)
        if isinstance(first, ast.Starred):
            (values,) = self.assigned[ast.unparse(first.value)]
            node.args = [_element(first.value, index) for index in range(_length(values))]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        self.generic_visit(node)
        if isinstance(node.value, ast.List) and all(isinstance(value, ast.Constant) for value in node.value.elts):
            node.value = _call("np.array", node.value)
        return node


def _is_boolean(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    return (
        isinstance(node, (ast.Compare, ast.BoolOp))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "bool")
    )


def _boolean_names(body: list[ast.stmt]) -> set[str]:
    return {name for name, values in _assigned(body).items() if any(_is_boolean(value, set()) for value in values)}


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_number(node.left) and _is_number(node.right)
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Constant, ast.UnaryOp))
    )


def _is_flag(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _length(values: ast.expr) -> int:
    """Return how many values ``[... for i in range(n)]`` has."""
    count = re.search(r"for \w+ in range\((\d+)\)\]$", ast.unparse(values))
    assert count is not None
    return int(count[1])


def _assigned(body: list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """Return what each target is assigned, in the order of the text."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = node.value if not isinstance(node, ast.AugAssign) else ast.BinOp(node.target, node.op, node.value)
            assigned.setdefault(ast.unparse(target), []).append(value)
    return assigned


def _calls_compute_reward(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.value).startswith("self.compute_reward(")


def _canonical(node: ast.expr) -> str:
    text = ast.unparse(node)
    for shorthand, lookup in _SHORTHANDS:
        text = re.sub(shorthand, lookup, text)
    return text


def _expression(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _element(value: ast.expr, index: int) -> ast.Subscript:
    return ast.Subscript(value, ast.Constant(index), ast.Load())


def _call(function: str, argument: ast.expr) -> ast.Call:
    return ast.Call(_expression(function), [argument], [])


def _assign(name: str, value: ast.expr) -> ast.Assign:
    assignment: Any = ast.parse(f"{name} = None").body[0]
    assignment.value = value
    return assignment


def _function(name: str, parameters: list[str], body: list[ast.stmt]) -> ast.FunctionDef:
    function: Any = ast.parse(f"def {name}({', '.join(parameters)}): pass").body[0]
    function.body = body
    return function
