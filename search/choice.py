"""What the stored experience says of a reward function before anyone learns from it."""

import numpy as np


def order_share(means: np.ndarray, success: np.ndarray) -> float | None:
    """Return the share of the solved episodes whose mean reward beats that of every unsolved one.

    Sun et al., "A Large Language Model-Driven Reward Code Design Framework via Dynamic Feedback" (CARD), 2024.

    Args:
        means: mean reward of each episode (E,).
        success: which episodes are solved (E,), bool.

    Returns:
        A number in [0, 1]; None unless there are episodes of both kinds.
    """
    if success.all() or not success.any():
        return None
    return float((means[success] > means[~success].max()).mean())
