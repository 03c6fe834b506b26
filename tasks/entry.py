"""From an entry of `TASKS` to a task: checked, and completed with what its environment says about itself."""

import ast
import contextlib
import keyword
from collections.abc import Mapping
from typing import Any

import numpy as np

from errors import FAILURES, UsageError, nearest, one_line
from tasks.simulator import LARGEST, begin_episode, close, flatten, is_metaworld, make_environment
from tasks.task import ROLES, Input, Task, Variable, compile_expression

_FIELDS: dict[str, type] = {
    "description": str,
    "success": str,
    "success_expression": str,
    "variables": dict,
    "make": object,
    "human_reward": str,
    "scene": str,
}
_VARIABLE_FIELDS: dict[str, type] = {
    "read": str,
    "unit": str,
    "meaning": str,
    "role": str,
    "aliases": list,
    "at": str,
}
_REQUIRED_OF_VARIABLE = ("read", "meaning")
_RESERVED = ("obs", "action", "actions", "env", "np", "math", "compute_reward")


def build(name: str, entry: Any, vocabulary: Mapping[str, dict[str, Any]], task_file: str | None = None) -> Task:
    """Check an entry and, by one reset and one step, its environment, which adds what the entry does not say.

    Args:
        name: what the task is called.
        entry: the entry, as `task_specs` describes it.
        vocabulary: the variables that the task has if its environment is MetaWorld's; the entry's own complete them.
        task_file: where the entry comes from, if it is not ours.

    Raises:
        UsageError: the entry has a mistake; the message names task, field, what was found and what was expected.
    """
    _check_fields(f"task {name!r}", entry, _FIELDS, ("description",))
    for field, other in (("success", "success_expression"), ("success_expression", "success")):
        if entry.get(field) and not entry.get(other):
            raise UsageError(
                f"task {name!r}.{other}: found nothing beside {field}, expected a str (or neither, for a task without "
                "success)"
            )
    make = entry.get("make", name)
    environment = _made(name, make)
    with contextlib.ExitStack() as stack:
        stack.callback(close, environment)
        obs = _first_observation(name, environment)
        action_size = environment.action_space.shape[0]
        known = vocabulary if is_metaworld(environment) else {}
        merged = _merged(name, known, entry.get("variables", {}))
        first = {variable: _read(name, variable, fields, environment, obs) for variable, fields in merged.items()}
        obs = _next_observation(name, environment, np.zeros(action_size, np.float32))
        values = first | {
            variable: _read(name, variable, fields, environment, obs)
            for variable, fields in merged.items()
            if fields.get("at") != "reset"
        }
        environment_class = type(environment.unwrapped)
    for variable, value in values.items():
        _check_value(f"task {name!r}, variables.{variable}.read: {merged[variable]['read']!r}", first[variable], value)
    variables = tuple(_variable(name, variable, fields, values[variable]) for variable, fields in merged.items())
    task = Task(
        name=name,
        description=entry["description"],
        success=entry.get("success", ""),
        success_expression=entry.get("success_expression", "").strip(),
        variables=variables,
        inputs=_inputs(name, variables, len(obs), action_size),
        variable_width=sum(variable.size for variable in variables),
        obs_size=len(obs),
        action_size=action_size,
        make=make,
        environment_class=environment_class,
        own_human_reward=entry.get("human_reward"),
        task_file=task_file,
        scene=entry.get("scene", "").strip(),
    )
    if task.success_expression:
        aliases = {alias: values[variable.name] for variable in variables for alias in variable.aliases}
        action = np.zeros(action_size)
        _check_criterion(task, {**values, **aliases, "obs": obs, "action": action, "actions": action})
    if task.own_human_reward is not None:
        _check_human_reward(f"task {name!r}, human_reward", task.own_human_reward, task.inputs)
    return task


def _made(task: str, make: Any) -> Any:
    try:
        return make_environment(make)
    except UsageError as error:
        raise UsageError(f"task {task!r}, make: {error}") from error
    except FAILURES as error:
        raise UsageError(
            f"task {task!r}, make: {make!r} makes no environment ({one_line(error)}); expected the name "
            "of a MetaWorld task, the id of a Gymnasium environment, or a function of render_mode that returns one"
        ) from error


def _first_observation(task: str, environment: Any) -> np.ndarray:
    """Return the observation after a reset, which must be what Gymnasium requires (`check_reset_return_type`)."""
    where = f"task {task!r}, make: its reset"
    expected = "expected reset(seed=...) to return the pair (observation, info), as in Gymnasium"
    try:
        result = begin_episode(environment, 0)
    except FAILURES as error:
        raise UsageError(f"{where} fails with {one_line(error)}; {expected}") from error
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise UsageError(f"{where} returns no pair of an observation and a dict, as before Gym 0.26; {expected}")
    return _observation(where, environment, result[0])


def _next_observation(task: str, environment: Any, action: np.ndarray) -> np.ndarray:
    """Return the observation after a step, which must be what Gymnasium requires (`env_step_passive_checker`)."""
    where = f"task {task!r}, make: its step"
    expected = "expected (observation, reward, terminated, truncated, info), as in Gymnasium"
    try:
        result = environment.step(action)
    except FAILURES as error:
        raise UsageError(f"{where} fails with {one_line(error)}; {expected}") from error
    if not isinstance(result, tuple) or len(result) != 5:
        found = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise UsageError(f"{where} returns {found}; {expected}")
    obs, reward, terminated, truncated, _ = result
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if np.size(flag) != 1 or np.asarray(flag).dtype.kind not in "bi":
            raise UsageError(f"{where} returns {flag!r} as {name}, expected True or False")
    if np.size(reward) != 1 or np.asarray(reward).dtype.kind not in "bifu" or not np.isfinite(reward).all():
        raise UsageError(f"{where} returns the reward {reward!r}, expected a finite number")
    return _observation(where, environment, obs)


def _observation(where: str, environment: Any, found: Any) -> np.ndarray:
    try:
        obs = flatten(environment.observation_space, found)
    except FAILURES as error:
        raise UsageError(
            f"{where} shows {one_line(error)}; expected an element of its observation_space, "
            f"{environment.observation_space}"
        ) from error
    if not obs.size:
        raise UsageError(f"{where} shows an observation without any number, expected at least one")
    sound = np.abs(obs) <= LARGEST
    if not sound.all():
        raise UsageError(f"{where} shows an observation with {obs[~sound][0]:g}, expected finite numbers")
    return obs


def _merged(task: str, vocabulary: Mapping[str, dict[str, Any]], own: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields of every variable: the vocabulary's, overridden by the entry's own."""
    merged = {}
    for variable in {**vocabulary, **own}:
        where = f"task {task!r}, variables.{variable}"
        found = own.get(variable, {})
        fields = {"meaning": found} if isinstance(found, str) else found
        _check_fields(where, fields, _VARIABLE_FIELDS, ())
        known = vocabulary.get(variable, {})
        if "read" in fields:  # a new `read` does not inherit the old moment
            known = {field: value for field, value in known.items() if field != "at"}
        merged[variable] = {**known, **fields}
        _check_fields(where, merged[variable], _VARIABLE_FIELDS, _REQUIRED_OF_VARIABLE)
    return merged


def _read(task: str, variable: str, fields: Mapping[str, Any], environment: Any, obs: np.ndarray) -> Any:
    """Return the variable's value: a number or a vector, float64."""
    where, source = f"task {task!r}, variables.{variable}.read", fields["read"]
    try:
        value = np.array(compile_expression(source, "env, obs")(environment.unwrapped, obs), dtype=np.float64)
    except FAILURES as error:
        raise UsageError(
            f"{where}: {source!r} fails with {one_line(error)}; expected an expression over env and obs "
            "that gives a number or a vector"
        ) from error
    if value.ndim > 1 or value.size == 0:
        raise UsageError(f"{where}: {source!r} has the shape {value.shape}, expected a number or a vector")
    return value


def _check_value(where: str, first: np.ndarray, value: np.ndarray) -> None:
    """Compare a variable's values after the reset and after a step; only the latter must be finite."""
    if first.shape != value.shape:
        raise UsageError(f"{where} has the shape {first.shape} after the reset and {value.shape} after a step")
    if not (np.abs(value) <= LARGEST).all():
        raise UsageError(f"{where} gives {value}, expected finite numbers")


def _variable(task: str, name: Any, fields: Mapping[str, Any], value: np.ndarray) -> Variable:
    where = f"task {task!r}, variables.{name}"
    aliases = tuple(fields.get("aliases", ()))
    for word in (name, *aliases):
        if not isinstance(word, str) or not word.isidentifier() or keyword.iskeyword(word) or word in _RESERVED:
            raise UsageError(
                f"{where}: found the name {word!r}, expected a Python name other than {', '.join(_RESERVED)}"
            )
    role, moment = fields.get("role", "other"), fields.get("at", "step")
    if role not in ROLES:
        raise UsageError(f"{where}.role: found {role!r}, expected one of {', '.join(ROLES)}{nearest(role, ROLES)}")
    if moment not in ("step", "reset"):
        raise UsageError(f"{where}.at: found {moment!r}, expected 'step' or 'reset'")
    return Variable(
        name, value.shape, fields.get("unit", "m"), fields["meaning"], role, aliases, fields["read"], moment == "reset"
    )


def _inputs(task: str, variables: tuple[Variable, ...], obs_size: int, action_size: int) -> dict[str, Input]:
    inputs = {
        "obs": Input("next_obs", 0, obs_size, (obs_size,)),
        "action": Input("action", 0, action_size, (action_size,)),
        "actions": Input("action", 0, action_size, (action_size,)),
    }
    width = 0
    for variable in variables:
        for name in (variable.name, *variable.aliases):
            if name in inputs:
                raise UsageError(f"task {task!r}, variables.{variable.name}: two variables are called {name!r}")
            inputs[name] = Input("variables", width, width + variable.size, variable.shape)
        width += variable.size
    return inputs


def _check_criterion(task: Task, values: Mapping[str, Any]) -> None:
    where = f"task {task.name!r}, success_expression"
    try:
        found = compile_expression(task.success_expression, ", ".join(task.inputs))(**values)
    except FAILURES as error:
        known = nearest(error.name, task.inputs) if isinstance(error, NameError) and error.name else ""
        raise UsageError(
            f"{where}: {task.success_expression!r} fails with {one_line(error)}{known}; expected a "
            "condition on the variables"
        ) from error
    if not isinstance(found, (bool, np.bool_)):
        raise UsageError(f"{where}: {task.success_expression!r} gives {found!r}, expected True or False")


def _check_human_reward(where: str, source: str, inputs: Mapping[str, Input]) -> None:
    """Check that what a human reward takes exists; its code is checked like any other before it is used."""
    expected = f"expected the source of a function compute_reward of some of {', '.join(inputs)}"
    try:
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{where}: it is not Python ({one_line(error)}); {expected}") from error
    rewards = [function for function in functions if function.name == "compute_reward"]
    if not rewards:
        raise UsageError(f"{where}: it has no function compute_reward; {expected}")
    for argument in (*rewards[-1].args.posonlyargs, *rewards[-1].args.args, *rewards[-1].args.kwonlyargs):
        if argument.arg not in inputs:
            raise UsageError(f"{where}: found the argument {argument.arg!r}{nearest(argument.arg, inputs)}; {expected}")


def _check_fields(where: str, found: Any, known: Mapping[str, type], required: tuple[str, ...]) -> None:
    if not isinstance(found, dict):
        raise UsageError(f"{where}: found {found!r}, expected a dict with the fields {', '.join(known)}")
    for field, value in found.items():
        if field not in known:
            raise UsageError(
                f"{where}: found the field {field!r}, expected {', '.join(known)}{nearest(str(field), known)}"
            )
        if not isinstance(value, known[field]):
            raise UsageError(f"{where}.{field}: found {value!r}, expected a {known[field].__name__}")
    for field in required:
        if not found.get(field):
            raise UsageError(f"{where}.{field}: found nothing, expected a {known[field].__name__}")
