"""Taking turns: runs of a sweep share one rate and one budget of requests, held by the sweep that started them."""

import contextlib
import json
import os
import socket
from typing import Any

from search.protocol import BudgetSpent, ServiceAway

VARIABLE = "LARES_TURNS"
"""The environment variable with the descriptor of the socket over which a run asks; unset for a run without a sweep."""


class Turns:
    """Asks the sweep before a request is sent, and reports to it after the answer, in one line of JSON each way.

    Args:
        connection: to the sweep.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")

    def ask(self, tokens: int) -> tuple[int, float]:
        """Ask for a request that will take about `tokens`, both ways.

        Returns:
            Its number, for :meth:`used`, and the seconds after which it may be sent.

        Raises:
            BudgetSpent: the sweep has no room for it.
            ServiceAway: the sweep has gone.
        """
        answer = self._exchange({"tokens": tokens})
        if "spent" in answer:
            raise BudgetSpent(answer["spent"])
        return answer["number"], answer["seconds"]

    def used(self, number: int, tokens: int) -> None:
        """Report how many tokens a request has taken, if anybody still listens."""
        with contextlib.suppress(ServiceAway):
            self._exchange({"number": number, "used": tokens})

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            self._connection.sendall(json.dumps(question).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._answers.readline())
        except (OSError, ValueError):
            raise ServiceAway("the sweep that this run takes turns in has gone") from None
        return answer


def inherited_turns() -> Turns | None:
    """Return the connection to the sweep that started this process, None if there is none."""
    number = os.environ.pop(VARIABLE, "")  # child processes do not inherit the socket
    return Turns(socket.socket(fileno=int(number))) if number.isdecimal() else None
