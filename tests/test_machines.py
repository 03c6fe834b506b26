"""Whole runs as machines treat them: closed terminals, readers that leave, foreign modules, full disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from terminal import start_in_terminal

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "lares_from_scratch.py"
SMALL = (
    "--model=builtin --env-name=window-close --seed=1 --total-timesteps=200 --init-exploration-steps=80 "
    "--episode-length=40 --LLM_freq=100 --display-interval=100 --eval-episodes=1 --final_episodes=2 --hidden-size=16 "
    "--batch-size=16 --pop_size=2 --elite_num=1 --device=cpu --num_workers=1 --num_learners=1 --exp_name=run"
).split()
ENDLESS = [*SMALL, "--total-timesteps=1000000", "--LLM_freq=1000000"]


def environment(**more):
    hidden = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "WANDB_API_KEY", "WANDB_MODE")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


@pytest.fixture
def foreign(tmp_path):
    """A directory with a package of the name of each of our modules, as a sourced workspace may put on PYTHONPATH."""
    names = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for name in names | {"launch"}:
        (tmp_path / "foreign" / name).mkdir(parents=True)
        (tmp_path / "foreign" / name / "__init__.py").write_text(f"raise ImportError('a foreign {name}')\n")
    return str(tmp_path / "foreign")


def wait_for(path, process, seconds=300):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def descendants(pid):
    """The process ids of all that a process has started, and they, and so on."""
    children = [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(pids):
    assert len(pids) >= 2  # a collector and a reward worker at least
    end = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, [pid for pid in pids if is_running(pid)]
        time.sleep(0.1)


def test_a_run_goes_on_without_its_reader_among_foreign_modules_on_a_terminal_without_letters(tmp_path, foreign):
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *SMALL],
        cwd=tmp_path,
        env=environment(PYTHONPATH=foreign, PYTHONSAFEPATH="1", PYTHONIOENCODING="ascii"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    process.stdout.close()  # as `| head -n 1` does
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    assert first.startswith("from_scratch on window-close")
    directory = tmp_path / "logs" / "run"
    assert json.loads((directory / "summary.json").read_text())["status"] == "finished"
    log = (directory / "run.log").read_text()
    assert first.strip() in log
    assert "final success rate" in log


def test_a_closed_terminal_ends_a_run_in_good_order(tmp_path):
    process, terminal = start_in_terminal([sys.executable, SCRIPT, *ENDLESS], cwd=tmp_path, env=environment())
    directory = tmp_path / "logs" / "run"
    end = time.monotonic() + 300
    while not (directory / "metrics.jsonl").exists():
        assert time.monotonic() < end
        os.read(terminal, 1000)
    workers = descendants(process.pid)
    os.close(terminal)  # the kernel sends SIGHUP, and every write fails from now on
    assert process.wait(60) == 128 + signal.SIGHUP
    assert json.loads((directory / "summary.json").read_text())["status"] == "interrupted"
    assert_gone(workers)


def test_a_run_that_is_killed_leaves_no_process_behind(tmp_path):
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *ENDLESS, "--num_learners=2", "--num_workers=2"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    wait_for(tmp_path / "logs" / "run" / "metrics.jsonl", process)
    workers = descendants(process.pid)
    process.kill()
    process.wait()
    assert len(workers) == 6
    assert_gone(workers)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--buffer-size=1e11", "--total-timesteps=1e11"], 2, "GB of memory and"),
        (["--log-dir=/proc/runs"], 1, "/proc/runs"),
        (["--log-dir=file/runs"], 1, "Not a directory"),
        (["--exp_name=" + 300 * "x"], 1, "File name too long"),
    ],
    ids=["too little memory", "a place that cannot be written", "a file in the way", "a long name"],
)
def test_what_the_machine_cannot_do_is_one_line_and_leaves_nothing(tmp_path, flags, status, message):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, SCRIPT, *SMALL, *flags], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == ["file"]


@pytest.mark.skipif(not shutil.which("unshare"), reason="cannot mount a small file system")
def test_a_full_disk_ends_a_run_with_one_line(tmp_path):
    small = 'mount -t tmpfs -o size=200k none "$1" && cd "$1" && exec "${@:2}"'
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", small, "bash", tmp_path, sys.executable, SCRIPT]
    done = subprocess.run(
        [*command, *ENDLESS, "--hidden-size=64"], env=environment(), capture_output=True, text=True, timeout=240
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


SCRIPTS = "lares_from_scratch.py lares_with_init.py task_specs.py evaluate.py report.py plot.py reward_code".split()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_the_packages_is_told_what_to_do(tmp_path, script):
    without_packages = [sys.executable, "-S"]
    done = subprocess.run([*without_packages, ROOT / script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this Python (")
    assert "lacks torch, " in done.stderr
    assert done.stderr.endswith(f"source {ROOT}/.venv/bin/activate\n")
    assert done.stderr.count("\n") == 1


def test_commands_and_tests_use_our_modules_among_foreign_ones(tmp_path, foreign):
    (tmp_path / "reward.py").write_text("def compute_reward(obj, target):\n    return -np.linalg.norm(obj - target)\n")
    for command in (
        [ROOT / "reward_code", "check", "reward.py", "--task=window-close"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "test_thompson.py"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment(PYTHONPATH=foreign, PYTHONSAFEPATH="1"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
