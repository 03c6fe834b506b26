"""From messages to response texts: the language models behind ``--model``, and the recording of what they said.

Every model answers a :class:`Request` with a :class:`Reply`, or raises :class:`ServiceAway` or :class:`BudgetSpent`.
Nothing here knows what the texts are about.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from errors import UsageError

Message = dict[str, str]  # "role": system, user or assistant; "content": the text


class ServiceAway(Exception):
    """No text came, and asking again in this round is no use. The message is one line."""


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
    """A conversation, and how many independent answers to it are wanted before `deadline` (``time.monotonic()``)."""

    messages: list[Message]
    count: int
    deadline: float
    round: int = 0
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came: any number of texts, perhaps fewer or more than were wanted.

    `parents` names for each text the parents that went into it (nothing when the model does not say), `cut_off` the
    places of texts that ended at a token limit, `notes` what went wrong on the way, a line each.
    """

    texts: list[str]
    parents: list[list[int]] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Usage:
    """What a model has cost so far: requests sent, tokens sent and tokens received."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.calls - other.calls, self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)

    def add(self, calls: int = 0, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Count what was just used, or what an earlier part of the run had used."""
        self.calls += calls
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


class LanguageModel(Protocol):
    """What answers requests. `usage` is one object that only ever grows, also when a request fails."""

    name: str
    usage: Usage

    def ask(self, request: Request) -> Reply:
        """Texts for the request; ServiceAway or BudgetSpent when there is none and will be none in this round."""


class Recorded:
    """A model whose exchanges are all handed to `write`, one JSON-able row each, in the form that Replay reads."""

    def __init__(self, model: LanguageModel, write: Callable[[dict[str, Any]], None]) -> None:
        self.model = model
        self.write = write
        self.name = model.name
        self.usage = model.usage
        self.requests = 0

    def ask(self, request: Request) -> Reply:
        """What the model answers or raises, after it is written down."""
        started, before = time.monotonic(), replace(self.usage)
        reply, error = Reply([]), None
        try:
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
                    "model": self.name,
                    "messages": request.messages,
                    "count": request.count,
                    "texts": reply.texts,
                    "parents": reply.parents,
                    "cut_off": reply.cut_off,
                    "notes": reply.notes,
                    "error": error,
                    "calls": spent.calls,
                    "tokens_in": spent.tokens_in,
                    "tokens_out": spent.tokens_out,
                    "seconds": round(time.monotonic() - started, 3),
                }
            )


def connect(model: str, builtin: LanguageModel) -> LanguageModel:
    """The model behind ``--model``; `builtin` is what that name stands for."""
    if model == "builtin":
        return builtin
    raise UsageError(f"--model {model}: only builtin can be used so far")
