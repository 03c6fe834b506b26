"""Episodes depend on their seed and the actions alone, and what is read of them is true after the step."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from task_specs import TASKS, get_task
from tasks.environment import (
    PROBE_RANDOM_STEPS,
    PROBE_STARTS,
    PROBE_STEPS_AFTER_SUCCESS,
    TaskEnvironment,
    record_probe,
    scripted_expert,
)

STEPS = 20


def actions(seed, count=STEPS):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def episode(environment, seed, chosen):
    """Observations, rewards and variables of an episode."""
    rows = [environment.reset(seed)]
    for action in chosen:
        step = environment.step(action)
        variables = np.empty(environment.task.variable_width)
        environment.read_variables(variables)
        rows.append(np.concatenate([step.obs, [step.env_reward], variables]))
    return np.concatenate(rows)


@pytest.mark.parametrize("name", ["basketball", "window-close", "stick-push", "door-unlock"])
def test_an_episode_depends_on_its_seed_alone(name):
    used, fresh = TaskEnvironment(get_task(name)), TaskEnvironment(get_task(name))
    episode(used, 1, actions(1))
    episode(used, 2, actions(2, 5))
    np.testing.assert_array_equal(episode(used, 3, actions(3)), episode(fresh, 3, actions(3)))
    assert not np.array_equal(episode(used, 4, actions(3)), episode(fresh, 3, actions(3)))


@pytest.mark.parametrize("name", ["basketball", "window-close", "stick-push", "button-press", "door-lock"])
def test_reading_variables_disturbs_nothing(name):
    raw = ALL_V3_ENVIRONMENTS[name + "-v3"]()
    raw.seeded_rand_vec, raw._freeze_rand_vec, raw._set_task_called = True, False, True
    raw._partially_observable = False
    del raw.sawyer_observation_space
    raw.seed(7)
    raw.reset()
    environment = TaskEnvironment(get_task(name))
    environment.reset(7)
    for action in actions(7):
        obs, reward, *_ = raw.step(action)
        step = environment.step(action)
        environment.read_variables(np.empty(environment.task.variable_width))
        np.testing.assert_array_equal(environment.obs, obs)
        assert step.env_reward == reward


def test_variables_are_those_after_the_step():
    environment = TaskEnvironment(get_task("pick-place"))
    environment.reset(0)
    initial = {}
    for action in actions(0):
        environment.step(action)
        values, env = environment.values(), environment.env
        np.testing.assert_array_equal(values["obj"], environment.obs[4:7])
        np.testing.assert_array_equal(values["tcp_center"], env.tcp_center)
        np.testing.assert_array_equal(values["action"], action)
        initial.setdefault("init_left_pad", values["init_left_pad"])
        np.testing.assert_array_equal(values["init_left_pad"], initial["init_left_pad"])
    assert np.linalg.norm(values["left_pad"] - values["init_left_pad"]) > 0.005
    into_float32 = np.empty(environment.task.variable_width, np.float32)
    environment.read_variables(into_float32)
    place = environment.task.inputs["obj"]
    np.testing.assert_array_equal(into_float32[place.start : place.stop], values["obj"].astype(np.float32))


def test_hidden_goal_is_zero_but_known():
    task = get_task("reach")
    hidden, visible = TaskEnvironment(task, hide_goal=True), TaskEnvironment(task)
    assert np.all(hidden.reset(3)[-3:] == 0)
    assert np.all(visible.reset(3)[-3:] != 0)
    np.testing.assert_array_equal(hidden.obs_with_goal(), visible.obs)
    for action in actions(3):
        step = hidden.step(action)
        assert np.all(step.obs[-3:] == 0)
        assert step.env_reward == visible.step(action).env_reward
    np.testing.assert_array_equal(hidden.values()["target"], visible.values()["target"])


def test_action_repeat_sums_rewards_and_keeps_success():
    task = get_task("drawer-close")
    once, thrice = TaskEnvironment(task), TaskEnvironment(task, action_repeat=3)
    expert = scripted_expert(task)
    once.reset(0)
    thrice.reset(0)
    seen = []
    for _ in range(30):
        action = expert(thrice.obs)
        step = thrice.step(action)
        inner = [once.step(action) for _ in range(3)]
        assert step.env_reward == pytest.approx(sum(part.env_reward for part in inner))
        assert step.success == any(part.success for part in inner)
        np.testing.assert_array_equal(step.obs, inner[-1].obs)
        seen.append(step.success)
    assert any(seen)
    assert not all(seen)


def test_an_episode_may_be_longer_than_metaworlds():
    environment = TaskEnvironment(get_task("reach"))
    environment.reset(0)
    for _ in range(505):
        assert not environment.step(np.zeros(4)).terminated


@pytest.mark.parametrize("hide_goal", [False, True])
def test_probe_has_random_steps_and_an_experts_success(hide_goal):
    task = get_task("reach")
    probe = record_probe(task, 0, hide_goal=hide_goal)
    rows = len(probe["next_obs"])
    assert {name: column.shape for name, column in probe.items()} == {
        "next_obs": (rows, 39),
        "action": (rows, 4),
        "variables": (rows, task.variable_width),
    }
    assert all(column.dtype == np.float32 and np.isfinite(column).all() for column in probe.values())
    assert np.all(probe["next_obs"][:, -3:] == 0) == hide_goal
    tcp, target = (probe["variables"][:, task.inputs[n].start : task.inputs[n].stop] for n in ("tcp_center", "target"))
    solved = np.linalg.norm(tcp - target, axis=1) <= 0.05
    before = PROBE_STARTS + PROBE_RANDOM_STEPS
    first = int(np.argmax(solved[before:])) + before
    assert solved[first]
    assert rows == first + 1 + PROBE_STEPS_AFTER_SUCCESS


def test_probe_is_the_same_for_the_same_seed():
    task = get_task("window-close")
    one, same, other = (record_probe(task, seed)["variables"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.array_equal(one, other)


def test_environment_workers_need_no_learner():
    code = "import tasks.environment, sys; print([name for name in ('torch', 'openai') if name in sys.modules])"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("repeat", [1, 4])
def test_the_distance_from_success_reaches_zero_with_it(repeat):
    environment = TaskEnvironment(get_task("window-close"), action_repeat=repeat)
    expert = scripted_expert(environment.task)
    environment.reset(0)
    steps = [environment.step(expert(environment.obs)) for _ in range(150 // repeat)]
    values = environment.values()
    assert steps[0].distance == pytest.approx(abs(values["window_handle_pos_init"][0] - values["target"][0]), abs=0.01)
    assert [step.distance == 0 for step in steps] == [step.success for step in steps]
    assert steps[-1].success
    assert all(step.distance > 0.05 for step in steps if not step.success)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_criterion_is_what_metaworld_reports(name):
    environment = TaskEnvironment(get_task(name))
    reported, step_inside = [], environment.env.step

    def step(action):
        result = step_inside(action)
        reported.append(bool(result[4]["success"]))
        return result

    environment.env.step = step
    expert = scripted_expert(environment.task)
    environment.reset(0)
    found = [environment.step(expert(environment.obs)).success for _ in range(250)]
    environment.close()
    assert found == reported
