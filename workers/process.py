"""Worker processes: how one is started, spoken to and ended.

A message is a JSON header and named NumPy arrays. Nothing is pickled, so that a worker that has gone wrong, or that
has run hostile code, can send its parent nothing but data. The parent never waits for one worker: what cannot be sent
or received yet is sent or received later, so that a worker that has stopped listening does not hold up the others.
"""

import contextlib
import ctypes
import json
import math
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.machine import public_environment

Header = dict[str, Any]

Arrays = dict[str, np.ndarray]

Message = tuple[Header, Arrays]

_PREFIX = struct.Struct("!QQ")  # bytes of the JSON part, bytes of the arrays

_LONGEST_HEADER = 64 << 20

_LONGEST_ARRAYS = 1 << 30

_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).parents[1]
# Our modules come before all others of the same name, whatever PYTHONPATH and PYTHONSAFEPATH say.
_RUN = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), run_name='__main__')"
_LAST_SECONDS = 5.0  # within which the kernel ends a killed process, unless a driver holds it
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

# Whoever signals a whole group, or all processes of a batch job, means the run: the main process decides what happens.
_LEFT_TO_THE_MAIN_PROCESS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}


class WorkerDied(Exception):
    """The worker has ended, or what it sent is not a message. The text completes "the worker …"."""


class WorkerProcess:
    """A Python process that runs a module of this project and answers messages.

    Start workers from the main thread: on Linux a worker ends with the thread that started it, so that none is left
    behind when its parent is killed.

    Args:
        module: dotted name of a module whose script part calls :func:`serve`.
        first: the first message, which prepares the worker; its answer says that the worker is ready.
        fds: file descriptors that the worker inherits under the same numbers.
        environment: the worker's whole environment; None means ours without keys, for computing on one thread.
    """

    def __init__(
        self, module: str, first: Header, *, fds: Sequence[int] = (), environment: dict[str, str] | None = None
    ) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        # The worker inherits the mask, so that it holds from the start.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_MAIN_PROCESS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(_ROOT), module, str(theirs.fileno())],
                env=public_environment() | _ONE_THREAD if environment is None else environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *fds],
                start_new_session=True,  # no terminal can reach it
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.pid = self._process.pid
        self._unsent: deque[memoryview] = deque()
        self._messages = _messages(self._socket)
        self.send(first)

    def send(self, header: Header, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Begin to send a message, without waiting. The arrays must not change until the answer has arrived."""
        self._unsent.extend(_encoded(header, arrays or {}))
        with contextlib.suppress(OSError):  # its end is reported in place of the answer
            self._send_some()

    def receive(self) -> Message | None:
        """Return the next message if all of it has arrived, without waiting; send what the worker takes meanwhile.

        Raises WorkerDied.
        """
        try:
            self._send_some()
            return next(self._messages)
        except Exception as error:  # a worker that runs hostile code may send anything
            raise WorkerDied(self._epitaph()) from error

    def _send_some(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[0])
            except BlockingIOError:
                return
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                self._unsent.popleft()

    @property
    def stopped(self) -> bool:
        """Whether a signal (SIGSTOP) has stopped the worker; always False where the system cannot tell."""
        if not hasattr(os, "waitid"):
            return False
        with contextlib.suppress(ChildProcessError):  # it has ended, and its exit status has been read
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    @property
    def events(self) -> int:
        """The events to wait for: that the worker can be read from and, with something to send, that it takes more."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def fileno(self) -> int:
        """Return the socket's descriptor, so that workers can be waited for."""
        return self._socket.fileno()

    def hang_up(self) -> None:
        """Close the connection. A worker that is listening then ends."""
        self._socket.close()

    def join(self, seconds: float) -> bool:
        """Wait for the worker's end; return whether it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""
        self._socket.close()
        self._process.kill()
        self.join(_LAST_SECONDS)

    def _epitaph(self) -> str:
        self.join(1.0)
        status = self._process.returncode
        if status is None:
            return "sent something that is not a message"
        if status >= 0:
            return f"ended with exit status {status}"
        known = {int(number): number.name for number in signal.Signals}
        return f"was killed by {known.get(-status, f'signal {-status}')}"


def wait_any(workers: Iterable[WorkerProcess], timeout: float) -> None:
    """Wait until something can be received from one of `workers`, or sent to it, for at most `timeout` seconds."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.fileno(), worker.events)
        selector.select(timeout)


def serve(handle: Callable[[Header, Arrays], tuple[Header, Arrays]]) -> None:
    """Answer each message with what `handle` returns, until the parent has gone."""
    if sys.platform == "linux":  # a worker caught in an endless loop must not outlive a parent that was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError, ConnectionError):
        for message in _messages(parent):
            assert message is not None  # the socket blocks
            for part in _encoded(*handle(*message)):
                parent.sendall(part)


def _encoded(header: Header, arrays: Mapping[str, np.ndarray]) -> list[memoryview]:
    """Return the bytes of a message; those of the arrays are not copied."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    kinds = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    text = json.dumps([header, kinds]).encode()
    prefix = _PREFIX.pack(len(text), sum(array.nbytes for array in arrays.values()))
    return [memoryview(prefix + text), *(array.data.cast("B") for array in arrays.values() if array.nbytes)]


def _messages(connection: socket.socket) -> Generator[Message | None, None, None]:
    """Yield the messages that arrive; None whenever the rest of one has yet to arrive, unless `connection` blocks.

    Raises EOFError at the end, and any exception for something that is not a message.
    """
    while True:
        text_size, array_size = _PREFIX.unpack((yield from _exactly(connection, _PREFIX.size)))
        if text_size > _LONGEST_HEADER or array_size > _LONGEST_ARRAYS:
            raise ValueError("message too long")
        header, kinds = json.loads((yield from _exactly(connection, text_size)))
        data = yield from _exactly(connection, array_size)
        arrays: Arrays = {}
        offset = 0
        for name, kind, shape in kinds:
            dtype, count = np.dtype(kind), math.prod(shape)
            arrays[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
        yield header, arrays


def _exactly(connection: socket.socket, size: int) -> Generator[None, None, bytearray]:
    """Return the next `size` bytes; yield while they have yet to arrive."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        try:
            received = connection.recv_into(rest)
        except BlockingIOError:
            yield
            continue
        if received == 0:
            raise EOFError
        rest = rest[received:]
    return data
