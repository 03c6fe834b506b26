"""Thompson sampling finds the best arm, and forgets what lies behind its window."""

import numpy as np

from thompson import ThompsonSampler


def play(sampler, rates, rounds, generator):
    """Pull one drawn arm a round; returns how often each was pulled."""
    pulls = np.zeros(len(rates), int)
    for _ in range(rounds):
        [arm] = sampler.draw(range(len(rates)), 1)
        pulls[arm] += 1
        sampler.update(arm, generator.random() < rates[arm])
    return pulls


def test_it_finds_the_best_of_five_arms():
    for seed in range(5):
        pulls = play(ThompsonSampler(5, 1000, seed), [0.1, 0.3, 0.8, 0.5, 0.2], 600, np.random.default_rng(seed))
        assert pulls.argmax() == 2
        assert pulls[2] > 0.75 * 600


def test_draws_follow_the_posterior():
    sampler = ThompsonSampler(2, 100, seed=0)
    for _ in range(3):
        sampler.update(0, True)
        sampler.update(1, False)
    won = sum(sampler.draw([0, 1], 1) == [0] for _ in range(4000)) / 4000
    posterior = np.random.default_rng(1).beta([4, 1], [1, 4], (200_000, 2))
    assert abs(won - (posterior[:, 0] > posterior[:, 1]).mean()) < 0.01


def test_old_failures_leave_the_window():
    sampler = ThompsonSampler(2, 10, seed=0)
    for _ in range(50):
        sampler.update(0, False)
    assert sampler.rates()[0] == 1 / 12
    for _ in range(10):
        sampler.update(0, True)
    assert sampler.rates()[0] == 11 / 12
    assert sampler.rates()[1] == 0.5


def test_it_follows_when_the_best_arm_changes():
    generator = np.random.default_rng(3)
    sampler = ThompsonSampler(3, 40, seed=0)
    play(sampler, [0.9, 0.2, 0.2], 300, generator)
    pulls = play(sampler, [0.1, 0.2, 0.9], 600, generator)
    assert pulls.argmax() == 2


def test_masked_arms_are_never_drawn_and_draws_are_distinct():
    sampler = ThompsonSampler(5, 100, seed=0)
    for _ in range(30):
        sampler.update(1, True)
    seen = set()
    for _ in range(200):
        arms = sampler.draw([0, 2, 4], 5)
        assert arms == sorted(set(arms))
        seen |= set(arms)
    assert seen == {0, 2, 4}


def test_a_reset_forgets_everything():
    sampler = ThompsonSampler(2, 100, seed=0)
    for _ in range(20):
        sampler.update(0, True)
    sampler.reset()
    assert sampler.rates() == [0.5, 0.5]
    assert sampler.figures()[0] == {
        "thompson": 0.5,
        "window_successes": 0,
        "window_episodes": 0,
        "collected_episodes": 20,
    }
