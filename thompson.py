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
    """

    def __init__(self, arms: int, window: int) -> None:
        self.outcomes: list[deque[bool]] = [deque(maxlen=window) for _ in range(arms)]

    def draw(self, alive: Sequence[int], count: int, generator: np.random.Generator) -> list[int]:
        """The distinct winners, in order, of `count` draws among the arms `alive`."""
        successes = np.array([sum(self.outcomes[arm]) for arm in alive])
        trials = np.array([len(self.outcomes[arm]) for arm in alive])
        samples = generator.beta(1 + successes, 1 + trials - successes, size=(count, len(alive)))
        return sorted({alive[winner] for winner in samples.argmax(axis=1)})

    def update(self, arm: int, success: bool) -> None:
        """Remember one outcome of `arm`."""
        self.outcomes[arm].append(bool(success))

    def reset(self) -> None:
        """Forget everything: the reward functions have changed, and the agents with them."""
        for outcomes in self.outcomes:
            outcomes.clear()

    def rates(self) -> list[float]:
        """Mean of each arm's posterior."""
        return [(1 + sum(outcomes)) / (2 + len(outcomes)) for outcomes in self.outcomes]

    def state_dict(self) -> dict[str, Any]:
        """The outcomes in the windows."""
        return {"outcomes": [list(outcomes) for outcomes in self.outcomes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for outcomes, saved in zip(self.outcomes, state["outcomes"], strict=True):
            outcomes.clear()
            outcomes.extend(saved)
