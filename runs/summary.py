"""A run's results: the last lines on the terminal, and summary.json."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arguments import Arguments
from runs import best_reward
from runs.champion import Candidate
from runs.log import RunLog
from runs.wording import duration
from search.rounds import RewardSearch
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
    scores: Mapping[int, Score],
    arms: Sequence[Mapping[str, float]],
    losses: Mapping[str, np.ndarray],
) -> dict[int, dict[str, float]]:
    """Return what metrics.jsonl has on each agent that was evaluated: figures, its Thompson arm, losses."""
    return {
        agent: {**score.summary(), **arms[agent], **{name: values[agent] for name, values in losses.items()}}
        for agent, score in scores.items()
    }


def sum_up(
    args: Arguments,
    log: RunLog,
    search: RewardSearch,
    status: str,
    env_steps: int,
    best: Candidate | None,
    final: Score | None,
    dropped: int,
) -> None:
    """Tell the user how the run ended, and write its summary, its population and the chosen reward function.

    Args:
        search: the reward search, which has the functions that the agents learned from and their cost.
        status: "finished", "solved" or "interrupted".
        best: the policy that the run chose, None when none was evaluated.
        final: how it did in fresh episodes that had no part in the choice, None when the run was interrupted.
        dropped: episodes that the simulator broke.
    """
    log.population(search.functions)
    summary: dict[str, Any] = {"status": status, "final_success_rate": None}
    reward = log.directory / best_reward.NAME
    if best:
        function = None if best.function is None else search.functions[best.function]
        summary |= {**best.summary(), "chosen_function_round": function.round if function else None}
        log.write_text(reward.name, best_reward.best_reward(args, search.task, best, function, final))
    if final is not None:
        low, high = final.interval()
        summary |= {
            **{f"final_{name}": value for name, value in final.summary().items()},
            "final_success_interval": [low, high],
            "protocol": protocol(args, len(final.episodes)),
        }
        log.say(
            f"final success rate {final.success_rate:.2f} (95% interval {low:.2f} to {high:.2f}) over "
            f"{len(final.episodes)} fresh episodes; {env_steps:,} env steps in {duration(log.wall_time)}",
            final=True,
        )
        log.say(f"the reward function that this policy learned from is in {reward}", final=True)
    else:
        kept = (
            f"the best policy so far and its reward function, {reward.name}, are in {log.directory}"
            if best
            else "no policy is evaluated yet"
        )
        log.say(f"stopped after {env_steps:,} env steps; {kept}", final=True)
        resume = f"python lares_{args.setting}.py --resume {shlex.quote(str(log.directory))}"
        log.say(f"to resume: {resume}", final=True)
    llm = search.cost(args.price_in, args.price_out) | {"rejected": search.rejected}
    wall_time = round(log.wall_time, 3)
    log.write_json(
        "summary.json",
        {**summary, "env_steps": env_steps, "wall_time": wall_time, "dropped_episodes": dropped, "llm": llm},
    )
