"""What a language model is asked: the files of `prompts/` with their fields filled in.

A prompt is plain text with {named} fields, so that it can be read and changed without knowing Python.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from arguments import Setting
from errors import UsageError, nearest
from search.protocol import Message
from task_specs import Task
from tasks.environment import Columns
from tasks.episode import Rule
from tasks.measures import Measures
from tasks.simulator import METAWORLD_STEP, is_metaworld_class

DIRECTORY = Path(__file__).parents[1] / "prompts"
_FIELDS = {
    "system": ("scene",),
    "scene": ("step",),
    "task": (
        "description",
        "success",
        "success_expression",
        "solved_when",
        "calls",
        "starts",
        "variables",
        "arguments",
    ),
    "observation": (),
    "feedback": (
        "success_rate",
        "nearest_distance",
        "final_distance",
        "own_return",
        "components",
        "course",
        "population",
        "order",
        "rejected",
        "human_feedback",
    ),
    "course": ("solved", "nearness", "history", "sides", "whereabouts", "course"),
    "population": ("alive", "gone", "second", "source"),
    "gone": ("functions",),
    "earlier": ("functions",),
    "rejected": ("reasons",),
    "order": ("share",),
    "human_feedback": ("text",),
    "examples": ("functions",),
}
_FIELDS_WITH_INIT = {
    **_FIELDS,
    "task": (*_FIELDS["task"], "human_reward", "success_source"),
    "feedback": (*_FIELDS["feedback"], "env_return"),
    "human_best": (
        "success_rate",
        "nearest_distance",
        "final_distance",
        "env_return",
        "course",
        "population",
        "rejected",
        "human_feedback",
    ),
}


class Prompts:
    """The prompts of one setting: "with_init" shows the human reward and its return, "from_scratch" neither.

    They are ours, or those in the user's `directory`, which must have all of them. Raises UsageError when a prompt is
    missing, cannot be read, or has a field that nothing fills.
    """

    def __init__(self, setting: Setting, directory: str | None = None) -> None:
        self.setting = setting
        self._texts: dict[str, str] = {}
        ours = DIRECTORY / setting
        place = Path(directory) if directory else ours
        known = _FIELDS_WITH_INIT if setting == "with_init" else _FIELDS
        if missing := [f"{name}.txt" for name in known if directory and not (place / f"{name}.txt").exists()]:
            raise UsageError(f"--prompts {directory} lacks {', '.join(missing)}; begin with a copy of {ours}")
        for name, fields in known.items():
            path = place / f"{name}.txt"
            try:
                self._texts[name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
            for used in re.findall(r"\{(\w+)\}", self._texts[name]):
                if used not in fields:
                    raise UsageError(f"{path}: nothing fills the field {{{used}}}{nearest(used, fields)}")

    def fill(self, name: str, fields: Mapping[str, str]) -> str:
        """The prompt of that name with its fields filled in."""
        return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], self._texts[name])

    def _scene(self, task: Task, action_repeat: int) -> str:
        """Return what an action moves: in the task's own words, MetaWorld's arm, or only the size of the action."""
        if task.scene:
            return task.scene
        if is_metaworld_class(task.environment_class):
            return self.fill("scene", {"step": f"{METAWORLD_STEP * action_repeat:g}"})
        return f"An action is {task.action_size} numbers from -1 to 1."

    def opening(
        self,
        task: Task,
        episode_length: int,
        action_repeat: int,
        rule: Rule,
        starts: Columns,
        examples: Sequence[str] = (),
    ) -> list[Message]:
        """The conversation with which every search begins: the contract, and the task.

        Args:
            task: what the reward is for.
            episode_length: env steps in an episode.
            action_repeat: env steps in a decision.
            rule: when an episode counts as solved.
            starts: columns of states in which episodes begin, empty when none are known.
            examples: functions that solved other tasks.

        Raises:
            UsageError: with init the task has no human reward.
        """
        metaworld = is_metaworld_class(task.environment_class)
        fields = {
            "description": task.description,
            "success": task.success,
            "success_expression": task.success_expression,
            "solved_when": _solved_when(episode_length, rule),
            "calls": _describe_calls(episode_length, action_repeat),
            "starts": _describe_starts(task, starts) if starts else "",
            "variables": _describe_variables(task, self.fill("observation", {}).strip() if metaworld else ""),
            "arguments": ", ".join([*(variable.name for variable in task.variables), "obs", "action"]),
        }
        if self.setting == "with_init":
            if task.human_reward is None:
                raise UsageError(f"task {task.name} has no human reward to start from; use lares_from_scratch.py")
            fields["human_reward"] = task.human_reward.source.strip()
            fields["success_source"] = task.human_reward.success_source.strip()
        opening = [
            {"role": "system", "content": self.fill("system", {"scene": self._scene(task, action_repeat)})},
            {"role": "user", "content": self.fill("task", fields)},
        ]
        return with_appendix(opening, self.fill("examples", {"functions": "\n\n".join(examples)}) if examples else "")


def with_appendix(messages: list[Message], text: str) -> list[Message]:
    """The conversation with `text` appended to its last message: two messages of one role in a row trip servers."""
    if not text:
        return messages
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"].rstrip("\n") + "\n" + text}]


def _solved_when(episode_length: int, rule: Rule) -> str:
    if rule == "any":
        return f"at any of its {episode_length} steps"
    return "at its last step" if rule == "last" else f"at each of its last {rule} steps, one of an agent's actions each"


def _describe_calls(episode_length: int, action_repeat: int) -> str:
    decisions = episode_length // action_repeat
    if action_repeat == 1:
        return f"once for each of the {decisions} steps of an episode"
    return f"once for each of the {decisions} decisions of an episode, each one action over {action_repeat} steps"


def _describe_starts(task: Task, starts: Columns) -> str:
    """How far apart things are when episodes begin, one line for each distance to be covered."""
    units = {variable.name: variable.unit for variable in task.variables}
    lines = []
    for (what, to), differences in Measures(task).differences(starts).items():
        distances = np.linalg.norm(differences, axis=1)
        low, high = (f"{bound:.2g}" for bound in (distances.min(), distances.max()))
        lines.append(
            f"- {what} is {low} to {high} {units[what]} from {to}"
            if low != high
            else f"- {what} is {low} {units[what]} from {to}"
        )
    return "\nWhere episodes begin:\n" + "\n".join(lines) + "\n" if lines else ""


def _describe_variables(task: Task, layout: str) -> str:
    lines = []
    for variable in task.variables:
        shape = f"array of shape {variable.shape}" if variable.shape else "a number"
        unit = f", in {variable.unit}" if variable.unit else ""
        lines.append(f"- {variable.name} ({shape}{unit}): {variable.meaning}")
    obs = f"- obs (array of shape ({task.obs_size},)): the whole observation after the step"
    lines.append(f"{obs}; {layout}" if layout else obs)
    lines.append(f"- action (array of shape ({task.action_size},)): the action that was taken in the step")
    return "\n".join(lines)
