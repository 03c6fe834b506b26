"""Worker processes: how one is started, spoken to and ended, and the memory that it may read.

A message is a JSON header and named NumPy arrays. Nothing is pickled, so that a worker that has gone wrong, or that
has run hostile code, can send its parent nothing but data.
"""

import contextlib
import ctypes
import json
import math
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Header = dict[str, Any]

Arrays = dict[str, np.ndarray]

_PREFIX = struct.Struct("!QQ")  # bytes of the JSON part, bytes of the arrays

_LONGEST_HEADER = 64 << 20

_LONGEST_ARRAYS = 1 << 30

_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).parents[1]
# Our modules come before all others of the same name, whatever PYTHONPATH and PYTHONSAFEPATH say.
_RUN = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), run_name='__main__')"


class WorkerTimeout(Exception):
    """The worker did not answer in time."""


class WorkerDied(Exception):
    """The worker has ended, or what it sent is not a message."""


class WorkerProcess:
    """A Python process that runs a module of this project and answers messages.

    Start workers from the main thread: on Linux a worker ends with the thread that started it, so that none is left
    behind when its parent is killed.

    Args:
        module: dotted name of a module whose script part calls :func:`serve`.
        environment: the worker's whole environment; None inherits ours.
        fds: file descriptors that the worker inherits under the same numbers.
    """

    def __init__(self, module: str, *, environment: dict[str, str] | None = None, fds: Sequence[int] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        # A session of its own: Ctrl-C in a terminal goes to the main process alone, which decides what happens.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(_ROOT), module, str(theirs.fileno())],
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
