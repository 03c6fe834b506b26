"""The numbers of a reward function: which they are, that they are put back, and that varying them is no other code."""

import numpy as np
import pytest

from reward_code import RewardWorkers, VariedRewards, numbers_in, with_numbers
from reward_rows import INPUTS, rows

SOURCE = '''
WIDTH: float = 0.3  # metres
HALF = 0.5
TWICE = 2.0 * HALF
WEIGHTS = {"reach": 1.0, "place": 3.0}
AXES = (0.25, 0.75)


def shaped(distance, width, power=2.5):
    """Falls from 0.9 to nothing."""
    return np.exp(-((distance / width) ** 2)) + 1e-6


def bonus(distance):
    return 5 * shaped(distance, 0.15) if distance < 0.05 else 0.0


def compute_reward(tcp_center, obj, target, action):
    reach = np.linalg.norm(tcp_center - obj)
    place = abs(obj[0] - target[0])
    first = WEIGHTS["reach"] * shaped(reach, WIDTH)
    second = WEIGHTS["place"] * (1.0 - np.tanh(place / 0.2)) + bonus(place)
    effort = -0.01 * np.sum(action**2) * TWICE + AXES[0]
    return first + second + effort, {"reach": first, "place": second}
'''


def test_weights_widths_and_thresholds_are_found_and_form_is_not():
    found = [number.value for number in numbers_in(SOURCE)]
    assert found == [0.3, 1.0, 3.0, 5.0, 0.15, 0.05, 0.2, 0.01]


def test_others_are_put_in_their_place_and_nothing_else_changes():
    changed = with_numbers(SOURCE, [0.6, 2, 1.23456, 7, 0.1, 1000, 0.4, 0.02])
    expected = SOURCE
    pairs = [
        ("= 0.3 ", "= 0.6 "), ('"reach": 1.0', '"reach": 2.0'), ('"place": 3.0', '"place": 1.23'), ("5 *", "7.0 *"),
        ("0.15", "0.1"), ("0.05", "1000.0"), ("0.2)", "0.4)"), ("0.01", "0.02"),
    ]  # fmt: skip
    for before, after in pairs:
        assert expected.count(before) == 1
        expected = expected.replace(before, after)
    assert changed == expected
    text = "def compute_reward(obj):\n    return 0.5 * obj[0], {'é': 0.5}  # — é\n"
    assert with_numbers(text, [2, 3]) == text.replace("0.5 *", "2.0 *").replace("0.5}", "3.0}")


@pytest.mark.parametrize(
    "source",
    [
        "def compute_reward(obj):\n    return obj[0] ** 2 + 1.0, {}\n",
        "W = {'a': 0.5}\ndef compute_reward(obj):\n    return sum(W.values()) * obj[0], {}\n",
        "W = 0.5\nV = [W]\ndef compute_reward(obj):\n    return W * obj[0] * V[0], {}\n",
    ],
)
def test_what_cannot_be_varied_stays(source):
    assert numbers_in(source) == []
    assert with_numbers(source, []) == source


def test_varied_rewards_are_those_of_the_source_with_the_numbers_in_place():
    columns = rows(300)
    values = np.array([0.2, 1.7, 0.9, 2.0, 0.3, 0.2, 0.5, 0.04])
    with VariedRewards(INPUTS, columns) as varied, RewardWorkers(INPUTS) as workers:
        assert varied.of("def compute_reward(obj):\n    return obj[0], {}\n") is None
        rewards = varied.of(SOURCE)
        found = rewards(np.array([[number.value for number in numbers_in(SOURCE)], values]))
        for source, mine in zip((SOURCE, with_numbers(SOURCE, values)), found, strict=True):
            [expected] = workers.evaluate([source], columns)
            np.testing.assert_allclose(mine, expected.rewards, rtol=1e-5, atol=1e-6)
        broken = varied.of("def compute_reward(obj):\n    return 1 / (0.5 * obj[0] ** 0 - 0.75), {}\n")
        assert broken(np.array([[1.0, 0.75], [0.75, 0.75]])) is None
        assert np.all(broken(np.array([[1.0, 0.75]])) == 4.0)
