"""What the check requires of the code as a whole: its signature, depth and names, no clock, and no recursion."""

import ast
import graphlib
import re
from collections.abc import Mapping
from typing import Any

from errors import nearest
from reward_code.names import BUILTINS, IN_WORDS, MODULE_NAMES
from reward_code.syntax import Rejected, bindings, globals_read

_DEEPEST_TREE = 100  # nested nodes; later tree walks take up to seven calls for each
_CLOCK = re.compile(r"now|today", re.I)  # NumPy reads these as the current time, given one of the types below
_DATES = re.compile(r"M8|datetime64|^[<>=|]?M$")


def check_whole(tree: ast.Module, inputs: Mapping[str, Any]) -> None:
    """Raise Rejected unless `tree` defines a function of only `inputs`, which is the same at each call."""
    _check_signature(tree, inputs)
    _check_clock(tree)
    _check_names(tree)
    _check_recursion(tree)


def _check_signature(tree: ast.Module, inputs: Mapping[str, Any]) -> None:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    rewards = [function for function in functions if function.name == "compute_reward"]
    if not rewards:
        raise Rejected("no-code", "the code defines no function named compute_reward")
    arguments = [*rewards[-1].args.args, *rewards[-1].args.kwonlyargs]
    places = list(inputs.values())
    variables = ", ".join(name for number, name in enumerate(inputs) if places[number] not in places[:number])
    for argument in arguments:
        if argument.arg not in inputs:
            unknown = f"compute_reward takes `{argument.arg}`, which is not a variable of this task"
            raise Rejected("signature", f"{unknown}{nearest(argument.arg, inputs)}; the variables are {variables}")
    if not arguments:
        raise Rejected("signature", f"compute_reward takes no variable; there are {variables}")


def check_depth(tree: ast.Module) -> None:
    """Raise Rejected for code so deep that walking its tree might exhaust the stack."""
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST_TREE):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise Rejected("syntax", f"the code is nested too deeply, in more than {_DEEPEST_TREE} levels")


def _check_clock(tree: ast.Module) -> None:
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if any(map(_CLOCK.fullmatch, strings)) and any(map(_DATES.search, strings)):
        raise Rejected("construct", "a reward must be the same for the same inputs; the time is not there")


def _check_names(tree: ast.Module) -> None:
    """Raise Rejected unless every name that is looked up outside the functions is defined here or allowed."""
    read = globals_read(*tree.body)
    known = {"__annotations__", *MODULE_NAMES, *MODULE_NAMES["reward_utils"], *BUILTINS}
    for statement in tree.body:
        known.update(name for name, _ in bindings(statement) if isinstance(statement, (ast.Assign, ast.AnnAssign)))
        if isinstance(statement, ast.FunctionDef):
            known.add(statement.name)
    for name in read:
        if name not in known:
            hint = nearest(name, known - BUILTINS)
            raise Rejected(
                "name", f"`{name}` is not defined{hint}; besides its arguments a reward function has {IN_WORDS}"
            )


def _check_recursion(tree: ast.Module) -> None:
    uses: dict[str, set[str]] = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            own = {name for name, node in bindings(function) if not isinstance(node, ast.FunctionDef)}
            uses[function.name] = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} - own
    calls = graphlib.TopologicalSorter({name: names & uses.keys() for name, names in uses.items()})
    try:
        calls.prepare()
    except graphlib.CycleError as error:
        raise Rejected("recursion", f"`{error.args[1][0]}` calls itself; use for over a range") from None
