"""Statistics over seeds: interquartile means with stratified bootstrap intervals, never a bare best seed.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021. A sample is an
array (..., runs) of one task; several samples are the strata, within each of which the bootstrap resamples runs.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

_CUT = 0.25  # share cut off at either end
_CONFIDENCE = 0.95
_RESAMPLES = 2_000

Samples = Sequence[np.ndarray]
Interval = tuple[np.ndarray, np.ndarray]


def interquartile_mean(samples: Samples) -> np.ndarray:
    """Return the mean (...) of the middle half of all runs of all tasks."""
    return np.asarray(stats.trim_mean(np.concatenate(samples, axis=-1), _CUT, axis=-1))


def probability_of_improvement(samples: Samples) -> np.ndarray:
    """Return the probability (...) that a run of one beats a run of the other, ties counting half; mean over tasks.

    Args:
        samples: runs of the one and of the other on the first task, on the second task, and so on.
    """
    pairs = zip(samples[::2], samples[1::2], strict=True)
    signs = [np.sign(one[..., :, None] - other[..., None, :]).mean(axis=(-2, -1)) for one, other in pairs]
    return (np.mean(signs, axis=0) + 1) / 2


def interval(statistic: Callable[[Samples], np.ndarray], samples: Samples, seed: int = 0) -> Interval | None:
    """Return the 95% interval (low, high) of a statistic; None if no task has two runs to draw from."""
    drawn = [sample for sample in samples if sample.shape[-1] > 1]
    if not drawn:
        return None

    def of_all(*resamples: np.ndarray, axis: int) -> np.ndarray:
        """Take resamples (..., resamples, runs); a task with one run, which SciPy does not resample, stays as it is."""
        several, count = iter(resamples), resamples[0].shape[-2]
        return statistic(
            [
                next(several) if sample.shape[-1] > 1 else np.repeat(sample[..., None, :], count, axis=-2)
                for sample in samples
            ]
        )

    found = stats.bootstrap(
        drawn, of_all, n_resamples=_RESAMPLES, axis=-1, confidence_level=_CONFIDENCE,
        method="percentile", vectorized=True, batch=200, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return np.asarray(found.low), np.asarray(found.high)


def steps_to(level: float, env_steps: np.ndarray, success: np.ndarray) -> float:
    """Return the env steps of the first evaluation (T,) that reached `level`, infinity if none did."""
    reached = np.flatnonzero(success >= level)
    return float(env_steps[reached[0]]) if reached.size else np.inf
