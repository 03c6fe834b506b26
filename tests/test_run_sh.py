"""run.sh: its commands, what it hands on, exit statuses, and signals."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import arguments
from run_sh_sandbox import PROJECT, Sandbox

# Stands in for an entry script: one line with what it was given, its own life time, and an end as the seed asks.
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
    (sandbox.project / "lares_from_scratch.py").write_text(SCRIPT)
    sandbox.environment["LIVES"] = str(tmp_path / "lives")
    assert sandbox.run("setup").returncode == 0
    return sandbox


def lives(sandbox):
    return [json.loads(line) for line in Path(sandbox.environment["LIVES"]).read_text().splitlines()]


def test_both_scripts_can_be_executed():
    assert os.access(PROJECT / "run.sh", os.X_OK)
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_without_a_command_it_lists_them(tmp_path):
    sandbox = Sandbox(tmp_path)
    done = sandbox.run()
    assert done.returncode == 0
    for command in ("quickstart", "setup", "test", "soak", "bench", "sweep", "from_scratch", "with_init"):
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
        "python -m pytest -n 2 --dist loadfile --durations=15",
    ]


def test_bench_brings_its_yardsticks_and_passes_flags_on(sandbox):
    (sandbox.project / "benchmarks").mkdir()
    (sandbox.project / "benchmarks" / "speed.py").write_text("import sys; print(sys.argv)")
    sandbox.forget_calls()
    done = sandbox.run("bench", "--only", "floor")
    assert (done.returncode, done.stdout) == (0, "['benchmarks/speed.py', '--only', 'floor']\n")
    assert [call.split()[-1] for call in sandbox.calls("pip install")] == ["benchmarks/requirements.txt"]


@pytest.fixture
def swept(sandbox):
    """The sandbox with a sweep.py that says what it was given."""
    (sandbox.project / "sweep.py").write_text("import json, os, sys; print(json.dumps(sys.argv[1:]))")
    return sandbox


def words(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_published_runs_are_a_sweep(swept):
    given = ["--seed", "1", "--model=gpt-4o-mini"]
    assert words(swept.run("from_scratch")) == ["paper", "--only", "from_scratch", *given]
    assert words(swept.run("with_init")) == ["paper", "--only", "with_init", *given]


def test_variables_shape_a_sweep(swept):
    (swept.project / "--c=file").touch()  # a value is no file pattern
    done = swept.run(
        *["with_init", "hammer", "door close"], SEEDS="10 20", MODEL="vendor/a b", FLAGS=" --c=*  --exp_name mine "
    )
    assert words(done) == [
        *["paper", "--only", "with_init", "--env-name", "hammer", "door close", "--seed", "10", "20"],
        *["--model=vendor/a b", "--c=*", "--exp_name", "mine"],
    ]


def test_a_sweep_gets_its_words_as_they_are(swept):
    assert words(swept.run("sweep", "quick", "--jobs", "2", "--dry_run")) == ["quick", "--jobs", "2", "--dry_run"]
