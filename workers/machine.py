"""What a process may use of the machine, and what it hands on to the processes that it starts."""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator

_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime (ns), deadline, period

_LONG_TURN = 50_000_000  # ns


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def public_environment() -> dict[str, str]:
    """The environment variables without those that hold keys."""
    secrets = ("KEY", "TOKEN", "SECRET")
    return {name: value for name, value in os.environ.items() if not any(word in name for word in secrets)}


@contextlib.contextmanager
def without_keys() -> Iterator[None]:
    """Hide the keys from what starts programs of its own, as libraries do to ask for a version."""
    everything = dict(os.environ)
    for name in everything.keys() - public_environment().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(everything)


def take_long_turns() -> None:
    """Ask Linux to let this process run for long when its turn comes.

    Two processes that take turns on a core every few milliseconds spend a fifth of their time on bringing their data
    back into its cache. Kernels since 6.12 take a wish (sched_setattr(2), `sched_runtime` of an ordinary process);
    elsewhere nothing happens. The share of the core stays what it is.
    """
    number = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    wish = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.SCHED_OTHER, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, _LONG_TURN, 0, 0
    )
    ctypes.CDLL(None).syscall(number, 0, wish, 0)
