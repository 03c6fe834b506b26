"""evaluate.py as it is used: on a real run, and the policy that it exports in a process without this project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from errors import UsageError

ROOT = Path(__file__).parents[2]


def evaluate(*words, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.slow
def test_the_figures_are_those_of_the_episodes_and_do_not_depend_on_the_workers(finished_run):
    words = (finished_run, "--episodes", 5, "--json", "--seed", 3)
    one, two = evaluate(*words, "--workers", 1), evaluate(*words, "--workers", 2)
    assert one.returncode == 0, one.stderr
    assert one.stdout == two.stdout
    found = json.loads(one.stdout)
    assert len({episode["seed"] for episode in found["episodes"]}) == 5
    assert found["success_rate"] == np.mean([episode["success"] for episode in found["episodes"]])
    low, high = found["success_interval"]
    assert 0 <= low <= found["success_rate"] <= high <= 1
    for episode in found["episodes"]:
        assert (episode["steps_to_success"] is not None) == episode["success"]
        assert (episode["nearest_distance"] == 0) == episode["success"]
    protocol = {"episodes": 5, "success": "any", "episode_length": 50, "action_repeat": 1, "goal_visible": True}
    assert found["protocol"] == protocol


def test_another_seed_gives_other_episodes_and_verbose_a_line_for_each(finished_run):
    tables = [evaluate(finished_run, "--episodes", 2, "--verbose", "--seed", seed).stdout for seed in (0, 1)]
    rows = [[line.split() for line in table.splitlines()[-2:]] for table in tables]
    assert [row[0] for row in rows[0]] == ["1", "2"]
    assert {row[1] for row in rows[0]}.isdisjoint({row[1] for row in rows[1]})


def test_the_policies_of_all_agents_at_the_end_of_every_round_can_be_evaluated(finished_run):
    from runs.policy import saved_policy
    from runs.reading import read_run

    run = read_run(finished_run)
    evaluated = {(row["round"], int(agent)) for row in run.evaluations for agent in row["agents"]}
    assert len({round for round, _ in evaluated}) > 1
    for round, agent in evaluated:
        assert saved_policy(run, agent, round).path.name == f"Iter_{round}_Actor_{agent}.pth"
    last = max(round for round, agent in evaluated if agent == 1)
    assert saved_policy(run, agent=1).round == last
    ended = evaluate(finished_run, "--agent", 1, "--round", 0, "--episodes", 1)
    assert "Iter_0_Actor_1.pth, agent 1 of round 0 of small" in ended.stdout, ended.stderr


def test_without_a_run_the_newest_one_is_taken(finished_run, tmp_path):
    assert "bash run.sh quickstart" in evaluate("--episodes", 1, cwd=tmp_path).stderr
    for name, age in (("old", 1_000), ("new", 0), ("half", -1_000)):
        shutil.copytree(finished_run, tmp_path / "logs" / name, ignore=shutil.ignore_patterns("tensorboard"))
        config = tmp_path / "logs" / name / "config.json"
        os.utime(config, (config.stat().st_mtime - age,) * 2)
    (tmp_path / "logs" / "half" / "config.json").write_text("{")
    assert " of new," in evaluate("--episodes", 1, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--agent", "17"), "no policy of agent 17"),
        (("--video", "film.avi"), ".mp4 or .gif"),
        (("--episodes", "0"), "--episodes 0 must be at least 1"),
        (("--video", "film.gif"), "install OSMesa"),
    ],
)
def test_a_mistake_gets_one_line(finished_run, tmp_path, words, told):
    ended = evaluate(finished_run, *words, cwd=tmp_path, MUJOCO_GL="glfw", DISPLAY="")
    assert ended.returncode == 2
    assert told in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_said_so(tmp_path):
    ended = evaluate(tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "is not a run directory" in ended.stderr


def test_an_exported_policy_runs_without_this_project(finished_run, tmp_path):
    assert evaluate(finished_run, "--episodes", 1, "--export", tmp_path / "policy.pt").returncode == 0
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "seeing.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "policy.pt" in example
    ended = subprocess.run(
        [sys.executable, "-I", "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() in {"solved", "not solved"}


def test_an_exported_policy_acts_as_the_network_does(finished_run, tmp_path):
    from runs.policy import export, saved_policy
    from runs.reading import read_run

    run = read_run(finished_run)
    for hide_goal, activation in ((0, "relu"), (1, "elu")):
        run.flags.update(hide_goal=hide_goal, activation=activation, log_std_min=-20.0, log_std_max=-18.0)
        export(run, saved_policy(run), tmp_path / "policy.pt")
        policy = torch.jit.load(tmp_path / "policy.pt")
        obs = np.random.default_rng(0).normal(size=(7, 39))
        hidden = torch.tensor(obs, dtype=torch.float32)
        if hide_goal:
            hidden[:, -3:] = 0
        state = saved_policy(run).state()
        for layer in range(0, 8, 2):
            hidden = hidden @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
            hidden = getattr(functional, activation)(hidden) if layer < 6 else hidden
        mean = torch.tanh(hidden[:, :4])
        torch.testing.assert_close(policy(torch.from_numpy(obs)), mean)
        drawn = policy(torch.from_numpy(obs), deterministic=False)
        assert not torch.equal(drawn, mean)
        torch.testing.assert_close(drawn, mean, atol=1e-6, rtol=0)  # the standard deviation is at most exp(-18)


@pytest.mark.slow
def test_a_video_shows_the_episode_and_marks_its_success(tmp_path):
    """The scripted expert solves the task on the way; the border is green from then on, and not before."""
    from runs.renderer import choose_renderer
    from runs.video import film
    from task_specs import get_task
    from tasks.environment import TaskEnvironment, scripted_expert
    from tasks.episode import Episode

    try:
        choose_renderer()
    except Exception as error:
        pytest.skip(str(error))
    import imageio.v3 as imageio

    task = get_task("drawer-close")
    environment, expert = TaskEnvironment(task), scripted_expert(task)
    environment.reset(5)
    actions, success = [], []
    while not success or not success[-1] or len(success) < 12:
        actions.append(expert(environment.obs_with_goal()))
        success.append(environment.step(actions[-1]).success)
    environment.close()
    first = success.index(True)
    cut = slice(max(first - 3, 0), first + 2)
    episode = Episode({"action": np.array(actions[: cut.stop])}, np.array(success[: cut.stop]), np.zeros(cut.stop))
    film(task, [(5, episode)], tmp_path / "film.mp4", camera="topview")
    frames = imageio.imread(tmp_path / "film.mp4")
    assert len(frames) >= cut.stop
    corner = frames[:, -4, 4].astype(int)  # a pixel within the border
    green = (corner[:, 1] > 150) & (corner[:, 0] < 100)
    assert green.tolist() == [False] * first + [True] * (len(frames) - first)
    assert np.abs(frames[0].astype(int) - frames[first - 1]).mean() > 0.1  # the arm moves


def test_a_damaged_policy_and_a_place_that_is_not_there_are_told_in_a_line(finished_run, tmp_path):
    from runs.policy import SavedPolicy, export, saved_policy
    from runs.reading import read_run

    run = read_run(finished_run)
    whole = saved_policy(run)
    with pytest.raises(UsageError, match=r"policy.pt cannot be written; give a file in a directory that is there"):
        export(run, whole, tmp_path / "nowhere" / "policy.pt")
    content = whole.path.read_bytes()
    for kept in (content[: len(content) // 2], b"", b"text"):
        (tmp_path / "half.pth").write_bytes(kept)
        with pytest.raises(UsageError, match=r"half.pth is damaged; choose another policy"):
            SavedPolicy(tmp_path / "half.pth", None, None).state()
