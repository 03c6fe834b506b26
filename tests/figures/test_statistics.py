import numpy as np
import pytest
from scipy import stats

from figures.statistics import interquartile_mean, interval, probability_of_improvement, steps_to


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end_of_all_runs_together():
    one, other = np.array([0.0, 9.0, 3.0, 4.0]), np.array([5.0, 6.0, -7.0, 100.0])
    assert interquartile_mean([one, other]) == np.mean([3, 4, 5, 6])
    assert interquartile_mean([np.stack([one, one + 1])]).tolist() == [3.5, 4.5]


def test_the_bootstrap_draws_within_tasks():
    """Tasks that differ add nothing to the interval, seeds that differ do."""
    easy, hard = np.ones(5), np.zeros(5)
    low, high = interval(interquartile_mean, [easy, hard])
    assert low == high == 0.5
    low, high = interval(interquartile_mean, [np.concatenate([easy, hard])])
    assert low < 0.2 < 0.8 < high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples = generator.normal(1.0, 1.0, (300, 30))  # 300 experiments at once
    low, high = interval(interquartile_mean, [samples])
    assert 0.88 < np.mean((low <= 1.0) & (high >= 1.0)) < 0.99


def test_a_task_with_one_run_stays_as_it_is():
    several, alone = np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[10.0], [20.0]])
    low, high = interval(interquartile_mean, [several, alone])
    assert low.tolist() == pytest.approx([10 / 3, 8])
    assert high.tolist() == pytest.approx([12 / 3, 26 / 3])
    assert interval(interquartile_mean, [alone]) is None


def test_the_probability_of_improvement_is_mann_and_whitneys():
    generator = np.random.default_rng(1)
    one, other = generator.integers(0, 5, 9) / 4, generator.integers(0, 4, 7) / 4
    expected = stats.mannwhitneyu(one, other).statistic / (9 * 7)
    assert probability_of_improvement([one, other]) == pytest.approx(expected)
    assert probability_of_improvement([one, one - 2, one, one + 2]) == 0.5  # the mean over two tasks
    low, high = interval(probability_of_improvement, [one, other])
    assert low < expected < high


def test_steps_to_a_level_are_those_of_the_first_evaluation_there():
    steps, success = np.array([10.0, 20.0, 30.0]), np.array([0.2, 0.9, 0.5])
    assert [steps_to(level, steps, success) for level in (0.1, 0.5, 0.9, 0.95)] == [10, 20, 20, np.inf]
