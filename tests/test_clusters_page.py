"""The Slurm file of docs/clusters.md, with stand-ins for what only a cluster has."""

import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

SWEEP = """echo "python $* $RAY_ADDRESS" >> calls
trap 'echo told >> calls; sleep 0.3; echo ended >> calls; exit 143' TERM
touch sweeping
while :; do sleep 0.1; done"""
STAND_INS = {
    "scontrol": 'printf "n1\\nn2\\nn3\\n"',
    "srun": 'echo "srun $*" >> calls; case " $* " in *" --head "*) touch head ;; esac; exec sleep 60',
    "ray": "test -e head",
    "python": SWEEP,
}
SLURM = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16"}
CALLS = {
    "srun --nodes=1 --ntasks=1 --nodelist=n1 ray start --head --port=20007 --num-cpus=16 --block",
    "srun --nodes=2 --ntasks=2 --exclude=n1 ray start --address=n1:20007 --num-cpus=16 --block",
    "python sweep.py paper --cpus 4 n1:20007",
}


def test_the_slurm_file_starts_every_node_and_hands_the_signal_on(tmp_path):
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'PATH="{tmp_path}/bin:$PATH"\n')
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    job = subprocess.Popen(
        ["bash", "-c", script], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **SLURM}, start_new_session=True
    )
    try:
        while not (tmp_path / "sweeping").exists() or len((tmp_path / "calls").read_text().splitlines()) < 3:
            assert job.poll() is None
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 143
    finally:
        os.killpg(job.pid, signal.SIGKILL)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (set(calls[:3]), calls[3:]) == (CALLS, ["told", "ended"])
