"""What a process may use of the machine, read from files as the kernel writes them in containers and batch jobs."""

import os

import pytest

from workers import machine

GB = 1 << 30
MEMINFO = "MemTotal:       134217728 kB\nMemFree:         1000000 kB\nMemAvailable:   67108864 kB\n"  # 64 GB available


def system(root, groups, files):
    """A file system with /proc/meminfo, the process's groups, and files of groups under /sys/fs/cgroup."""
    contents = {"proc/meminfo": MEMINFO, "proc/self/cgroup": groups}
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def bind(monkeypatch, count):
    """Have the process bound to `count` cores."""
    if hasattr(os, "process_cpu_count"):
        monkeypatch.setattr(os, "process_cpu_count", lambda: count)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


CPU = {
    "a container with 2 of 64 cores, version 2": (64, "0::/\n", {"cpu.max": "200000 100000\n"}, 2),
    "no limit, version 2": (64, "0::/\n", {"cpu.max": "max 100000\n"}, 64),
    "one core and a half": (64, "0::/\n", {"cpu.max": "150000 100000\n"}, 2),
    "a tenth of a core": (64, "0::/\n", {"cpu.max": "10000 100000\n"}, 1),
    "a limit of a group around ours": (
        64,
        "0::/slurm/job_7/step_0\n",
        {"slurm/job_7/cpu.max": "400000 100000\n", "slurm/job_7/step_0/cpu.max": "max 100000\n"},
        4,
    ),
    "a path of the host, in a container": (64, "0::/docker/0123abcd\n", {"cpu.max": "300000 100000\n"}, 3),
    "version 1": (
        64,
        "4:cpu,cpuacct:/docker/0123\n3:memory:/\n1:name=systemd:/\n0::/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "version 1 without a limit": (
        64,
        "4:cpu,cpuacct:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        64,
    ),
    "both versions at once": (
        64,
        "2:cpu:/job\n0::/job\n",
        {"cpu/job/cpu.cfs_quota_us": "500000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
        5,
    ),
    "bound to fewer cores than the quota allows": (2, "0::/\n", {"cpu.max": "800000 100000\n"}, 2),
    "no control groups": (8, "", {}, 8),
}


@pytest.mark.parametrize(("bound", "groups", "files", "cores"), CPU.values(), ids=CPU)
def test_affinity_and_quota_both_count(monkeypatch, tmp_path, bound, groups, files, cores):
    bind(monkeypatch, bound)
    assert machine.cores(system(tmp_path, groups, files)) == cores


MEMORY = {
    "no limit": ("0::/\n", {"memory.max": "max\n", "memory.current": f"{GB}\n"}, 64 * GB),
    "a limit, and cached files that can go": (
        "0::/\n",
        {
            "memory.max": f"{8 * GB}\n",
            "memory.current": f"{3 * GB}\n",
            "memory.stat": f"anon {GB}\ninactive_file {GB}\n",
        },
        6 * GB,
    ),
    "a limit from which on the kernel slows us down": (
        "0::/\n",
        {"memory.max": "max\n", "memory.high": f"{4 * GB}\n", "memory.current": f"{GB}\n"},
        3 * GB,
    ),
    "a limit of a group around ours": (
        "0::/slurm/job_7\n",
        {"slurm/memory.max": f"{2 * GB}\n", "slurm/memory.current": "0\n", "slurm/job_7/memory.max": "max\n"},
        2 * GB,
    ),
    "version 1": (
        "3:memory:/docker/0123\n",
        {
            "memory/memory.limit_in_bytes": f"{4 * GB}\n",
            "memory/memory.usage_in_bytes": f"{2 * GB}\n",
            "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}\n",
        },
        3 * GB,
    ),
    "version 1 without a limit": (
        "3:memory:/\n",
        {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": f"{GB}\n"},
        64 * GB,
    ),
    "over its limit": ("0::/\n", {"memory.max": f"{GB}\n", "memory.current": f"{2 * GB}\n"}, 0),
}


@pytest.mark.parametrize(("groups", "files", "free"), MEMORY.values(), ids=MEMORY)
def test_memory_is_what_the_tightest_limit_leaves(tmp_path, groups, files, free):
    assert machine.memory(system(tmp_path, groups, files)) == free


def test_a_system_that_does_not_say_has_no_limit(tmp_path):
    assert machine.memory(tmp_path) is None


def test_this_machine_has_some_of_both():
    assert machine.cores() >= 1
    free = machine.memory()
    assert free is None or free > 1 << 20
