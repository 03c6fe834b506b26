"""The derived human rewards are MetaWorld's own, and read like code that a person wrote."""

import ast
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from benchmarks.human_rewards import function, measure, parameters
from errors import UsageError
from reward_code import check_source
from task_specs import TASKS, get_task
from tasks.environment import TaskEnvironment
from tasks.human_reward import derive


@pytest.fixture(scope="module")
def agreements(request):
    """For each task of the test below how its derived reward agrees with its environment, measured in two processes."""
    selected = [item.callspec.params["name"] for item in request.session.items if "agreements" in item.fixturenames]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield {name: pool.submit(measure, name) for name in selected}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_equals_the_environments_reward_and_success(agreements, name):
    agreement = agreements[name].result()
    assert agreement.passes, agreement
    assert agreement.expert >= 1, "the expert's episodes never reached the part of the reward that counts most"


@pytest.mark.parametrize("name", TASKS)
def test_reads_like_code_that_a_person_wrote(name):
    task = get_task(name)
    check_source(task.human_reward.source, task.inputs)
    source = task.human_reward.source
    assert not re.search(r"\bself\b|SawyerXYZEnv|V3|reward_utils\.|\bassert\b|\bdel\b|reward_function_version", source)
    assert not re.search(r"# ?\w+ = ", source), "commented-out code"
    assert not re.search(r"\n\n\n\n|[ \t]\n", source)
    assert max(map(len, source.splitlines())) <= 100
    tree = ast.parse(source)
    assert tree.body[-1].name == "compute_reward"
    for node in tree.body:
        assert_reads_what_it_assigns(node)
    assert set(parameters(source)) <= {variable.name for variable in task.variables} | {"obs", "action"}


def assert_reads_what_it_assigns(node):
    """Every parameter and local of the function is used."""
    names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
    read = {name.id for name in names if isinstance(name.ctx, ast.Load)}
    assigned = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    assert assigned | {argument.arg for argument in node.args.args} <= read, node.name


@pytest.mark.parametrize(
    "name", ["assembly", "bin-picking", "box-close", "door-close", "hammer", "reach", "window-open"]
)
def test_components_are_named_numbers(name):
    task = get_task(name)
    environment = TaskEnvironment(task)
    environment.reset(0)
    step = environment.step(np.full(4, 0.5))
    reward, components = function(task.human_reward.source, "compute_reward")(environment.values())
    environment.close()
    assert reward == pytest.approx(step.env_reward, rel=1e-9)
    assert components
    assert "_" not in components
    assert not components.keys() & task.inputs.keys(), "a variable is no part of the reward"
    assert all(np.ndim(value) == 0 and np.isfinite(float(value)) for value in components.values())


def test_comments_stay_where_they_were():
    source = get_task("hammer").human_reward.source
    assert "    # Ideal laid-down wrench has quat [1, 0, 0, 0]\n" in source
    assert "    # Relative importance of just *trying* to lift the hammer\n    a = 0.1\n" in source
    assert "    # Closed-extent gripper information for caging reward\n    gripper_closed = " in source
    assert "`gripper_caging_reward` assumes" in source


def test_success_shows_axis_and_threshold():
    human = get_task("window-close").human_reward
    assert human.success_source == (
        "def success(obj, target):\n    target_to_obj = abs(obj[0] - target[0])\n    return target_to_obj <= 0.05\n"
    )
    assert "nail_depth > 0.09" in get_task("hammer").human_reward.success_source


def test_initial_pads_are_live_views():
    # The derivation takes the environment's "initial" pad positions for the present ones, because that is what they
    # are. If MetaWorld ever copies them, this tells.
    environment = TaskEnvironment(get_task("pick-place"))
    environment.reset(0)
    for pads in (environment.env.init_left_pad, environment.env.init_right_pad):
        assert np.shares_memory(pads, environment.env.data.xpos)
    environment.close()


def test_names_what_no_variable_has():
    task = get_task("drawer-close")
    reads = {v.name: v.read for v in task.variables if v.read != "env.init_tcp" and not v.at_reset}
    with pytest.raises(UsageError, match=r"reads self\.init_tcp.*'read': 'env\.init_tcp'"):
        derive(task.environment_class, reads)
