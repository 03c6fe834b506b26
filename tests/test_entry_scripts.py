"""Both entry scripts as a user starts them: real processes, real signals, real exit statuses."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from arguments import parse_args
from chat_server import completion, serving
from reward_code import check_source, extract
from search.examples import solved_examples
from task_specs import get_task

ROOT = Path(__file__).parents[1]
SMALL = (
    "--total-timesteps=600 --init-exploration-steps=120 --episode-length=40 --LLM_freq=200 --display-interval=150 "
    "--eval-episodes=2 --final_episodes=4 --hidden-size=16 --batch-size=16 --pop_size=3 --elite_num=2 --device=cpu"
)


def environment(**more):
    hidden = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WANDB_API_KEY", "WANDB_MODE")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


def start(script, flags, cwd, small=SMALL, **more):
    command = [sys.executable, str(ROOT / script), *small.split(), *flags.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(**more), **pipes)


def run(script, flags, cwd, small=SMALL, **more):
    process = start(script, flags, cwd, small, **more)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def rows(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run from scratch, from a directory that is not the project's."""
    cwd = tmp_path_factory.mktemp("scratch")
    flags = (
        "--model=builtin --env-name=window-close-v2 --seed=1 -damp=1e-1 --EA_tau=0.1 --num_workers=1 --num_learners=1"
    )
    code, out, err = run("lares_from_scratch.py", flags, cwd)
    assert code == 0, err
    [directory] = (cwd / "logs").iterdir()
    return directory, out


def test_a_run_leaves_what_it_promises(finished):
    directory, out = finished
    assert directory.name == "from_scratch_window-close-v2_builtin_seed1"
    config = json.loads((directory / "config.json").read_text())
    assert config["flags"]["env_name"] == "window-close-v2"
    assert config["versions"]["metaworld"] == "3.1.1"
    for slot in range(3):
        assert "def compute_reward" in (directory / f"Iter_0_Reward_Code_{slot}.py").read_text()
        assert "```python" in (directory / f"Iter_0_Response_{slot}.txt").read_text()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "finished"
    low, high = summary["final_success_interval"]
    assert 0 <= low <= summary["final_success_rate"] <= high <= 1
    protocol = {"episodes": 4, "episode_length": 40, "action_repeat": 1, "goal_visible": True}
    assert summary["protocol"] == {**protocol, "success": "any", "fitness": "success"}
    assert summary["env_steps"] >= 600
    assert any(path.name.startswith("events") for path in (directory / "tensorboard").iterdir())
    assert "without effect: --damp, --EA_tau" in out
    assert "600 env steps" in out
    assert " a second" in out


def test_metrics_are_strict_json_in_order(finished):
    found = rows(finished[0] / "metrics.jsonl")
    assert len(found) >= 3
    for name in ("env_steps", "wall_time"):
        values = [row[name] for row in found]
        assert values == sorted(values)
    for row in found:
        assert set(row["agents"]) == {"0", "1", "2"}
        best = row["agents"][str(row["best"]["agent"])]
        assert best["success_rate"] == max(agent["success_rate"] for agent in row["agents"].values())


def test_later_functions_have_parents(finished):
    population = json.loads((finished[0] / "population.json").read_text())
    later = [program for program in population if program["round"] > 0 and program["accepted"]]
    assert later
    ids = {program["id"] for program in population}
    assert all(program["parents"] and set(program["parents"]) <= ids for program in later)
    for program in population:
        assert program["accepted"] or program["reason"]


def test_the_saved_policy_loads_without_this_project(finished):
    state = torch.load(finished[0] / "best_actor_net.pth", weights_only=True)
    actor = nn.Sequential(
        nn.Linear(39, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)
    )
    actor.load_state_dict(state)
    for name in ("best_qf1", "best_qf2", "best_target_qf1", "best_target_qf2"):
        assert torch.load(finished[0] / f"{name}.pth", weights_only=True)["0.weight"].shape == (16, 43)


def test_the_chosen_reward_function_is_a_file_that_says_where_it_comes_from(finished):
    directory, out = finished
    summary = json.loads((directory / "summary.json").read_text())
    chosen = json.loads((directory / "population.json").read_text())[summary["chosen_function"]]
    assert summary["chosen_function_round"] == chosen["round"]
    text = (directory / "best_reward.py").read_text()
    assert text.endswith(chosen["source"].strip() + "\n")
    assert f"# function:  {chosen['id']}, written in search round {chosen['round']}" in text
    assert f"# success:   final {summary['final_success_rate']:.2f} (95% interval " in text
    assert out.splitlines()[-1].endswith(f"logs/{directory.name}/best_reward.py")
    inputs = get_task("window-close").inputs
    check_source(extract(text).source, inputs)  # a run would take it
    names = {}
    exec(text, names)  # and outside of a run it has all that it needs
    arguments = inspect.signature(names["compute_reward"]).parameters
    reward, _ = names["compute_reward"](**{name: np.full(inputs[name].shape, 0.1) for name in arguments})
    assert np.isfinite(reward)


def learned(directory):
    """What must not depend on the machine: everything in the metrics but the time."""
    return [{name: value for name, value in row.items() if name != "wall_time"} for row in rows(directory)]


def test_a_seed_fixes_a_run_whatever_the_number_of_workers_and_learners(finished, tmp_path):
    flags = "--model=builtin --env-name=window-close --seed=1 --num_workers=2 --num_learners=3 --exp_name=again"
    code, _, err = run("lares_from_scratch.py", flags, tmp_path)
    assert code == 0, err
    assert learned(tmp_path / "logs/again/metrics.jsonl") == learned(finished[0] / "metrics.jsonl")


def test_recorded_responses_give_the_same_run_again(finished, tmp_path):
    flags = f"--model=replay:{finished[0]} --env-name=window-close --seed=1 --exp_name=replayed"
    code, _, err = run("lares_from_scratch.py", flags, tmp_path)
    assert code == 0, err
    assert learned(tmp_path / "logs/replayed/metrics.jsonl") == learned(finished[0] / "metrics.jsonl")


def test_with_init_has_a_human_agent(tmp_path):
    flags = "--model=builtin --env-name=coffee-pull-v2 --pop_size=3 --seed=2"
    code, out, err = run("lares_with_init.py", flags, tmp_path)
    assert code == 0, err
    [directory] = (tmp_path / "logs").iterdir()
    assert set(rows(directory / "metrics.jsonl")[0]["agents"]) == {"0", "1", "2", "3"}
    assert json.loads((directory / "summary.json").read_text())["status"] == "finished"
    assert "with_init on coffee-pull" in out


def test_a_second_run_of_the_same_name_gets_a_number(finished, tmp_path):
    (tmp_path / "logs" / "twice").mkdir(parents=True)
    flags = "--model=builtin --exp_name=twice --stop_success=0.01 --total-timesteps=200"
    assert run("lares_from_scratch.py", flags, tmp_path)[0] == 0
    assert (tmp_path / "logs" / "twice_2" / "summary.json").exists()
    assert not list((tmp_path / "logs" / "twice").iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_good_order(number, status, tmp_path):
    flags = "--model=builtin --total-timesteps=1000000 --exp_name=cut"
    process = start("lares_from_scratch.py", flags, tmp_path)
    directory = tmp_path / "logs" / "cut"
    deadline = time.monotonic() + 120
    while not (directory / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in err
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert f"# function:  {summary['chosen_function']}, " in (directory / "best_reward.py").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-name=window-clos-v2 --model=builtin", "window-close"),
        ("--elite-numm=2", "--elite_num"),
        ("--model=gpt-4o-mini", "--model builtin"),
        ("--model=builtinn", "builtin"),
        ("--model=replay:nowhere", "nowhere"),
        ("--model=builtin --prompts=nowhere", "--prompts nowhere lacks system.txt, "),
        ("--model=builtin --device=cuda", "GPU"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_status_2(flags, message, tmp_path):
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, _, err = run("lares_from_scratch.py", flags, tmp_path)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "logs").exists()


def test_a_dry_run_shows_the_first_messages_and_leaves_nothing(finished, tmp_path):
    flags = "--dry_run --env-name=window-close-v2 --seed=1 --pop_size=5 --elite_num=3 --price_in=2"
    code, out, err = run("lares_from_scratch.py", flags, tmp_path)
    assert code == 0, err
    first = json.loads((finished[0] / "llm.jsonl").read_text().splitlines()[0])
    for message in first["messages"]:
        assert message["content"].strip() in out
    assert "tcp_center (3,) m: from " in out
    assert "asks for 10 answers" in out
    assert not (tmp_path / "logs").exists()


def test_a_dry_run_shows_examples_too_and_does_not_price_what_is_free(tmp_path):
    code, out, err = run("lares_from_scratch.py", "--dry_run --model=builtin --examples=solved", tmp_path)
    assert code == 0, err
    for example in solved_examples("window-close", "from_scratch"):
        assert example in out
    assert "[cost]\n\n--model builtin costs no tokens.\nNothing was sent." in out


def test_the_readmes_commands_are_understood(tmp_path):
    words = (
        "--env-name=window-close-v2 --buffer_transfer=0 --scale_type=2 --Inter_Loop_freq=1000000 --ucb_type=max "
        "--windows_length=500 --elite_num=3 --RL_ucb=1 --c=0.0 --EA_tau=0.1 --damp=1e-1 --model=gpt-4o-mini "
        "--total-timesteps=1000000 --seed=1 --eval-episodes=20 --LLM_freq=200000"
    ).split()
    args = parse_args(words, "from_scratch")
    assert (args.scale_type, args.windows_length, args.LLM_freq, args.total_timesteps) == (2, 500, 200_000, 1_000_000)
    assert args.ignored_flags == ("--Inter_Loop_freq", "--ucb_type", "--RL_ucb", "--c", "--EA_tau", "--damp")


@pytest.mark.parametrize("task", sorted(path.parent.name for path in (ROOT / "recordings").glob("*/llm.jsonl")))
def test_the_shipped_recordings_hold_code_that_can_be_used(task):
    inputs = get_task(task).inputs
    exchanges = rows(ROOT / "recordings" / task / "llm.jsonl")
    rounds = parse_args([f"--env-name={task}"], exchanges[0]["setting"]).search_rounds
    assert [exchange["round"] for exchange in exchanges] == list(range(rounds)) == [0, 1, 2, 3, 4]
    said = (ROOT / "recordings" / "README.md").read_text()
    for exchange in exchanges:
        assert f"`{exchange['model']}`" in said
        assert exchange["date"] in said
        assert len(exchange["texts"]) == exchange["count"]
        for text in exchange["texts"]:
            check_source(extract(text).source, inputs)


def test_a_shipped_recording_trains_without_a_key(tmp_path):
    flags = f"--model=replay:{ROOT / 'recordings' / 'window-close-v2'} --env-name=window-close-v2 --exp_name=recorded"
    code, _, err = run("lares_from_scratch.py", flags, tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "logs/recorded/summary.json").read_text())["status"] == "finished"


def test_a_run_with_a_service_shows_its_cost_and_keeps_the_key_to_itself(tmp_path):
    def answer(body, number):
        weights = (1 + number + place / 10 for place in range(body.get("n", 1)))
        # Of another frequency each, since one that ranks all as another does is no newcomer.
        code = "def compute_reward(tcp_center):\n    return np.sin({} * 40 * np.linalg.norm(tcp_center))\n"
        return completion(*(f"```python\n{code.format(weight)}```" for weight in weights), usage=(1000, 10))

    with serving(answer) as (url, seen):
        flags = "--model=some-model --env-name=window-close-v2 --exp_name=served --price_in=2 --price_out=8"
        code, out, err = run(
            "lares_from_scratch.py", flags, tmp_path, OPENAI_API_KEY="sk-canary-0123456789", OPENAI_BASE_URL=url
        )
    assert code == 0, err
    assert seen.headers[0]["Authorization"] == "Bearer sk-canary-0123456789"
    directory = tmp_path / "logs" / "served"
    cost = json.loads((directory / "summary.json").read_text())["llm"]
    assert cost["calls"] == len(seen.bodies) == len(cost["rounds"]) >= 2
    assert cost["tokens_in"] == 1000 * cost["calls"] == sum(spent["tokens_in"] for spent in cost["rounds"])
    assert cost["tokens_out"] == 10 * sum(body.get("n", 1) for body in seen.bodies)
    assert cost["cost"] == pytest.approx((2 * cost["tokens_in"] + 8 * cost["tokens_out"]) / 1e6)
    assert rows(directory / "metrics.jsonl")[0]["llm"]["rounds"] == cost["rounds"][:1]
    assert "1,000 tokens in" in out
    assert "cost 0.00" in out
    written = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    assert not any(b"sk-canary" in content for content in [*written, out.encode(), err.encode()])
