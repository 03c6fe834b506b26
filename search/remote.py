"""A language model behind a service that speaks OpenAI's chat completions."""

import asyncio
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from errors import UsageError
from search.protocol import BudgetSpent, Message, Reply, Request, ServiceAway, Usage, text_of

RETRIES = 6  # of the client for one request; with its backoff they span about half a minute

CONNECT_TIMEOUT = 15.0  # seconds

CONCURRENCY = 8  # requests under way at once

POLL_INTERVAL = 0.25  # seconds between two looks at what is waited for


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
            text = text_of(getattr(getattr(choice, "message", None), "content", None))
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


def _count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise
