"""A task file with modules beside it runs from anywhere, whatever they are called."""

import subprocess
import sys
from pathlib import Path

import pytest

import task_specs
from errors import UsageError
from task_specs import all_tasks, get_task
from tasks.task_file import load_task_file
from workers.collectors import Collectors, PolicyShape

ROOT = Path(__file__).parents[2]

ENVIRONMENT = """
import gymnasium as gym
import numpy as np


class Nothing(gym.Env):
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    value = 0.25

    def __init__(self, render_mode=None):
        pass

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        from errors import reward_of  # a module of the user's own, first needed here

        return np.zeros(1, np.float32), reward_of(action), False, False, {}
"""

TASK_FILE = """
from __future__ import annotations

import json
import sac as learner, tasks.parts.arm
from models import make
from tasks.parts import arm as same
{extra}

assert same is tasks.parts.arm and learner.name == "the user's"
TASKS = {{
    "own": {{
        "description": "Do nothing.",
        "make": make,
        "variables": {{"value": {{"read": "env.value", "meaning": "a number"}}}},
    }}
}}
"""


@pytest.fixture
def task_file(tmp_path):
    """A file beside modules that are called as some of ours, one of them a folder without __init__.py."""
    (tmp_path / "tasks" / "parts").mkdir(parents=True)
    (tmp_path / "tasks" / "parts" / "arm.py").write_text(ENVIRONMENT)
    (tmp_path / "errors.py").write_text("def reward_of(action):\n    return 0.125\n")
    (tmp_path / "sac.py").write_text('name = "the user\'s"\n')
    (tmp_path / "models.py").write_text(
        "def make(render_mode):\n    from tasks.parts.arm import Nothing\n\n    return Nothing(render_mode)\n"
    )
    path = tmp_path / "own-tasks.v1.py"
    path.write_text(TASK_FILE.format(extra=""))
    return path


def test_modules_beside_it_come_first_in_its_code_alone(task_file):
    import errors
    import sac

    task = get_task("own", str(task_file))
    assert task.environment_class.value == 0.25
    assert sys.modules["errors"] is errors
    assert sys.modules["sac"] is sac
    assert hasattr(sac, "SacConfig")


def test_from_any_directory_also_in_workers(task_file, monkeypatch):
    from tasks.episode import UNIFORM, Order

    monkeypatch.chdir(task_file.parent.parent)
    task = get_task("own", f"{task_file.parent.name}/{task_file.name}")
    pool = Collectors(task, PolicyShape((1, 4, 2)), 1, 1)
    monkeypatch.chdir("/")
    [episode] = pool.run([Order(UNIFORM, 0, 3, 0)])
    pool.close()
    assert episode.transitions["env_reward"].tolist() == [0.125] * 3


def test_installed_packages_are_no_folders_of_data(task_file):
    (task_file.parent / "numpy").mkdir()
    (task_file.parent / "numpy" / "positions.txt").write_text("1 2 3")
    assert "own" in all_tasks(str(task_file))


def test_a_registered_environment_is_found_by_its_name(task_file):
    (task_file.parent / "made_elsewhere.py").write_text(ENVIRONMENT)
    task_file.write_text(
        "import gymnasium\n"
        "gymnasium.register('Elsewhere-v0', entry_point='made_elsewhere:Nothing')\n"
        "TASKS = {'own': {'description': 'd', 'make': 'Elsewhere-v0'}}\n"
    )
    assert get_task("own", str(task_file)).environment_class.__name__ == "Nothing"


def test_a_file_beside_ours_imports_ours():
    path = ROOT / "tests" / "environment_habits.py"
    assert load_task_file(str(path))
    code = "from task_specs import TASKS as ours\nimport task_specs\nTASKS = {'mine': task_specs}\n"
    beside = ROOT / "own_tasks_of_a_test.py"
    beside.write_text(code)
    try:
        assert load_task_file(str(beside))["mine"] is task_specs
    finally:
        beside.unlink()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("import nothing_like_it", "cannot be run: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("from models import unmake", "cannot be run: ImportError: cannot import name 'unmake'"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("from . import nothing", "cannot be run: ImportError"),
    ],
)
def test_what_cannot_be_run_is_named(task_file, extra, message):
    task_file.write_text(TASK_FILE.format(extra=extra))
    with pytest.raises(UsageError, match=message):
        all_tasks(str(task_file))


def test_one_bad_entry_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    path = tmp_path / "mixed.py"
    path.write_text(
        "TASKS = {'broken': {'description': 'd', 'make': 'Pendulum-v9'},\n"
        "         'sound': {'description': 'Swing.', 'make': 'Pendulum-v1'}}\n"
    )
    monkeypatch.setattr(task_specs, "TASKS", {})
    monkeypatch.setattr(sys, "argv", ["task_specs.py", "--task_file", str(path)])
    with pytest.raises(SystemExit) as ended:
        task_specs.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out.split() == ["sound", "from", "scratch", "no", "expert", "Swing."]
    assert shown.err.startswith("task 'broken', make: 'Pendulum-v9' makes no environment")
    assert len(shown.err.splitlines()) == 1


def test_a_reader_that_has_seen_enough_ends_the_list_quietly():
    command = f"{sys.executable} task_specs.py | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("assembly")


@pytest.mark.parametrize("name", ["Pusher-v5", "Pusher"])
def test_a_gymnasium_id_points_to_the_task_file(name):
    with pytest.raises(UsageError, match=rf"no task '{name}', but there is .*'Pusher-v5'.*--task_file"):
        get_task(name)
