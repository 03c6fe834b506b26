"""run.sh: its commands, and the sweeps: flags, logs, runs at once, exit statuses, and Ctrl-C."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import arguments
from run_sh_sandbox import PROJECT, Sandbox, alive

# Stands in for both entry scripts: one line with what it was given, its own life time, and an end as the seed asks.
SCRIPT = """
import json, os, signal, sys, time
signals = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: signals.append(number))
flags = dict(word.split("=", 1) for word in sys.argv[1:])
start = time.monotonic()
print(json.dumps({"script": sys.argv[0], "flags": flags, "pid": os.getpid(), "stdin": sys.stdin.read()}), flush=True)
while not signals and time.monotonic() < start + float(os.environ.get("LASTS", 0)):
    time.sleep(0.02)
if signals:
    time.sleep(0.3)  # saving; a second signal would be seen
with open(os.environ["LIVES"], "a") as file:
    file.write(json.dumps([start, time.monotonic(), signals]) + chr(10))
print("end of seed", flags["--seed"])
sys.exit(128 + signals[0] if signals else int(flags["--seed"]) % 10)
"""


@pytest.fixture
def sandbox(tmp_path):
    sandbox = Sandbox(tmp_path)
    for setting in ("from_scratch", "with_init"):
        (sandbox.project / f"lares_{setting}.py").write_text(SCRIPT)
    sandbox.environment["LIVES"] = str(tmp_path / "lives")
    assert sandbox.run("setup").returncode == 0
    return sandbox


def started(sandbox):
    """What every run was started with, in the order of the log files."""
    return [json.loads(log.read_text().splitlines()[0]) for log in sandbox.logs()]


def lives(sandbox):
    return [json.loads(line) for line in Path(sandbox.environment["LIVES"]).read_text().splitlines()]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_both_scripts_can_be_executed():
    assert os.access(PROJECT / "run.sh", os.X_OK)
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_without_a_command_it_lists_them(tmp_path):
    sandbox = Sandbox(tmp_path)
    done = sandbox.run()
    assert done.returncode == 0
    for command in ("quickstart", "setup", "test", "soak", "bench", "from_scratch", "with_init"):
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE)
    assert not (sandbox.project / ".venv").exists()


def test_an_unknown_command_is_refused(sandbox):
    done = sandbox.run("quickstrat")
    assert done.returncode == 2
    assert done.stderr == "run.sh: there is no command 'quickstrat'; `bash run.sh` lists them\n"


def test_quickstart_passes_flags_on(sandbox):
    done = sandbox.run("quickstart", "--hide_goal=1", "--seed=13")
    assert done.returncode == 3
    flags = json.loads(done.stdout.splitlines()[0])["flags"]
    assert flags["--model"] == "builtin"
    assert (flags["--hide_goal"], flags["--seed"]) == ("1", "13")
    args = arguments.parse_args([f"{name}={value}" for name, value in flags.items()], "from_scratch")
    assert args.ignored_flags == ()


def test_quickstart_writes_a_report_at_its_end(sandbox):
    (sandbox.project / "report.py").write_text("import sys; print('report', sys.argv[1:])")
    done = sandbox.run("quickstart", "--seed=10")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == ["end of seed 10", "report []"]
    elsewhere = sandbox.run("quickstart", "--seed=10", "--log-dir=elsewhere")
    assert "report.py RUN" in elsewhere.stdout.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_quickstart_once(sandbox, number):
    quickstart = sandbox.start("quickstart", "--seed=10", LASTS="30")
    assert "lares_from_scratch" in quickstart.stdout.readline()
    os.kill(quickstart.pid, number)
    out, _ = quickstart.communicate(timeout=20)
    assert quickstart.returncode == 128 + number
    assert [signals for _, _, signals in lives(sandbox)] == [[number]]
    assert "report" not in out


def test_the_gate_runs_everything_and_nothing_weaker(sandbox):
    (sandbox.project / ".ci").mkdir()
    shutil.copy(PROJECT / ".ci" / "run", sandbox.project / ".ci" / "run")
    done = subprocess.run(
        [sandbox.project / ".ci" / "run"],
        env=sandbox.environment | {"CI": "true"},
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    checks = [call for call in sandbox.calls("^python -m ") if " pip " not in call]
    assert checks == [
        "python -m ruff check .",
        "python -m ruff format --check .",
        "python -m mypy",
        "python -m pytest --durations=15",
    ]


def test_bench_brings_its_yardsticks_and_passes_flags_on(sandbox):
    (sandbox.project / "benchmarks").mkdir()
    (sandbox.project / "benchmarks" / "speed.py").write_text("import sys; print(sys.argv)")
    sandbox.forget_calls()
    done = sandbox.run("bench", "--only", "floor")
    assert (done.returncode, done.stdout) == (0, "['benchmarks/speed.py', '--only', 'floor']\n")
    assert [call.split()[-1] for call in sandbox.calls("pip install")] == ["benchmarks/requirements.txt"]


FROM_SCRATCH = {"window-close": 500, "window-open": 200, "button-press": 50, "door-close": 100, "drawer-open": 200}
WITH_INIT = (
    dict.fromkeys(["coffee-pull", "coffee-push"], 20)
    | dict.fromkeys(["hand-insert", "basketball", "dial-turn"], 50)
    | dict.fromkeys(["soccer", "push-back"], 100)
    | {"pick-out-of-hole": 200}
    | dict.fromkeys(["hammer", "peg-unplug-side", "peg-insert-side", "button-press-topdown"], 500)
)


@pytest.mark.parametrize(("setting", "windows"), [("from_scratch", FROM_SCRATCH), ("with_init", WITH_INIT)])
def test_a_sweep_runs_what_was_published(sandbox, tmp_path, setting, windows):
    done = sandbox.run(setting, cwd=tmp_path, SEEDS="10", JOBS="6")
    assert done.returncode == 0, done.stderr + done.stdout
    runs = started(sandbox)
    assert {run["flags"]["--env-name"]: int(run["flags"]["--windows_length"]) for run in runs} == {
        f"{task}-v2": window for task, window in windows.items()
    }
    for run in runs:
        assert run["script"] == f"lares_{setting}.py"
        assert run["stdin"] == ""
        args = arguments.parse_args([f"{name}={value}" for name, value in run["flags"].items()], setting)
        assert (args.model, args.seed, args.total_timesteps, args.eval_episodes) == ("gpt-4o-mini", 10, 1_000_000, 20)
        assert (args.LLM_freq, args.elite_num, args.scale_type, args.buffer_transfer) == (200_000, 3, 2, 0)
        assert args.ignored_flags == ("--Inter_Loop_freq", "--ucb_type", "--RL_ucb", "--c", "--EA_tau", "--damp")
        assert ("--pop_size" in run["flags"]) == (setting == "with_init")


def test_variables_shape_a_sweep(sandbox):
    (sandbox.project / "--c=file").touch()  # a value is no file pattern
    done = sandbox.run(
        *["from_scratch", "hammer", "door-close", "door-close-v3"],
        SEEDS="10 20",
        MODEL="vendor/a b",
        FLAGS=" --c=*  --tau=1 ",
    )
    assert done.returncode == 0
    runs = [run["flags"] for run in started(sandbox)]
    assert [(run["--env-name"], run["--seed"], run.get("--windows_length")) for run in runs] == [
        ("hammer", "10", None),
        ("hammer", "20", None),
        ("door-close", "10", "100"),
        ("door-close", "20", "100"),
        ("door-close-v3", "10", "100"),
        ("door-close-v3", "20", "100"),
    ]
    assert all((run["--model"], run["--c"], run["--tau"]) == ("vendor/a b", "*", "1") for run in runs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_runs_at_once_than_asked_for(sandbox, jobs):
    sandbox.run("from_scratch", "hammer", SEEDS="10 20 30", JOBS=str(jobs), LASTS="0.7")
    moments = [(start, 1) for start, _, _ in lives(sandbox)] + [(end, -1) for _, end, _ in lives(sandbox)]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    assert (len(moments), most) == (6, jobs)


def test_two_sweeps_at_once_share_no_file(sandbox):
    sweeps = [sandbox.start("from_scratch", "hammer", SEEDS="10 10", JOBS="2", LASTS="0.5") for _ in range(2)]
    assert [sweep.wait(timeout=30) for sweep in sweeps] == [0, 0]
    for sweep in sweeps:
        sweep.communicate()
    logs = [log.read_text().splitlines() for log in sandbox.logs()]
    assert [len(log) for log in logs] == [2, 2, 2, 2]
    assert len({json.loads(log[0])["pid"] for log in logs}) == 4
    assert len({run["flags"]["--log-dir"] for run in started(sandbox)}) == 2


def test_the_end_says_how_each_run_ended(sandbox):
    done = sandbox.run("with_init", "soccer", SEEDS="10 12", JOBS="2")
    assert done.returncode == 1
    good, bad = done.stdout.splitlines()[-2:]
    assert re.fullmatch(r"done    logs/with_init_[\d.-]+/01_soccer_seed10\.log", good)
    assert re.fullmatch(r"exit 2  logs/with_init_[\d.-]+/02_soccer_seed12\.log: end of seed 12", bad)


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1 2"])
def test_a_senseless_number_of_jobs_is_refused(sandbox, jobs):
    done = sandbox.run("from_scratch", JOBS=jobs)
    assert (done.returncode, done.stderr) == (2, f"run.sh: JOBS={jobs} is not a whole number above 0\n")
    assert not sandbox.logs()


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False)]
)
def test_a_signal_reaches_every_run_once_and_starts_no_more(sandbox, number, whole_group):
    sweep = sandbox.start("from_scratch", "hammer", SEEDS="10 20 30", JOBS="2", LASTS="30")
    wait_until(lambda: sum(bool(log.read_text()) for log in sandbox.logs()) == 2)
    runs = started(sandbox)
    (os.killpg if whole_group else os.kill)(sweep.pid, number)
    out, err = sweep.communicate(timeout=20)
    assert sweep.returncode == 128 + number
    assert "waiting for them" in err
    assert [signals for _, _, signals in lives(sandbox)] == [[number], [number]]
    assert out.count(f"exit {128 + number}") == 2
    assert out.count("started ") == 2
    assert not any(alive(run["pid"]) for run in runs)


def test_ctrl_c_in_a_terminal_reaches_every_run_once(sandbox):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            str(sandbox.path / "bash"),
            sandbox.command("from_scratch", "hammer"),
            sandbox.environment | {"SEEDS": "10 20", "JOBS": "2", "LASTS": "30"},
        )
    wait_until(lambda: sum(bool(log.read_text()) for log in sandbox.logs()) == 2)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert [signals for _, _, signals in lives(sandbox)] == [[signal.SIGINT]] * 2
