"""Fits the numbers of a function (weights, widths, thresholds) so that it ranks stored episodes better."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from reward_code import VariedRewards, numbers_in, with_numbers
from search.scoring import Experience, evenly
from task_specs import Input

_FACTOR = 4.0  # by which a number may grow or shrink
_EPISODES, _ROWS = 100, 25  # used for a fit, rows of each episode; machine code computes millions of rows a second
_APART = 0.01  # share of the range of nearness below which two unsolved episodes count as equally good
_FEWEST_PAIRS = 50
_LONGEST = 30  # iterations
_GAINING = 1e-4  # share of the loss by which an iteration has to lower it, or the fit ends
_STEP = 0.02  # in log space, for finite differences; rewards are single precision
_SHARPEST = 50.0  # upper bound on the log odds of a difference of one standard deviation
_HELD = 1e-4  # weight of the squared log factors, which keeps numbers that the episodes do not determine
_GAIN = 0.005  # share of the pairs; a fit that gains less is dropped

Rewards = Callable[[np.ndarray], "np.ndarray | None"]


@dataclass(frozen=True)
class Fit:
    """A source with fitted numbers, and the share of pairs of episodes that it ranks right, before and after.

    `episodes` is the number of episodes that the pairs come from; it was fitted to none of them.
    """

    source: str
    episodes: int
    before: float
    after: float

    @property
    def gain(self) -> str:
        """What was gained, in words."""
        return f"of the pairs of {self.episodes} other episodes it ranks {self.after:.0%} right, not {self.before:.0%}"


class Fitting:
    """Fits the numbers of reward functions to episodes that are ranked by success, and then by nearness to it.

    The loss is that of Bradley and Terry, "Rank analysis of incomplete block designs", 1952: the better of two episodes
    is the likelier to win, the further its mean reward is above the other's. Rewards are measured in standard
    deviations over the episodes, since a reward's scale teaches nothing; how sharply a difference decides is fitted
    too. Every other episode is held out, to see whether the gain holds there.

    Args:
        inputs: where each variable lies in a row.
        experience: the episodes.
    """

    def __init__(self, inputs: Mapping[str, Input], experience: Experience) -> None:
        chosen = evenly(np.arange(len(experience.lengths)), _EPISODES)
        starts = np.cumsum([0, *experience.lengths])
        rows = [evenly(np.arange(starts[episode], starts[episode + 1]), _ROWS) for episode in chosen]
        columns = {name: column[np.concatenate(rows)] for name, column in experience.columns.items()}
        lengths = [len(part) for part in rows]
        self._sample = Experience(columns, lengths, experience.solved[chosen], experience.distance[chosen])
        nearness = self._sample.nearness
        apart = _APART * max(float(np.ptp(nearness)), 1e-9)
        above = nearness[:, None] - nearness > apart
        kept_back = np.arange(len(nearness)) % 2 == 1
        self._pairs, self._others = (np.nonzero(above & which[:, None] & which) for which in (~kept_back, kept_back))
        self._rewards = VariedRewards(inputs, columns)

    def fit(self, source: str) -> Fit | None:
        """Return the function with fitted numbers; None if nothing can be fitted, or fitting gains nothing."""
        if min(len(pairs[0]) for pairs in (self._pairs, self._others)) < _FEWEST_PAIRS:
            return None
        rewards = self._rewards.of(source)
        if rewards is None:
            return None
        first = np.array([number.value for number in numbers_in(source)])
        factors = _minimum(self._losses(rewards, first), len(first))
        before, after = self._right(rewards(np.stack([first, first * factors])))
        if after < before + _GAIN:
            return None
        return Fit(with_numbers(source, (first * factors).tolist()), len(self._sample.lengths) // 2, before, after)

    def close(self) -> None:
        """End the process in which rewards are computed."""
        self._rewards.close()

    def _losses(self, rewards: Rewards, first: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def losses(points: np.ndarray) -> np.ndarray:
            """The losses (k,) at points (k, n + 1): logarithms of each number's factor, and of the sharpness."""
            factors, sharpness = np.exp(points[:, :-1]), np.exp(points[:, -1:])
            means = self._standard_means(rewards(first * factors), len(points))
            better, worse = self._pairs
            above = sharpness * (means[:, better] - means[:, worse])
            return np.logaddexp(0.0, -above).mean(1) + _HELD * np.sum(points[:, :-1] ** 2, 1)

        return losses

    def _standard_means(self, rewards: np.ndarray | None, count: int) -> np.ndarray:
        """Return the episodes' mean rewards (count, E) in standard deviations; zeros where there are none."""
        if rewards is None:
            return np.zeros((count, len(self._sample.lengths)))
        means = np.stack([self._sample.means(part) for part in rewards])
        spread = means.std(1, keepdims=True)
        return np.divide(means, spread, out=np.zeros_like(means), where=spread > 0)

    def _right(self, rewards: np.ndarray | None) -> list[float]:
        """Return the shares of the held-out pairs that are ranked right, before and after."""
        means = self._standard_means(rewards, 2)
        better, worse = self._others
        return np.mean(means[:, better] > means[:, worse], 1).tolist()


def _minimum(losses: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Return the factors, within bounds, by which to multiply `count` numbers."""
    from scipy import optimize  # takes a third of a second to load, and only search rounds need it

    steps = _STEP * np.eye(count + 1)

    def loss_and_slope(at: np.ndarray) -> tuple[float, np.ndarray]:
        loss, *sides = losses(np.concatenate([at[None], at + steps, at - steps]))
        above, below = np.split(np.array(sides), 2)
        return float(loss), (above - below) / (2 * _STEP)

    bound = math.log(_FACTOR)
    found = optimize.minimize(
        loss_and_slope,
        np.zeros(count + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-bound, bound)] * count + [(0.0, math.log(_SHARPEST))],
        options={"maxiter": _LONGEST, "ftol": _GAINING},
    )
    return np.exp(found.x[:-1])
