"""One rate and one budget for what all runs of a sweep send to a language model."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.files import read, write

FILE = "spent.json"
MINUTE = 60.0  # seconds


class Spent(Exception):
    """The budget is used up. The message is one line."""


@dataclass(frozen=True)
class Bounds:
    """What all runs together may send; 0 for no limit.

    Attributes:
        requests_per_minute, tokens_per_minute: in any 60 seconds; tokens count both ways.
        calls, tokens: in the whole sweep.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    calls: int = 0
    tokens: int = 0

    def any(self) -> bool:
        """Return whether there is any limit."""
        return any(vars(self).values())


@dataclass
class _Request:
    """A request that was let through: the moment at which it is sent, and its tokens, expected until they are known."""

    moment: float
    tokens: int


class Limits:
    """Decides when each request may be sent.

    Requests are sent in the order in which they ask. What was spent is kept in a file, so that the budget still holds
    when the sweep is started again.

    Args:
        bounds: the limits for all runs together.
        directory: of the sweep, for the file.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, bounds: Bounds, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._path = directory / FILE
        self._clock = clock
        self._requests: deque[_Request] = deque()  # of the last minute, and scheduled ones
        self._expected: dict[int, _Request] = {}  # requests whose tokens are not known yet, by number
        self._number = 0
        self._spent: dict[str, int] = {"calls": 0, "tokens": 0} | read(self._path)

    def ask(self, tokens: int) -> tuple[int, float]:
        """Let a request through that will take about `tokens`, both ways.

        Returns:
            The number of the request, for :meth:`used`, and the seconds after which it may be sent.

        Raises:
            Spent: the budget leaves no room for it besides what is under way.
        """
        under_way = sum(request.tokens for request in self._expected.values())
        if 0 < self._bounds.calls <= self._spent["calls"]:
            raise Spent(f"all {self._bounds.calls} requests of the sweep are used up")
        if 0 < self._bounds.tokens <= self._spent["tokens"] + under_way:
            raise Spent(f"all {self._bounds.tokens} tokens of the sweep are used up or under way")
        now = self._clock()
        request = _Request(self._first_moment(now, tokens), tokens)
        self._requests.append(request)
        self._number += 1
        self._expected[self._number] = request
        self._spend(calls=1)
        return self._number, request.moment - now

    def used(self, number: int, tokens: int) -> None:
        """Record what a request that was let through has actually taken."""
        request = self._expected.pop(number, None)
        if request:
            request.tokens = tokens
            self._spend(tokens=tokens)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a run that asks for its turn, or reports what a request took; see `search.turns`."""
        if "used" in question:
            self.used(question["number"], question["used"])
            return {}
        try:
            number, seconds = self.ask(question["tokens"])
        except Spent as error:
            return {"spent": str(error)}
        return {"number": number, "seconds": seconds}

    def _first_moment(self, now: float, tokens: int) -> float:
        """Return the first moment, not before any other request's, at which the minute before it has room."""
        while self._requests and self._requests[0].moment <= now - MINUTE:
            self._requests.popleft()
        moment = max([now, *(request.moment for request in self._requests)])
        for oldest in [*self._requests]:
            recent = [request for request in self._requests if request.moment > moment - MINUTE]
            if not recent or self._has_room(recent, tokens):
                break
            moment = max(moment, oldest.moment + MINUTE)
        return moment

    def _has_room(self, recent: list[_Request], tokens: int) -> bool:
        requests, per_minute = self._bounds.requests_per_minute, self._bounds.tokens_per_minute
        if requests and len(recent) >= requests:
            return False
        return not per_minute or sum(request.tokens for request in recent) + tokens <= per_minute

    def _spend(self, **spent: int) -> None:
        for name, number in spent.items():
            self._spent[name] += number
        write(self._path, self._spent)
