"""From messages to response texts: the language models behind ``--model``, and the recording of what they said.

Every model answers a :class:`Request` with a :class:`Reply`, or raises :class:`ServiceAway` or :class:`BudgetSpent`.
Nothing here knows what the texts are about.
"""

import asyncio
import difflib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from errors import UsageError

RETRIES = 6  # of the client for one request; with its backoff they span about half a minute
CONNECT_TIMEOUT = 15.0  # seconds
CONCURRENCY = 8  # requests under way at once
POLL_INTERVAL = 0.25  # seconds between two looks at what is waited for
SETTLED = 1.0  # seconds for which a manual answer must have stayed the same to be complete
NEXT_ANSWER = "----- next answer -----"

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
    """A conversation, and how many independent answers to it are wanted before `deadline` (``time.monotonic()``).

    Whoever waits for an answer asks `stop` several times a second, and gives up as soon as it says so.
    """

    messages: list[Message]
    count: int
    deadline: float
    round: int = 0
    parents: tuple[Parent, ...] = ()
    stop: Callable[[], bool] = lambda: False

    def out_of_time(self) -> str:
        """Why there is no use in waiting any longer; empty while there is."""
        if self.stop():
            return "the run was asked to stop"
        return "the deadline was reached" if time.monotonic() >= self.deadline else ""


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


class RemoteModel:
    """A model behind a service that speaks OpenAI's chat completions, through the ``openai`` client.

    The key and, if it is not OpenAI's own, the service's address come from ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``.
    The client repeats what may succeed later (rate limits, server errors, lost connections) with its own backoff;
    whatever it does ends at the request's deadline.

    Args:
        name: the model's name at the service.
        temperature: sampling temperature.
        max_calls: requests in all, 0 for no bound. The client's repetitions are not counted.
        max_tokens: tokens in all, both ways, 0 for no bound. The request that goes beyond it is the last one.

    Raises:
        UsageError: the key is missing or cannot be one, or the address is none.
    """

    def __init__(self, name: str, *, temperature: float = 1.0, max_calls: int = 0, max_tokens: int = 0) -> None:
        self.name = name
        self.usage = Usage()
        self.max_calls = max_calls
        self.max_tokens = max_tokens
        self._temperature = temperature
        self._refused: set[str] = set()  # parameters that the service does not know; they are not sent again
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._url = os.environ.get("OPENAI_BASE_URL", "").strip() or "https://api.openai.com/v1"
        if not self._key:
            raise UsageError(
                f"--model {name} needs a key: set OPENAI_API_KEY (to anything, if your server wants none), "
                "or use --model builtin, which needs neither key nor network"
            )
        if not re.fullmatch(r"[!-~]+", self._key):
            raise UsageError("OPENAI_API_KEY holds characters that no key has, such as spaces; set it to the key alone")
        address = re.match(r"https?://(?:[^/@]*@)?([^/@]+)", self._url)
        if not address:
            raise UsageError("OPENAI_BASE_URL is no address; give one like http://localhost:8000/v1")
        self._server = address[1]  # what messages call it: without a password that the address may hold

    def ask(self, request: Request) -> Reply:
        """All texts in one call, if the service can do that; else the rest in parallel calls of one text each."""
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._ask(request))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()  # asyncio.run would also wait for the threads that look up names, which know no deadline

    async def _ask(self, request: Request) -> Reply:
        import openai  # it takes a second, and most of the program does not need it

        left = max(request.deadline - time.monotonic(), 0.0)
        reply = Reply([])
        try:
            client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._url,
                max_retries=RETRIES,
                timeout=openai.Timeout(left, connect=min(left, CONNECT_TIMEOUT)),
            )
        except Exception as error:  # its transport reads proxies and certificates from the environment, and may stumble
            raise ServiceAway(f"no connection to {self._server} can be set up: {self._redact(error)}") from None
        async with client:
            try:
                work = asyncio.ensure_future(self._collect(client, request, reply))
                await self._until_done(work, request)
            except (ServiceAway, BudgetSpent) as trouble:
                if not reply.texts:
                    raise
                reply.notes.append(str(trouble))
        return reply

    async def _until_done(self, work: "asyncio.Future[None]", request: Request) -> None:
        """Wait for `work`, but no longer than the request allows; what hangs is taken down with its connections."""
        try:
            while not work.done():
                if why := request.out_of_time():
                    raise ServiceAway(f"{self.name} at {self._server} was not done when {why}")
                left = max(request.deadline - time.monotonic(), 0.0)
                await asyncio.wait([work], timeout=min(POLL_INTERVAL, left))
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _collect(self, client: Any, request: Request, reply: Reply) -> None:
        await self._send(client, request.messages, request.count, reply)
        if not reply.texts:
            return  # the next request may fare better; asking a broken service for the rest would not
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one_more() -> None:
            async with slots:
                await self._send(client, request.messages, 1, reply)

        outcomes = await asyncio.gather(
            *(one_more() for _ in range(request.count - len(reply.texts))), return_exceptions=True
        )
        for trouble in outcomes:
            if isinstance(trouble, BaseException):
                raise trouble

    async def _send(self, client: Any, messages: list[Message], count: int, reply: Reply) -> None:
        """One call; what comes is added to `reply`."""
        import openai

        while True:
            options: dict[str, Any] = {"temperature": self._temperature, **({"n": count} if count > 1 else {})}
            options = {name: value for name, value in options.items() if name not in self._refused}
            self._spend()
            try:
                completion = await client.chat.completions.create(model=self.name, messages=messages, **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = _refused_parameter(error.param, str(error), options)
                if refused is None:
                    raise ServiceAway(f"{self._server} refuses the request: {self._redact(error)}") from None
                self._refused.add(refused)
                reply.notes.append(f"{self._server} does not take the parameter {refused}; it is not sent any more")
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise ServiceAway(
                    f"{self._server} does not accept the key ({error.status_code}); check OPENAI_API_KEY"
                ) from None
            except openai.NotFoundError:
                raise ServiceAway(
                    f"{self._server} knows no model {self.name} (404); check --model and OPENAI_BASE_URL"
                ) from None
            except openai.APIStatusError as error:
                raise ServiceAway(f"{self._server} answers {error.status_code}: {self._redact(error)}") from None
            except openai.APIConnectionError as error:
                raise ServiceAway(f"{self._server} cannot be reached: {self._redact(error)}") from None
            except Exception as error:
                # The client lets the errors of its JSON and type parsers through. Whatever a server manages to send,
                # it must not end a run of hours.
                reply.notes.append(f"{self._server} sent a malformed answer ({type(error).__name__})")
                return
            else:
                self._read(completion, messages, reply)
                return

    def _spend(self) -> None:
        used = self.usage.tokens_in + self.usage.tokens_out
        if self.max_calls and self.usage.calls >= self.max_calls:
            raise BudgetSpent(f"all {self.max_calls} requests of --max_llm_calls are used up")
        if self.max_tokens and used >= self.max_tokens:
            raise BudgetSpent(f"{used} tokens are used, --max_llm_tokens is {self.max_tokens}")
        self.usage.add(calls=1)

    def _read(self, completion: Any, messages: list[Message], reply: Reply) -> None:
        """Add a completion's texts to `reply`, whatever the service made of the protocol."""
        choices = getattr(completion, "choices", None)
        if not isinstance(choices, list):
            reply.notes.append(f"{self._server} sent something that is no chat completion")
            return
        length = 0
        for choice in choices:
            text = _text(getattr(getattr(choice, "message", None), "content", None))
            reason = getattr(choice, "finish_reason", None)
            length += len(text)
            if not text.strip():
                reply.notes.append(f"{self.name} gave an answer without text (finish_reason {reason})")
                continue
            if reason == "length":
                reply.cut_off.append(len(reply.texts))
            reply.texts.append(text)
        if not choices:
            reply.notes.append(f"{self._server} sent a completion without choices")
        # Servers that do not count must not get around a budget: four characters are about a token.
        usage = getattr(completion, "usage", None)
        guess_in = sum(len(message["content"]) for message in messages) // 4
        self.usage.add(
            tokens_in=_count(getattr(usage, "prompt_tokens", None), guess_in),
            tokens_out=_count(getattr(usage, "completion_tokens", None), length // 4),
        )

    def _redact(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if len(self._key) >= 8:  # shorter ones are the placeholders that servers without keys get
            text = text.replace(self._key, "[key]")
        return text if len(text) <= 300 else text[:300] + "..."


def _refused_parameter(param: str | None, message: str, sent: Mapping[str, Any]) -> str | None:
    """Which of the parameters sent an error is about: the one that it names, else the first that its text mentions."""
    named = (param or "").split(".")[-1]
    if named in sent:
        return named
    # Not every service says n: some speak of choices. A backslash before it is the end of a quoted line.
    spelled = {name: r"(?<!\\)\bn\b|\bchoices?\b" if name == "n" else rf"\b{name}\b" for name in sent}
    places = {name: match.start() for name, words in spelled.items() if (match := re.search(words, message))}
    return min(places, key=lambda name: places[name], default=None)


def _text(content: Any) -> str:
    """A message's content as text; some services send a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    # JSON may hold half of a character, which no file can be written with.
    return content.encode("utf-8", "replace").decode("utf-8") if isinstance(content, str) else ""


def _count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise


class ReplayModel:
    """Gives what a run recorded, round by round, as it came: the same texts, the same failures, free of cost.

    Args:
        directory: a run directory, or any directory with an ``llm.jsonl``.

    Raises:
        UsageError: there is no recording, or it cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self.name = f"replay:{directory}"
        self.usage = Usage()
        path = Path(directory) / "llm.jsonl"
        self._rounds: dict[int, list[dict[str, Any]]] = {}
        for row in _read_rows(path):
            self._rounds.setdefault(row["round"], []).append(row)

    def ask(self, request: Request) -> Reply:
        """The round's next recorded reply; ServiceAway when there are no more."""
        rows = self._rounds.get(request.round)
        if not rows:
            raise ServiceAway(f"the recording {self.name[7:]} has no more answers for search round {request.round}")
        row = rows.pop(0)
        if row.get("error"):
            kind = BudgetSpent if row["error"]["kind"] == "BudgetSpent" else ServiceAway
            raise kind(row["error"]["message"])
        texts = [_text(text) for text in row["texts"]]
        return Reply(texts, row.get("parents", []), row.get("cut_off", []), row.get("notes", []))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise UsageError(
            f"there is no recording {path} ({error.strerror}); expected a run directory, or one of recordings/"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text, and so no recording") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not _is_exchange(row):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UsageError(f"{path}, line {number}: this is no recorded exchange with a model") from None
        rows.append(row)
    return rows


def _is_exchange(row: dict[str, Any]) -> bool:
    """Whether a row has what a replay gives. Raises LookupError, TypeError or AttributeError for some that have not."""
    texts, error = row["texts"], row.get("error")
    parents, cut_off, notes = row.get("parents", []), row.get("cut_off", []), row.get("notes", [])
    return (
        isinstance(row["round"], int)
        and all(isinstance(part, list) for part in (texts, parents, cut_off, notes, *parents))
        and all(isinstance(text, str) for text in (*texts, *notes))
        and all(isinstance(number, int) for numbers in (cut_off, *parents) for number in numbers)
        and len(parents) in (0, len(texts))
        and (error is None or (isinstance(error["kind"], str) and isinstance(error["message"], str)))
    )


class ManualModel:
    """Writes each prompt to a file and waits for the answer in a file beside it.

    The files are ``0001_prompt.txt`` and ``0001_answer.txt``, and so on; numbers that an earlier run used are skipped.
    An answer file may hold several answers, with the line `NEXT_ANSWER` between them.

    Args:
        directory: where the files lie; made if it is not there.
        log: takes one line that says which file is waited for.
    """

    def __init__(self, directory: str, log: Callable[[str], None]) -> None:
        if not directory:
            raise UsageError("--model manual: names no directory; give it as in --model manual:prompts_here")
        self.name = f"manual:{directory}"
        self.usage = Usage()
        self.directory = Path(directory)
        self.log = log

    def ask(self, request: Request) -> Reply:
        """What stands in the answer file; ServiceAway when it is not there by the deadline."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            used = [int(path.name[:4]) for path in self.directory.glob("[0-9][0-9][0-9][0-9]_*.txt")]
            stem = f"{max(used, default=0) + 1:04d}"
            prompt = self.directory / f"{stem}_prompt.txt"
            answer = self.directory / f"{stem}_answer.txt"
            prompt.write_text(_manual_prompt(request, answer.name), encoding="utf-8")
        except OSError as error:
            raise ServiceAway(f"no prompt can be written to {self.directory}: {error.strerror}") from None
        self.usage.add(calls=1)
        self.log(f"{prompt} waits for an answer in {answer.name}")
        seen, since = (0, 0), 0.0
        while not (why := request.out_of_time()):
            try:
                state = answer.stat()
                if (state.st_size, state.st_mtime_ns) != seen:  # whoever writes it may not be done yet
                    seen, since = (state.st_size, state.st_mtime_ns), time.monotonic()
                elif state.st_size and time.monotonic() - since >= SETTLED:
                    texts = answer.read_text(encoding="utf-8-sig", errors="replace").split(NEXT_ANSWER)
                    return Reply([text.strip() + "\n" for text in texts if text.strip()])
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ServiceAway(f"{answer} cannot be read: {error.strerror}") from None
            time.sleep(min(POLL_INTERVAL, max(request.deadline - time.monotonic(), 0.0)))
        raise ServiceAway(f"no answer was in {answer} when {why}")


def _manual_prompt(request: Request, answer: str) -> str:
    head = (
        f"Give everything below the line to a language model, and put its answer into {answer} beside this file.\n"
        f"{request.count} independent answers are wanted; fewer will do. Between two answers put the line\n"
        f"{NEXT_ANSWER}\n{'_' * 80}\n"
    )
    if len(request.messages) == 2:  # what is said once, to begin with, reads best as one text
        return head + "\n" + "\n".join(message["content"] for message in request.messages)
    return head + "".join(f"\n[{message['role']}]\n\n{message['content']}" for message in request.messages)


def connect(
    model: str,
    *,
    builtin: LanguageModel,
    temperature: float = 1.0,
    max_calls: int = 0,
    max_tokens: int = 0,
    log: Callable[[str], None] = print,
) -> LanguageModel:
    """The model that ``--model`` names: ``builtin``, ``replay:DIR``, ``manual:DIR``, or one of a remote service.

    Nothing is sent before the first request. Raises UsageError when that model cannot be used.
    """
    kind, _, directory = model.partition(":")
    if model == "builtin":
        return builtin
    if kind == "replay":
        return ReplayModel(directory)
    if kind == "manual":
        return ManualModel(directory, log)
    if difflib.get_close_matches(model.lower(), ["builtin"], cutoff=0.75):
        raise UsageError(f"there is no --model {model}; did you mean builtin?")
    return RemoteModel(model, temperature=temperature, max_calls=max_calls, max_tokens=max_tokens)
