"""Reads the body of a service's answer: one JSON object, or the server-sent events of a stream."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.protocol import text_of


@dataclass(frozen=True)
class Choice:
    """One answer: its text, why it ended, and the text of a refusal or an error in its place."""

    text: str
    reason: str = ""
    refusal: str = ""
    error: Any = None


@dataclass(frozen=True)
class Completion:
    """The choices of a body, an error beside or instead of them, and the tokens used, if the service counts them."""

    choices: list[Choice]
    error: Any = None
    tokens_in: int | None = None
    tokens_out: int | None = None


def read_completion(body: str) -> Completion | None:
    """Return what a body holds, however loosely it follows the protocol; None if it is not a chat completion."""
    body = body.lstrip("\ufeff")
    try:
        value = _merge_events(body) if _is_stream(body) else json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    choices, error = value.get("choices"), value.get("error")
    if not isinstance(choices, list):
        return Completion([], error) if error else None
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        [_read_choice(choice) for choice in choices],
        error,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def _read_choice(choice: Any) -> Choice:
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text = text_of(message.get("content"))
    if not text.strip():  # a parser that never saw the thinking end takes the whole answer for thinking
        text = text_of(message.get("reasoning_content") or message.get("reasoning"))
    reason = str(choice.get("finish_reason") or "")
    refusal = text_of(message.get("refusal"))
    if reason == "content_filter" and not text.strip():
        refusal = refusal or "the service's content filter withheld the answer"
    return Choice(text, reason, refusal, choice.get("error"))


def _is_stream(body: str) -> bool:
    """Whether a body consists of server-sent events; lines that begin with a colon are comments."""
    return body.lstrip().startswith(("data:", "event:", "id:", "retry:", ":"))


def _merge_events(body: str) -> dict[str, Any]:
    """The completion that a stream of events adds up to; broken events are skipped.

    Raises ValueError when all of them are broken.
    """
    whole = False
    merged: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for line in body.replace("\r", "\n").split("\n"):
        name, _, data = line.partition(":")
        if name != "data" or not data.strip() or data.strip() == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        whole = True
        merged.update({key: event[key] for key in ("error", "usage") if event.get(key)})
        pieces = event.get("choices")
        for piece in pieces if isinstance(pieces, list) else ():
            _add_piece(choices, piece)
    if not whole:
        raise ValueError("no event of the stream is JSON")
    if choices or "error" not in merged:
        merged["choices"] = [choices[index] for index in sorted(choices)]
    return merged


def _add_piece(choices: dict[int, dict[str, Any]], piece: Any) -> None:
    if not isinstance(piece, Mapping):
        return
    index = piece.get("index")
    choice = choices.setdefault(index if isinstance(index, int) else 0, {"message": {}})
    choice.update({key: piece[key] for key in ("finish_reason", "error") if piece.get(key)})
    delta = piece.get("delta") or piece.get("message")
    for key in ("content", "reasoning_content", "reasoning", "refusal"):
        if isinstance(delta, Mapping) and delta.get(key):
            choice["message"][key] = choice["message"].get(key, "") + text_of(delta[key])


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
