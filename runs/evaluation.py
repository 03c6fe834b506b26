"""A saved policy in fresh episodes: how it did, as text, as JSON, and as a video."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from errors import RunError
from models import flat_network
from runs.boards import show_video
from runs.policy import SavedPolicy
from runs.reading import Run
from runs.video import film
from task_specs import Task, get_task
from tasks.episode import Episode, Order, Rule, Score
from workers.collectors import Collectors, PolicyShape
from workers.machine import without_keys
from workers.randomness import Use, start_seed


@dataclass(frozen=True)
class Evaluation:
    """How a policy did in episodes, each with the seed that it started from, without those that the simulator broke.

    Steps are env steps, action repeat included.
    """

    run: Run
    policy: SavedPolicy
    task: Task
    episodes: list[tuple[int, Episode]]

    @property
    def rule(self) -> Rule:
        """When an episode counts as solved, as in the run."""
        return self.run.flags.get("success", "any")

    @property
    def score(self) -> Score:
        """The score of the episodes."""
        return Score([episode for _, episode in self.episodes], self.rule)

    def steps_to_success(self, episode: Episode) -> int | None:
        """Return the env steps up to the first solved decision, None if there is none."""
        if not episode.success.any():
            return None
        return (int(episode.success.argmax()) + 1) * self.run.flags["action_repeat"]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each episode."""
        return [
            {
                "episode": number,
                "seed": seed,
                "success": episode.solved(self.rule),
                "success_at_last_step": episode.solved("last"),
                "steps_to_success": self.steps_to_success(episode),
                "env_return": episode.env_return,
                "nearest_distance": float(episode.distance.min()),
                "final_distance": float(episode.distance[-1]),
            }
            for number, (seed, episode) in enumerate(self.episodes, 1)
        ]

    def json(self) -> str:
        """Return everything as JSON, for a program."""
        flags, score, steps = self.run.flags, self.score, self._mean_steps()
        return json.dumps(
            {
                "run": str(self.run.directory),
                "task": self.task.name,
                "policy": {
                    "file": self.policy.path.name,
                    "agent": self.policy.agent,
                    "round": self.policy.round,
                    "deterministic": True,
                },
                **score.summary(),
                "success_interval": score.interval(),
                "steps_to_success": steps,
                "protocol": {
                    "episodes": len(self.episodes),
                    "success": self.rule,
                    "episode_length": flags["episode_length"],
                    "action_repeat": flags["action_repeat"],
                    "goal_visible": not flags["hide_goal"],
                },
                "episodes": self.rows(),
            },
            indent=2,
            allow_nan=False,
        )

    def text(self, verbose: bool) -> str:
        """Return the figures as lines, with `verbose` also those of each episode."""
        score, steps, flags = self.score, self._mean_steps(), self.run.flags
        low, high = score.interval()
        whose = "" if self.policy.agent is None else f", {self.run.agent_name(self.policy.agent)}"
        whose += "" if self.policy.round is None else f" of round {self.policy.round}"
        length = f"{len(self.episodes)} episodes of {flags['episode_length']} env steps"
        lines = [
            f"{self.task.name}: {self.policy.path.name}{whose} of {self.run.name}, deterministic, in {length}",
            f"success rate       {score.success_rate:.2f} (95% interval {low:.2f} to {high:.2f})",
            f"  at the last step {score.last_step_success_rate:.2f}",
            f"steps to success   {'never solved' if steps is None else f'{steps:.0f} on average, where solved'}",
            f"return             {score.env_return:.1f} of the environment's own reward",
        ]
        return "\n".join([*lines, *(_table(self.rows()) if verbose else [])])

    def film(self, out: Path, count: int, camera: str | None) -> None:
        """Render the first `count` episodes into a video (`runs.video.film`), and show it where the run is watched."""
        flags = self.run.flags
        hide_goal, action_repeat = bool(flags["hide_goal"]), flags["action_repeat"]
        film(self.task, self.episodes[:count], out, camera=camera, hide_goal=hide_goal, action_repeat=action_repeat)
        if note := show_video(self.run.directory, out, self.run.env_steps):
            print(note, file=sys.stderr)

    def _mean_steps(self) -> float | None:
        steps = [steps for _, episode in self.episodes if (steps := self.steps_to_success(episode)) is not None]
        return float(np.mean(steps)) if steps else None


def evaluate_policy(run: Run, policy: SavedPolicy, episodes: int, seed: int, workers: int = 0) -> Evaluation:
    """Run fresh episodes, in parallel, under the run's own protocol, with deterministic actions.

    Args:
        run: whose policy it is.
        policy: the policy.
        episodes: number of episodes.
        seed: seed of the episodes; no episode of any run starts from one of their seeds.
        workers: number of processes; 0: one per core.

    Raises:
        RunError: the environment failed in every episode.
    """
    flags = run.flags
    with without_keys():
        task = get_task(flags["env_name"], flags["task_file"])
    weights, sizes = flat_network(policy.state())
    shape = PolicyShape(sizes, flags["log_std_min"], flags["log_std_max"], flags.get("activation", "relu"))
    collectors = Collectors(task, shape, 1, workers, bool(flags["hide_goal"]), flags["action_repeat"])
    try:
        collectors.set_policies(weights[None])
        decisions = flags["episode_length"] // flags["action_repeat"]
        starts = [start_seed(seed, Use.EXAMINATION_START, number) for number in range(episodes)]
        found = collectors.run([Order(0, start, decisions) for start in starts])
    finally:
        collectors.close()
    sound = [(start, episode) for start, episode in zip(starts, found, strict=True) if not episode.failed]
    failures = [episode.failed for episode in found if episode.failed]
    if not sound:
        raise RunError(f"the environment failed in every episode: {failures[0]}")
    if failures:
        print(f"the environment failed in {len(failures)} episodes, left out: {failures[0]}", file=sys.stderr)
    return Evaluation(run, policy, task, sound)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    shown = [{name.replace("_", " "): _cell(value) for name, value in row.items()} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in shown)) for name in shown[0]}
    lines = [{name: name for name in widths}, *shown]
    return ["", *("  ".join(line[name].rjust(width) for name, width in widths.items()) for line in lines)]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
