"""Signals as they really come: what each asks for, and what a second one does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOP = """
import sys, time
sys.path.insert(0, {root!r})
from runs.interruption import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    while not interruption.requested() or {stubborn}:
        if interruption.checkpoint_requested():
            print("checkpoint", flush=True)
        time.sleep(0.01)
sys.exit(128 + interruption.signal)
"""


def loop(stubborn=False, before=()):
    """A process that loops until it is asked to end, or with `stubborn` for ever."""
    command = [*before, sys.executable, "-c", LOOP.format(root=str(ROOT), stubborn=stubborn)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_loop_ends_itself_with_the_signals_status(number, status):
    process = loop()
    process.send_signal(number)
    assert process.wait(20) == status


def test_usr1_asks_for_a_checkpoint_each_time_and_ends_nothing():
    process = loop()
    for _ in range(2):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "checkpoint\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 143


def test_hup_stays_ignored_where_it_was():
    process = loop(before=["nohup"])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "checkpoint\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


@pytest.mark.parametrize("survived", [[signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]])
def test_the_second_term_kills_and_a_second_hup_does_not(survived):
    process = loop(stubborn=True)
    for number in survived:
        process.send_signal(number)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "checkpoint\n"  # and so it lives
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
