"""What a process may use of the machine, and what it passes on to the processes that it starts."""

import contextlib
import ctypes
import math
import os
import platform
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime (ns), deadline, period

_LONG_TURN = 50_000_000  # ns


def cores(root: Path = Path("/")) -> int:
    """Return the number of processor cores that this process may use.

    It is the number that it is bound to, or less where the quota of a container or a batch job allows less.

    Args:
        root: the directory under which ``/proc`` and ``/sys`` lie.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        bound = os.process_cpu_count()
    else:
        bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [math.ceil(quota) for quota in _cpu_quotas(root)]
    return max(1, min([bound or 1, *quotas]))


def memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory are still available, or None where the system does not say.

    This is what the kernel calls available, or less where a control group's limit leaves less. The kernel's file cache
    counts as free in both.
    """
    known = re.search(r"^MemAvailable: +(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    left = [int(known[1]) << 10] if known else []
    for group in _control_groups(root, "memory"):
        # Version 1 lists it twice, the second time with the groups inside.
        cached = re.findall(r"^(?:total_)?inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.high", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _text(group / limit_name).strip(), _text(group / usage_name).strip()
            if limit.isdigit() and used.isdigit():
                left.append(int(limit) - int(used) + int(cached[-1] if cached else 0))
    return max(0, min(left)) if left else None


def _cpu_quotas(root: Path) -> Iterator[float]:
    for group in _control_groups(root, "cpu"):
        # Version 2 has "200000 100000" or "max 100000", version 1 a file for each; without a limit the first is -1.
        words = _text(group / "cpu.max").split()
        words = words or [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
            yield int(words[0]) / int(words[1])


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of the control groups (cgroups(7)) whose limits hold for this process, both versions.

    A limit holds for all groups inside, so all parents up to the root are included; in a container, the root is often
    all that is there, whatever path the process is told.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            tops = [mounted / controllers, mounted / controller]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for top in tops:
            yield from (top / group for group in (inside, *inside.parents))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def public_environment() -> dict[str, str]:
    """Return the environment variables without those that hold keys."""
    secrets = ("KEY", "TOKEN", "SECRET")
    return {name: value for name, value in os.environ.items() if not any(word in name for word in secrets)}


@contextlib.contextmanager
def without_keys() -> Iterator[None]:
    """Hide the keys from code that starts programs of its own, as libraries do to query a version."""
    everything = dict(os.environ)
    for name in everything.keys() - public_environment().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(everything)


def take_long_turns() -> None:
    """Ask Linux for long time slices for this process.

    Two processes that take turns on a core every few milliseconds spend a fifth of their time on bringing their data
    back into its cache. Kernels since 6.12 accept a wish (sched_setattr(2), `sched_runtime` of an ordinary process);
    elsewhere nothing happens. The process's share of the core does not change.
    """
    number = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    wish = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.SCHED_OTHER, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, _LONG_TURN, 0, 0
    )
    ctypes.CDLL(None).syscall(number, 0, wish, 0)
