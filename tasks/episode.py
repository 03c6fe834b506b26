"""What happened in an episode, and how a policy did in several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNIFORM = -1
"""The policy that draws every action uniformly."""

Rule = str | int
"""When an episode counts as solved: "any" (at any decision), "last" (at its last), or n (at each of its last n)."""


@dataclass(frozen=True)
class Order:
    """One episode to be collected. The environment and the policy have separate seeds."""

    policy: int  # row of the weights, or UNIFORM
    seed: int  # of the environment
    steps: int  # decisions, unless the episode ends earlier
    noise_seed: int | None = None  # of the policy's draws; None: it is deterministic


@dataclass(frozen=True)
class Episode:
    """What happened in T decisions.

    Attributes:
        transitions: float32 columns obs (T, O), action (T, A), next_obs (T, O), variables (T, V), and env_reward (T,),
            terminal (T,). An episode that was cut off by a time limit has no terminal decision.
        success: whether the task was solved at each decision, (T,) bool.
        distance: how far the state was from success after each decision, by the task's own criterion (see
            `tasks.success`), (T,) float32: finite, 0 where it was solved. A criterion that gives no distance
            counts as 1 where it was not.
        failed: what went wrong in the environment, in one line; "" if nothing did. A failed episode ends with the last
            sound decision, and may have none.
    """

    transitions: dict[str, np.ndarray]
    success: np.ndarray
    distance: np.ndarray
    failed: str = ""

    @property
    def env_return(self) -> float:
        """Sum of the environment's rewards."""
        return float(self.transitions["env_reward"].sum(dtype=np.float64))

    def solved(self, rule: Rule = "any") -> bool:
        """Return whether the task counts as solved.

        An episode that terminated with success is solved under every rule: a terminal state would last.
        """
        if rule == "any" or not self.success.any():
            return bool(self.success.any())
        if rule == "last" or self.transitions["terminal"][-1]:
            return bool(self.success[-1])
        return len(self.success) >= int(rule) and bool(self.success[-int(rule) :].all())


@dataclass(frozen=True)
class Score:
    """How a policy did in the episodes of one evaluation, at least one and none of them failed."""

    episodes: Sequence[Episode]
    rule: Rule = "any"

    @property
    def success_rate(self) -> float:
        """Share of the episodes that were solved under the rule."""
        return self._solved(self.rule)

    @property
    def any_step_success_rate(self) -> float:
        """Share of the episodes that were solved at any step."""
        return self._solved("any")

    @property
    def last_step_success_rate(self) -> float:
        """Share of the episodes that were solved at their last step."""
        return self._solved("last")

    @property
    def env_return(self) -> float:
        """Mean sum of the environment's own rewards."""
        return float(np.mean([episode.env_return for episode in self.episodes]))

    @property
    def nearest_distance(self) -> float:
        """How near to success the episodes came: mean over episodes of the smallest distance."""
        return float(np.mean([episode.distance.min() for episode in self.episodes]))

    @property
    def final_distance(self) -> float:
        """How near to success the episodes ended: mean over episodes of the last distance."""
        return float(np.mean([episode.distance[-1] for episode in self.episodes]))

    @property
    def distance(self) -> float:
        """How far from success the policy is: the average of its nearest and its final distance."""
        return (self.nearest_distance + self.final_distance) / 2

    def fitness(self, by: str) -> tuple[float, float]:
        """Return what policies are ranked by: the first number, and the second where that is equal.

        They are the success rate and then, by "success", how near to success the episodes came; by "return", as
        published, the environment's return, which on MetaWorld is that of the human-designed reward.
        """
        return self.success_rate, self.env_return if by == "return" else -self.distance

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Score":
        """Return the score that `dataclasses.asdict` turned into `state`."""
        return cls([Episode(**episode) for episode in state["episodes"]], state["rule"])

    def interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of the success rate.

        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
        """
        from scipy import stats  # takes a third of a second to load, and is rarely needed

        solved = round(self.success_rate * len(self.episodes))
        interval = stats.binomtest(solved, len(self.episodes)).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)

    def within_chance(self, other: "Score") -> bool:
        """Return whether one of the two success rates lies in the other one's interval."""
        rates = self.success_rate, other.success_rate
        intervals = other.interval(), self.interval()
        return any(low <= rate <= high for rate, (low, high) in zip(rates, intervals, strict=True))

    def joined(self, other: "Score") -> "Score":
        """Return the score of both evaluations' episodes."""
        return Score([*self.episodes, *other.episodes], self.rule)

    def summary(self) -> dict[str, float]:
        """Return the figures by their names."""
        names = (
            "success_rate", "any_step_success_rate", "last_step_success_rate", "env_return",
            "distance", "nearest_distance", "final_distance",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def columns(self, *names: str) -> dict[str, np.ndarray]:
        """Return columns of all the episodes' transitions, one episode after the other."""
        return {name: np.concatenate([episode.transitions[name] for episode in self.episodes]) for name in names}

    def _solved(self, rule: Rule) -> float:
        return float(np.mean([episode.solved(rule) for episode in self.episodes]))


def ranked(scores: Mapping[int, Score], by: str) -> list[int]:
    """Return the agents, the best one by :meth:`Score.fitness` first; ties keep their order."""
    return sorted(scores, key=lambda agent: scores[agent].fitness(by), reverse=True)


def ranked_beyond_chance(scores: Mapping[int, Score], nearest: Mapping[int, float]) -> list[int]:
    """Return the agents, best first, so that no single lucky episode decides.

    The agent with the highest success rate, and all whose rates are within chance of it, come first, in the order of
    their distances from success in `nearest`; the others follow in the same way.
    """
    left, ranking = ranked(scores, "success"), list[int]()
    while left:
        equals = [agent for agent in left if scores[agent].within_chance(scores[left[0]])]
        ranking += sorted(equals, key=lambda agent: nearest[agent])
        left = [agent for agent in left if agent not in equals]
    return ranking
