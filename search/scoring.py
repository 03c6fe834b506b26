"""What stored episodes say about a reward function before any agent learns from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_EPISODES = 200  # at most: scoring a candidate should cost less than compiling it
_ROWS = 30_000
_BINS = 100  # of a reward's range; rewards in the same bin count as equal


@dataclass(frozen=True)
class Experience:
    """Stored episodes, one after the other.

    Attributes:
        columns: what reward functions read, next_obs (R, O), action (R, A) and variables (R, V).
        lengths: how many of the R rows each of the E episodes has.
        solved: which of them solved the task (E,), bool.
        distance: how far from success each was at its nearest moment, by the task's own criterion (E,).
    """

    columns: Mapping[str, np.ndarray]
    lengths: Sequence[int]
    solved: np.ndarray
    distance: np.ndarray

    @property
    def nearness(self) -> np.ndarray:
        """How good each episode was (E,): larger is better, and all solved ones are equally good."""
        return np.where(self.solved, 1.0, -self.distance)

    def means(self, rewards: np.ndarray) -> np.ndarray:
        """Return the mean reward of each episode (E,), given that of each row (R,)."""
        starts = np.cumsum([0, *self.lengths[:-1]])
        return np.add.reduceat(rewards.astype(float), starts) / self.lengths

    def some_rows(self, count: int) -> np.ndarray:
        """Return at most `count` of the rows, evenly spread."""
        rows = sum(self.lengths)
        return np.arange(0, rows, -(-rows // count))


def sampled(solved: np.ndarray, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return which of E episodes to look at, and which of their rows: few enough, and always the same.

    They are evenly spread over the run, with as many solved as unsolved ones if possible: one success in a hundred
    episodes says more than another failure.

    Args:
        solved: which episodes are solved (E,), bool.
        rows: the rows of each.
    """
    kinds = [np.flatnonzero(solved), np.flatnonzero(~solved)]
    half = _EPISODES // 2
    room = [max(half, _EPISODES - len(other)) for other in reversed(kinds)]
    chosen = np.sort(np.concatenate([evenly(kind, most) for kind, most in zip(kinds, room, strict=True)]))
    stride = -(-sum(len(rows[episode]) for episode in chosen) // _ROWS) or 1
    return chosen, [rows[episode][::stride] for episode in chosen]


@dataclass(frozen=True)
class Figures:
    """How a reward function judges stored episodes.

    Attributes:
        pairs: of all pairs of a solved and an unsolved episode, the share in which the solved one has the higher mean
            reward (Mann and Whitney 1947); None unless there are episodes of both kinds. One lucky failure, which can
            bring `search.choice.order_share` down to 0, costs it little.
        nearness: rank correlation of the episodes' mean rewards with how near to success they came, solved ones being
            nearest (Spearman 1904); None if either is the same in all episodes.
        spread: standard deviation of the rewards as a share of half their range, at most 1; only shown to readers.
        saturated: largest share of the rows whose rewards lie in the same hundredth of their range, where the function
            tells nothing apart.
    """

    pairs: float | None
    nearness: float | None
    spread: float
    saturated: float

    @property
    def score(self) -> float:
        """A number in [0, 1], 0.5 for a function that ranks episodes no better than chance and is nowhere flat."""
        judged = [share for share in (self.pairs, self.nearness and (1 + self.nearness) / 2) if share is not None]
        agreement = float(np.mean(judged)) if judged else 0.5
        return agreement * (1.0 - self.saturated)


def judge(rewards: np.ndarray, experience: Experience) -> Figures:
    """Return how a function whose rewards are (R,) judges the episodes."""
    means, solved = experience.means(rewards), experience.solved
    pairs = None
    if solved.any() and not solved.all():
        above = means[solved][:, None] - means[~solved]
        pairs = float(np.mean(np.sign(above) / 2 + 0.5))
    low, high = float(rewards.min()), float(rewards.max())
    if not high > low:
        return Figures(pairs, None, 0.0, 1.0)
    # By hand, since `numpy.histogram` refuses a range of a few rounding errors.
    hundredths = ((rewards.astype(float) - low) / (high - low) * _BINS).astype(int)
    counts = np.bincount(np.minimum(hundredths, _BINS - 1))
    return Figures(
        pairs,
        alike(means, experience.nearness),
        float(rewards.std(dtype=float)) / ((high - low) / 2),
        float(counts.max() / len(rewards)),
    )


def alike(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the rank correlation of two columns of numbers (n,); None if either is constant."""
    from scipy import stats  # takes a third of a second to load, and only search rounds need it

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)


def evenly(numbers: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` of the numbers, evenly spread, the first and the last among them."""
    return numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), most)).round().astype(int)]
