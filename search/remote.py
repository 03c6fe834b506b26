"""A language model behind a service that speaks OpenAI's chat completions."""

import asyncio
import json
import os
import random
import re
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from errors import UsageError, plain_line
from search.completions import Completion, read_completion
from search.protocol import BudgetSpent, LanguageModel, Message, Reply, Request, ServiceAway, Usage
from search.request_form import RequestForm
from search.service_errors import NO_CONNECTION, Trouble, read_trouble
from search.turns import Turns

RETRIES = 6  # of one request after errors other than limits and overload; with the backoff, about half a minute

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds before a request is repeated, when the service names none

CONNECT_TIMEOUT = 15.0  # seconds

CONCURRENCY = 8  # concurrent requests

POLL_INTERVAL = 0.25  # seconds between two checks for an answer

_PATIENCE = 1 / 3  # of the time left, for a service that was never seen to answer a request for several texts

_SILENCE = "silence"  # the code of a trouble: no answer came in time

_ANSWER = 400  # tokens of an answer, until one has come

_WORTH_SAYING = 3.0  # seconds of waiting from which the log mentions it


class RemoteModel(LanguageModel):
    """A model behind a service that speaks OpenAI's chat completions, through the ``openai`` client.

    The key and, if it is not OpenAI's own, the service's address come from ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``;
    a query in the address (``?api-version=...``) is sent with every request. What may succeed later is retried: rate
    limits and overload for as long as they last, lost connections and server errors a few times, all of it within the
    request's deadline. A request that is refused is sent in other forms, and the form that works is kept.

    Args:
        name: the model's name at the service.
        temperature: sampling temperature.
        answer_tokens: the limit on one answer that is sent, 0 for the service's own.
        options: parameters for the body of every request, which override ours; None leaves one of ours out.
        max_calls: requests in all, 0 for no limit. Retries of a request that did not get through are not counted.
        max_tokens: tokens in all, both ways, 0 for no limit. The request that exceeds it is the last one.
        turns: through which requests wait for their turn among those of other runs; None sends them at once.

    Raises:
        UsageError: the key is missing or malformed, or the address is not one.
    """

    costs = True

    def __init__(
        self,
        name: str,
        *,
        temperature: float = 1.0,
        answer_tokens: int = 0,
        options: Mapping[str, Any] | None = None,
        max_calls: int = 0,
        max_tokens: int = 0,
        turns: Turns | None = None,
    ) -> None:
        self.name = name
        self.usage = Usage()
        self.max_calls = max_calls
        self.max_tokens = max_tokens
        self._temperature = temperature
        self._answer_tokens = answer_tokens
        self._options = dict(options or {})
        self._form = RequestForm()
        self._worked: set[str] = set()  # "one", "several": how many texts requests had that the service answered
        self._under_way = 0  # requests
        self._last_cost = 0  # tokens of the last one that was answered
        self._last_trouble: Trouble | None = None  # of the request under way
        self._cut_after: list[int] = []  # tokens after which its answers were cut off
        self._turns = turns
        self._answer_cost = _ANSWER  # tokens of one of the last answers
        self._held = self._held_until = 0.0  # seconds of waiting for turns in this call, and until when that lasts
        self._said_until = 0.0  # the log has already said that requests wait until then
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key:
            raise UsageError(
                f"--model {name} needs a key: set OPENAI_API_KEY (to anything, if your server wants none), "
                "or use --model builtin, which needs neither key nor network"
            )
        if not re.fullmatch(r"[!-~]+", self._key):
            raise UsageError("OPENAI_API_KEY holds characters that no key has, such as spaces; set it to the key alone")
        address = os.environ.get("OPENAI_BASE_URL", "").strip() or "https://api.openai.com/v1"
        server = re.match(r"https?://(?:[^/@]*@)?([^/@?]+)", address)
        if not server:
            raise UsageError("OPENAI_BASE_URL is not an address; give one like http://localhost:8000/v1")
        self._server = server[1]  # its name in messages, without any password in the address
        address, _, query = address.partition("?")
        self._url = re.sub(r"/+(chat/completions/*)?$", "", address)
        self._missing_path = "" if re.search(r"/v\d", self._url) else "/v1"
        self._query = dict(urllib.parse.parse_qsl(query))

    def ask(self, request: Request) -> Reply:
        """All texts in one call, if the service can do that; else the rest in parallel calls of one text each."""
        started = time.monotonic()
        import openai  # noqa: F401, takes seconds, which not every run needs and which the deadline does not count

        request = replace(request, deadline=request.deadline + time.monotonic() - started)
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._ask(request))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()  # asyncio.run would also wait for DNS lookup threads, which have no deadline

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned about the service."""
        return {"form": asdict(self._form), "worked": sorted(self._worked)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what was learned."""
        self._form = RequestForm(**state["form"])
        self._worked = set(state["worked"])

    async def _ask(self, request: Request) -> Reply:
        import openai

        self._last_trouble, self._cut_after, self._held = None, [], 0.0
        left = self._left(request)
        reply = Reply([])
        try:
            client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._url,
                default_query=self._query,
                # Azure expects the key in a header of this name.
                default_headers={"api-key": self._key} if "api-version" in self._query else None,
                max_retries=0,  # the client would give up while a limit lasts, and ignores waiting times in a body
                timeout=openai.Timeout(left, connect=min(left / 2, CONNECT_TIMEOUT)),
            )
        except Exception as error:  # its transport reads proxies and certificates from the environment, and may fail
            trouble = Trouble(NO_CONNECTION, f"no connection can be set up: {plain_line(str(error))}")
            raise ServiceAway(self._explain(trouble)) from None
        async with client:
            try:
                work = asyncio.ensure_future(self._collect(client, request, reply))
                await self._until_done(work, request)
            except (ServiceAway, BudgetSpent) as trouble:
                if not reply.texts:
                    raise
                reply.notes.append(str(trouble))
        if self._cut_after:
            self._note_cut_offs(reply)
        return replace(reply, held=self._held)

    def _left(self, request: Request) -> float:
        """Seconds until the deadline."""
        return max(request.deadline + self._held - time.monotonic(), 0.0)

    async def _until_done(self, work: "asyncio.Future[None]", request: Request) -> None:
        """Wait for `work`, but no longer than the request allows; what hangs is cancelled, connections included."""
        try:
            while not work.done():
                if why := request.out_of_time(self._held):
                    heard = f"; the last: {self._explain(self._last_trouble)}" if self._last_trouble else ""
                    raise ServiceAway(f"{self.name} at {self._server} was not done when {why}{heard}")
                await asyncio.wait([work], timeout=min(POLL_INTERVAL, self._left(request)))
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _collect(self, client: Any, request: Request, reply: Reply) -> None:
        if self._form.several or "one" not in self._worked:
            await self._send(client, request, request.count, reply)
            if not reply.texts:
                return  # the next request may fare better; asking a broken service for the rest would not help
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one_more() -> None:
            async with slots:
                await self._send(client, request, 1, reply)

        outcomes = await asyncio.gather(
            *(one_more() for _ in range(request.count - len(reply.texts))), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send(self, client: Any, request: Request, count: int, reply: Reply) -> None:
        """Ask for `count` texts, retrying and changing the form where that helps; add what comes to `reply`."""
        usual = form = self._form
        first, retries = None, 0
        self._spend()
        while True:
            sent = form.parameters(count, self._temperature, self._answer_tokens)
            sent = {name: value for name, value in sent.items() if name not in self._options}
            trouble = await self._exchange(client, request, form, sent, reply)
            if trouble is None:
                if form != usual:
                    self._form = form
                    how = ", ".join(form.differences(usual))
                    reply.notes.append(f"{self._server} takes requests {how}; they are sent like that from now on")
                self._worked.add("several" if "n" in sent else "one")
                return
            first, self._last_trouble = first or trouble, trouble
            if other := self._other_form(form, trouble, sent, retries):
                form, retries = other, 0
                self._spend()
                continue
            if trouble.about_address and form.path:
                trouble = first  # report on the address as it was given
            if not trouble.passing or (retries >= RETRIES and not trouble.lasting):
                raise ServiceAway(self._explain(trouble))
            await self._wait(request, trouble, retries)
            retries += 1

    def _other_form(
        self, form: RequestForm, trouble: Trouble, sent: Mapping[str, Any], retries: int
    ) -> RequestForm | None:
        """The form to try after `trouble`, None for the same one."""
        if trouble.status >= 500 or trouble.status == NO_CONNECTION:
            if ("several" if "n" in sent else "one") in self._worked:
                return None  # the service takes this form, and is only briefly in trouble
            if trouble.status == NO_CONNECTION:
                hopeless = "n" in sent and (retries or trouble.code == _SILENCE)
                return replace(form, several=False) if hopeless else None
        return form.after(trouble, sent, self._missing_path)

    async def _exchange(
        self, client: Any, request: Request, form: RequestForm, sent: Mapping[str, Any], reply: Reply
    ) -> Trouble | None:
        """Send one request; add what comes to `reply`, or return what came instead."""
        import openai

        messages = form.messages(request.messages)
        number = await self._turn(request, _tokens_in(messages) + sent.get("n", 1) * self._answer_cost)
        left = self._left(request)
        patience = left * _PATIENCE if "n" in sent and "several" not in self._worked else left
        body = {name: value for name, value in {**sent, **self._options}.items() if value is not None}
        client = client.with_options(base_url=self._url + form.path)
        ask = client.chat.completions.with_raw_response.create(model=self.name, messages=messages, extra_body=body)
        unfinished, counted = True, None
        self._under_way += 1
        try:
            answer = await asyncio.wait_for(ask, patience)
            unfinished, counted = False, self.usage.tokens
            return self._take(answer.http_response.text, answer.headers, messages, reply)
        except asyncio.TimeoutError:
            return Trouble(NO_CONNECTION, f"it did not answer within {patience:.0f} s", code=_SILENCE)
        except openai.APIStatusError as error:
            unfinished = False
            return read_trouble(error.status_code, error.response.headers, error.response.text)
        except Exception as error:  # mostly of the connection; nothing that a server sends may end a run of hours
            unfinished = False
            why = error.__cause__ or error
            return Trouble(NO_CONNECTION, plain_line(str(why)) or type(why).__name__)
        finally:
            self._under_way -= 1
            counted = self.usage.tokens if counted is None else counted
            if unfinished:  # services bill what they work on, even if nobody waits for it any more
                self.usage.add(tokens_in=_tokens_in(messages))
            if self._turns:
                self._turns.used(number, self.usage.tokens - counted)

    def _take(self, body: str, headers: Mapping[str, str], messages: list[Message], reply: Reply) -> Trouble | None:
        """Add a body's texts to `reply`, or return the error that it holds instead."""
        completion = read_completion(body)
        if completion is None:
            trouble = read_trouble(200, headers, body)
            if trouble.page and self._missing_path:
                return trouble
            what = (
                self._explain(trouble) if trouble.page else f"{self._server} sent something else: {trouble.words[:99]}"
            )
            reply.notes.append(f"this is not a chat completion: {what}")
            return None
        errors = [error for error in (completion.error, *(choice.error for choice in completion.choices)) if error]
        if errors and not any(choice.text.strip() for choice in completion.choices):
            return read_trouble(200, headers, json.dumps({"error": errors[0]}))
        self._read(completion, messages, reply)
        return None

    def _read(self, completion: Completion, messages: list[Message], reply: Reply) -> None:
        """Add a completion's texts to `reply`, and count its tokens."""
        length = 0
        for choice in completion.choices:
            length += len(choice.text) + len(choice.refusal)
            if choice.text.strip():
                if choice.reason == "length":
                    reply.cut_off.append(len(reply.texts))
                reply.texts.append(choice.text)
            elif choice.refusal:
                reply.refused.append(len(reply.texts))
                reply.texts.append(choice.refusal)
            else:
                reason = plain_line(choice.reason) or "none"
                reply.notes.append(f"{self.name} gave an answer without text (finish_reason {reason})")
        if not completion.choices:
            reply.notes.append(f"{self._server} sent a completion without choices")
        # Servers that do not count tokens must not get around a budget: four characters are about a token.
        received = length // 4 if completion.tokens_out is None else completion.tokens_out
        sent = _tokens_in(messages) if completion.tokens_in is None else completion.tokens_in
        self._last_cost = sent + received
        self.usage.add(tokens_in=sent, tokens_out=received)
        self._answer_cost = received // max(len(completion.choices), 1) or self._answer_cost
        if any(choice.reason == "length" for choice in completion.choices):
            self._cut_after.append(received // len(completion.choices))

    def _note_cut_offs(self, reply: Reply) -> None:
        """Say which flag allows longer answers, and try the other name of the limit on a service that ignores it."""
        tokens, bound = min(self._cut_after), self._answer_tokens
        what = f"answers of {self.name} were cut off after about {tokens} tokens"
        ignored = bound and self._form.limit and tokens < bound / 2 and self._form.limit not in self._options
        if ignored and self._form.limit == "max_tokens":
            self._form = replace(self._form, limit="max_completion_tokens")
            reply.notes.append(f"{what}, in spite of max_tokens {bound}; max_completion_tokens is sent from now on")
        elif ignored:
            reply.notes.append(
                f"{what}, in spite of {self._form.limit} {bound}: the model's context may be full, or the service has "
                "another name for the bound, which --llm_options can send"
            )
        else:
            reply.notes.append(f"{what}; raise --max_answer_tokens (now {bound or 'left to the service'})")

    async def _turn(self, request: Request, tokens: int) -> int:
        """Wait until it is this run's turn to send a request of that many tokens; return the request's number."""
        if not self._turns:
            return 0
        number, seconds = self._turns.ask(tokens)
        now = time.monotonic()
        # Requests may wait at the same time; that time is excused only once.
        self._held += max(now + seconds - max(now, self._held_until), 0.0)
        self._held_until = max(self._held_until, now + seconds)
        if seconds >= _WORTH_SAYING:
            request.log(f"the sweep lets the next request to {self.name} go in {seconds:.0f} s")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._turns.used(number, 0)
            raise
        return number

    async def _wait(self, request: Request, trouble: Trouble, retries: int) -> None:
        """Wait as long as the service asks, else longer each time; ServiceAway when that exceeds the deadline."""
        if trouble.wait is None:
            seconds = min(FIRST_WAIT * 2**retries, LONGEST_WAIT) * random.uniform(0.75, 1.0)
        else:  # a service that says "at once" again and again is not taken at its word
            seconds = max(trouble.wait, 0.1 * min(retries, 50))
            if seconds >= self._left(request):
                raise ServiceAway(f"{self._explain(trouble)}; it asks to wait {seconds:.0f} s, beyond the deadline")
        now = time.monotonic()
        if seconds >= _WORTH_SAYING and now >= self._said_until:
            self._said_until = now + seconds
            request.log(f"{self._explain(trouble)}; it is asked again in {seconds:.0f} s")
        await asyncio.sleep(seconds)

    def _spend(self) -> None:
        """Count a request about to be sent; BudgetSpent when there is no room for it besides those under way."""
        used = self.usage.tokens_in + self.usage.tokens_out
        if self.max_calls and self.usage.calls >= self.max_calls:
            raise BudgetSpent(f"all {self.max_calls} requests of --max_llm_calls are used up")
        expected = self._under_way * self._last_cost
        if self.max_tokens and used + expected >= self.max_tokens:
            awaited = f" and about {expected} more under way" if self._under_way else ""
            raise BudgetSpent(f"{used} tokens are used{awaited}, --max_llm_tokens is {self.max_tokens}")
        self.usage.add(calls=1)

    def _explain(self, trouble: Trouble) -> str:
        text = trouble.explain(self._server, self.name, self._answer_tokens)
        # Shorter keys are placeholders for servers that need none.
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text


def _tokens_in(messages: list[Message]) -> int:
    """Roughly the tokens of a conversation."""
    return sum(len(message["content"]) for message in messages) // 4
