"""The reward function that a run chooses, as a file of its own that states its origin."""

import ast

import reward_utils
from arguments import Arguments
from errors import plain_line
from runs.champion import Candidate
from search.reward_function import RewardFunction
from task_specs import Task
from tasks.episode import Score

NAME = "best_reward.py"


def best_reward(
    args: Arguments, task: Task, best: Candidate, function: RewardFunction | None, final: Score | None
) -> str:
    """Return the source below a header of comments, with the imports that it needs outside of a run.

    Args:
        args: the flags.
        task: the task.
        best: the policy that was chosen.
        function: what it learned from, None for the human-designed reward.
        final: how it did in fresh episodes that had no part in the choice, None when the run was interrupted.
    """
    source = function.source if function else task.human_reward.source if task.human_reward else ""
    head = {
        "task": args.env_name,
        "setting": args.setting.replace("_", " "),
        "model": f"{args.model}, seed {args.seed}",
        "function": _origin(function),
        "success": _success(best, final),
        "chosen at": f"{best.env_steps:,} env steps in the buffer, agent {best.agent}",
    }
    comments = "".join(f"# {name + ':':<10} {plain_line(text)}\n" for name, text in head.items())
    return f"# The reward function that a run of LaRes chose.\n{comments}\n{_imports(source)}{source.strip()}\n"


def _origin(function: RewardFunction | None) -> str:
    if function is None:
        return "the human-designed reward, which no model wrote"
    parents = " and ".join(map(str, function.parents))
    written = f"{function.id}, written in search round {function.round}"
    return f"{written} from {parents}" if parents else f"{written} without parents"


def _success(best: Candidate, final: Score | None) -> str:
    if final is None:
        return f"best so far {best.success_rate:.2f}; the run was interrupted before its final episodes"
    low, high = final.interval()
    count = len(final.episodes)
    return f"final {final.success_rate:.2f} (95% interval {low:.2f} to {high:.2f}) over {count} fresh episodes"


def _imports(source: str) -> str:
    """Return the imports that a file needs for the names that reward code has without importing them."""
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    known = {"math": "import math", "np": "import numpy as np", "reward_utils": "import reward_utils"}
    lines = [line for name, line in known.items() if name in names]
    if helpers := sorted(names & set(reward_utils.__all__)):
        lines.append(f"from reward_utils import {', '.join(helpers)}")
    return "\n".join(lines) + "\n\n\n" if lines else ""
