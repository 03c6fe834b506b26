"""The limits that a process puts on itself before it runs code that it does not trust.

There are two kinds. Resource limits are POSIX: no file grows, no descriptor is opened, no process is started, memory is
bounded. On Linux a system call filter (seccomp) comes on top: whatever is not needed for computing and for talking over
an open socket is refused by the kernel, for every thread, and nothing can undo that. Neither needs privileges.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import struct
import sys
from pathlib import Path

# The system calls that are still allowed, by machine: computing, memory, time, and the socket that is already open.
_CALLS = {
    "x86_64": {
        **{"read": 0, "write": 1, "close": 3, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigprocmask": 14},
        **{"rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "setitimer": 38},
        **{
            "getpid": 39,
            "getcwd": 79,
            "sendto": 44,
            "recvfrom": 45,
            "exit": 60,
            "getrusage": 98,
            "times": 100,
            "sigaltstack": 131,
        },
        **{"gettid": 186, "futex": 202, "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230},
        **{"exit_group": 231, "getrandom": 318, "rseq": 334},
    },
    "aarch64": {
        **{"read": 63, "write": 64, "close": 57, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214},
        **{"rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216, "madvise": 233},
        **{"nanosleep": 101, "setitimer": 103, "getpid": 172, "getcwd": 17, "sendto": 206, "recvfrom": 207, "exit": 93},
        **{"getrusage": 165, "times": 153, "sigaltstack": 132, "gettid": 178, "futex": 98, "restart_syscall": 128},
        **{"clock_gettime": 113, "clock_nanosleep": 115, "exit_group": 94, "getrandom": 278, "rseq": 293},
    },
}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_FIONBIO = 0x5421  # the only allowed ioctl: Python's sockets set their blocking mode with it
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_FILTER_FLAG_TSYNC = 1
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM

# Classic BPF: load a word of the call's data, compare, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_SECOND_ARGUMENT = 0, 4, 24


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enter(memory_mb: int) -> str:
    """Put the limits in place, for good.

    Everything that will be needed must already be open, imported and mapped. Output is discarded afterwards.

    Args:
        memory_mb: address space beyond what the process has now, in MB.

    Returns:
        What this machine does not support, in words; empty if nothing is missing.
    """
    missing = []
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    os.chdir("/")
    if not _limit_memory(memory_mb):
        missing.append("memory is not bounded")
    limits = [resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE]
    for limit in limits:
        resource.setrlimit(limit, (0, 0))
    refused = _filter_calls()
    if refused:
        missing.append(f"system calls are not filtered ({refused})")
    return "; ".join(missing)


def _limit_memory(memory_mb: int) -> bool:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        return False
    return True


def _filter_calls() -> str:
    """Install the filter; return why that could not be done, or nothing."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _CALLS or sys.maxsize < 2**32:
        return f"not known for {sys.platform} on {machine}"
    code = _filter(machine)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return os.strerror(ctypes.get_errno())
    if libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _FILTER_FLAG_TSYNC, ctypes.byref(program)) != 0:
        return os.strerror(ctypes.get_errno())
    return "" if _is_refused() else "the kernel takes the filter and does not obey it"


def _filter(machine: str) -> bytes:
    """The filter as BPF instructions of eight bytes: the calls allowed on `machine`, and EPERM for all others."""
    numbers = [*_CALLS[machine].values()]
    steps = [(_LOAD, 0, 0, _AT_ARCHITECTURE), (_IF_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _REFUSE)]
    steps.append((_LOAD, 0, 0, _AT_NUMBER))
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        steps.append((_IF_EQUAL, left + 3, 0, number))  # to the last step
    steps += [(_IF_EQUAL, 0, 2, _IOCTL[machine]), (_LOAD, 0, 0, _AT_SECOND_ARGUMENT), (_IF_EQUAL, 1, 0, _FIONBIO)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _is_refused() -> bool:
    try:
        with contextlib.closing(socket.socket()):
            return False
    except PermissionError:
        return True
    except OSError:
        return False
