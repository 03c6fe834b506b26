"""Numbers that are fitted: known ones are found again, and a search tries them beside what the model wrote."""

import contextlib
import math

import numpy as np
import pytest

from reward_code import RewardWorkers, numbers_in, with_numbers
from search.builtin import ProgramSearch
from search.feedback import AgentReport
from search.fitting import Fitting
from search.protocol import ServiceAway
from search.rounds import RewardSearch
from search.scoring import Experience
from search_doubles import INPUTS, ScriptedModel, call, make_task, random_columns

REPORT = AgentReport(0.35, 987.6, 123.4, (0.031, 0.22), {})
LENGTH, EPISODES = 4, 90

SOURCE = """WEIGHT = 2.0


def near(distance, width):
    return np.exp(-distance / width)


def compute_reward(obj, target, tcp_center, gripper_opening):
    reach = near(np.linalg.norm(obj - tcp_center), 0.3)
    place = WEIGHT * near(abs(obj[0] - target[0]), 0.1)
    return 1.0 * reach + place + 0.5 * gripper_opening, {"reach": reach}
"""
TRUE = [number.value for number in numbers_in(SOURCE)]


@pytest.fixture(scope="module")
def experience():
    """Episodes in random states, of which the better ones have more of the true reward."""
    columns = random_columns(np.random.default_rng(5), EPISODES * LENGTH)
    rewards = []
    for row in range(EPISODES * LENGTH):
        values = {name: columns[at.column][row, at.start : at.stop].astype(float) for name, at in INPUTS.items()}
        state = {name: value if INPUTS[name].shape else float(value[0]) for name, value in values.items()}
        rewards.append(call(SOURCE, state)[0])
    means = np.array(rewards).reshape(EPISODES, LENGTH).mean(1)
    best = np.sort(means)[-EPISODES // 5]
    return Experience(columns, [LENGTH] * EPISODES, means >= best, best - means)


def test_known_numbers_are_found_again(experience):
    wrong = with_numbers(SOURCE, np.array(TRUE) * [0.5, 0.6, 1.8, 1.0, 1.6])
    with contextlib.closing(Fitting(INPUTS, experience)) as fitting:
        fit = fitting.fit(wrong)
        assert fitting.fit(SOURCE) is None  # there is nothing to gain
        assert fitting.fit("def compute_reward(obj):\n    return obj[0] ** 2, {}\n") is None
    assert fit.before < 0.9 < 0.98 < fit.after
    weight, reach_width, place_width, reach_weight, opening_weight = (n.value for n in numbers_in(fit.source))
    assert reach_width == pytest.approx(0.3, rel=0.1)
    assert place_width == pytest.approx(0.1, rel=0.1)
    # What all weights are multiplied with changes no order.
    assert weight / reach_weight == pytest.approx(2.0, rel=0.1)
    assert opening_weight / reach_weight == pytest.approx(0.5, rel=0.1)
    factors = np.array([number.value for number in numbers_in(fit.source)]) / [n.value for n in numbers_in(wrong)]
    assert np.all(np.abs(np.log(factors)) < math.log(4.0) + 0.01)


def test_episodes_without_an_order_teach_nothing(experience):
    alike = Experience(experience.columns, experience.lengths, np.zeros(EPISODES, bool), np.ones(EPISODES))
    with contextlib.closing(Fitting(INPUTS, alike)) as fitting:
        assert fitting.fit(with_numbers(SOURCE, np.array(TRUE) * 2)) is None


def test_what_holds_for_no_other_episodes_is_dropped(experience):
    wrong = with_numbers(SOURCE, np.array(TRUE) * [0.5, 0.6, 1.8, 1.0, 1.6])
    reversed_in_others = np.where(np.arange(EPISODES) % 2, -experience.distance, experience.distance)
    shown = Experience(experience.columns, experience.lengths, np.zeros(EPISODES, bool), reversed_in_others)
    with contextlib.closing(Fitting(INPUTS, shown)) as fitting:
        assert fitting.fit(wrong) is None


@pytest.mark.parametrize("away", [False, True])
def test_a_round_tries_fitted_numbers_beside_what_the_model_wrote(experience, away):
    wrong = with_numbers(SOURCE, np.array(TRUE) * [0.3, 0.6, 3.0, 1.0, 3.0])
    task = make_task()
    lines = []
    answers = [[f"```python\n{wrong}```"], ServiceAway("out") if away else ["```python\nno code\n```"]]
    with RewardWorkers(INPUTS, 1) as workers:
        search = RewardSearch(
            task, ScriptedModel(answers), workers, {name: column[:50] for name, column in experience.columns.items()},
            builtin=ProgramSearch(task, 1), setting="from_scratch", attempts=1, fit_numbers=True, log=lines.append,
        )  # fmt: skip
        (first,) = search.initial(1)
        (taken,) = search.improve(1, first, REPORT, [(first, REPORT)], 1, experience)
    assert taken.parents == [first.id]
    assert taken.messages == first.messages
    assert taken.fitted["after"] > taken.fitted["before"] + 0.05
    assert taken.fitted["episodes"] == EPISODES // 2
    assert f"function {taken.id} is function 0 with fitted numbers" in "\n".join(lines)
    assert numbers_in(taken.source)[0].value != numbers_in(wrong)[0].value
