"""Worker processes: how one is started, spoken to and ended, and the memory that it may read.

A message is a JSON header and named NumPy arrays. Nothing is pickled, so that a worker that has gone wrong, or that
has run hostile code, can send its parent nothing but data.
"""

import contextlib
import ctypes
import fcntl
import json
import math
import mmap
import os
import platform
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Header = dict[str, Any]
Arrays = dict[str, np.ndarray]

_PREFIX = struct.Struct("!QQ")  # bytes of the JSON part, bytes of the arrays
_LONGEST_HEADER = 64 << 20
_LONGEST_ARRAYS = 1 << 30
_PR_SET_PDEATHSIG = 1
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime (ns), deadline, period
_LONG_TURN = 50_000_000  # ns
_F_ADD_SEALS = 1033
_F_SEAL_FUTURE_WRITE = 0x0010


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


class WorkerTimeout(Exception):
    """The worker did not answer in time."""


class WorkerDied(Exception):
    """The worker has ended, or what it sent is not a message."""


class WorkerProcess:
    """A Python process that runs `module` of this project and answers messages.

    Start workers from the main thread: on Linux a worker ends with the thread that started it, so that none is left
    behind when its parent is killed.

    Args:
        module: name of a module beside this one whose script part calls :func:`serve`.
        environment: the worker's whole environment; None inherits ours.
        fds: file descriptors that the worker inherits under the same numbers.
    """

    def __init__(self, module: str, *, environment: dict[str, str] | None = None, fds: Sequence[int] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        script = Path(__file__).with_name(f"{module}.py")
        # A session of its own: Ctrl-C in a terminal goes to the main process alone, which decides what happens.
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(theirs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *fds],
            start_new_session=True,
        )
        theirs.close()
        self.pid = self._process.pid

    def send(self, header: Header, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Send one message. Raises WorkerDied when nobody listens any more."""
        self._socket.settimeout(None)
        try:
            _send(self._socket, header, arrays or {})
        except OSError as error:
            raise WorkerDied(self._epitaph()) from error

    def receive(self, timeout: float | None = None) -> tuple[Header, Arrays]:
        """The next message of the worker, waited for at most `timeout` seconds (WorkerTimeout, WorkerDied)."""
        try:
            return _receive(self._socket, None if timeout is None else time.monotonic() + timeout)
        except TimeoutError as error:
            raise WorkerTimeout(f"no answer within {timeout:g} s") from error
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise WorkerDied(self._epitaph()) from error

    def fileno(self) -> int:
        """The socket's descriptor, so that workers can be waited for."""
        return self._socket.fileno()

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End an idle worker: it leaves when its parent hangs up; a busy one is killed after a second."""
        self._socket.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.kill()

    def _epitaph(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        status = self._process.returncode
        if status is None:
            return "sent something that is not a message"
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with exit status {status}"


class Interruption:
    """While it is entered, remembers the first SIGINT or SIGTERM in `signal` instead of ending the process.

    The main loop asks for it where it can stop in good order. A second signal does what it usually does.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether the user wants the run to end."""
        return self.signal is not None

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _remember(self, number: int, _: Any) -> None:
        self.signal = number
        self.__exit__()


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


def wait_any(workers: Sequence[WorkerProcess], timeout: float | None = None) -> list[WorkerProcess]:
    """Those of `workers` from which something can be read (a message or the news of their end)."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.fileno(), selectors.EVENT_READ, worker)
        return [key.data for key, _ in selector.select(timeout)]


def serve(handle: Callable[[Header, Arrays], tuple[Header, Arrays]]) -> None:
    """A worker's life: answer each message with what `handle` returns, until the parent has gone.

    Interrupts are left to the main process, which finishes what it is doing and then hangs up.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # a worker caught in an endless loop must not outlive a parent that was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = socket.socket(fileno=int(sys.argv[1]))
    while True:
        try:
            header, arrays = _receive(parent, None)
        except (EOFError, ConnectionError):
            return
        reply, results = handle(header, arrays)
        try:
            _send(parent, reply, results)
        except ConnectionError:
            return


def _send(connection: socket.socket, header: Header, arrays: Mapping[str, np.ndarray]) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    kinds = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    text = json.dumps([header, kinds]).encode()
    connection.sendall(_PREFIX.pack(len(text), sum(array.nbytes for array in arrays.values())) + text)
    for array in arrays.values():
        if array.nbytes:
            connection.sendall(array.data.cast("B"))


def _receive(connection: socket.socket, deadline: float | None) -> tuple[Header, Arrays]:
    text_size, array_size = _PREFIX.unpack(_receive_exactly(connection, _PREFIX.size, deadline))
    if text_size > _LONGEST_HEADER or array_size > _LONGEST_ARRAYS:
        raise ValueError("message too long")
    header, kinds = json.loads(_receive_exactly(connection, text_size, deadline))
    data = _receive_exactly(connection, array_size, deadline)
    arrays: Arrays = {}
    offset = 0
    for name, kind, shape in kinds:
        dtype, count = np.dtype(kind), math.prod(shape)
        arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return header, arrays


def _receive_exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-6))
        received = connection.recv_into(rest)
        if received == 0:
            raise EOFError
        rest = rest[received:]
    return data


@dataclass(frozen=True)
class SharedTable:
    """Float32 columns of equal length in one memory file, which workers read, and write only if that is allowed.

    Each column is a contiguous block of `capacity` rows. A memory file, and not named shared memory: that would be
    unlinked for everyone by the resource tracker of the first worker that is killed (Python before 3.13).
    """

    fd: int
    capacity: int
    widths: dict[str, int]
    columns: dict[str, np.ndarray]

    @classmethod
    def create(cls, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """A new table of zeros. Its pages take memory only once they are written.

        `writable` lets workers write it too.
        """
        size = 4 * capacity * sum(widths.values())
        sealing = hasattr(os, "memfd_create")
        if sealing:
            fd = os.memfd_create("lares", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
        if sealing and not writable:  # from here on nobody, this process included, can map the file for writing again
            with contextlib.suppress(OSError):  # kernels before 5.1; workers map it read-only in any case
                fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))

    @classmethod
    def attach(cls, fd: int, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """The table behind an inherited descriptor, read-only if not said otherwise."""
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        memory = mmap.mmap(fd, 4 * capacity * sum(widths.values()), prot=protection)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))


def _columns(memory: mmap.mmap, capacity: int, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    columns, offset = {}, 0
    for name, width in widths.items():
        block = np.frombuffer(memory, np.float32, capacity * width, offset)
        columns[name] = block.reshape(capacity, width)
        offset += 4 * capacity * width
    return columns
