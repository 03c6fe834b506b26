"""Where the runs of a crew ask before they send a request, each over its own inherited socket."""

import json
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Desk:
    """Answers questions, see `search.turns`.

    Args:
        answer: gives the answers; None lets runs send what they like.
    """

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer
        self._asking = selectors.DefaultSelector()

    def admit(self) -> socket.socket | None:
        """Return the socket for a run that is about to start, None if it need not ask."""
        if self._answer is None:
            return None
        ours, theirs = socket.socketpair()
        self._asking.register(ours, selectors.EVENT_READ, ours.makefile("rb"))
        return theirs

    def serve(self, seconds: float) -> None:
        """Answer questions for that long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self._asking.get_map():
                time.sleep(left)
            for key, _ in self._asking.select(left):
                self._serve_one(key.fileobj, key.data)

    def _serve_one(self, connection: Any, questions: Any) -> None:
        try:
            line = questions.readline()
            if line and self._answer:
                connection.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
                return
        except OSError:  # the run ended in between
            pass
        self._asking.unregister(connection)
        connection.close()
