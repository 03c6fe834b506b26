"""The form in which a service takes a request, and how to change it when the service refuses."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.protocol import Message
from search.service_errors import Trouble

_LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": ""}  # what to try after each

_WORDS = {  # how services refer to a parameter; a backslash before n is a line break in quoted text
    "n": r"(?<!\\)\bn\b|\bchoices?\b|\bcandidates?\b",
    "max_tokens": r"\bmax_tokens\b",
    "max_completion_tokens": r"\bmax_completion_tokens\b",
    "stream": r"stream|\bsse\b|server-sent|\u6d41\u5f0f",  # the last one is Chinese for streaming
    "stream_options": r"\bstream_options\b|\binclude_usage\b",
    "system": r"\bsystem\b|\broles?\b|developer instruction",
}


@dataclass(frozen=True)
class RequestForm:
    """Which parameters a request carries, and where it goes.

    `several` sends n, so that one request brings all answers; `limit` is the name under which the limit on an answer's
    tokens is sent, "" for none; without `system` the system text is put into the first user message; `path` is added to
    the service's address. `max_tokens` is tried before `max_completion_tokens`, since services that want the latter say
    so, while many others silently ignore it.
    """

    several: bool = True
    temperature: bool = True
    limit: str = "max_tokens"
    stream: bool = False
    stream_options: bool = True
    system: bool = True
    path: str = ""

    def parameters(self, count: int, temperature: float, answer_tokens: int) -> dict[str, Any]:
        """Return what is sent besides model and messages; `answer_tokens` limits an answer unless it is 0."""
        sent: dict[str, Any] = {"temperature": temperature} if self.temperature else {}
        if self.several and count > 1:
            sent["n"] = count
        if self.limit and answer_tokens:
            sent[self.limit] = answer_tokens
        if self.stream:
            sent["stream"] = True
            if self.stream_options:
                sent["stream_options"] = {"include_usage": True}
        return sent

    def messages(self, messages: list[Message]) -> list[Message]:
        """The conversation as this service takes it."""
        if self.system or messages[0]["role"] != "system" or len(messages) < 2:
            return messages
        first = {**messages[1], "content": f"{messages[0]['content'].rstrip()}\n\n{messages[1]['content']}"}
        return [first, *messages[2:]]

    def after(self, trouble: Trouble, sent: Mapping[str, Any], path: str) -> "RequestForm | None":
        """Return the form to try next, None when no other form can help.

        If the service names what it refuses, exactly that is changed. After any other refusal n is left out first, then
        the temperature, then the limit on tokens is renamed and left out. `sent` are the parameters that may be
        changed, `path` is what to add to the address when nothing is found there, "" for nothing.
        """
        if trouble.about_address and path and not self.path:
            return replace(self, path=path)
        if not trouble.about_parameters:
            return None
        named = self._named(trouble, sent)
        if named is None and trouble.status < 500:
            named = next((name for name in ("n", "temperature", self.limit) if name in sent), None)
        elif named is None and "n" in sent:
            named = "n"
        return None if named is None else self._changed(named, trouble)

    def _changed(self, name: str, trouble: Trouble) -> "RequestForm":
        if name in _LIMITS:
            too_long = re.search(r"context|too large|at most|valid range", trouble.words, re.IGNORECASE)
            return replace(self, limit="" if too_long else _LIMITS[name])
        if name == "n":
            return replace(self, several=False)
        return replace(self, **{name: name == "stream"})  # type: ignore[arg-type]

    def _named(self, trouble: Trouble, sent: Mapping[str, Any]) -> str | None:
        """Which parameter an error is about: the one that it names, else the first that its text mentions."""
        candidates = [name for name in sent if name != "stream"]
        candidates += [name for name, apt in (("system", self.system), ("stream", not self.stream)) if apt]
        if trouble.parameter in candidates:
            return trouble.parameter
        found = {name: re.search(_WORDS.get(name, rf"\b{name}\b"), trouble.words, re.IGNORECASE) for name in candidates}
        places = {name: match.start() for name, match in found.items() if match}
        if (
            not places
            and self.limit in sent
            and re.search(r"context length|context window", trouble.words, re.IGNORECASE)
        ):
            return self.limit
        return min(places, key=lambda name: places[name], default=None)

    def differences(self, before: "RequestForm") -> list[str]:
        """What differs from an earlier form, a few words each, for the log."""
        said = {
            "several": "without n, each answer by a request of its own",
            "temperature": "without temperature",
            "limit": f"with {self.limit} for max_tokens"
            if self.limit
            else "without a bound on the tokens of an answer",
            "stream": "with stream",
            "stream_options": "without stream_options",
            "system": "with the system text in the first user message",
            "path": f"at the address with {self.path}",
        }
        return [words for name, words in said.items() if getattr(self, name) != getattr(before, name)]
