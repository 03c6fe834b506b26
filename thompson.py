"""Whose policy collects next: Thompson sampling over the agents' recent successes.

Thompson, "On the likelihood that one unknown probability exceeds another", 1933; here with Beta(1, 1) priors and a
window over outcomes, so that what an agent did long ago is forgotten.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np


class ThompsonSampler:
    """Beta-Bernoulli arms that each remember their last `window` outcomes.

    Args:
        arms: number of arms.
        window: how many outcomes an arm remembers.
        seed: seed of the draws.
    """

    def __init__(self, arms: int, window: int, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.outcomes: list[deque[bool]] = [deque(maxlen=window) for _ in range(arms)]
        self.episodes = [0] * arms  # of each arm since the run began

    def choose(self, selection: str, arms: Sequence[int], count: int) -> list[int]:
        """Return distinct members of `arms`: the winners of `count` draws ("thompson"), `count` at random, or all."""
        if selection == "all" or not arms:
            return list(arms)
        if selection == "uniform":
            return sorted({arms[pick] for pick in self.generator.integers(len(arms), size=count)})
        return self.draw(arms, count)

    def draw(self, alive: Sequence[int], count: int) -> list[int]:
        """Return the distinct winners, in order, of `count` draws among the arms `alive`."""
        successes = np.array([sum(self.outcomes[arm]) for arm in alive])
        trials = np.array([len(self.outcomes[arm]) for arm in alive])
        samples = self.generator.beta(1 + successes, 1 + trials - successes, size=(count, len(alive)))
        return sorted({alive[winner] for winner in samples.argmax(axis=1)})

    def update(self, arm: int, success: bool) -> None:
        """Remember one outcome of `arm`."""
        self.outcomes[arm].append(bool(success))
        self.episodes[arm] += 1

    def reset(self) -> None:
        """Forget all outcomes: the reward functions have changed, and the agents with them."""
        for outcomes in self.outcomes:
            outcomes.clear()

    def rates(self) -> list[float]:
        """Return the mean of each arm's posterior."""
        return [(1 + sum(outcomes)) / (2 + len(outcomes)) for outcomes in self.outcomes]

    def figures(self) -> list[dict[str, float]]:
        """Return each arm's row for the log: posterior mean, window, and all episodes that it has collected."""
        return [
            {
                "thompson": rate,
                "window_successes": sum(outcomes),
                "window_episodes": len(outcomes),
                "collected_episodes": episodes,
            }
            for rate, outcomes, episodes in zip(self.rates(), self.outcomes, self.episodes, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the outcomes in the windows, the numbers of episodes, and the random state."""
        state = self.generator.bit_generator.state
        outcomes = [list(outcomes) for outcomes in self.outcomes]
        return {"outcomes": outcomes, "episodes": list(self.episodes), "generator": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for outcomes, saved in zip(self.outcomes, state["outcomes"], strict=True):
            outcomes.clear()
            outcomes.extend(saved)
        self.episodes = list(state["episodes"])
        self.generator.bit_generator.state = state["generator"]
