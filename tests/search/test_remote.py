"""A model behind a service: the openai client against a real server that misbehaves."""

import json
import socket
import threading
import time

import pytest

from chat_client import KEY, MESSAGES, request
from chat_server import Answer, completion, failure
from search import remote
from search.connect import connect
from search.protocol import BudgetSpent, ServiceAway, Usage
from search.remote import RemoteModel


def numbered(body, number):
    return completion(*(f"text {number}.{index}" for index in range(body.get("n", 1))))


def ignoring_n(body, number):
    return completion(f"text {number}")


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_all_samples_come_from_one_call(service):
    model, seen = service(numbered, temperature=0.7)
    assert model.ask(request(4)).texts == ["text 0.0", "text 0.1", "text 0.2", "text 0.3"]
    assert len(seen.bodies) == 1
    assert seen.bodies[0] == {"model": "some-model", "messages": MESSAGES, "temperature": 0.7, "n": 4}
    assert seen.paths == ["/v1/chat/completions"]
    assert seen.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert model.usage == Usage(1, 20, 20)


def test_the_rest_is_asked_in_parallel_when_n_is_ignored(service):
    together = threading.Barrier(3)

    def behaviour(body, number):
        if number:
            together.wait(5)  # the three others must be under way at the same time
        return ignoring_n(body, number)

    model, seen = service(behaviour)
    assert sorted(model.ask(request(4)).texts) == ["text 0", "text 1", "text 2", "text 3"]
    assert ["n" in body for body in seen.bodies] == [True, False, False, False]
    assert model.usage.calls == 4


def test_requests_under_way_at_once_are_bounded(service):
    def behaviour(body, number):
        time.sleep(0.03)
        return ignoring_n(body, number)

    model, seen = service(behaviour)
    assert len(model.ask(request(30)).texts) == 30
    assert 2 <= seen.busiest <= remote.CONCURRENCY


def test_part_of_n_is_completed(service):
    model, seen = service(lambda body, number: completion(*["text"] * min(3, body.get("n", 1))))
    assert len(model.ask(request(5)).texts) == 5
    assert len(seen.bodies) == 3


@pytest.mark.parametrize(
    ("refused", "status", "message", "param"),
    [
        ("temperature", 400, "Unsupported value: 'temperature' does not support 1 with this model.", "temperature"),
        ("temperature", 400, "temperature is not supported; only `n` and `model` are", None),
        ("n", 400, "Invalid value for 'n': only 1 is allowed, whatever the temperature", None),
        ("n", 400, "Only one completion choice is allowed", None),
        (
            "n",
            422,
            '[{"type": "extra_forbidden", "loc": ["body", "n"], "msg": "Extra inputs are not permitted"}]',
            None,
        ),
    ],
)
def test_exactly_the_refused_parameter_is_dropped_for_good(service, refused, status, message, param):
    def behaviour(body, number):
        return failure(status, message, param) if refused in body else numbered(body, number)

    model, seen = service(behaviour)
    reply = model.ask(request(3))
    assert len(reply.texts) == 3
    assert any(refused in note for note in reply.notes)
    model.ask(request(3))
    assert sum(refused in body for body in seen.bodies) == 1
    (other,) = {"n", "temperature"} - {refused}
    assert other in seen.bodies[1]


def test_two_refused_parameters_are_dropped_one_after_the_other(service):
    def behaviour(body, number):
        for name in ("n", "temperature"):
            if name in body:
                return failure(400, f"Unsupported parameter: {name}", name)
        return completion("text")

    model, seen = service(behaviour)
    assert len(model.ask(request(2)).texts) == 2
    assert len(seen.bodies) == 4


@pytest.mark.parametrize("param", ["messages", "temperature", None])
def test_a_refusal_that_dropping_does_not_cure_ends_the_request(service, param):
    model, seen = service(failure(400, "This model's maximum context length is 10 tokens", param))
    for _ in range(2):  # nothing is learned from it
        with pytest.raises(ServiceAway, match="maximum context length"):
            model.ask(request(2))
    tried = [{"n", "temperature"} & set(body) for body in seen.bodies]
    assert [len(names) for names in tried] == [2, 1, 0, 2, 1, 0]


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "what"),
    [
        (401, "Incorrect API key provided: ", "OPENAI_API_KEY"),
        (400, "API key not valid. Please pass a valid API key, not ", "OPENAI_API_KEY"),
        (403, "Country, region, or territory not supported: ", "OPENAI_API_KEY.*country"),
        (404, "The model does not exist for ", "no model some-model"),
    ],
)
def test_a_wrong_key_or_model_fails_at_once_and_keeps_the_secret(service, status, words, what):
    model, seen = service(failure(status, words + KEY))
    with pytest.raises(ServiceAway, match=what) as caught:
        model.ask(request(5))
    assert len(seen.bodies) == 1
    assert words in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_in_an_error_is_redacted(service):
    model, _ = service(failure(400, f"bad header: Bearer {KEY}"))
    with pytest.raises(ServiceAway) as caught:
        model.ask(request())
    assert "Bearer [key]" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_placeholder_for_a_key_is_no_secret(service, monkeypatch):
    _, _ = service(failure(400, "unexpected text"))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with pytest.raises(ServiceAway, match="unexpected text"):
        RemoteModel("m").ask(request())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out_as_long_as_the_server_says(service, status):
    times = []

    def behaviour(body, number):
        times.append(time.monotonic())
        return failure(status, "busy", Retry_After="0.2") if number < 2 else completion("text")

    model, seen = service(behaviour)
    assert model.ask(request()).texts == ["text"]
    assert len(seen.bodies) == 3
    assert 0.2 <= times[1] - times[0] < 0.45
    assert model.usage.calls == 1


def test_a_server_that_fails_again_and_again_is_given_up(service, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", 2)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    model, seen = service(failure(500, "out of order"))
    with pytest.raises(ServiceAway, match=r"500.*out of order"):
        model.ask(request(4))
    assert len(seen.bodies) == 4  # once with n, three times without it


@pytest.mark.parametrize(
    "answer",
    [
        failure(429, "come back later"),
        Answer("{}", delay=30),
        Answer(" " * 10_000, drip=0.05),
    ],
    ids=["a limit that lasts", "silence", "drip"],
)
def test_nothing_outlasts_the_deadline(service, answer):
    model, _ = service(answer)
    before, started = threading.active_count(), time.monotonic()
    with pytest.raises(ServiceAway, match="was not done when the deadline"):
        model.ask(request(4, seconds=1.0))
    while threading.active_count() > before + 2:  # two of the server; one that looked up a name may be leaving
        assert time.monotonic() - started < 2.0
        time.sleep(0.01)
    assert time.monotonic() - started < 2.0


def test_a_name_that_nobody_looks_up_does_not_outlast_the_deadline(service, monkeypatch):
    def look_up(*_, **__):
        time.sleep(4)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.invalid/v1")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    started = time.monotonic()
    with pytest.raises(ServiceAway, match="deadline"):
        RemoteModel("m").ask(request(seconds=1.0))
    assert time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "http://localhost:port/v1"),
        ("ALL_PROXY", "nonsense://127.0.0.1:1"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_an_environment_in_which_no_client_can_be_made(monkeypatch, name, value):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://localhost:1/v1")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "RETRIES", 0)
    with pytest.raises(ServiceAway, match=r"^(no connection to )?localhost:(1|port) "):
        RemoteModel("m").ask(request())


def test_waiting_ends_when_the_run_is_asked_to_stop(service, tmp_path):
    remote, _ = service(Answer("{}", delay=30))
    for model in (remote, connect(f"manual:{tmp_path}", builtin=remote)):
        started = time.monotonic()
        with pytest.raises(ServiceAway, match="asked to stop"):
            model.ask(request(stop=lambda started=started: time.monotonic() > started + 0.2))
        assert time.monotonic() - started < 1.5


def test_the_connection_of_a_slow_stream_is_closed_at_the_deadline(service):
    model, seen = service(Answer(" " * 10_000, drip=0.02))
    with pytest.raises(ServiceAway):
        model.ask(request(seconds=0.5))
    assert seen.hung_up.wait(3)


def test_what_came_before_the_deadline_is_kept(service):
    model, _ = service(lambda body, number: completion("text") if number < 3 else Answer("{}", delay=30))
    reply = model.ask(request(8, seconds=4.0))
    assert reply.texts == ["text"] * 3
    assert "was not done" in reply.notes[-1]


def test_a_dropped_connection_is_tried_again(service):
    def behaviour(body, number):
        good = completion("text")
        good.drop = number == 0
        return good

    model, seen = service(behaviour)
    assert model.ask(request()).texts == ["text"]
    assert len(seen.bodies) == 2


def test_a_body_that_cannot_be_unpacked(service, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", 0)
    model, _ = service(Answer(b"not gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ServiceAway, match="cannot be reached"):
        model.ask(request())


def test_nobody_listening(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(remote, "RETRIES", 1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:password@127.0.0.1:{port}/v1")
    with pytest.raises(ServiceAway, match=rf"127.0.0.1:{port} cannot be reached") as caught:
        RemoteModel("m").ask(request())
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html><body>Sign in to the proxy</body></html>", content_type="text/html"),
        Answer("{ this is no json"),
        Answer(""),
        Answer("null"),
        Answer("[]"),
        Answer('"text"'),
        Answer("17"),
        Answer("{}"),
        Answer('{"choices": null}'),
        Answer('{"choices": []}'),
        Answer('{"choices": [null]}'),
        Answer('{"choices": "text"}'),
        Answer('{"choices": {"message": "text"}}'),
        Answer('{"choices": [{"message": null}]}'),
        Answer('{"choices": [{"message": {"content": null}, "finish_reason": "length"}], "usage": "many"}'),
        Answer('{"choices": [{"message": {"content": 17}}], "usage": {"prompt_tokens": -5}}'),
        Answer(b'{"choices": [{"message": {"content": "\xff\xfe"}}'),
        Answer("[" * 100_000),
    ],
    ids=lambda answer: str(answer.body[:40]),
)
def test_nonsense_is_no_text_and_no_crash(service, answer):
    model, seen = service(answer)
    reply = model.ask(request(5))
    assert reply.texts == []
    assert reply.notes
    assert len(seen.bodies) == 1  # the rest is not asked of a service that is out of order


def test_empty_and_cut_off_choices_among_good_ones(service):
    body = json.loads(completion("good", "", "cut", usage=None).body)
    body["choices"][2]["finish_reason"] = "length"
    model, seen = service(lambda _, number: completion(f"more {number}") if number else Answer(json.dumps(body)))
    reply = model.ask(request(4))
    assert reply.texts == ["good", "cut", *reply.texts[2:]]
    assert sorted(reply.texts[2:]) == ["more 1", "more 2"]
    assert reply.cut_off == [1]
    assert any("without text" in note for note in reply.notes)
    assert len(seen.bodies) == 3


def test_a_text_in_parts(service):
    parts = [{"type": "thinking", "thinking": [{}]}, {"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    model, _ = service(Answer(json.dumps({"choices": [{"message": {"content": parts}}]})))
    assert model.ask(request()).texts == ["one two"]


def test_a_text_with_half_a_character_can_be_written_to_a_file(service):
    model, _ = service(Answer('{"choices": [{"message": {"content": "a\\ud800b \\ud83d\\ude00"}}]}'))
    (text,) = model.ask(request()).texts
    assert text.encode("utf-8").decode("utf-8") == "a?b \U0001f600"


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_the_call_budget_stops_within_a_request(service):
    model, seen = service(ignoring_n, max_calls=3)
    reply = model.ask(request(10))
    assert len(reply.texts) == 3
    assert "--max_llm_calls" in reply.notes[-1]
    with pytest.raises(BudgetSpent, match="3 requests"):
        model.ask(request())
    assert len(seen.bodies) == 3


def test_the_token_budget_counts_both_ways(service):
    model, seen = service(numbered, max_tokens=60)
    for _ in range(3):  # 25 tokens each: the third one crosses the line
        model.ask(request())
    with pytest.raises(BudgetSpent, match="75 tokens"):
        model.ask(request())
    assert len(seen.bodies) == 3


def test_a_server_that_does_not_count_tokens_does_not_escape_the_budget(service):
    model, _ = service(completion("x" * 400, usage=None), max_tokens=100)
    model.ask(request())
    assert model.usage.tokens_out == 100
    with pytest.raises(BudgetSpent):
        model.ask(request())


def test_a_budget_holds_across_a_restart(service):
    model, _ = service(completion("text"), max_calls=5)
    model.usage.add(calls=5, tokens_in=10, tokens_out=10)
    with pytest.raises(BudgetSpent):
        model.ask(request())
