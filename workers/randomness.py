"""One stream of random numbers for each use of a run's seed, so that no two uses overlap."""

import enum

import numpy as np

_INDICES = 3  # maximum for a use; all are padded to that many


class Use(enum.IntEnum):
    """What a stream is for."""

    PROBE = 0
    NETWORKS = 1  # initial weights
    BATCHES = 2  # rows and noise of the updates
    UNTRAINED = 3  # weights of the policy that never learns
    ARMS = 4  # Thompson sampling
    BUILTIN = 5  # the program search
    EXPLORATION_START = 6  # a start is an environment's own randomness; actions have a stream of their own
    EXPLORATION_ACTIONS = 7
    COLLECTION_START = 8
    COLLECTION_ACTIONS = 9
    EVALUATION_START = 10
    CONFIRMATION_START = 11
    FINAL_START = 12
    EXAMINATION_START = 13  # after the run, by evaluate.py
    RANKING_START = 14


def seed_for(seed: int, use: Use, *indices: int) -> int:
    """Return the seed in [0, 2**63) of the stream for `use` and up to three indices (iteration, arm, ...)."""
    if len(indices) > _INDICES:
        raise ValueError(f"{use.name} has {len(indices)} indices; {_INDICES} are the most")
    # All of one length, since SeedSequence reads missing words as zeros: (1, 2) and (1, 2, 0) would be one stream.
    key = (int(use), *indices, *[0] * (_INDICES - len(indices)), len(indices))
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 1)


def start_seed(seed: int, use: Use, *indices: int) -> int:
    """Return such a seed in [0, 2**31), for environments, some of which accept no more bits."""
    return seed_for(seed, use, *indices) >> 32
