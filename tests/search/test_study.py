"""What the model is told of an evaluation: exact to the numbers, with the right signs, and short."""

import functools
import re

import numpy as np
import pytest

from reward_code import Evaluation
from search import words
from search.study import PARTS, in_parts, study
from task_specs import get_task
from tasks.environment import TaskEnvironment
from tasks.episode import Episode, Score
from tasks.measures import Measures
from tasks.simulator import METAWORLD_STEP

STEPS = 20
HANDLE, TARGET = np.array([0.1, 0.7, 0.1]), np.array([0.1, 0.5, 0.1])  # a drawer opens towards the robot

drawer = functools.cache(lambda: get_task("drawer-open"))


def episode(tcp, obj, actions=0.0, target=TARGET, start=None):
    """An episode of drawer-open in which hand and handle are where `tcp` and `obj` (T, 3) or (3,) say."""
    task, given = drawer(), {"tcp_center": tcp, "obj": obj, "target": target}
    given["obj_init_pos"] = obj[0] if np.ndim(obj) == 2 else obj
    variables = np.zeros((STEPS, task.variable_width), np.float32)
    for name, value in given.items():
        place = task.inputs[name]
        variables[:, place.start : place.stop] = value
    obs = np.zeros((STEPS, 39), np.float32)
    action = np.zeros((STEPS, 4), np.float32)
    action[:] = actions
    distance = np.linalg.norm(np.broadcast_to(np.float64(obj), (STEPS, 3)) - target, axis=1)
    success = distance <= 0.03
    zeros = np.zeros(STEPS, np.float32)
    transitions = {"obs": obs, "next_obs": obs, "action": action, "variables": variables}
    transitions |= {"env_reward": zeros + 987.6, "terminal": zeros}
    return Episode(transitions, success, np.where(success, 0, distance).astype(np.float32))


def at(*offset):
    return HANDLE + np.array(offset)


def pulled(way, x=0.1):
    """The handle `way` nearer the robot at the end than at the beginning."""
    handle = np.tile(np.array([x, 0.7, 0.1]), (STEPS, 1))
    handle[:, 1] -= np.linspace(0, way, STEPS)
    return handle


def studied(*episodes, parts=None, rule="any"):
    return study(drawer(), Score(episodes, rule), parts or {})


# --- where things are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ((0.06, 0, 0), "0.060 m to the right"),
        ((-0.06, 0, 0), "0.060 m to the left"),
        ((0, 0.04, 0), "0.040 m away from the robot"),
        ((0, -0.03, 0.05), "0.030 m towards the robot, 0.050 m above"),
        ((0, 0, -0.012), "0.012 m below"),
        ((0.001, 0.001, 0.001), "nothing worth a word"),
    ],
)
def test_a_difference_is_said_with_its_sign_along_each_axis(offset, said):
    text = words.whereabouts(studied(episode(at(*offset), HANDLE)), drawer())
    assert text.count(f"tcp_center from obj: {said};") == 2  # at the nearest moment, and at the end
    assert "obj from target: 0.200 m away from the robot" in text


def test_the_axes_are_those_of_the_robot():
    """A full action along an axis moves the hand to where the words say, by the step that the prompt says."""
    environment = TaskEnvironment(drawer())
    for axis in range(3):
        environment.reset(0)
        places = []
        for _ in range(12):
            environment.step(np.eye(4)[axis] * [1, 1, 1, 0])
            places.append(environment.values()["hand"])
        moved = np.diff(places, axis=0)[4:].mean(0)
        assert moved[axis] == pytest.approx(METAWORLD_STEP, rel=0.2)
        assert np.delete(np.abs(moved), axis).max() < 0.1 * METAWORLD_STEP
    assert environment.env.unwrapped.action_scale == METAWORLD_STEP
    # The arm stands at the origin, and the drawer is pulled open towards it.
    environment.reset(0)
    values = environment.values()
    assert 0 < values["target"][1] < values["obj"][1]


def test_the_nearest_moment_is_that_of_the_task_and_the_end_is_the_end():
    handle = pulled(0.1)
    handle[15:, 1] = 0.7  # it slips, and the drawer shuts
    hand = handle + np.array([0, 0, 0.02])
    hand[15:] += [0, 0, 0.1]
    nearest, last = words.whereabouts(studied(episode(hand, handle)), drawer()).splitlines()[1:3]
    step = 0.1 / (STEPS - 1)
    assert f"target: {0.2 - 14 * step:.3f} m away from the robot" in nearest
    assert "obj: 0.020 m above;" in nearest
    assert "obj: 0.120 m above; obj from target: 0.200 m away from the robot" in last


def test_while_nothing_moves_the_nearest_moment_is_the_hands():
    hand = at(0, 0, 0.2) + np.abs(np.arange(STEPS) - 7)[:, None] * [0.01, 0, 0]
    nearest = words.whereabouts(studied(episode(hand, HANDLE)), drawer()).splitlines()[1]
    assert "tcp_center from obj: 0.200 m above;" in nearest


def test_means_that_hide_a_spread_say_so():
    text = words.whereabouts(studied(episode(at(0.1, 0, 0), HANDLE), episode(at(-0.08, 0, 0), HANDLE)), drawer())
    assert "tcp_center from obj: 0.010 m to the right (spread 0.09)" in text


def test_the_hands_pull_is_told_where_it_is_at_work():
    pulls = episode(at(0, 0, 0.02), pulled(0.19), [0, -0.6, 0, 1])
    rests = episode(at(0, 0, 0.02), HANDLE, [0.9, -0.1, 0.9, 1])
    away = episode(at(0, 0, 0.2), HANDLE, [0, -1, 0, 1])
    found = studied(pulls, rests, rests, away)
    near = np.linalg.norm(at(0, 0, 0.02) - pulled(0.19), axis=1)[:-1] <= 0.05
    assert 2 < near.sum() < STEPS - 1
    assert found.solved.push.along == pytest.approx(0.6, abs=0.01)
    assert (found.unsolved.push.along, found.unsolved.push.episodes) == (pytest.approx(0.1), 2)
    assert (
        "with the hand within 0.05 of obj: 0.60 in 1 of the 1 solved; 0.10 in 2 of the 3 unsolved"
        in words.whereabouts(found, drawer())
    )


# --- solved and unsolved ---------------------------------------------------------------------------------------------


def test_solved_and_unsolved_stand_beside_each_other_with_what_tells_their_starts_apart():
    rng = np.random.default_rng(0)
    places = rng.permutation(np.linspace(-0.1, 0.1, 20))
    episodes, parts = [], []
    for x in places:
        opens = x > 0.06
        handle = pulled(0.2 if opens else 0.05, x)
        episodes.append(episode(handle, handle, target=np.array([x, 0.5, 0.1])))
        parts.append(np.full(STEPS, 0.8 if opens else 0.3))
    found = studied(*episodes, parts={"pull": np.concatenate(parts)})
    assert (found.solved.count, found.unsolved.count) == (4, 16)
    (split,) = found.splits
    assert split.variable == "obj_init_pos[0]"
    assert (split.above, split.below) == ((4, 4), (0, 16))
    text = words.sides(found)
    assert text.startswith("Means over the 4 solved | the 16 unsolved episodes:\n- pull: 0.8 | 0.3\n")
    assert "- distance from obj to target at the end: 0 | 0.15\n" in text
    assert "4 of 4 solved with obj_init_pos[0] above 0.0632, 0 of 16 below" in text
    assert words.solved_counts(found) == "4 of 20 at any step, 4 at the last step"


def test_one_lucky_episode_says_nothing_of_starts():
    xs = np.linspace(-0.1, 0.1, 20)
    episodes = [episode(pulled(0.2 if x == xs[-1] else 0.05, x), pulled(0.05, x), target=TARGET) for x in xs]
    episodes[-1] = episode(HANDLE, pulled(0.2, xs[-1]), target=np.array([xs[-1], 0.5, 0.1]))
    found = studied(*episodes)
    assert (found.solved.count, found.splits) == (1, [])
    assert "Nothing in how they began tells the two kinds apart." in words.sides(found)


def test_one_kind_alone_has_nothing_beside_it():
    assert words.sides(studied(episode(HANDLE, HANDLE))) == ""


def test_the_reading_of_success_decides_which_is_which():
    slips = pulled(0.2)
    slips[-2:, 1] = 0.6
    found = studied(episode(HANDLE, slips), episode(HANDLE, pulled(0.2)), rule="last")
    assert (found.solved.count, found.any_step, found.last_step) == (1, 2, 1)


def test_how_near_how_many_came():
    ways = [0.01 * number for number in range(1, 11)]
    said = words.nearness(studied(*(episode(HANDLE, pulled(way)) for way in ways)))
    assert said == "0.1 in the best episode, 0.14 in the median, 0.19 in the worst"


# --- the course ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 10, 15, 20, 151])
def test_ten_parts_cover_an_episode_evenly(count):
    values = np.random.default_rng(count).normal(size=count)
    parts = in_parts(values)
    assert len(parts) == PARTS
    for part in range(PARTS):
        first = part * count // PARTS
        last = max((part + 1) * count // PARTS, first + 1)
        assert parts[part] == pytest.approx(sum(values[first:last]) / (last - first))


def test_the_course_shows_the_mean_and_the_best_episode():
    episodes = [episode(HANDLE, pulled(way)) for way in (0.05, 0.15, 0.1)]
    pull = np.concatenate([np.linspace(0, way, STEPS) for way in (0.05, 0.15, 0.1)])
    found = studied(*episodes, parts={"pull": pull, "still": np.ones_like(pull)})
    mean, best = found.part_courses["pull"]
    np.testing.assert_allclose(best, np.linspace(0, 0.15, STEPS).reshape(PARTS, 2).mean(1))
    np.testing.assert_allclose(mean, np.linspace(0, 0.1, STEPS).reshape(PARTS, 2).mean(1))
    assert "still" not in words.course(found)
    line = next(line for line in words.course(found).splitlines() if line.startswith("- pull"))
    figures = re.fullmatch(r"- pull \(x (\d+)\): ([\d ]+) \| ([\d ]+)", line)
    np.testing.assert_allclose(np.array(figures[3].split(), float) / float(figures[1]), best, atol=0.0005)
    np.testing.assert_allclose(np.array(figures[2].split(), float) / float(figures[1]), mean, atol=0.0005)
    assert "- distance from obj to target (x 1000): 197 187 " in words.course(found)


def test_measures_are_what_the_environment_shows_and_the_criterion_compares():
    environment = TaskEnvironment(get_task("window-close"))
    environment.reset(3)
    rows, expected = [], []
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 4)):
        step = environment.step(action)
        variables = np.zeros(environment.task.variable_width, np.float32)
        environment.read_variables(variables)
        rows.append({"next_obs": step.obs, "action": np.float32(action), "variables": variables})
        values = environment.values()
        tcp, obj, target = (values[name] for name in ("tcp_center", "obj", "target"))
        expected.append([np.linalg.norm(tcp - obj), np.linalg.norm(obj - target), abs(obj[0] - target[0])])
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    course = Measures(environment.task).course(columns)
    assert [*course] == [
        "distance from tcp_center to obj",
        "distance from obj to target",
        "abs(obj[0] - target[0])",
    ]
    np.testing.assert_allclose(np.transpose([*course.values()]), expected, atol=1e-6)


def test_a_measure_that_says_what_another_one_says_is_told_once():
    names = [*studied(episode(HANDLE, pulled(0.1))).measure_courses]
    assert names == ["distance from tcp_center to obj", "distance from obj to target"]  # which the criterion compares


# --- parts that give nothing to follow -------------------------------------------------------------------------------


def test_dead_and_saturated_parts_are_named():
    ramp = np.linspace(0, 1, 100)
    parts = {
        "good": ramp,
        "dead": np.full(100, 3.0) + 0.001 * ramp,
        "full": np.minimum(ramp * 10, 1.0),
        "rare": (ramp > 0.97).astype(float),
    }
    evaluation = Evaluation(sum(parts.values()), parts)
    figures = {name: (values.mean(), values.min(), values.max()) for name, values in parts.items()}
    lines = dict(line[2:].split(": ", 1) for line in words.components(figures, evaluation).splitlines())
    assert lines["dead"].endswith("dead: it hardly changes")
    assert lines["full"].endswith("saturated: at its top in 90% of the steps")
    assert lines["good"] == "mean 0.5, min 0, max 1"
    assert lines["rare"] == "mean 0.03, min 0, max 1"
    assert words.components({"a": (123.456, 1e-9, 1234.5)}, None) == "- a: mean 120, min 0, max 1230"


def test_the_evaluations_since_the_last_round_are_told():
    rows = {
        str(steps): {"round": round, "success_rate": steps / 1000, "nearest_distance": 100 / steps}
        for steps, round in ((100, 0), (200, 0), (300, 1), (400, 1), (500, 1))
    }
    said = words.history(rows)
    assert "30%, 40%, 50% solved; missing when nearest 0.33, 0.25, 0.2." in said
    many = {str(n): {"round": 1, "success_rate": n / 100, "nearest_distance": 0.1} for n in range(21)}
    assert words.history(many).count("%") == 4
    assert "20%" in words.history(many)
    assert words.history({"1": rows["100"]}) == ""
