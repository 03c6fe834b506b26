"""What all tests share: a Ctrl-C that arrives, and one small real run for the tests of everything that reads runs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# What a shell runs in the background ignores SIGINT, and so would every process that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--model=builtin --env-name=drawer-close --seed=1 --total-timesteps=900 --init-exploration-steps=300 "
    "--LLM_freq=300 --display-interval=150 --episode-length=50 --eval-episodes=2 --final_episodes=4 --pop_size=3 "
    "--elite_num=1 --hidden-size=16 --batch-size=16 --num_workers=2 --num_learners=1 --exp_name=small"
).split()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    command = [sys.executable, str(ROOT / "lares_from_scratch.py"), *FLAGS, f"--log-dir={logs}"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=900)
    return logs / "small"
