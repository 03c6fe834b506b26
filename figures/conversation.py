"""What the model was asked and what it answered, round by round, and what that cost."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from figures.lineage import Life
from runs.reading import Row, Run


@dataclass(frozen=True)
class Answer:
    """A text of the model, and the function that it became; None if the run ended before it was looked at."""

    text: str
    life: Life | None


@dataclass(frozen=True)
class Exchange:
    """A request and its answers.

    Attributes:
        row: its row of llm.jsonl.
        prompt: the messages that no earlier request had.
        repeated: how many other messages it had.
        answers: the answers, in order.
    """

    row: Row
    prompt: list[Row]
    repeated: int
    answers: list[Answer]


def by_round(run: Run, family: list[Life]) -> dict[int, list[Exchange]]:
    """Return the exchanges of each search round.

    Functions get their ids in the order of the answers, so that the n-th answer of a round is its n-th function; those
    with which the builtin search fills up a first population come after. Fitted functions answer no request.
    """
    found: dict[int, list[Exchange]] = {}
    seen: list[Any] = []
    for round, rows in groupby(run.exchanges, key=lambda row: int(row.get("round", 0))):
        lives = iter([life for life in family if life.round == round and not life.row.get("fitted")])
        exchanges = found.setdefault(round, [])
        for row in rows:
            answers = [Answer(_text(text), next(lives, None)) for text in row.get("texts", [])]
            messages = row.get("messages", [])
            unseen = [message for message in messages if message not in seen]
            seen += unseen
            fresh = [{**message, "content": _text(message.get("content"))} for message in unseen]
            exchanges.append(Exchange(row, fresh, len(messages) - len(fresh), answers))
    return found


def spent_by_round(run: Run) -> list[Row]:
    """Return a row for each search round: requests, tokens, seconds, and money at the run's prices."""
    price_in, price_out = float(run.flags.get("price_in", 0)), float(run.flags.get("price_out", 0))
    spent: dict[int, Row] = {}
    for row in run.exchanges:
        round = int(row.get("round", 0))
        total = spent.setdefault(
            round, {"round": round, "calls": 0, "tokens_in": 0, "tokens_out": 0, "seconds": 0.0, "cost": 0.0}
        )
        for name in ("calls", "tokens_in", "tokens_out", "seconds"):
            total[name] += row.get(name) or 0
        total["cost"] = (total["tokens_in"] * price_in + total["tokens_out"] * price_out) / 1e6
    return [spent[round] for round in sorted(spent)]


def _text(content: Any) -> str:
    """Return a message's content as text; some services answer with a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
