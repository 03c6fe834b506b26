"""Episodes on demand: which of them are dropped, and when the run ends over it. The collectors are stand-ins."""

import numpy as np
import pytest

from errors import RunError
from tasks.episode import Episode
from workers.randomness import Use
from workers.simulator import Simulator

POLICIES = np.zeros((5, 3))


class Collectors:
    """The episodes of `broken` policies fail."""

    def __init__(self, broken):
        self.broken = broken

    def set_policies(self, policies):
        pass

    def run(self, orders):
        widths = {"obs": (5, 2), "action": (5, 1), "next_obs": (5, 2), "env_reward": (5,), "terminal": (5,)}
        return [
            Episode(
                {name: np.zeros(shape) for name, shape in widths.items()},
                np.zeros(5, bool),
                np.zeros(5),
                "it became unstable" if order.policy in self.broken else "",
            )
            for order in orders
        ]


def simulator(*broken):
    return Simulator(Collectors(broken), 1, 5, "any", lambda line: None)


@pytest.mark.parametrize("broken", [(2,), (2, 3)])
def test_agents_whose_every_evaluation_episode_fails_cost_only_themselves(broken):
    one = simulator(*broken)
    scores = one.evaluate(range(5), POLICIES, 25, Use.EVALUATION_START, 1)
    assert set(scores) == set(range(5)) - set(broken)
    assert one.dropped == 25 * len(broken)
    with pytest.raises(RunError, match="spoiled every episode of an evaluation"):
        simulator(*range(5)).evaluate(range(5), POLICIES, 25, Use.EVALUATION_START, 1)


def test_a_run_whose_collected_episodes_all_fail_ends():
    one = simulator(*range(5))
    for iteration in range(3):
        assert one.collect(range(5), POLICIES, iteration, 1_000) == []
    with pytest.raises(RunError, match="20 episodes in a row failed; the last one: it became unstable"):
        one.collect(range(5), POLICIES, 3, 1_000)
