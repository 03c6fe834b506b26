"""Every task of MetaWorld is there in one vocabulary, a user's own are as welcome, and mistakes are named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from errors import UsageError
from task_specs import METAWORLD_VARIABLES, TASKS, get_task
from tasks.entry import build
from tasks.environment import TaskEnvironment, record_probe, scripted_expert
from tasks.measures import Measures

ROOT = Path(__file__).parents[2]

# The names under which the published code knows the variables of its tasks.
PUBLISHED_NAMES = {
    "window-close": ["obj", "tcp", "_target_pos", "init_tcp", "window_handle_pos_init"],
    "window-open": ["obj", "tcp", "_target_pos", "init_tcp", "window_handle_pos_init", "obj_init_pos"],
    "dial-turn": ["obj", "tcp", "dial_push_position"],
    "door-close": ["obj", "tcp", "hand_init_pos", "obj_init_pos"],
    "peg-insert-side": ["obj", "tcp_center", "tcp_opened", "peg_head_pos_init", "left_pad", "right_pad"],
    "soccer": ["obj", "tcp_center", "tcp_opened", "init_left_pad", "init_right_pad", "obj_init_pos"],
    "coffee-pull": ["obs", "action", "tcp_center", "_target_pos", "obj_init_pos", "init_tcp"],
}

REACHER = {
    "description": "Move the fingertip of the two-jointed arm to the target.",
    "success": "The fingertip is within 0.05 m of the target.",
    "success_expression": "np.linalg.norm(fingertip - target) <= 0.05",
    "make": "Reacher-v5",
    "variables": {
        "fingertip": {
            "read": "env.data.body('fingertip').xpos",
            "meaning": "the arm's fingertip",
            "role": "gripper",
            "aliases": ["tip"],
        },
        "target": {"read": "env.data.body('target').xpos", "meaning": "where it has to go", "role": "goal"},
        "speed": {"read": "np.linalg.norm(env.data.qvel[:2])", "unit": "rad/s", "meaning": "how fast the joints turn"},
        "start": {"read": "env.data.body('fingertip').xpos", "meaning": "where the fingertip was", "at": "reset"},
    },
}


def write_tasks(path, **tasks):
    path.write_text(f"TASKS = {tasks!r}\n")
    return str(path)


def test_every_metaworld_task_is_there():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {name + "-v3" for name in TASKS} == set(ALL_V3_ENVIRONMENTS)


def test_all_spellings_are_the_same_task():
    tasks = [get_task(name) for name in ("door-close", "door-close-v2", "door-close-v3")]
    assert {task.name for task in tasks} == {"door-close"}


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match=r"no task 'windo-close-v2'.*window-close"):
        get_task("windo-close-v2")


@pytest.mark.parametrize("name", TASKS)
def test_one_vocabulary(name):
    task = get_task(name)
    assert METAWORLD_VARIABLES.keys() <= task.inputs.keys()
    roles = {variable.name: variable.role for variable in task.variables}
    assert roles | {"tcp_center": "gripper", "obj": "object", "target": "goal", "obj_init_pos": "object_start"} == roles
    assert [variable.size for variable in task.variables] == [int(np.prod(v.shape)) for v in task.variables]
    for variable in task.variables:
        place = task.inputs[variable.name]
        assert (place.column, place.stop - place.start, place.shape) == ("variables", variable.size, variable.shape)
        assert all(task.inputs[alias] == place for alias in variable.aliases)
        assert variable.unit
        assert len(variable.meaning) > 5
    ends = [task.inputs[variable.name].stop for variable in task.variables]
    assert ends == sorted(ends)
    assert ends[-1] == task.variable_width
    # obs, next_obs, action, terminal, six rewards, env_reward, variables: float32; collector: one byte
    assert 4 * (39 + 39 + 4 + 1 + 6 + 1 + task.variable_width) + 1 <= 800


@pytest.mark.parametrize("name", TASKS)
def test_names_mean_what_they_say(name):
    task = get_task(name)
    environment = TaskEnvironment(task)
    environment.reset(5)
    environment.step(np.zeros(4))
    values = environment.values()
    environment.close()
    np.testing.assert_allclose(values["obj_init_pos"], values["obj"], atol=0.04)
    np.testing.assert_allclose(values["init_tcp"], values["tcp_center"], atol=0.02)
    np.testing.assert_allclose(values["init_left_pad"], values["left_pad"], atol=0.02)
    np.testing.assert_allclose((values["left_pad"] + values["right_pad"])[:2] / 2, values["tcp_center"][:2], atol=0.02)
    np.testing.assert_allclose(values["obs"][-3:], values["target"], atol=1e-9)
    assert values["gripper_opening"] > 0.9


@pytest.mark.parametrize(("name", "names"), PUBLISHED_NAMES.items())
def test_published_names_work(name, names):
    assert set(names) <= get_task(name).inputs.keys()


def test_another_entry_can_make_a_metaworld_task(tmp_path):
    own = {"description": "d", "success": "s", "success_expression": "obj[2] > 0.1", "make": "push-v3"}
    task = get_task("lift", write_tasks(tmp_path / "own.py", lift=own))
    assert task.environment_class is get_task("push").environment_class
    # The human reward needs MetaWorld's own note of the start, which this entry does not have.
    with pytest.raises(UsageError, match=r"'env\.obj_init_pos'"):
        task.human_reward  # noqa: B018


def test_a_gymnasium_environment_is_a_task(tmp_path):
    task = get_task("reacher", write_tasks(tmp_path / "own.py", reacher=REACHER))
    assert (task.obs_size, task.action_size, task.variable_width) == (10, 2, 10)
    assert task.inputs["tip"] == task.inputs["fingertip"]
    assert task.human_reward is None
    assert scripted_expert(task) is None
    environment = TaskEnvironment(task)
    environment.reset(0)
    start = environment.values()["fingertip"].copy()
    step = environment.step(np.array([1.0, -1.0]))
    values = environment.values()
    np.testing.assert_array_equal(values["start"], start)
    assert np.linalg.norm(values["fingertip"] - start) > 1e-4
    assert values["speed"] > 0
    assert step.success == (np.linalg.norm(values["fingertip"] - values["target"]) <= 0.05)
    environment.close()
    probe = record_probe(task, 0)
    assert len(probe["next_obs"]) == 105
    assert list(Measures(task).course(probe)) == ["distance from fingertip to target"]  # which is what is compared


@pytest.mark.slow
def test_a_gymnasium_task_trains(tmp_path):
    write_tasks(tmp_path / "own.py", reacher=REACHER)
    flags = (
        "--env-name=reacher --task_file=own.py --model=builtin --seed=1 --total-timesteps=400 --pop_size=2 "
        "--elite_num=1 --init-exploration-steps=100 --episode-length=40 --LLM_freq=200 --eval-episodes=2 "
        "--final_episodes=2 --hidden-size=16 --batch-size=16 --device=cpu --num_workers=1 --exp_name=run"
    )
    command = [sys.executable, str(ROOT / "lares_from_scratch.py"), *flags.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "logs" / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["env_steps"] >= 400
    programs = json.loads((tmp_path / "logs" / "run" / "population.json").read_text())
    assert any("fingertip" in program["source"] for program in programs if program["accepted"])


def test_actions_of_any_box_are_between_minus_one_and_one(tmp_path):
    entry = {
        "description": "Swing the pendulum up and keep it up.",
        "success": "The pendulum is within 0.1 rad of upright.",
        "success_expression": "abs(angle) <= 0.1",
        "make": "Pendulum-v1",
        "human_reward": "def compute_reward(angle):\n    return -angle**2\n",
        "variables": {
            "angle": {"read": "(env.state[0] + np.pi) % (2 * np.pi) - np.pi", "unit": "rad", "meaning": "0 is upright"},
            "torque": {"read": "env.last_u or 0.0", "unit": "N m", "meaning": "the torque applied"},
        },
    }
    task = get_task("pendulum", write_tasks(tmp_path / "own.py", pendulum=entry))
    environment = TaskEnvironment(task)
    environment.reset(0)
    environment.step(np.array([-1.0]))
    assert environment.values()["torque"] == pytest.approx(-2.0)
    assert "return -angle**2" in task.human_reward.source
    assert "return abs(angle) <= 0.1" in task.human_reward.success_source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def compute_reward(position:\n  return", "human_reward: it is not Python (SyntaxError"),
        ("the negative distance", "human_reward: it is not Python (SyntaxError"),
        ("def reward(position):\n    return 1.0\n", "human_reward: it has no function compute_reward"),
        ("", "human_reward: it has no function compute_reward"),
        ("def compute_reward(positoin):\n    return 0.0\n", "the argument 'positoin'; did you mean position?"),
    ],
)
def test_a_human_reward_is_a_function_of_what_there_is(tmp_path, source, message):
    entry = {
        "description": "Swing the pendulum up and keep it up.",
        "make": "Pendulum-v1",
        "human_reward": source,
        "variables": {"position": {"read": "env.state[0]", "meaning": "the angle"}},
    }
    with pytest.raises(UsageError) as error:
        get_task("pendulum", write_tasks(tmp_path / "own.py", pendulum=entry))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def mistaken(**changes):
    return REACHER | changes


def with_variable(**fields):
    return mistaken(variables=REACHER["variables"] | {"extra": {"read": "1.0", "meaning": "one"} | fields})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("push it", r"task 'mine': found 'push it', expected a dict with the fields description"),
        (mistaken(descripton="x"), r"task 'mine': found the field 'descripton', expected .* description"),
        (mistaken(description=""), r"task 'mine'\.description: found nothing, expected a str"),
        (mistaken(success=3), r"task 'mine'\.success: found 3, expected a str"),
        (mistaken(make="Reacher-v99"), r"task 'mine', make: 'Reacher-v99' makes no environment .*expected the name of"),
        (mistaken(make="CartPole-v1"), r"task 'mine', make: its action_space is Discrete\(2\), expected a Box"),
        (mistaken(success_expression="tipp[0] > 0"), r"success_expression: .*'tipp' is not defined; did you mean tip"),
        (mistaken(success_expression="tip[0] >"), r"success_expression: .*SyntaxError"),
        (mistaken(success_expression="tip - target"), r"success_expression: .* expected True or False"),
        (mistaken(variables=["tip"]), r"task 'mine'\.variables: found \['tip'\], expected a dict"),
        (with_variable(read="env.data.body('tip').xpos"), r"variables\.extra\.read: .* fails with KeyError.* expected"),
        (with_variable(read="env.nothing"), r"variables\.extra\.read: 'env\.nothing' fails with AttributeError"),
        (with_variable(read="np.eye(2)"), r"variables\.extra\.read: .*shape \(2, 2\), expected a number or a vector"),
        (with_variable(read=""), r"variables\.extra\.read: found nothing, expected a str"),
        (with_variable(meaning=None), r"variables\.extra\.meaning: found None, expected a str"),
        (with_variable(role="gaol"), r"variables\.extra\.role: found 'gaol', expected one of .* did you mean goal"),
        (with_variable(at="start"), r"variables\.extra\.at: found 'start', expected 'step' or 'reset'"),
        (with_variable(aliases=["target"]), r"variables\.extra: two variables are called 'target'"),
        (with_variable(aliases=["action"]), r"variables\.extra: found the name 'action', expected a Python name other"),
        (with_variable(aliases=["2nd"]), r"variables\.extra: found the name '2nd', expected a Python name"),
        (with_variable(units="m"), r"variables\.extra: found the field 'units', expected .* did you mean unit"),
        (mistaken(variables={"tip": "the tip"}), r"variables\.tip\.read: found nothing, expected a str"),
    ],
)
def test_a_mistake_is_named(entry, message):
    with pytest.raises(UsageError, match=message) as raised:
        build("mine", entry, METAWORLD_VARIABLES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TASKS = 3", "defines no dict TASKS"),
        ("TASK = {}", "defines no dict TASKS"),
        ("import nothing_like_it", "cannot be run: ModuleNotFoundError"),
        (None, "cannot be run: FileNotFoundError"),
    ],
)
def test_a_task_file_that_is_none(tmp_path, text, message):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        get_task("reacher", str(path))


def test_the_command_shows_variables_with_live_values(tmp_path):
    own = write_tasks(tmp_path / "own.py", reacher=REACHER)
    shown = run("reacher", "--task_file", own).stdout
    assert "np.linalg.norm(fingertip - target) <= 0.05" in shown
    (speed,) = [line for line in shown.splitlines() if line.startswith("speed")]
    assert all(part in speed for part in ("()", "rad/s", "other", "how fast the joints turn"))
    wrong = run("reachr", "--task_file", own)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("there is no task 'reachr'; did you mean")


def run(*arguments):
    return subprocess.run([sys.executable, "task_specs.py", *arguments], cwd=ROOT, capture_output=True, text=True)
