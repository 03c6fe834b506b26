"""What a run leaves behind, whatever happens to its disk and its network, and what it tells nobody."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runs.log import RunLog

ROOT = Path(__file__).parents[2]


def test_the_programs_that_know_the_commit_and_the_host_get_no_keys(monkeypatch, tmp_path):
    for name in ("git", "uname"):  # Python's platform module asks the second
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nenv >> {tmp_path}/environment\necho 0123abcd\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789abcdef")
    log = RunLog(tmp_path, "run", {})
    log.close()
    assert '"commit": "0123abcd"' in (log.directory / "config.json").read_text()
    assert "sk-secret" not in (tmp_path / "environment").read_text()


@pytest.fixture
def log(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log = RunLog(tmp_path, "run", {})
    yield log
    log.close()


NETWORKS = ("best_actor_net", "best_qf1", "best_qf2", "best_target_qf1", "best_target_qf2")


def networks(value, size=10):
    return {name: {"weight": torch.full((size,), value)} for name in NETWORKS}


def stored(directory):
    return [float(torch.load(directory / f"{name}.pth")["weight"][0]) for name in NETWORKS]


def test_halves_of_characters_and_escape_codes_are_written_as_text(capsys, log):
    log.say("the service said: \ud83d\x1b[2J")
    log.write_text("Iter_0_Response_0.txt", "half \ud83d")
    log.append("llm.jsonl", {"text": "half \ud83d"})
    assert capsys.readouterr().out == "the service said: \\ud83d\\x1b[2J\n"
    assert "\\ud83d\\x1b[2J" in (log.directory / "run.log").read_text("utf-8")
    assert (log.directory / "Iter_0_Response_0.txt").read_text("utf-8") == "half \\ud83d"
    assert json.loads((log.directory / "llm.jsonl").read_text())["text"] == "half \ud83d"


def test_new_networks_take_the_place_of_the_old_ones(log):
    log.write_networks(networks(1.0))
    log.write_networks(networks(2.0))
    assert stored(log.directory) == [2.0] * 5
    assert not [path.name for path in log.directory.iterdir() if "unfinished" in path.name]


@pytest.mark.parametrize("fails", range(5))
def test_networks_are_replaced_all_or_none(log, monkeypatch, fails):
    log.write_networks(networks(1.0))
    synced = []

    def fsync(descriptor):
        synced.append(descriptor)
        if len(synced) > fails:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        log.write_networks(networks(2.0))
    assert stored(log.directory) == [1.0] * 5
    assert not [path.name for path in log.directory.iterdir() if "unfinished" in path.name]


FULL_DISK = """
import contextlib, json, sys
sys.path[:0] = [{root!r}, {tests!r}]
import test_log
from runs.log import RunLog
log = RunLog(sys.argv[1], "run", {{}})
log.write_networks(test_log.networks(1.0, 20_000))
value = 1.0
try:
    while True:
        for number in range(200):
            log.append("metrics.jsonl", {{"number": number, "text": {fill} * "x"}})
        log.write_networks(test_log.networks(value + 1, 20_000))
        value += 1
except OSError as error:
    rows = [json.loads(line) for line in (log.directory / "metrics.jsonl").read_text().splitlines()]
    print(json.dumps([error.errno, value, test_log.stored(log.directory), rows[-1]["number"]]))
with contextlib.suppress(OSError):
    log.close()
"""
# A file system of its own for the process and its children alone; no rights are needed where the kernel allows it.
PRIVATE = ["unshare", "--map-root-user", "--mount"]


def can_mount():
    return bool(shutil.which("unshare")) and subprocess.run([*PRIVATE, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="may not mount a small file system")
@pytest.mark.parametrize("fill", [1, 1_000])  # networks, or rows, meet the end of the disk
def test_a_disk_that_is_really_full_keeps_whole_rows_and_one_set_of_networks(tmp_path, fill):
    script = FULL_DISK.format(root=str(ROOT), tests=str(Path(__file__).parent), fill=fill)
    small = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = [*PRIVATE, "bash", "-c", small, "bash", str(tmp_path), sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    error, value, networks, _ = json.loads(done.stdout)
    assert error == errno.ENOSPC
    assert networks == [value] * 5


def resumed(log):
    """The run of `log`, which was killed, in another process as far as files are concerned."""
    log.close()
    return RunLog(log.directory.parent, "run", {}, str(log.directory))


def test_what_was_paid_for_outlives_any_number_of_kills(log):
    rows = [{"request": number, "texts": [f"answer {number}"]} for number in (1, 2, 3)]
    log.append("llm.jsonl", rows[0])
    checkpoint = log.state_dict()
    for row in rows[1:]:
        log.append("llm.jsonl", row)
    with (log.directory / "llm.jsonl").open("a") as file:
        file.write('{"request": 4, "te')  # it was killed in the middle of a row
    for _ in range(2):
        log = resumed(log)
        assert log.load_state_dict(checkpoint, 0) == rows[1:]
        assert len((log.directory / "llm.jsonl").read_text().splitlines()) == 1
    log.append("llm.jsonl", rows[1])  # which is not asked for again
    later = log.state_dict()
    log = resumed(log)
    assert log.load_state_dict(checkpoint, 0) == rows[1:]
    log.append("llm.jsonl", rows[1])
    log = resumed(log)
    assert log.load_state_dict(later, 0) == rows[2:]
    log = resumed(log)
    assert log.load_state_dict({"sizes": {}, "wall_time": 0.0}, 0) == rows
    log.close()


def test_what_is_said_before_the_cut_stays(log):
    log.say("before the checkpoint")
    checkpoint = log.state_dict()
    log.say("behind it")
    log = resumed(log)
    log.say("a warning")
    log.load_state_dict(checkpoint, 0)
    log.say("going on")
    log.close()
    lines = (log.directory / "run.log").read_text("utf-8").splitlines()
    assert [line[20:] for line in lines] == ["before the checkpoint", "a warning", "going on"]


def test_a_directory_that_leads_nowhere_is_an_error_and_no_endless_search(tmp_path):
    (tmp_path / "logs").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(OSError, match="logs"):
        RunLog(tmp_path / "logs", "run", {})


def test_rows_that_a_loss_of_power_took_are_not_made_up(tmp_path):
    log = RunLog(tmp_path, "run", {})
    for number in range(3):
        log.append("metrics.jsonl", {"number": number, "text": "x" * 50})
    state = log.state_dict()
    log.close()
    metrics = log.directory / "metrics.jsonl"
    os.truncate(metrics, metrics.stat().st_size - 20)
    again = RunLog(tmp_path, "run", {}, resume=str(log.directory))
    again.load_state_dict(state, 0)
    again.append("metrics.jsonl", {"number": 3})
    again.close()
    assert [json.loads(line)["number"] for line in metrics.read_text().splitlines()] == [0, 1, 3]
