"""What is counted in episodes."""

import numpy as np
import pytest

from tasks.episode import Episode, Score, ranked, ranked_beyond_chance


def episode(success, distance=None, terminal=False):
    success = np.array(success, bool)
    ends = np.zeros(len(success), np.float32)
    ends[-1:] = terminal
    distance = np.where(success, 0, 1) if distance is None else distance
    return Episode({"env_reward": np.ones(len(success)), "terminal": ends}, success, np.float32(distance))


@pytest.mark.parametrize(
    ("success", "terminal", "rules"),
    [
        ([0, 0, 0, 0], False, {"any": False, "last": False, 1: False, 3: False}),
        ([0, 1, 1, 0], False, {"any": True, "last": False, 1: False, 2: False}),
        ([1, 0, 1, 1], False, {"any": True, "last": True, 1: True, 2: True, 3: False, "2": True}),
        ([1, 1], False, {2: True, 3: False}),
        ([0, 1], True, {"any": True, "last": True, 10: True}),
        ([1, 0], True, {"any": True, "last": False, 10: False}),
        ([], False, {"any": False, "last": False, 2: False}),
    ],
)
def test_rules_of_success(success, terminal, rules):
    assert {rule: episode(success, terminal=terminal).solved(rule) for rule in rules} == rules


def test_a_score_counts_by_its_rule_and_says_the_others():
    episodes = [episode([0, 1, 0]), episode([0, 0, 1]), episode([1, 1, 1]), episode([0, 0, 0])]
    rates = {rule: Score(episodes, rule).success_rate for rule in ("any", "last", 2)}
    assert rates == {"any": 0.75, "last": 0.5, 2: 0.25}
    summary = Score(episodes, 2).summary()
    names = ("success_rate", "any_step_success_rate", "last_step_success_rate")
    assert [summary[name] for name in names] == [0.25, 0.75, 0.5]


def test_the_distance_averages_the_nearest_and_the_last():
    summary = Score([episode([0, 0, 0], [5, 1, 3]), episode([0, 1, 0], [2, 0, 1])]).summary()
    assert (summary["nearest_distance"], summary["final_distance"], summary["distance"]) == (0.5, 2.0, 1.25)


def score(solved, of, distance):
    return Score([episode([number < solved], [distance]) for number in range(of)])


def distances(scores):
    return {agent: found.distance for agent, found in scores.items()}


def test_one_lucky_episode_in_twenty_decides_no_ranking():
    scores = {0: score(1, 20, 0.3), 1: score(0, 20, 0.1), 2: score(0, 20, 0.2)}
    assert ranked(scores, "success") == [0, 1, 2]
    assert ranked_beyond_chance(scores, distances(scores)) == [1, 2, 0]


def test_whoever_came_nearest_in_any_evaluation_goes_first_among_equals():
    scores = {0: score(0, 20, 0.1), 1: score(0, 20, 0.2), 2: score(12, 20, 0.1)}
    assert ranked_beyond_chance(scores, {0: 0.1, 1: 0.05, 2: 0.1}) == [2, 1, 0]


def test_what_chance_cannot_have_made_decides():
    scores = {
        0: score(20, 20, 0.2),
        1: score(17, 20, 0.1),  # within the interval of 20 of 20, which begins at 0.84
        2: score(14, 20, 0.05),  # not within it
        3: score(0, 20, 0.01),
        4: score(2, 20, 0.3),  # within the interval of 0 of 20, which ends at 0.16
    }
    assert ranked_beyond_chance(scores, distances(scores)) == [1, 0, 2, 3, 4]
    scores = {0: score(4, 20, 0.3), 1: score(0, 20, 0.1)}
    assert ranked_beyond_chance(scores, distances(scores)) == [0, 1]


def test_more_episodes_join_a_score():
    joined = Score([episode([1]), episode([0])], "last").joined(Score([episode([0])] * 2, "last"))
    assert (joined.success_rate, joined.rule, len(joined.episodes)) == (0.25, "last", 4)
