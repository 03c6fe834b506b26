"""A sweep on a real Ray cluster of two nodes, one of which goes away in the midst; and without Ray."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import sweep
from test_entry_scripts import environment

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--model builtin --env-name drawer-close --total-timesteps 600 --init-exploration-steps 100 --display-interval 150 "
    "--checkpoint_interval 100 --episode-length 50 --eval-episodes 1 --final_episodes 2 --pop_size 2 --elite_num 1 "
    "--hidden-size 16 --batch-size 16 --LLM_freq 600 --cpus 1"
).split()
NODE = {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 100 * 10**6}


@pytest.mark.skipif(bool(find_spec("ray")), reason="Ray is installed")
def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(sys, "argv", ["sweep.py", "quick", "--log-dir", str(tmp_path)])
    assert sweep.main() == 2
    error = capsys.readouterr().err
    assert "this Python has no ray; get it with pip install -r" in error
    assert (ROOT / "sweeps" / "requirements.txt").exists()
    assert error.count("\n") == 1


@pytest.fixture
def cluster():
    if not find_spec("ray"):
        pytest.skip("Ray is not installed: pip install -r sweeps/requirements.txt")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def start(cwd, cluster, *words):
    command = [sys.executable, str(ROOT / "sweep.py"), *FLAGS, "--exp_name", "mine", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(RAY_ADDRESS=cluster.address), **pipes)


def wait_until(condition, process):
    end = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def gpus_of_runs(directory):
    """The GPUs that each run under way below a directory may use, by the last word of its command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            if f"--log-dir={directory}".encode() in words:
                environ = dict(line.partition(b"=")[::2] for line in (process / "environ").read_bytes().split(b"\0"))
                found[words[-2]] = environ.get(b"CUDA_VISIBLE_DEVICES", b"").decode()
    return found


def evaluated(directory):
    """The runs that have been evaluated, and so have a checkpoint."""
    return [path.parent.name for path in directory.glob("*_seed?/metrics.jsonl")]


@pytest.mark.soak
def test_a_node_that_goes_away_loses_nothing_and_nothing_is_done_twice(cluster, tmp_path):
    second = cluster.add_node(**NODE)
    process = start(tmp_path, cluster, "--seed", "1", "2", "3")
    directory = tmp_path / "logs" / "mine"
    wait_until(lambda: len(evaluated(directory)) == 2, process)
    assert len(list(directory.glob("*.log"))) == 2  # a node for each
    cluster.remove_node(second, allow_graceful=False)
    out, _ = process.communicate(timeout=580)
    assert process.returncode == 0, out
    assert "3 done" in out
    runs = sorted(directory.glob("*_seed?"))
    records = [json.loads(run.with_name(f"{run.name}.json").read_text()) for run in runs]
    assert [record["status"] for record in records] == ["done"] * 3
    assert sorted(record["tries"] for record in records) == [1, 1, 2]
    for run, record in zip(runs, records, strict=True):
        printed = run.with_name(f"{run.name}.log").read_text()
        assert printed.count("from_scratch on drawer-close") == record["tries"]
        assert printed.count("final success rate") == 1
        assert printed.count("resuming from the checkpoint") == record["tries"] - 1


@pytest.mark.soak
def test_ctrl_c_ends_the_runs_of_a_cluster_in_good_order(cluster, tmp_path):
    process = start(tmp_path, cluster, "--seed", "1", "2", "--total-timesteps", "20000")
    directory = tmp_path / "logs" / "mine"
    wait_until(lambda: any(directory.glob("*/checkpoint/*")), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 130, out
    assert "1 stopped, 1 waiting" in out
    [name] = (path.parent.name for path in directory.glob("*/config.json"))
    assert (
        f"to resume: python lares_from_scratch.py --resume {directory / name}"
        in (directory / f"{name}.log").read_text()
    )


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at the runs by /proc")
def test_as_many_runs_share_a_gpu_as_their_shares_allow(cluster, tmp_path):
    cluster.add_node(num_cpus=4, num_gpus=1, memory=12 * 10**9, object_store_memory=100 * 10**6)  # Ray believes it
    process = start(tmp_path, cluster, "--seed", "1", "2", "3", "--gpus", "0.5")
    most, devices = 0, set()
    while process.poll() is None:
        seen = gpus_of_runs(tmp_path / "logs" / "mine")
        most, devices = max(most, len(seen)), devices | set(seen.values())
        time.sleep(0.1)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert "3 done" in out
    assert (most, devices) == (2, {"0"})
