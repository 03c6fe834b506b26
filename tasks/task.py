"""What a task is: its description, its success criterion, and the named quantities that a reward function may read."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.human_reward import HumanReward, derive
from tasks.simulator import is_metaworld_class

# What a variable means for the task. The program search composes rewards by role, and what a model is told about
# starts and episodes is measured between roles (`tasks.measures`).
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
    """Where an argument of a reward function is in a row: elements `start` to `stop` of `column`, as `shape`."""

    column: str
    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """A checked entry, with what its environment adds. Another process builds it from `name` and `task_file`.

    `variables` are in the order in which they are packed into a row, `variable_width` numbers in all. `inputs` has
    every name that a reward function may take: the variables, their aliases, ``obs``, and ``action`` or ``actions``.
    A task without a success criterion has an empty `success_expression`: it is never solved. `scene` is what a prompt
    says about the environment in place of its usual text; "" keeps that.
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
    scene: str = ""

    @functools.cached_property
    def human_reward(self) -> HumanReward | None:
        """The human-designed reward: the entry's, or MetaWorld's. None if there is none.

        Raises:
            UsageError: MetaWorld's cannot be derived, because the task lacks a variable for something that it reads.
        """
        if self.own_human_reward is not None:
            success = f"def success({', '.join(self.inputs)}):\n    return {self.success_expression or False}\n"
            return HumanReward(self.own_human_reward, success)
        if not is_metaworld_class(self.environment_class):
            return None
        reads = {variable.name: variable.read for variable in self.variables if not variable.at_reset}
        return derive(self.environment_class, reads)


def compile_expression(source: str, parameters: str) -> Callable[..., Any]:
    """Return the Python expression `source` as a function, which may use ``np``."""
    return eval(compile(f"lambda {parameters}: (\n{source}\n)", "<expression>", "eval"), {"np": np})
