"""What processes ask of the kernel."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import ctypes, os, struct, platform
from workers.machine import take_long_turns
os.nice(3)
take_long_turns()
wish = ctypes.create_string_buffer(48)
number = {"x86_64": 315, "aarch64": 275}[platform.machine()]  # sched_getattr
assert ctypes.CDLL(None).syscall(number, 0, wish, 48, 0) == 0
_, policy, _, nice, _, runtime, _, _ = struct.unpack("=IIQiIQQQ", wish.raw)
print(policy, nice, runtime)
"""


def kernel():
    return tuple(int(part) for part in platform.release().split(".")[:2]) if sys.platform == "linux" else (0, 0)


@pytest.mark.skipif(kernel() < (6, 12), reason="only Linux since 6.12 takes the wish")
@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="number of the system call is not known")
def test_a_process_that_takes_long_turns_keeps_its_policy_and_its_niceness():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", str(os.nice(0) + 3), "50000000"]
