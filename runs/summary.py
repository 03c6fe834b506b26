"""What a run came to: the last lines on the terminal, and summary.json."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arguments import Arguments
from runs.champion import Candidate
from runs.log import RunLog
from runs.wording import duration
from tasks.episode import Score


def protocol(args: Arguments, episodes: int) -> dict[str, Any]:
    """Return how a success rate was measured."""
    return {
        "episodes": episodes,
        "episode_length": args.episode_length,
        "action_repeat": args.action_repeat,
        "goal_visible": not args.hide_goal,
        "success": args.success,
        "fitness": args.fitness,
    }


def agents_row(
    figures: Mapping[int, Mapping[str, float]],
    arms: Sequence[Mapping[str, float]],
    losses: Mapping[str, np.ndarray],
) -> dict[int, dict[str, float]]:
    """Return what metrics.jsonl has of each agent that was evaluated: figures, its arm, losses."""
    return {
        agent: {**found, **arms[agent], **{name: values[agent] for name, values in losses.items()}}
        for agent, found in figures.items()
    }


def sum_up(
    args: Arguments,
    log: RunLog,
    status: str,
    env_steps: int,
    best: Candidate | None,
    final: Score | None,
    costs: dict[str, Any],
) -> None:
    """Tell the user how the run ended, and write summary.json.

    Args:
        status: "finished", "solved" or "interrupted".
        best: the policy that the run hands out, None when none was evaluated.
        final: how it did in fresh episodes on which nothing was chosen, None when the run was interrupted.
        costs: further entries of the summary.
    """
    summary: dict[str, Any] = {"status": status, "final_success_rate": None}
    if final is not None:
        low, high = final.interval()
        summary |= {
            **{f"final_{name}": value for name, value in final.summary().items()},
            "final_success_interval": [low, high],
            "protocol": protocol(args, len(final.episodes)),
        }
        log.say(
            f"final success rate {final.success_rate:.2f} (95% interval {low:.2f} to {high:.2f}) over "
            f"{len(final.episodes)} fresh episodes; {env_steps:,} env steps in {duration(log.wall_time)}"
        )
    else:
        kept = f"the best policy so far is in {log.directory}" if best else "no policy is evaluated yet"
        log.say(f"stopped after {env_steps:,} env steps; {kept}")
        log.say(f"to go on: python lares_{args.setting}.py --resume {shlex.quote(str(log.directory))}")
    chosen = best.summary() if best else {}
    summary |= {**chosen, "env_steps": env_steps, "wall_time": round(log.wall_time, 3), **costs}
    log.write_json("summary.json", summary)
