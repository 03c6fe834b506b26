"""A task: an entry of `TASKS` that has been checked, and completed with what its environment says itself."""

import contextlib
import functools
import keyword
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from errors import UsageError, nearest
from tasks.human_reward import HumanReward, derive

# MetaWorld and Gymnasium are imported where they are used: who only wants to know what an `Input` is needs neither.

# What a variable is to the task. The built-in program search composes rewards by role; nothing else depends on it.
ROLES = {
    "gripper": "the point that grasps",
    "gripper_start": "where that point was when the episode began",
    "object": "a thing to be reached or moved",
    "object_start": "where that thing was when the episode began",
    "goal": "where the object has to go",
    "pad": "an inner surface of the gripper",
    "pad_start": "where that surface was when the episode began",
    "opening": "how far the gripper is open",
    "action": "the action taken",
    "observation": "the whole observation",
    "other": "anything else",
}


@dataclass(frozen=True)
class Variable:
    """A named quantity of a task, as it is after a step: a number if `shape` is ``()``, else a vector ``(n,)``."""

    name: str
    shape: tuple[int, ...]
    unit: str
    meaning: str
    role: str = "other"
    aliases: tuple[str, ...] = ()
    read: str = ""
    at_reset: bool = False

    @property
    def size(self) -> int:
        """How many numbers it takes in a row."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Input:
    """Where an argument of a reward function lies in a row: elements `start` to `stop` of `column`, as `shape`."""

    column: str
    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """A checked entry, with what could be read from its environment. Another process gets it by `name` and `task_file`.

    `variables` are in the order in which they are packed into a row, `variable_width` numbers in all. `inputs` has
    every name that a reward function may take: the variables, their aliases, ``obs``, and ``action`` or ``actions``.
    """

    name: str
    description: str
    success: str
    success_expression: str
    variables: tuple[Variable, ...]
    inputs: Mapping[str, Input]
    variable_width: int
    obs_size: int
    action_size: int
    make: str | Callable[..., Any]
    environment_class: type
    own_human_reward: str | None = None
    task_file: str | None = None

    @functools.cached_property
    def human_reward(self) -> HumanReward | None:
        """The human-designed reward: the entry's, or MetaWorld's. None if there is none.

        Raises:
            UsageError: MetaWorld's cannot be derived, because the task lacks a variable for something that it reads.
        """
        if self.own_human_reward is not None:
            success = f"def success({', '.join(self.inputs)}):\n    return {self.success_expression}\n"
            return HumanReward(self.own_human_reward, success)
        if not _is_metaworld_class(self.environment_class):
            return None
        reads = {variable.name: variable.read for variable in self.variables if not variable.at_reset}
        return derive(self.environment_class, reads)


def make_environment(make: str | Callable[..., Any], render_mode: str | None = None) -> Any:
    """A fresh Gymnasium environment without a time limit, with actions in [-1, 1]; see ``make`` above.

    Seeding a MetaWorld environment decides its goals, and its observations show them.
    """
    if callable(make):
        return _with_unit_actions(make(render_mode=render_mode))
    metaworld_class = _metaworld_class(make)
    if metaworld_class is None:
        import gymnasium

        made = gymnasium.make(make, render_mode=render_mode, max_episode_steps=-1, disable_env_checker=True)
        return _with_unit_actions(made)
    environment: Any = metaworld_class(render_mode=render_mode)
    environment.max_path_length = math.inf  # how long an episode lasts is the run's decision
    environment.seeded_rand_vec = True
    environment._freeze_rand_vec = False
    environment._set_task_called = True
    show_goal(environment, True)
    return environment


def _with_unit_actions(environment: Any) -> Any:
    space = environment.action_space
    if not hasattr(space, "low") or (np.all(space.low == -1) and np.all(space.high == 1)):
        return environment
    from gymnasium.wrappers import RescaleAction

    return RescaleAction(environment, np.float32(-1), np.float32(1))


def show_goal(environment: Any, visible: bool) -> None:
    """Whether a MetaWorld environment's observations have the goal, or zeros in its place."""
    environment._partially_observable = not visible
    environment.__dict__.pop("sawyer_observation_space", None)  # its bounds are cached, and clip the goal


def is_metaworld(environment: Any) -> bool:
    """Whether `environment` is one of MetaWorld's."""
    return _is_metaworld_class(type(environment.unwrapped))


def settle(environment: Any) -> None:
    """Bring the positions that MuJoCo derives up to date with the joints.

    Some MetaWorld tasks move things at the end of a reset, and leave positions as they were before. This touches
    nothing that the next step reads.
    """
    if hasattr(environment, "model") and hasattr(environment, "data"):
        import mujoco

        mujoco.mj_kinematics(environment.model, environment.data)


def compile_expression(source: str, parameters: str) -> Callable[..., Any]:
    """The Python expression `source` as a function; ``np`` is known to it."""
    return eval(compile(f"lambda {parameters}: (\n{source}\n)", "<expression>", "eval"), {"np": np})


def _is_metaworld_class(environment_class: type) -> bool:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    return issubclass(environment_class, SawyerXYZEnv)


def _metaworld_class(name: str) -> Callable[..., Any] | None:
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except Exception as error:  # MuJoCo fails in many ways when the drawing library that it is told to use is missing
        backend = os.environ.get("MUJOCO_GL")
        advice = f"; MUJOCO_GL is {backend!r}, unset it or install what it names" if backend else ""
        raise UsageError(f"MetaWorld cannot be imported ({type(error).__name__}: {error}){advice}") from error
    return ALL_V3_ENVIRONMENTS.get(name.removesuffix("-v2").removesuffix("-v3") + "-v3")


_FIELDS: dict[str, type] = {
    "description": str,
    "success": str,
    "success_expression": str,
    "variables": dict,
    "make": object,
    "human_reward": str,
}
_REQUIRED = ("description", "success", "success_expression")
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
    """Check an entry, and read from its environment what it does not say.

    Args:
        name: what the task is called.
        entry: the entry, as `task_specs` describes it.
        vocabulary: the variables that the task has if its environment is MetaWorld's; the entry's own complete them.
        task_file: where the entry comes from, if it is not ours.

    Raises:
        UsageError: the entry has a mistake: task, field, what was found and what was expected.
    """
    _check_fields(f"task {name!r}", entry, _FIELDS, _REQUIRED)
    make = entry.get("make", name)
    environment = _made(name, make)
    with contextlib.closing(environment):
        obs = _first_observation(environment)
        obs_size, action_size = (_size(name, environment, space) for space in ("observation_space", "action_space"))
        known = vocabulary if is_metaworld(environment) else {}
        merged = _merged(name, known, entry.get("variables", {}))
        values = {variable: _read(name, variable, fields, environment, obs) for variable, fields in merged.items()}
        environment_class = type(environment.unwrapped)
    variables = tuple(_variable(name, variable, fields, values[variable]) for variable, fields in merged.items())
    task = Task(
        name=name,
        description=entry["description"],
        success=entry["success"],
        success_expression=entry["success_expression"].strip(),
        variables=variables,
        inputs=_inputs(name, variables, obs_size, action_size),
        variable_width=sum(variable.size for variable in variables),
        obs_size=obs_size,
        action_size=action_size,
        make=make,
        environment_class=environment_class,
        own_human_reward=entry.get("human_reward"),
        task_file=task_file,
    )
    aliases = {alias: values[variable.name] for variable in variables for alias in variable.aliases}
    action = np.zeros(action_size)
    _check_criterion(task, {**values, **aliases, "obs": obs, "action": action, "actions": action})
    return task


def _made(task: str, make: Any) -> Any:
    try:
        return make_environment(make)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"task {task!r}, make: {make!r} makes no environment ({type(error).__name__}: {error}); expected the name "
            "of a MetaWorld task, the id of a Gymnasium environment, or a function of render_mode that returns one"
        ) from error


def _first_observation(environment: Any) -> np.ndarray:
    if is_metaworld(environment):
        environment.unwrapped.seed(0)
    obs, _ = environment.reset(seed=0)
    settle(environment.unwrapped)
    return obs


def _size(task: str, environment: Any, space: str) -> int:
    found = getattr(environment, space)
    if type(found).__name__ != "Box" or len(found.shape) != 1:
        raise UsageError(f"task {task!r}, make: its {space} is {found}, expected a Box of one dimension")
    return found.shape[0]


def _merged(task: str, vocabulary: Mapping[str, dict[str, Any]], own: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of every variable: the vocabulary's, and over them the entry's own."""
    merged = {}
    for variable in {**vocabulary, **own}:
        where = f"task {task!r}, variables.{variable}"
        found = own.get(variable, {})
        fields = {"meaning": found} if isinstance(found, str) else found
        _check_fields(where, fields, _VARIABLE_FIELDS, ())
        known = vocabulary.get(variable, {})
        if "read" in fields:  # what is read anew is not read at the old moment
            known = {field: value for field, value in known.items() if field != "at"}
        merged[variable] = {**known, **fields}
        _check_fields(where, merged[variable], _VARIABLE_FIELDS, _REQUIRED_OF_VARIABLE)
    return merged


def _read(task: str, variable: str, fields: Mapping[str, Any], environment: Any, obs: np.ndarray) -> Any:
    """The variable's value after the reset: a number or a vector, float64."""
    where, source = f"task {task!r}, variables.{variable}.read", fields["read"]
    try:
        value = np.array(compile_expression(source, "env, obs")(environment.unwrapped, obs), dtype=np.float64)
    except Exception as error:
        raise UsageError(
            f"{where}: {source!r} fails with {type(error).__name__}: {error}; expected an expression over env and obs "
            "that gives a number or a vector"
        ) from error
    if value.ndim > 1 or value.size == 0:
        raise UsageError(f"{where}: {source!r} has the shape {value.shape}, expected a number or a vector")
    return value


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
    except Exception as error:
        known = nearest(error.name, task.inputs) if isinstance(error, NameError) and error.name else ""
        raise UsageError(
            f"{where}: {task.success_expression!r} fails with {type(error).__name__}: {error}{known}; expected a "
            "condition on the variables"
        ) from error
    if not isinstance(found, (bool, np.bool_)):
        raise UsageError(f"{where}: {task.success_expression!r} gives {found!r}, expected True or False")


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
