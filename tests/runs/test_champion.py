"""Which policy a run hands out."""

import numpy as np

from runs.champion import Candidate, Champions


def figures(rate):
    return {"success_rate": rate}


def candidate(rate, number=0):
    return Candidate(number, number, 0, 100 * number, (rate,), figures(rate), {})


def found(*rates):
    return {place: ((rate,), figures(rate)) for place, rate in enumerate(rates)}


def test_the_few_best_are_kept_and_of_equals_the_newer_comes_first():
    champions = Champions()
    entered = [champions.enter(candidate(rate, n)) for n, rate in enumerate([0.2, 0.5, 0.5, 0.1, 0.4, 0.3, 0.5])]
    assert entered == [True, True, True, False, False, False, True]
    assert [one.agent for one in champions.candidates] == [6, 2, 1, 4, 5]


def test_fresh_episodes_decide_between_them():
    champions = Champions()
    lucky, steady = candidate(1.0, 1), candidate(0.9, 2)
    champions.enter(lucky)
    champions.enter(steady)
    champions.confirm(found(0.6, 0.85))
    assert champions.best is steady
    assert (steady.success_rate, steady.summary()["confirmed"]) == (0.85, {"success_rate": 0.85})
    assert steady.summary()["evaluated"] == {"success_rate": 0.9}
    assert not champions.enter(candidate(0.8, 3))  # below what the best was confirmed at, above the lucky one
    assert [one.agent for one in champions.candidates] == [2, 3, 1]


def test_the_chosen_one_is_better_than_the_best_by_evaluation():
    """Of 200 evaluations of 10 episodes the best claims far more than it is; fresh episodes find a better one."""
    draw = np.random.default_rng(0)
    claims, by_evaluation, chosen = [], [], []
    for _ in range(60):
        champions = Champions()
        rates = draw.uniform(0.3, 0.9, 200)
        for number, rate in enumerate(rates):
            champions.enter(candidate(draw.binomial(10, rate) / 10, number))
        claims.append(champions.best.success_rate)
        by_evaluation.append(rates[champions.best.agent])
        champions.confirm(found(*(draw.binomial(50, rates[one.agent]) / 50 for one in champions.candidates)))
        chosen.append(rates[champions.best.agent])
    assert np.mean(claims) > np.mean(by_evaluation) + 0.1
    assert np.mean(chosen) > np.mean(by_evaluation) + 0.02
