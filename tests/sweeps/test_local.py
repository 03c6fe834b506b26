"""Runs as processes on one machine: how many at once, how they are started again, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs.interruption import Interruption
from runs.lock import lock
from sweep_doubles import make_sweep
from sweeps import local
from sweeps.local import Crew, record_path
from sweeps.progress import read_progress

ROOT = Path(__file__).parents[2]

# Stands in for an entry script: makes its directory and its lock, tells its life, and ends as its seed asks.
SCRIPT = """
import fcntl, json, os, signal, sys, time
from pathlib import Path
signals = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: signals.append(number))
start = time.monotonic()
flags = dict(word.split("=", 1) for word in sys.argv[1:])
directory = Path(flags.get("--resume") or Path(flags["--log-dir"]) / flags["--exp_name"])
directory.mkdir(exist_ok="--resume" in flags)
held = (directory / ".lock").open("a")
fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
(directory / "config.json").write_text("{}")
print("begins", directory.name, flush=True)
seed = int(directory.name.rpartition("seed")[2])
tries = sum(1 for _ in (directory / "lives").open()) if (directory / "lives").exists() else 0
until = start + (60 if seed >= 100 else 0.3)
while time.monotonic() < until and not set(signals) - {signal.SIGUSR1}:
    time.sleep(0.01)
row = {"pid": os.getpid(), "words": sys.argv[1:], "signals": signals, "start": start, "end": time.monotonic()}
with (directory / "lives").open("a") as file:
    file.write(json.dumps(row) + chr(10))
print("the last line of", directory.name)
code = 128 + signals[-1] if signals else {1: 1, 2: 2}.get(seed, 0)
if seed == 3 and not tries:
    os.kill(os.getpid(), signal.SIGKILL)
if not code:
    (directory / "summary.json").write_text(json.dumps({"status": "finished", "final_success_rate": 0.5}))
sys.exit(code)
"""


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Return a sweep with a run for each seed."""
    return lambda *seeds: make_sweep(tmp_path, monkeypatch, SCRIPT, seeds)


def see_through(sweep, interruption=None, look=lambda: None, at_once=2, tries=3):
    return Crew(sweep.directory, at_once, tries, 1).see_through(sweep.runs, interruption or Interruption(), look)


def lives(sweep):
    """Of each run the lives of its processes."""
    found = [sweep.directory_of(run) / "lives" for run in sweep.runs]
    return [[json.loads(line) for line in path.read_text().splitlines()] if path.exists() else [] for path in found]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_runs_at_once_than_asked_for(sweep_of, at_once):
    sweep = sweep_of(20, 21, 22, 23)
    records = see_through(sweep, at_once=at_once)
    assert [(record.status, record.tries, record.exit_status) for record in records] == [("done", 1, 0)] * 4
    moments = [(life["start"], 1) for [life] in lives(sweep)] + [(life["end"], -1) for [life] in lives(sweep)]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    assert most == at_once


def test_a_run_gets_its_flags_a_directory_and_its_share_of_the_machine(sweep_of):
    [run] = (sweep := sweep_of(20)).runs
    see_through(sweep)
    [[life]] = lives(sweep)
    assert life["words"] == [
        *run.words, "--num_workers=1", "--num_learners=1", f"--log-dir={sweep.directory}", f"--exp_name={run.name}",
    ]  # fmt: skip


def test_what_is_killed_goes_on_and_what_fails_is_given_up(sweep_of):
    sweep = sweep_of(3, 1, 2)
    killed, failing, mistaken = see_through(sweep, tries=2)
    assert (killed.status, killed.tries, killed.exit_status) == ("done", 2, 0)
    assert (failing.status, failing.tries, failing.exit_status) == ("failed", 2, 1)
    assert (mistaken.status, mistaken.tries, mistaken.exit_status) == ("failed", 1, 2)
    first, second = lives(sweep)[0]
    assert "--seed=3" in first["words"]
    assert second["words"][0] == f"--resume={sweep.directory_of(sweep.runs[0])}"
    progress = read_progress(sweep)
    assert [one.status for one in progress] == ["done", "failed", "failed"]
    assert progress[0].success == 0.5
    assert progress[1].last_line == f"the last line of {sweep.runs[1].name}"


def test_a_directory_without_a_run_in_it_is_begun_anew(sweep_of):
    sweep = sweep_of(20)
    directory = sweep.directory_of(sweep.runs[0])
    directory.mkdir()
    (directory / ".lock").touch()
    assert [record.status for record in see_through(sweep)] == ["done"]
    assert "--seed=20" in lives(sweep)[0][0]["words"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_run_once_and_begins_no_more(sweep_of, number):
    sweep, interruption = sweep_of(100, 101, 102), Interruption()

    def look():
        if len(list(sweep.directory.glob("*/config.json"))) == 2:
            interruption.signal = number

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {number})  # as Ray does with what it starts
    try:
        records = see_through(sweep, interruption, look)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert [record.status for record in records] == ["stopped", "stopped", "waiting"]
    first, second, third = lives(sweep)
    assert [life["signals"] for life in (*first, *second)] == [[number], [number]]
    assert third == []
    assert not any(alive(life["pid"]) for life in (*first, *second))
    assert [one.status for one in read_progress(sweep)] == ["stopped", "stopped", "waiting"]


def test_a_wish_for_a_checkpoint_goes_on_to_the_runs(sweep_of):
    sweep, interruption, looks = sweep_of(100), Interruption(), []

    def look():
        looks.append(any(sweep.directory.glob("*/config.json")))
        if looks[-1]:
            interruption.signal = signal.SIGINT if sum(looks) > 4 else None
            interruption._checkpoint = sum(looks) == 1

    see_through(sweep, interruption, look)
    assert lives(sweep)[0][0]["signals"] == [signal.SIGUSR1, signal.SIGINT]


def test_runs_end_when_the_sweep_is_broken_off(sweep_of):
    sweep = sweep_of(100)

    def look():
        if any(sweep.directory.glob("*/config.json")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        see_through(sweep, look=look)
    assert [life["signals"] for life in lives(sweep)[0]] == [[signal.SIGTERM]]
    assert not alive(lives(sweep)[0][0]["pid"])


def test_a_run_that_was_killed_before_it_wrote_anything_begins_again(sweep_of):
    sweep = sweep_of(20)
    directory = sweep.directory_of(sweep.runs[0])
    directory.mkdir()
    for name in (".lock", ".config.json.unfinished"):
        (directory / name).touch()
    [record] = see_through(sweep)
    assert (record.status, record.tries) == ("done", 1)


def test_a_run_that_another_process_still_has_is_waited_for(sweep_of):
    sweep, looks = sweep_of(20, 21), []
    directory = sweep.directory_of(sweep.runs[0])
    directory.mkdir()
    (directory / "config.json").touch()
    held = lock(directory)

    def look():
        looks.append(time.monotonic())
        if (sweep.directory_of(sweep.runs[1]) / "summary.json").exists():
            held.close()

    records = see_through(sweep, look=look, at_once=1)
    assert [(record.status, record.tries) for record in records] == [("done", 1), ("done", 1)]
    first, second = lives(sweep)
    assert first[0]["start"] >= second[0]["end"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel has to tell the runs")
def test_runs_end_with_a_sweep_that_is_killed(sweep_of):
    sweep = sweep_of(100)
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from runs.interruption import Interruption\nfrom sweeps import local\nfrom sweeps.plan import Sweep, plan\n"
        "local.PROJECT = Path(sys.argv[2])\n"
        "runs = plan(None, [], None, {'--seed': ['100'], '--model': ['builtin']})\n"
        "local.Crew(Path(sys.argv[3]), 1, 1, 1).see_through(runs, Interruption())\n"
    )
    command = [sys.executable, "-c", program, str(ROOT), str(local.PROJECT), str(sweep.directory)]
    process = subprocess.Popen(command)
    wait_until(lambda: any(sweep.directory.glob("*/config.json")))
    process.kill()
    process.wait()
    wait_until(lambda: lives(sweep)[0])
    assert lives(sweep)[0][0]["signals"] == [signal.SIGTERM]
    assert json.loads(record_path(sweep.directory_of(sweep.runs[0])).read_text())["status"] == "running"
    assert [one.status for one in read_progress(sweep)] == ["stopped"]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
