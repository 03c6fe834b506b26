"""What a service says instead of an answer: its own sentence, how long it asks to wait, and what a user can do."""

import email.utils
import html
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from errors import plain_line

NO_CONNECTION = 0  # in place of a status: nothing came, or not all of it

_SHOWN = 300  # characters of a service's own words in a message

# Where services put their message; metadata.raw holds that of the provider behind a gateway.
_TELLING = (
    *("error", "errors", "message", "msg", "detail", "error_message", "error_msg", "error_description"),
    *("description", "reason", "title", "metadata", "raw"),
)
_PASSING = {408, 409, 425, 429}  # these may succeed later, as may all of 500 and above
_NEVER_PASSING = {501, 505}
_LASTING = {429, 503, 529}  # limits and overload, which are waited out however long they last

_UNITS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNIT = r"(?:ms|milliseconds?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])"
_SPAN = rf"(?:\d+(?:\.\d+)?\s*{_UNIT}[\s,]*(?:and\s+)?)+"
_WAIT_IN_WORDS = re.compile(rf"\b(?:try|retry|retrying|wait|again|available|resets?)\b\D{{0,40}}?({_SPAN})", re.I)
_WAIT_IN_FIELD = re.compile(
    r"(?:retry_?(?:delay|after)|wait_?(?:time|for)?|estimated_time)_?(ms|milliseconds)?(?:_?s(?:ec(?:ond)?s)?)?"
    rf"[\s:={{\"'\\]+(?:seconds[\s:=\"'\\]+)?({_SPAN}|\d+(?:\.\d+)?)",
    re.I,
)


@dataclass(frozen=True)
class Trouble:
    """One answer of a service that is not a completion.

    `status` is the HTTP status, or the one that an error inside a 200 stands for; `words` the service's own message in
    one line; `parameter` the one that it complains about, if it names one; `code` its own short word for the error;
    `wait` the seconds that it asks to wait, None when it does not say; `page` whether it is a web page.
    """

    status: int
    words: str
    parameter: str = ""
    code: str = ""
    wait: float | None = None
    page: bool = False
    may_retry: bool = True

    @property
    def about_key(self) -> bool:
        """Whether the key is refused; some services answer 400 for that."""
        return self.status == 401 or bool(self.status < 500 and re.search(r"\bapi[ _-]?key\b", self.words, re.I))

    @property
    def about_credit(self) -> bool:
        """Whether the user has to pay first."""
        spent = r"insufficient[ _](quota|credit|funds|balance)|credit balance|billing"
        return self.status == 402 or (self.wait is None and bool(re.search(spent, f"{self.code} {self.words}", re.I)))

    @property
    def about_model(self) -> bool:
        """Whether the service says that it has no such model."""
        unknown = r"model\b.{0,80}\b(not found|not exist|unknown)|(unknown|invalid|no such) model\b|^model_not_found$"
        return self.status < 500 and any(re.search(unknown, said, re.I) for said in (self.words, self.code))

    @property
    def about_address(self) -> bool:
        """Whether there seems to be nothing at this path of the server."""
        if self.about_model or (self.status == 404 and self.about_parameters):
            return False
        unknown = re.search(r"unexpected endpoint|unknown (url|path|route|endpoint)", self.words, re.I)
        return self.status in {404, 405} or (self.status < 500 and bool(unknown)) or (self.status == 200 and self.page)

    @property
    def about_parameters(self) -> bool:
        """Whether another form of the same request may be taken."""
        if self.about_key or self.about_credit:
            return False
        if self.status == 404:
            return bool(re.search(r"\bparameters?\b", self.words, re.I))
        if self.status == 429 or self.wait is not None:
            return bool(re.search(r"too large", self.words, re.I))
        return self.status in {400, 406, 413, 415, 422, 500, 501} and not (self.page or self.about_model)

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        if not self.may_retry or self.about_credit:
            return False
        passing = self.status in _PASSING or (self.status >= 500 and self.status not in _NEVER_PASSING)
        return passing or self.status == NO_CONNECTION or self.wait is not None

    @property
    def lasting(self) -> bool:
        """Whether the service is there and only asks for patience, so that waiting until the deadline is worth it."""
        return self.passing and (self.status in _LASTING or self.wait is not None)

    def explain(self, server: str, model: str, answer_tokens: int) -> str:
        """One line: what happened, in the service's own words, and what to do about it."""
        words = self.words if len(self.words) <= _SHOWN else self.words[:_SHOWN] + "..."
        if self.status == NO_CONNECTION:
            return f"{server} cannot be reached: {words}"
        said = f"({self.status}): {words}"
        if self.page:
            what = f"{server} sends a web page {said}"
            return f"{what}; check OPENAI_BASE_URL, and whether a proxy (HTTPS_PROXY) wants you to sign in"
        if self.about_key:
            return f"{server} does not accept the key {said}; check OPENAI_API_KEY"
        if self.about_credit:
            limit = f" (now {answer_tokens})" if answer_tokens else ""
            return f"{server} refuses for want of credit {said}; add credit there, or lower --max_answer_tokens{limit}"
        if self.status == 403:
            what = f"{server} refuses access {said}"
            return f"{what}; check that OPENAI_API_KEY, its project and your country may use {model}"
        if self.status == 404 or self.about_model or self.about_address:
            what = f"{server} knows no model {model}, or has nothing at this address {said}"
            return f"{what}; check --model, and OPENAI_BASE_URL, which mostly ends in /v1"
        if self.status < 500 and not self.passing:
            return f"{server} refuses the request {said}; --llm_options can add or leave out parameters"
        return f"{server} answers {said}"


def read_trouble(status: int, headers: Mapping[str, str], body: str) -> Trouble:
    """What an answer with a status of 400 or above says, or one of 200 that holds an error."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = body
    error = _first_error(value)
    code = next((str(error[key]) for key in ("code", "type", "status") if error.get(key)), "")
    words = own_words(value) or plain_line(body)
    page = isinstance(value, str) and _is_page(body)
    if status < 400 and not page:
        status = _meant_status(error.get("code"), f"{code} {words}")
    return Trouble(
        status,
        words or "without a word",
        _parameter(error),
        code,
        _stated_wait(headers, body),
        page=page,
        may_retry=headers.get("x-should-retry", "").lower() != "false",
    )


def own_words(value: Any) -> str:
    """The sentences in an error's JSON value, or in the text of a page, as one plain line."""
    return plain_line("; ".join(dict.fromkeys(filter(None, map(str.strip, _sentences(value))))))


def _sentences(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.lstrip()[:1] in {"{", "["}:  # one service's error, quoted by another
            try:
                yield from _sentences(json.loads(value))
                return
            except (ValueError, RecursionError):
                pass
        yield _page_text(value) if _is_page(value) else value
    elif isinstance(value, list):
        for part in value:
            yield from _sentences(part)
    elif isinstance(value, dict):
        place = value.get("loc")  # FastAPI's way to name what is wrong
        if isinstance(place, list) and isinstance(value.get("msg"), str):
            yield f"{'.'.join(map(str, place))}: {value['msg']}"
            return
        for key in _TELLING:
            yield from _sentences(value.get(key))


def _first_error(value: Any) -> dict[str, Any]:
    """The object that describes the error, in a list or not, below ``error`` or not."""
    for key in ("error", "detail", 0):
        if isinstance(value, list):
            value = value[0] if value else {}
        inner = value.get(key) if isinstance(value, dict) else None
        value = inner if isinstance(inner, dict | list) and inner else value
    return value if isinstance(value, dict) else {}


def _parameter(error: Mapping[str, Any]) -> str:
    place = error.get("loc")
    named = place[-1] if isinstance(place, list) and place else error.get("param") or error.get("parameter")
    return named.split(".")[-1] if isinstance(named, str) else ""


def _meant_status(code: Any, words: str) -> int:
    """The status that an error within a 200 stands for: the one that it carries, else what its message implies."""
    if str(code).isdecimal() and 400 <= int(code) < 600:
        return int(code)
    if re.search(r"rate.?limit|too many requests", words, re.I):
        return 429
    if re.search(
        r"overload|unavailable|time.?out|timed out|temporar|internal|try again|retry|busy|capacity", words, re.I
    ):
        return 503
    return 400


def _stated_wait(headers: Mapping[str, str], body: str) -> float | None:
    """Seconds that the service asks to wait, by its headers or else its body; None when it does not say."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        stated = headers.get(name, "").strip()
        try:
            seconds = float(stated) * factor
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(stated).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    if field := _WAIT_IN_FIELD.search(body):
        if re.fullmatch(r"[\d.]+", field[2]):
            return float(field[2]) * (0.001 if field[1] else 1.0)
        return _seconds(field[2])
    return _seconds(words[1]) if (words := _WAIT_IN_WORDS.search(body)) else None


def _seconds(span: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|mil|[smh])", span.lower())
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _is_page(text: str) -> bool:
    return bool(re.match(r"\s*(<!doctype html|<html|<head|<\?xml)", text, re.I))


def _page_text(page: str) -> str:
    """The text of a web page without its markup, the title first, as on the page."""
    page = re.sub(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", " ", page, flags=re.I | re.S)
    return html.unescape(re.sub(r"<[^>]*>", " ", page))
