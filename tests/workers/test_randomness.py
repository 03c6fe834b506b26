"""The streams of random numbers."""

import itertools

import numpy as np
import pytest

from task_specs import TASKS, get_task
from tasks.environment import TaskEnvironment
from workers.randomness import Use, seed_for, start_seed


def test_no_two_streams_meet():
    """Every use, with no index, and with small ones at every depth, for three runs' seeds."""
    indices = [
        (),
        *itertools.product(range(3)),
        *itertools.product(range(3), repeat=2),
        (0, 0, 0),
        (1, 2, 0),
        (1, 2, 3),
    ]
    seeds = [seed_for(seed, use, *index) for seed in (0, 1, 2**40) for use in Use for index in indices]
    assert len(set(seeds)) == len(seeds)
    first_numbers = [tuple(np.random.default_rng(seed).integers(2**32, size=2)) for seed in seeds]
    assert len(set(first_numbers)) == len(seeds)


def test_uses_keep_their_numbers():
    """A run that is resumed, or compared with an older one, relies on them."""
    assert sorted(use.value for use in Use) == list(range(len(Use)))
    assert seed_for(1, Use.COLLECTION_ACTIONS, 2, 3) == seed_for(1, Use.COLLECTION_ACTIONS, 2, 3)
    with pytest.raises(ValueError, match="ARMS has 4 indices"):
        seed_for(1, Use.ARMS, 1, 2, 3, 4)


def test_first_actions_tell_nothing_of_the_start():
    """Over the starts of every MetaWorld task: what an episode's stream draws first against where things stand."""
    count = 60
    starts_of = [start_seed(1, Use.EXPLORATION_START, 0, number) for number in range(count)]
    generators = [np.random.default_rng(seed_for(1, Use.EXPLORATION_ACTIONS, 0, number)) for number in range(count)]
    actions = np.array([generator.uniform(-1, 1, 8) for generator in generators])
    for name in TASKS:
        environment = TaskEnvironment(get_task(name))
        environment.reset(starts_of[0])
        metaworld = environment.env.unwrapped
        first, starts = metaworld._last_rand_vec.copy(), []
        for seed in starts_of:  # what a reset draws, without the simulation behind it
            metaworld.seed(seed)
            metaworld._freeze_rand_vec = False
            draws = [metaworld._get_state_rand_vec().copy() for _ in range(2)]  # a reset begins twice
            starts += draws[-1:]
        environment.close()
        if name in {"button-press", "window-close"}:  # some other tasks draw again until things do not touch
            np.testing.assert_array_equal(starts[0], first)
        varying = [column for column in np.transpose(starts) if column.std() > 1e-9]
        assert varying
        # 0.55 is beyond four standard deviations of a correlation over 60 independent pairs.
        assert max(abs(np.corrcoef(a, b)[0, 1]) for a in actions.T for b in varying) < 0.55, name
