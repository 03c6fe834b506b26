"""Episodes on demand, each with random streams of its own, without those that the simulator spoiled."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from errors import WARNING, RunError
from tasks.episode import UNIFORM, Episode, Order, Rule, Score
from workers.collectors import Collectors
from workers.randomness import Use, seed_for, start_seed

_MOST_DROPPED = 20  # episodes in a row that may be lost to the simulator before the run ends


class Simulator:
    """Runs episodes of policies.

    Args:
        collectors: the environment workers.
        seed: the run's seed, from which each episode's streams are derived.
        decisions: actions in an episode.
        rule: when an episode counts as solved.
        log: takes one line for the user.

    Attributes:
        dropped: number of episodes that the simulator spoiled, by an exception or by numbers that are not finite.
    """

    def __init__(
        self, collectors: Collectors, seed: int, decisions: int, rule: Rule, log: Callable[[str], None]
    ) -> None:
        self._collectors = collectors
        self._seed = seed
        self._decisions = decisions
        self._rule = rule
        self._log = log
        self.dropped = 0
        self._dropped_in_a_row = 0

    def explore(self, decisions: int, round: int = 0) -> list[Episode]:
        """Return episodes of uniform random actions, `decisions` in total; each `round` has streams of its own."""
        orders = [
            Order(
                UNIFORM,
                start_seed(self._seed, Use.EXPLORATION_START, round, number),
                length,
                seed_for(self._seed, Use.EXPLORATION_ACTIONS, round, number),
            )
            for number, length in enumerate(self._lengths(decisions))
        ]
        return [episode for episode in self._collectors.run(orders) if self._is_collected(episode)]

    def collect(
        self, arms: Sequence[int], policies: np.ndarray, iteration: int, decisions: int
    ) -> list[tuple[int, Episode]]:
        """Return an episode of each arm's stochastic policy, with the arm.

        Args:
            arms: numbers of policies.
            policies: the actors' parameters (n, P) of the first n policies.
            iteration: the iteration of the loop, from which the episodes' streams are derived.
            decisions: maximum for all episodes together; the last ones are shorter, or left out.
        """
        self._collectors.set_policies(policies)
        lengths = self._lengths(decisions)
        orders = [
            Order(
                arm,
                start_seed(self._seed, Use.COLLECTION_START, iteration, arm),
                length,
                seed_for(self._seed, Use.COLLECTION_ACTIONS, iteration, arm),
            )
            for arm, length in zip(arms, lengths, strict=False)
        ]
        episodes = self._collectors.run(orders)
        return [(arm, episode) for arm, episode in zip(arms, episodes, strict=False) if self._is_collected(episode)]

    def evaluate(
        self, agents: Sequence[int], policies: np.ndarray, episodes: int, use: Use, number: int = 0
    ) -> dict[int, Score]:
        """Return how the agents' deterministic policies did, each in the same episodes.

        Args:
            agents: numbers of policies.
            policies: as for :meth:`collect`.
            episodes: number of episodes for each.
            use: the stream of their starts.
            number: number of the evaluation, for a stream of its own.
        """
        self._collectors.set_policies(policies)
        starts = [start_seed(self._seed, use, number, episode) for episode in range(episodes)]
        orders = [Order(agent, start, self._decisions) for agent in agents for start in starts]
        found = self._collectors.run(orders)
        scores = {}
        for place, agent in enumerate(agents):
            own = found[place * episodes : (place + 1) * episodes]
            sound = [episode for episode in own if not self._fault(episode)]
            if sound:
                scores[agent] = Score(sound, self._rule)
        if agents and not scores:
            raise RunError("the simulator spoiled every episode of an evaluation; run.log has the reasons")
        return scores

    def state_dict(self) -> dict[str, int]:
        """Return how many episodes were dropped, in total and in a row."""
        return {"dropped": self.dropped, "in_a_row": self._dropped_in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue counting from what :meth:`state_dict` returned."""
        self.dropped, self._dropped_in_a_row = state["dropped"], state["in_a_row"]

    def _lengths(self, decisions: int) -> list[int]:
        """Return the lengths of the episodes that have that many decisions in total."""
        return [min(self._decisions, decisions - done) for done in range(0, decisions, self._decisions)]

    def _is_collected(self, episode: Episode) -> bool:
        """Return whether an episode is sound; when many in a row are not, the run cannot continue."""
        fault = self._fault(episode)
        self._dropped_in_a_row = self._dropped_in_a_row + 1 if fault else 0
        if self._dropped_in_a_row >= _MOST_DROPPED:
            raise RunError(f"{self._dropped_in_a_row} episodes in a row failed; the last one: {fault}")
        return not fault

    def _fault(self, episode: Episode) -> str:
        """Return why an episode is dropped, and count it; "" if it is sound."""
        fault = episode.failed
        if not all(np.isfinite(column).all() for column in episode.transitions.values()):
            fault = fault or "a transition holds numbers that are not finite"
        if fault:
            self.dropped += 1
            self._log(f"{WARNING}dropped an episode ({self.dropped} so far): {fault}")
        return fault
