"""Signals: what the user or the machine asks of a run, remembered until the run can do it cleanly."""

import signal
from typing import Any


def raise_on_ctrl_c() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, see `workers.packages`."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interruption:
    """A context in which signals are remembered instead of ending the process, and the main loop polls them.

    SIGINT, SIGTERM and SIGHUP (the terminal or the ssh session was closed) ask for the end; `signal` is the first one
    received. A second SIGINT or SIGTERM has its usual effect. A second SIGHUP does nothing, since the shell and the
    kernel both send one; and where SIGHUP was ignored at the start, as after ``nohup``, it stays ignored. SIGUSR1 asks
    for a checkpoint, as Slurm's ``--signal=USR1@60`` does.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._checkpoint = False
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        """Return whether the run should end."""
        return self.signal is not None

    def checkpoint_requested(self) -> bool:
        """Return whether a checkpoint was asked for since the last call."""
        asked, self._checkpoint = self._checkpoint, False
        return asked

    def __enter__(self) -> "Interruption":
        raise_on_ctrl_c()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._remember_end)
        self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._remember_checkpoint)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _remember_end(self, number: int, _: Any) -> None:
        if self.signal is None:
            self.signal = number
        if number != signal.SIGHUP:
            signal.signal(number, self._before.pop(number))

    def _remember_checkpoint(self, number: int, _: Any) -> None:
        self._checkpoint = True
