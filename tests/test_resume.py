"""Runs that are killed, stopped or damaged, and go on as if nothing had happened: real processes, real signals."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chat_server import completion, serving
from test_entry_scripts import ROOT, environment, rows

SMALL = (
    "--env-name=window-close-v2 --total-timesteps=1400 --init-exploration-steps=240 --episode-length=40 --LLM_freq=400 "
    "--display-interval=250 --eval-episodes=2 --final_episodes=3 --hidden-size=16 --batch-size=16 --pop_size=3 "
    "--elite_num=1 --num_workers=1 --num_learners=1 --device=cpu --seed=3 --checkpoint_interval=200 --log-dir=logs"
)
SETTINGS = ("from_scratch", "with_init")


# Runs an entry script that sends itself a signal when it calls a function for the n-th time.
ENDING = """
import importlib, os, runpy, sys
script, place, count, number = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
sys.path.insert(0, os.path.dirname(script))
module, _, path = place.partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
function, calls = getattr(owner, name), 0
def counting(*args, **keywords):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), number)
    return function(*args, **keywords)
setattr(owner, name, counting)
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""

# Where a run is ended, and from which call to which: collecting, learning, rewarding and relabeling, evaluating, asking
# the model, and writing networks and checkpoints, behind each of their files but config.json.
PLACES = {
    "workers.simulator:Simulator.collect": (1, 8),
    "population:Population.learn": (1, 8),
    "reward_code.pool:RewardPool.run": (1, 12),
    "workers.simulator:Simulator.evaluate": (1, 3),
    "search.protocol:Recorded.ask": (1, 2),
    "os:fsync": (3, 40),
}


def start(setting, flags, cwd, ending=(), **more):
    """Start an entry script; `ending` is the place, the call and the signal that end it."""
    script = str(ROOT / f"lares_{setting}.py")
    command = [sys.executable, *(["-c", ENDING] if ending else []), script, *map(str, ending), *flags.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(**more), **pipes)


def end(process):
    """Wait for a process; return its exit status, output and errors."""
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, out, err


def begin(setting, name, cwd, flags="--model=builtin", **more):
    return start(setting, f"{SMALL} --exp_name={name} {flags}", cwd, **more)


def finish(process):
    code, out, err = end(process)
    assert code == 0, err
    return out


def timeless(value):
    """A JSON value without the times in it."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in {"wall_time", "seconds"}}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def contents(directory):
    """Every file of a run directory by name, without times; what belongs to one machine or process is left out."""
    found = {}
    for path in directory.glob("[!.]*"):
        if path.name.endswith(".jsonl"):
            found[path.name] = [timeless(row) for row in rows(path)]
        elif path.name in {"summary.json", "population.json"}:
            found[path.name] = timeless(json.loads(path.read_text()))
        elif path.suffix in {".pth", ".py", ".txt"}:
            found[path.name] = path.read_bytes()
    return found


def lines_of(directory):
    """The lines of run.log without their times and speeds, and without those about going on."""
    text = (directory / "run.log").read_text(encoding="utf-8")
    lines = [line[20:] for line in text.splitlines()]
    mine = ("resuming", "stopped after", "to resume", "there is no whole", "checkpoint ", "warning")
    elsewhere = (" env steps", " in logs/", str(directory))
    return [line for line in lines if not line.startswith(mine) and not any(part in line for part in elsewhere)]


def assert_same(one, other):
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    for name, content in left.items():
        assert content == right[name], name
    assert lines_of(one) == lines_of(other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of each setting that nothing happened to."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    for setting in SETTINGS:
        code, _, err = end(begin(setting, setting, cwd))
        assert code == 0, err
    return cwd / "logs"


def disturb(setting, cwd, endings, flags="--model=builtin", **more):
    """Begin a run, end it by each of the endings, and let it finish; return its directory, and how often it ended."""
    words, ended = f"{SMALL} --exp_name=run {flags}", 0
    for ending in endings:
        code, out, err = end(start(setting, words, cwd, ending, **more))
        number = ending[2]
        status = -9 if number == signal.SIGKILL else 128 + number
        assert code in {status, 0}, err
        assert "Traceback" not in err
        ended += code == status
        if code == 128 + number:
            assert f"python lares_{setting}.py --resume" in out
        words = "--resume logs/run"
    finish(start(setting, words, cwd, **more))
    return cwd / "logs" / "run", ended


def draw_endings(seed, signals):
    """Seeded endings: for each signal a place, and a call there."""
    draw = np.random.default_rng(seed)
    places = [place for _ in range(-(-len(signals) // len(PLACES))) for place in draw.permutation(list(PLACES))]
    return [
        (place, int(draw.integers(*PLACES[place], endpoint=True)), int(number))
        for place, number in zip(places, signals, strict=False)
    ]


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_that_is_killed_ten_times_is_the_same_run(undisturbed, tmp_path, setting):
    run, ended = disturb(setting, tmp_path, draw_endings(len(setting), 10 * [signal.SIGKILL]))
    assert ended >= 8
    assert_same(undisturbed / setting, run)


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_that_is_told_to_end_and_killed_is_the_same_run(undisturbed, tmp_path, setting):
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    run, ended = disturb(setting, tmp_path, draw_endings(7 + len(setting), signals))
    assert ended >= 3
    assert_same(undisturbed / setting, run)


@pytest.mark.soak
@pytest.mark.parametrize(
    "flags", ["--overlap 1 --num_learners 2 --num_workers 2", "--preset eureka", "--shared_buffer 0"]
)
def test_a_run_with_other_parts_goes_on_too(tmp_path, flags):
    flags = f"--model=builtin {flags}"
    finish(begin("from_scratch", "whole", tmp_path, flags))
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
    run, ended = disturb("from_scratch", tmp_path, draw_endings(len(flags), signals), flags)
    assert ended >= 2
    assert_same(tmp_path / "logs" / "whole", run)


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A finished run elsewhere, as one copied to another machine."""
    shutil.copytree(undisturbed / "from_scratch", tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def resume(directory, flags="", setting="from_scratch"):
    return end(start(setting, f"--resume {directory} {flags}", directory.parent))


def test_a_finished_run_that_was_copied_can_be_made_longer(undisturbed, copied):
    code, out, err = resume(copied, "--total-timesteps 1700")
    assert code == 0, err
    assert "resuming from the checkpoint at 1,400 env steps" in out
    before, after = (rows(directory / "metrics.jsonl") for directory in (undisturbed / "from_scratch", copied))
    assert after[: len(before) - 1] == before[:-1]
    assert after[-1]["env_steps"] >= 1700
    assert after[-1]["wall_time"] > before[-1]["wall_time"]
    code, out, err = resume(copied)  # the flags are those with which it was resumed last
    assert code == 0, err
    assert json.loads((copied / "config.json").read_text())["flags"]["total_timesteps"] == 1700
    assert timeless(rows(copied / "metrics.jsonl")) == timeless(after)


@pytest.mark.parametrize(
    ("flags", "setting", "told"),
    [
        ("--gamma 0.9", "from_scratch", "--gamma cannot change when a run is resumed: it was None, and 0.9 was given"),
        ("--pop_size=4 --seed 3", "from_scratch", "--pop_size cannot change"),
        ("--total-timesteps=200", "from_scratch", "--total-timesteps 200 leaves nothing to learn"),
        ("", "with_init", "that run is one of lares_from_scratch.py; use that script"),
    ],
)
def test_what_would_make_it_another_run_is_refused(copied, flags, setting, told):
    code, _, err = resume(copied, flags, setting)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_task_that_changed_since_is_refused(copied):
    (copied.parent / "tasks.py").write_text(
        "from task_specs import TASKS as OURS\n"
        "extra = {'extra': {'read': 'obs[:2]', 'meaning': 'what the run has not stored'}}\n"
        "TASKS = {'window-close': OURS['window-close'] | {'variables': OURS['window-close']['variables'] | extra}}\n"
    )
    code, _, err = resume(copied, "--total-timesteps 1700 --task_file tasks.py")
    assert code == 2
    assert "error: the task's extra changed since the run began" in err
    assert err.count("\n") == 1
    assert (
        json.loads((copied / "config.json").read_text())["flags"]["task_file"] is None
    )  # what was refused is not kept


def test_where_there_is_no_run_nothing_goes_on(tmp_path):
    code, _, err = resume(tmp_path / "nothing")
    assert code == 2
    assert "there is no run" in err


def test_two_processes_do_not_write_into_one_directory(tmp_path):
    first = begin("from_scratch", "run", tmp_path, "--model=builtin --total-timesteps=1000000")
    lock = tmp_path / "logs" / "run" / ".lock"
    while not lock.exists() or not lock.read_text():
        time.sleep(0.05)
    time.sleep(0.5)
    code, _, err = resume(tmp_path / "logs" / "run")
    assert code == 2
    assert f"is in use by process {first.pid}" in err
    first.kill()
    end(first)
    second = start("from_scratch", "--resume logs/run", tmp_path)  # a dead process holds nothing
    time.sleep(6)
    second.terminate()
    code, _, err = end(second)
    assert code == 143, err


@pytest.mark.soak
def test_a_damaged_checkpoint_costs_only_time(undisturbed, copied):
    """Bits flipped in every file that only the newest checkpoint needs; then in all of them."""
    folder = copied / "checkpoint"
    newest = max(int(path.stem) for path in folder.glob("*.json"))
    draw = np.random.default_rng(0)
    whole = (folder / f"state-{newest}.npy").read_bytes()
    place = int(draw.integers(len(whole)))
    (folder / f"state-{newest}.npy").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    code, out, err = resume(copied)
    assert code == 0, err
    assert f"checkpoint {newest} is damaged (state-{newest}.npy); trying the one before" in out
    assert_same(undisturbed / "from_scratch", copied)
    for path in folder.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    code, out, err = resume(copied)
    assert code == 0, err
    assert "there is no whole checkpoint; the run begins again" in out
    assert_same(undisturbed / "from_scratch", copied)


def test_other_versions_are_told(copied):
    config = json.loads((copied / "config.json").read_text())
    config["versions"]["numpy"] = "1.0"
    (copied / "config.json").write_text(json.dumps(config))
    code, out, err = resume(copied)
    assert code == 0, err
    assert re.search(r"warning: other versions than before, so the numbers may differ: numpy 1\.0 then, \S+ now", out)


@pytest.mark.soak
def test_usr1_writes_a_checkpoint_and_the_run_goes_on(tmp_path):
    process = begin("from_scratch", "run", tmp_path, "--model=builtin --checkpoint_interval=1000000 --LLM_freq=1000")
    folder = tmp_path / "logs" / "run" / "checkpoint"
    while not (folder / "1.json").exists():  # behind the exploration
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    while not (folder / "2.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    code, _, err = end(process)
    assert code == 0, err


FUNCTION = (
    "def compute_reward(tcp, obj, target):\n    return -{} * np.linalg.norm(obj - target) - np.linalg.norm(tcp - obj)"
)


@pytest.mark.soak
def test_what_was_paid_for_is_not_asked_for_again(tmp_path):
    """The run is killed behind the answers of each search round, and before its next checkpoint."""
    numbers = iter(range(1, 10_000))

    def answer(body, _):
        return completion(*(f"```python\n{FUNCTION.format(next(numbers))}\n```" for _ in range(body.get("n", 1))))

    with serving(answer) as (url, seen):
        service = {"OPENAI_API_KEY": "key-of-a-test", "OPENAI_BASE_URL": url}
        process = begin("from_scratch", "run", tmp_path, "--model=m --checkpoint_interval=1000000", **service)
        exchanges = tmp_path / "logs" / "run" / "llm.jsonl"
        for asked in (1, 2):
            while not exchanges.exists() or len(exchanges.read_text().splitlines()) < asked:
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            end(process)
            assert len(seen.bodies) == asked
            process = start("from_scratch", "--resume logs/run", tmp_path, **service)
        code, _, err = end(process)
        assert code == 0, err
        rounds = [row["round"] for row in rows(exchanges)]
        assert rounds == sorted(set(rounds))
        assert len(seen.bodies) == len(rounds)
    summary = json.loads((tmp_path / "logs" / "run" / "summary.json").read_text())
    assert summary["llm"]["calls"] == len(rounds)
    # And the recording is enough to make the same run again.
    code, _, err = end(begin("from_scratch", "again", tmp_path, "--model=replay:logs/run"))
    assert code == 0, err
    learned = [
        [{**timeless(row), "llm": None} for row in rows(tmp_path / "logs" / name / "metrics.jsonl")]
        for name in ("run", "again")
    ]
    assert learned[0] == learned[1]


@pytest.mark.soak
def test_tensorboard_and_weights_and_biases_go_on_in_the_same_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    endings = [("workers.simulator:Simulator.evaluate", 4, signal.SIGKILL)]
    run, ended = disturb("from_scratch", tmp_path, endings, WANDB_MODE="offline", HOME=str(tmp_path))
    assert ended == 1
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    steps = [event.step for event in board.Scalars("success_rate/best")]
    assert steps == [row["env_steps"] for row in rows(run / "metrics.jsonl")]
    first, second = (path.name for path in run.glob("wandb/offline-run-*"))
    assert first.rpartition("-")[2] == second.rpartition("-")[2]  # the id, by which `wandb sync` makes one run of both


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("unshare"), reason="cannot mount a small file system")
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    """A small file system for the run's directory, which a checkpoint fills."""
    small = 'mount -t tmpfs -o size=3m none "$1" && cd "$1" && "${@:3}"; code=$?; cp -r "$1/logs" "$2"; exit $code'
    flags = f"{SMALL} --model=builtin --exp_name=run --hidden-size=64 --total-timesteps=1000000 --LLM_freq=1000000"
    (tmp_path / "disk").mkdir()
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "bash",
        "-c",
        small,
        "bash",
        tmp_path / "disk",
        tmp_path / "kept",
    ]
    done = subprocess.run(
        [*command, sys.executable, ROOT / "lares_from_scratch.py", *flags.split()],
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    kept = Path(tmp_path / "kept" / "run")
    code, out, err = resume(kept, "--total-timesteps 400")
    assert code == 0, err
    assert "resuming from the checkpoint" in out or "there is no whole checkpoint" in out
