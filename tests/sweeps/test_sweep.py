"""sweep.py as a user starts it, on real runs: stopped, looked at from elsewhere, gone on with, and summed up."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sweep
from sweeps.plan import Sweep, plan
from test_entry_scripts import environment

ROOT = Path(__file__).parents[2]
SWEEP = """
flags:
  model: builtin
  env-name: drawer-close
  total-timesteps: 500
  init-exploration-steps: 200
  LLM_freq: 200
  display-interval: 100
  checkpoint_interval: 100
  episode-length: 50
  eval-episodes: 2
  final_episodes: 4
  pop_size: 3
  elite_num: 1
  hidden-size: 16
  batch-size: 16
grid:
  seed: [1, 2]
"""


def start(cwd, *words):
    command = [sys.executable, str(ROOT / "sweep.py"), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(), start_new_session=True, **pipes)


def run(cwd, *words):
    process = start(cwd, *words)
    out, _ = process.communicate(timeout=600)
    assert "Traceback" not in out, out
    return process.returncode, out


def stopped(cwd):
    """Begin a sweep and stop it when one run is done and the other has a checkpoint; return what it printed."""
    (cwd / "mine.yaml").write_text(SWEEP)
    process = start(cwd, "mine.yaml", "--cpus", "1")
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("running") and "seed2" in line:
            break
    with subprocess.Popen(["tail", "-F", "-q", cwd / "logs/mine" / f"{NAME}2.log"], stdout=subprocess.PIPE) as tail:
        next(line for line in tail.stdout if b"env steps" in line)  # it has a checkpoint
        tail.kill()
    process.send_signal(signal.SIGINT)
    printed.append(process.communicate(timeout=600)[0])
    assert process.returncode == 130, printed
    return "".join(printed)


NAME = "from_scratch_drawer-close_builtin_seed"


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_and_repeats_nothing(tmp_path):
    cwd, printed = tmp_path, stopped(tmp_path)
    first, second = (cwd / "logs/mine" / f"{NAME}{seed}" for seed in (1, 2))
    assert "sweep mine in logs/mine: 2 runs\nabout " in printed
    assert "1 stopped, 1 done, best success" in printed
    assert "run the same command again to continue" in printed
    code, out = run(cwd, "status", "logs/mine")
    assert code == 0
    states = {line.split()[0]: line.split()[1] for line in out.splitlines() if NAME in line}
    assert states == {f"{NAME}1": "done", f"{NAME}2": "stopped"}

    summary = (first / "summary.json").stat()
    code, out = run(cwd, "mine.yaml", "--cpus", "1")
    assert code == 0, out
    assert "2 runs, 1 of them done" in out
    assert f"done    {NAME}2: success" in out
    assert f"{NAME}1" not in out
    assert (first / "summary.json").stat() == summary
    assert "resuming from the checkpoint" in (second / "run.log").read_text()
    assert "| drawer-close | from scratch, builtin | 2 |" in (cwd / "logs/mine/results.md").read_text()
    assert (cwd / "logs/mine/results.png").exists()

    code, out = run(cwd, "mine.yaml")
    assert code == 0
    assert "2 runs, 2 of them done\n2 done" in out
    assert (second / "summary.json").stat() != summary


@pytest.fixture
def words(tmp_path, monkeypatch, capsys):
    """Give sweep.py a command line, in a directory with mine.yaml and a sweep of it; returns its status and output."""
    (tmp_path / "mine.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    mine = Sweep(tmp_path / "logs" / "mine", plan(tmp_path / "mine.yaml", [], None, {}))
    mine.directory.mkdir(parents=True)
    mine.save()

    def give(*words):
        monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
        try:
            code = sweep.main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return give


def test_the_plan_can_be_had_alone(words, tmp_path):
    given = "mine.yaml --seed 9 --model gpt-4o-mini --seed 3 4 5 --price_in 1 --price_out 1 --all_llm_calls 9".split()
    code, out = words(*given, "--dry_run", "--jobs", "2", "--exp_name", "other")
    assert code == 0
    assert "sweep other in logs/other: 3 runs\nabout " in out
    assert "2 at once; 0." in out
    assert re.search(r"at least [\d,]+ tokens sent and 14,700 received; which costs 0\.0\d$", out, re.MULTILINE)
    assert out.count("gpt-4o-mini_seed") == 3
    assert not (tmp_path / "logs" / "other").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--jobs 2", "sweep.py: error: there is nothing to run"),
        ("mine.yaml hammer", "sweep.py: error: 'hammer' follows no flag; put each value after its flag"),
        ("quick --jobs 0", "sweep.py: error: argument --jobs: '0' is not a whole number of at least 1"),
        (
            "quikc",
            "error: there is no sweep quikc; did you mean quick?; give a YAML file, or one of ablations, learning",
        ),
        ("quick --env-name hamer", "error: there is no task 'hamer'; did you mean hammer"),
        ("quick --sede 1", "lares_from_scratch.py: error: there is no flag --sede"),
        ("mine.yaml --tau 0.1", f"error: logs/mine has a run {NAME}1 with other flags (--tau default and 0.1)"),
        ("status logs", "error: logs is not the directory of a sweep"),
    ],
)
def test_a_mistake_is_one_line_and_begins_nothing(words, given, message):
    code, out = words(*given.split())
    assert code == 2
    assert message in out
    assert "running" not in out
