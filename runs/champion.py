"""The final policy of a run: the few best of all evaluations are compared on fresh episodes before one is chosen.

The best of many noisy evaluations is biased upwards: its figure is high partly by luck. So candidates are compared on
episodes that had no part in picking them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import flat_network

CANDIDATES = 5  # number that is kept

Figures = dict[str, float]
"""What `tasks.episode.Score.summary` returns."""


@dataclass
class Candidate:
    """A policy that did well in an evaluation.

    Attributes:
        agent: whose it was.
        function: id of the reward function that it learned from, None for the human reward.
        round: search round in which it was evaluated.
        env_steps: env steps collected when it was evaluated.
        fitness: what it is ranked by, larger is better: as confirmed, else as evaluated.
        evaluated: what the evaluation found.
        networks: its state dicts by file name, see `Population.networks`.
        confirmed: what the last confirmation found, None before the first.
    """

    agent: int
    function: int | None
    round: int
    env_steps: int
    fitness: tuple[float, ...]
    evaluated: Figures
    networks: dict[str, dict[str, Any]]
    confirmed: Figures | None = None

    @property
    def success_rate(self) -> float:
        """Success rate as confirmed, else as evaluated."""
        return (self.confirmed or self.evaluated)["success_rate"]

    @property
    def weights(self) -> np.ndarray:
        """Its actor's parameters (P,), as the collectors take them."""
        return flat_network(self.networks["best_actor_net"])[0]

    def summary(self) -> dict[str, Any]:
        """Return which policy it is, for summary.json."""
        return {
            "chosen_agent": self.agent,
            "chosen_function": self.function,
            "chosen_round": self.round,
            "chosen_env_steps": self.env_steps,
            "evaluated": self.evaluated,
            "confirmed": self.confirmed,
        }


class Champions:
    """The best candidates so far, best first."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []

    @property
    def best(self) -> Candidate | None:
        """The best candidate, None before the first evaluation."""
        return self.candidates[0] if self.candidates else None

    @property
    def success_rate(self) -> float | None:
        """The success rate of the best candidate so far, None before the first evaluation."""
        return self.candidates[0].success_rate if self.candidates else None

    def enter(self, candidate: Candidate) -> bool:
        """Keep the candidate if it is among the best; the newer one wins ties. Return whether it is the best now."""
        self.candidates = [candidate, *self.candidates]
        self._sort()
        del self.candidates[CANDIDATES:]
        return self.best is candidate

    def reached(self, success_rate: float) -> bool:
        """Return whether fresh episodes confirmed that the best one reaches this success rate; 0: it is not asked."""
        return bool(success_rate and self.best and self.best.confirmed and self.best.success_rate >= success_rate)

    def confirm(self, found: Mapping[int, tuple[tuple[float, ...], Figures]]) -> None:
        """Rank the candidates again by (fitness, figures) of fresh episodes, given by their place in the order."""
        for place, (fitness, figures) in found.items():
            self.candidates[place].fitness, self.candidates[place].confirmed = fitness, figures
        self._sort()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the candidates as plain data, in order."""
        return [dict(vars(candidate)) for candidate in self.candidates]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.candidates = [Candidate(**{**row, "fitness": tuple(row["fitness"])}) for row in state]

    def _sort(self) -> None:
        self.candidates.sort(key=lambda candidate: candidate.fitness, reverse=True)
