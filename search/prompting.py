"""What a language model is asked: the files of `prompts/` with their fields filled.

A prompt is plain text with {named} fields, so that it can be read and changed without knowing Python.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from arguments import Setting
from errors import UsageError, nearest
from search.protocol import Message
from task_specs import Task
from tasks.episode import Rule
from tasks.simulator import is_metaworld_class

DIRECTORY = Path(__file__).parents[1] / "prompts"
_FIELDS = {
    "system": ("scene",),
    "scene": (),
    "task": ("description", "success", "success_expression", "solved_when", "variables", "arguments"),
    "feedback": (
        "success_rate",
        "nearest_distance",
        "final_distance",
        "own_return",
        "components",
        "metrics",
        "order",
        "rejected",
        "human_feedback",
    ),
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
        "metrics",
        "rejected",
        "human_feedback",
    ),
}


class Prompts:
    """The prompts of one setting: "with_init" shows the human reward and its return, "from_scratch" nothing of it.

    They are ours, or those in a `directory` of the user's, which must have them all. Raises UsageError when a prompt is
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
        """The prompt of that name with its fields filled."""
        return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], self._texts[name])

    def _scene(self, task: Task) -> str:
        """Return what there is to be moved: the task's own words, MetaWorld's arm, or no more than the action."""
        if task.scene:
            return task.scene
        if is_metaworld_class(task.environment_class):
            return self.fill("scene", {})
        return f"An action is {task.action_size} numbers from -1 to 1."

    def opening(self, task: Task, episode_length: int, rule: Rule) -> list[Message]:
        """The conversation with which every search begins: the contract, and the task.

        Raises UsageError when with init the task has no human reward.
        """
        fields = {
            "description": task.description,
            "success": task.success,
            "success_expression": task.success_expression,
            "solved_when": _solved_when(episode_length, rule),
            "variables": _describe_variables(task),
            "arguments": ", ".join([*(variable.name for variable in task.variables), "obs", "action"]),
        }
        if self.setting == "with_init":
            if task.human_reward is None:
                raise UsageError(f"task {task.name} has no human reward to start from; use lares_from_scratch.py")
            fields["human_reward"] = task.human_reward.source.strip()
            fields["success_source"] = task.human_reward.success_source.strip()
        return [
            {"role": "system", "content": self.fill("system", {"scene": self._scene(task)})},
            {"role": "user", "content": self.fill("task", fields)},
        ]


def _solved_when(episode_length: int, rule: Rule) -> str:
    if rule == "any":
        return f"at any of its {episode_length} steps"
    return "at its last step" if rule == "last" else f"at each of its last {rule} steps, one of an agent's actions each"


def _describe_variables(task: Task) -> str:
    lines = []
    for variable in task.variables:
        shape = f"array of shape {variable.shape}" if variable.shape else "a number"
        unit = f", in {variable.unit}" if variable.unit else ""
        lines.append(f"- {variable.name} ({shape}{unit}): {variable.meaning}")
    lines.append(f"- obs (array of shape ({task.obs_size},)): the whole observation after the step")
    lines.append(f"- action (array of shape ({task.action_size},)): the action that was taken in the step")
    return "\n".join(lines)
