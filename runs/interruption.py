"""Signals: the user's wish that a run end, remembered until the run can end in good order."""

import signal
from typing import Any


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
