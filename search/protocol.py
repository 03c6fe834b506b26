"""What is said to a language model and what comes back: requests, replies, usage, and the recording of all of it.

Every model answers a :class:`Request` with a :class:`Reply`, or raises :class:`ServiceAway` or :class:`BudgetSpent`.
Nothing here knows what the texts are about.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

Message = dict[str, str]  # "role": system, user or assistant; "content": the text


class ServiceAway(Exception):
    """No text came, and asking again in this round is pointless. The message is one line."""


class BudgetSpent(Exception):
    """The calls or tokens that the user allowed are used up. The message is one line."""


@dataclass(frozen=True)
class Parent:
    """An earlier text's program and how it did, for models that recombine programs themselves.

    `score` lies in [0, 1]; `components` maps the name of a part of the program's value to its (mean, min, max).
    """

    id: int
    source: str
    score: float
    components: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A conversation, and how many independent answers to it are wanted before `deadline` (``time.monotonic()``).

    Whoever waits for an answer calls `stop` several times a second, and gives up as soon as it returns True. `log`
    takes a line for the user that cannot wait for the reply, such as what the run is waiting for.
    """

    messages: list[Message]
    count: int
    deadline: float
    round: int = 0
    parents: tuple[Parent, ...] = ()
    stop: Callable[[], bool] = lambda: False
    log: Callable[[str], None] = lambda line: None

    def out_of_time(self, excused: float = 0.0) -> str:
        """Why waiting is over, not counting `excused` seconds; empty while it is not."""
        if self.stop():
            return "the run was asked to stop"
        return "the deadline was reached" if time.monotonic() - excused >= self.deadline else ""


@dataclass(frozen=True)
class Reply:
    """What came back: any number of texts, perhaps fewer or more than were wanted.

    `parents` names for each text the parents that went into it (nothing when the model does not say), `cut_off` the
    indices of texts that ended at a token limit, `refused` those of texts in which the model declines to answer, and
    `notes` what went wrong on the way, one line each. For `held` seconds the request waited for its turn among those of
    other runs; the deadline does not count them.
    """

    texts: list[str]
    parents: list[list[int]] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    held: float = 0.0


@dataclass
class Usage:
    """What a model has cost so far: requests sent, tokens sent and tokens received."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def tokens(self) -> int:
        """Tokens both ways."""
        return self.tokens_in + self.tokens_out

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.calls - other.calls, self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)

    def add(self, calls: int = 0, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Count what was just used, or what an earlier part of the run had used."""
        self.calls += calls
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


class LanguageModel(Protocol):
    """What answers requests. `usage` is one object that only ever grows, even when a request fails.

    Models derive from this class, and override its last three methods where they need to.
    """

    name: str
    usage: Usage
    costs: bool = False  # money or somebody's time, so no answer should be requested twice

    def ask(self, request: Request) -> Reply:
        """Return texts for the request; ServiceAway or BudgetSpent when none will come in this round."""

    def told(self, outcomes: Sequence[tuple[str, str]]) -> None:
        """Take in what became of the last reply's texts, in order: ("accepted", "") or (kind, reason) for each."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Return what the next request depends on besides `usage`, JSON-serializable."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        return


class Recorded(LanguageModel):
    """A model whose exchanges are all handed to `write`, one JSON-able row each, in the form that a replay reads.

    `about` is part of each row: what the recording is of, so that it is not mistaken for another.
    """

    def __init__(
        self, model: LanguageModel, write: Callable[[dict[str, Any]], None], about: Mapping[str, str] | None = None
    ) -> None:
        self.model = model
        self.write = write
        self.about = dict(about or {})
        self.name = model.name
        self.usage = model.usage
        self.requests = 0
        self._paid_for: list[Mapping[str, Any]] = []

    def resume(self, exchanges: Sequence[Mapping[str, Any]]) -> None:
        """Continue after exchanges that were recorded before the run was killed but are in no checkpoint.

        Requests that were answered are not sent again. Those that failed are: by now the service may be back.
        """
        self._paid_for = [row for row in exchanges if not row["error"]]
        self._count(row for row in exchanges if row["error"])

    def _count(self, exchanges: Iterable[Mapping[str, Any]]) -> None:
        """Add what these exchanges cost."""
        for row in exchanges if self.model.costs else ():
            self.usage.add(row["calls"], row["tokens_in"], row["tokens_out"])

    def ask(self, request: Request) -> Reply:
        """Return or raise what the model does, after recording it."""
        started, before = time.monotonic(), replace(self.usage)
        reply, error = Reply([]), None
        try:
            row = self._paid_for[0] if self._paid_for else {}
            if self.model.costs and (row.get("messages"), row.get("count")) == (request.messages, request.count):
                self._count([self._paid_for.pop(0)])
                reply = recorded_reply(row)
            else:
                self._count(self._paid_for)
                self._paid_for.clear()
                reply = self.model.ask(request)
            return reply
        except (ServiceAway, BudgetSpent) as caught:
            error = {"kind": type(caught).__name__, "message": str(caught)}
            raise
        finally:
            self.requests += 1
            spent = self.usage - before
            self.write(
                {
                    "request": self.requests,
                    "round": request.round,
                    **self.about,
                    "model": self.name,
                    "messages": request.messages,
                    "count": request.count,
                    "texts": reply.texts,
                    "parents": reply.parents,
                    "cut_off": reply.cut_off,
                    "refused": reply.refused,
                    "notes": reply.notes,
                    "error": error,
                    "stopped": error is not None and request.stop(),
                    "calls": spent.calls,
                    "tokens_in": spent.tokens_in,
                    "tokens_out": spent.tokens_out,
                    "seconds": round(time.monotonic() - started, 3),
                }
            )

    def told(self, outcomes: Sequence[tuple[str, str]]) -> None:
        """Pass on what became of the last reply's texts."""
        self.model.told(outcomes)

    def state_dict(self) -> dict[str, Any]:
        """Return what was used and asked so far, and the model's own state, JSON-serializable."""
        return {"usage": asdict(self.usage), "requests": self.requests, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.usage.add(**state["usage"])
        self.requests = state["requests"]
        self.model.load_state_dict(state["model"])


def recorded_reply(row: Mapping[str, Any]) -> Reply:
    """Return the reply of a recorded exchange, or raise the error that came instead."""
    if row.get("error"):
        kind = BudgetSpent if row["error"]["kind"] == "BudgetSpent" else ServiceAway
        raise kind(row["error"]["message"])
    texts = [text_of(text) for text in row["texts"]]
    return Reply(texts, *(row.get(name, []) for name in ("parents", "cut_off", "notes", "refused")))


def text_of(content: Any) -> str:
    """A message's content as text; some services send a list of parts."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in content if isinstance(part, dict))
    # JSON may hold half a surrogate pair, which cannot be written to a file.
    return content.encode("utf-8", "replace").decode("utf-8") if isinstance(content, str) else ""
