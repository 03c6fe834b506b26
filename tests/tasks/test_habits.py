"""What environments of one's own do: supported, refused in a line that helps, or worth one episode."""

from pathlib import Path

import numpy as np
import pytest

from errors import RunError, UsageError
from task_specs import get_task
from tasks.environment import EnvironmentFailed, TaskEnvironment, record_probe, start_remarks
from tasks.episode import UNIFORM, Order, Score
from tasks.measures import Measures
from workers.collectors import Collectors, PolicyShape

HABITS = str(Path(__file__).parents[1] / "environment_habits.py")


def habit(name):
    return get_task(name, HABITS)


def collect(name, orders, **options):
    task = habit(name)
    pool = Collectors(task, PolicyShape((task.obs_size, 8, 2 * task.action_size)), 1, 1, **options)
    episodes = pool.run(orders)
    pool.close()
    return episodes


def last_after(name, action, **options):
    """What the environment got of an action."""
    environment = TaskEnvironment(habit(name), **options)
    environment.reset(0)
    environment.step(np.array(action))
    return environment.values()["last"]


@pytest.mark.parametrize(
    ("name", "action", "got"),
    [
        ("Strict", [1.5], 1.0),
        ("StrictWide", [-0.5], -1.0),
        ("StrictNarrow", [1.0], 0.3),
        ("StrictNarrow", [-1.0], -0.1),
        ("StrictDouble", [0.1], 0.1),
        ("StrictFixed", [-1.0, 1.0, 1.0], -1.0),
    ],
)
def test_actions_lie_in_the_environments_own_space(name, action, got):
    assert last_after(name, action) == pytest.approx(got)
    environment = TaskEnvironment(habit(name))
    environment.reset(0)
    for drawn in np.random.default_rng(0).uniform(-1.2, 1.2, (50, len(action))):
        environment.step(drawn)


def test_an_action_that_is_changed_in_place_is_taken_anew():
    assert last_after("InPlace", [1.0], action_repeat=3) == last_after("InPlace", [1.0]) == 0.5


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize(("name", "terminal"), [("Truncates", 0), ("TimeLimit", 0), ("Terminates", 1)])
def test_an_episode_that_ends_by_itself(name, terminal, repeat):
    [episode] = collect(name, [Order(UNIFORM, 1, 50, 2)], action_repeat=repeat)
    assert not episode.failed
    assert len(episode.success) == -(-20 // repeat)
    assert episode.transitions["terminal"].tolist() == [0] * (len(episode.success) - 1) + [terminal]
    assert len(record_probe(habit(name), 0, action_repeat=repeat)["action"]) == 105


def test_observations_of_every_form_are_vectors_of_their_own():
    for name in ("Lists", "OneBuffer", "Dictionary"):
        [episode] = collect(name, [Order(UNIFORM, 1, 9, 2)])
        position = episode.transitions["variables"][:, 0]
        expected = {"Dictionary": [position * 0 + 0.5, position, position * 0, position * 0 + 1]}
        columns = expected.get(name, [position, position * 0 + 0.5])
        np.testing.assert_allclose(episode.transitions["next_obs"], np.stack(columns, 1), err_msg=name)
        assert len(np.unique(episode.transitions["next_obs"], axis=0)) == 9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["RewardOf", "ArrayReward"])
def test_a_reward_is_a_number_in_whatever_wrapping(name):
    environment = TaskEnvironment(habit(name))
    environment.reset(0)
    step = environment.step(np.ones(1))
    assert step.env_reward == pytest.approx(-abs(step.obs[0] - 0.5))


def test_an_environment_may_know_no_render_mode():
    TaskEnvironment(habit("TakesNoRenderMode")).close()
    with pytest.raises(UsageError, match=r"TakesNoRenderMode.* takes no render_mode"):
        TaskEnvironment(habit("TakesNoRenderMode"), render_mode="rgb_array")


def test_the_tasks_criterion_decides_on_success():
    environment = TaskEnvironment(habit("ClaimsFailure"))
    environment.reset(0)
    steps = [environment.step(np.ones(1)) for _ in range(12)]
    assert [step.success for step in steps] == [abs(step.obs[0] - 0.5) <= 0.05 for step in steps]
    assert any(step.success for step in steps)


def test_a_task_without_success_is_never_solved():
    episodes = collect("WithoutSuccess", [Order(UNIFORM, 1, 20, 2)])
    summary = Score(episodes).summary()
    assert (summary["success_rate"], summary["distance"]) == (0, 1)
    assert summary["env_return"] < 0
    assert Measures(habit("WithoutSuccess")).course(episodes[0].transitions) == {}


@pytest.mark.parametrize("method", ["__init__", "reset", "step"])
def test_an_environment_that_exits_fails_in_a_line(method, monkeypatch):
    """As a viewer whose window was closed does."""
    from environment_habits import Point
    from tasks.entry import build

    def exits(*_, **__):
        raise SystemExit("the window was closed")

    task = build("point", {"description": "d", "make": lambda render_mode: Point(render_mode)}, {})
    environment = TaskEnvironment(task)
    environment.reset(0)
    monkeypatch.setattr(Point, method, exits)
    with pytest.raises(UsageError, match="SystemExit: the window was closed"):
        build("point", {"description": "d", "make": lambda render_mode: Point(render_mode)}, {})
    if method == "step":
        with pytest.raises(EnvironmentFailed, match="SystemExit: the window was closed"):
            environment.step(np.zeros(1))


@pytest.mark.parametrize("criterion", ["np.all(np.abs(obs) < 0.6)", "all(abs(x - position) < 0.1 for x in obs)"])
def test_a_criterion_over_vectors_is_no_quantity_but_counts(criterion):
    from tasks.entry import build

    entry = {"description": "d", "success": "s", "success_expression": criterion, "make": "MountainCarContinuous-v0"}
    task = build("car", entry | {"variables": {"position": {"read": "obs[0]", "meaning": "along the track"}}}, {})
    environment = TaskEnvironment(task)
    environment.reset(0)
    step = environment.step(np.zeros(1))
    environment.close()
    columns = {"next_obs": step.obs[None], "action": np.zeros((1, 1)), "variables": step.obs[None, :1]}
    assert Measures(task).course(columns) == {}
    assert step.distance == (not step.success)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Point", []),
        ("StartsSolved", ["success holds at reset in 5 of 5 episodes"]),
        ("IgnoresSeed", ["no run can be reproduced"]),
    ],
)
def test_what_is_told_of_the_start(name, found):
    remarks = start_remarks(habit(name))
    assert len(remarks) == len(found)
    assert all(part in remark for part, remark in zip(found, remarks, strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OldReset", r"its reset returns .*before Gym 0\.26; expected .*\(observation, info\)"),
        ("OldResetOfLists", r"its reset returns .*expected .*\(observation, info\)"),
        ("OldResetWithoutSeed", r"its reset fails with TypeError.*'seed'.*expected reset\(seed=\.\.\.\)"),
        ("OldStep", r"its step returns 4 values.*expected \(observation, reward, terminated, truncated, info\)"),
        ("SwappedFlags", r"its step returns \{\} as truncated, expected True or False"),
        ("NoReward", r"its step returns the reward None, expected a finite number"),
        ("TwoRewards", r"its step returns the reward array\(.*\), expected a finite number"),
        ("NaNReward", r"its step returns the reward nan, expected a finite number"),
        ("OtherShape", r"its reset shows .*shape \(1,\), where observation_space says \(2,\)"),
        ("NaNFromTheStart", r"its reset shows an observation with nan, expected finite numbers"),
        ("Image", r"its observation_space holds images .*expected numbers that describe the state"),
        ("GreyImageInside", r"its observation_space holds images"),
        ("Text", r"its observation_space is Text.*expected a Box, or a Dict or Tuple"),
        ("Discrete", r"its action_space is Discrete\(3\), expected a Box"),
        ("Integers", r"its action_space is Box.*int64.*expected a Box .*floating-point"),
        ("Unbounded", r"its action_space is Box\(-inf, inf.*expected finite bounds"),
        ("NotGymnasium", r"found a .*NotGymnasium, expected a gymnasium\.Env"),
        ("StopsAtOnce", r"its step fails with RuntimeError: no connection to the robot; expected"),
    ],
)
def test_what_cannot_be_learned_in_is_refused_in_one_line(name, message):
    with pytest.raises(UsageError, match=rf"task '{name}', make: {message}") as raised:
        habit(name)
    assert "\n" not in str(raised.value)


def test_a_simulator_that_breaks_whenever_it_runs_ends_the_run_at_its_start():
    with pytest.raises(RunError, match=r"task 'BrokenLater': its environment fails whenever it is tried.*lost contact"):
        record_probe(habit("BrokenLater"), 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NaNOnce", "an observation with the value nan"),
        ("HugeOnce", "an observation with the value 1e+30"),
        ("NaNVariableOnce", "variables with the value nan"),
        ("NaNRewardOnce", "a reward of nan"),
        ("RaisesOnce", "RuntimeError: physics state is invalid"),
    ],
)
def test_one_bad_step_costs_one_episode(name, reason):
    episodes = collect(name, [Order(UNIFORM, seed, 50, seed) for seed in range(6)])
    [failed] = [episode for episode in episodes if episode.failed]
    # One step was taken when the task was built.
    assert failed is episodes[3]
    assert failed.failed.startswith(f"after 18 decisions: {reason}")
    for episode in episodes:
        assert all(len(column) == len(episode.success) for column in episode.transitions.values())
        assert all(np.isfinite(column).all() for column in (*episode.transitions.values(), episode.distance))
    assert [len(episode.success) for episode in episodes] == [50, 50, 50, 18, 50, 50]


def test_a_broken_policy_is_not_let_into_the_environment():
    environment = TaskEnvironment(habit("Point"))
    environment.reset(0)
    with pytest.raises(EnvironmentFailed, match="action"):
        environment.step(np.array([np.nan]))


def test_what_an_environment_raises_when_it_is_closed_is_of_no_consequence():
    environment = TaskEnvironment(habit("ClosesNoWindow"))
    environment.reset(0)
    environment.close()


def test_an_observation_without_any_number_is_refused():
    with pytest.raises(UsageError, match="shows an observation without any number, expected at least one"):
        habit("ShowsNothing")
