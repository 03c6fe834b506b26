"""What services say instead of an answer: limits, missing credit, wrong addresses, and words that are no plain text."""

import socket
import time

import pytest

from chat_client import KEY, request
from chat_server import Answer, as_json, completion, failure
from search import remote
from search.protocol import ServiceAway
from search.remote import RemoteModel
from search.service_errors import read_trouble

# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('[{"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "45s"}]}}]', 45.0),
        ('{"error": {"message": "You exceeded your current quota. Please retry in 45.2s."}}', 45.2),
        ('{"error": {"message": "Rate limit reached: Limit 3 / min. Please try again in 1m30s. Visit"}}', 90.0),
        ('{"error": {"message": "Please try again in 780ms."}}', 0.78),
        ('{"error": {"message": "Please try again in 1m2.5s"}}', 62.5),
        ("Please wait 20 seconds before the next request", 20.0),
        ("retry after 2 minutes and 5 seconds", 125.0),
        ("Quota resets in 1h2m", 3720.0),
        ('{"retry_after": 12}', 12.0),
        ('{"retry_after_ms": 1500}', 1.5),
        ('{"retryAfter": "3.5"}', 3.5),
        ('{"error": "Model is currently loading", "estimated_time": 20.25}', 20.25),
        ('{"error": {"metadata": {"raw": "{\\"retryDelay\\": \\"7s\\"}"}}}', 7.0),
        ("retry_delay {\n  seconds: 46\n}", 46.0),
        ("Rate limit reached for requests. Limit: 60 / min.", None),
        ("Requests to this model are limited to 3 in 60 s", None),
        ("", None),
    ],
)
def test_the_wait_is_read_from_the_body(body, seconds):
    assert read_trouble(429, {}, body).wait == pytest.approx(seconds)


def test_the_wait_in_a_header_goes_before_the_one_in_the_body():
    body = "try again in 50 s"
    assert read_trouble(429, {"retry-after": "7"}, body).wait == 7.0
    assert read_trouble(429, {"retry-after-ms": "250"}, body).wait == 0.25
    assert read_trouble(429, {"retry-after": "soon"}, body).wait == 50.0
    in_a_minute = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert read_trouble(429, {"retry-after": in_a_minute}, body).wait == pytest.approx(60, abs=2)


@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_limit_is_waited_out_for_as_long_as_it_lasts(service, monkeypatch, status):
    monkeypatch.setattr(remote, "RETRIES", 2)
    began, lines = [], []

    def behaviour(body, number):
        began.append(time.monotonic())
        if time.monotonic() < began[0] + 1.0:
            return failure(status, "Limit of requests a minute. Please retry in 0.05s")
        return completion("text")

    model, seen = service(behaviour)
    assert model.ask(request(log=lines.append)).texts == ["text"]
    assert len(seen.bodies) > remote.RETRIES
    assert model.usage.calls == 1  # what was not let in is not counted
    assert lines == []  # nothing worth a line


def test_a_long_wait_is_said_once(service, monkeypatch):
    monkeypatch.setattr(remote, "_WORTH_SAYING", 0.1)
    lines = []
    model, _ = service(
        lambda _, n: completion("text") if n not in {1, 2, 3} else failure(429, "slow down; try again in 0.3s")
    )
    assert len(model.ask(request(4, log=lines.append)).texts) == 4
    assert len(lines) == 1
    assert "slow down" in lines[0]


def test_a_wait_beyond_the_deadline_is_not_begun(service):
    model, seen = service(failure(429, "the daily limit is reached, try again in 3h20m"))
    started = time.monotonic()
    with pytest.raises(ServiceAway, match=r"daily limit.*12000 s"):
        model.ask(request(3, seconds=30))
    assert time.monotonic() - started < 2
    assert len(seen.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        as_json({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 429),
        as_json({"error": {"message": "You requested up to 65536 tokens, but can only afford 900", "code": 402}}, 402),
        as_json({"error": {"message": "Your credit balance is too low to access the API"}}, 400),
    ],
)
def test_missing_credit_is_explained_at_once(service, answer):
    model, seen = service(answer, answer_tokens=5000)
    with pytest.raises(ServiceAway, match=r"credit.*--max_answer_tokens \(now 5000\)"):
        model.ask(request(3))
    assert len(seen.bodies) == 1


# --- addresses -------------------------------------------------------------------------------------------------------

NOTHING_HERE = [
    Answer("404 page not found", 404, content_type="text/plain"),
    as_json({"detail": "Not Found"}, 404),
    as_json({"detail": "Method Not Allowed"}, 405),
    Answer("<!doctype html><html><title>My service</title></html>", content_type="text/html"),
    as_json({"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
]


@pytest.mark.parametrize("nothing", NOTHING_HERE)
@pytest.mark.parametrize("address", ["", "/", "/api"])
def test_an_address_without_v1_is_tried_with_it(service, nothing, address):
    model, seen = service(nothing, address)

    def behaviour(body, number):
        return completion("text") if seen.paths[number] == f"{address.rstrip('/')}/v1/chat/completions" else nothing

    model, seen = service(behaviour, address)
    reply = model.ask(request())
    assert reply.texts == ["text"]
    assert any("/v1" in note for note in reply.notes)
    model.ask(request())
    assert len(seen.bodies) == 3


def test_an_address_at_which_nothing_is_found_at_all(service):
    model, seen = service(Answer("404 page not found", 404), "")
    with pytest.raises(ServiceAway, match=r"404 page not found.*OPENAI_BASE_URL.*/v1"):
        model.ask(request(3))
    assert seen.paths == ["/chat/completions", "/v1/chat/completions"]


def test_an_address_that_holds_the_whole_path(service):
    model, seen = service(completion("text"), "/v1/chat/completions")
    model.ask(request())
    assert seen.paths == ["/v1/chat/completions"]


def test_a_query_in_the_address_goes_with_every_request(service):
    model, seen = service(lambda body, _: completion("text"), "/openai/deployments/d?api-version=2024-06-01")
    model.ask(request(3))
    assert set(seen.paths) == {"/openai/deployments/d/chat/completions?api-version=2024-06-01"}
    assert len(seen.paths) == 3
    assert all(headers["api-key"] == KEY for headers in seen.headers)


@pytest.mark.parametrize("status", [200, 403, 407, 511])
def test_the_page_of_a_proxy_is_told_in_its_own_words(service, monkeypatch, status):
    monkeypatch.setattr(remote, "RETRIES", 0)
    page = "<html><head><title>Access &amp; login</title><style>p {}</style></head><body>Sign in first</body></html>"
    model, _ = service(Answer(page, status, content_type="text/html"))
    try:
        said = " ".join(model.ask(request(2)).notes)
    except ServiceAway as trouble:
        said = str(trouble)
    assert "Access & login Sign in first" in said
    assert "proxy" in said


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("half of \\ud83d an emoji", "half of \\ud83d an emoji"),
        (
            "\\u001b[31mred\\u001b[0m and \\u001b]0;title\\u0007 \\u0000bell\\u0007",
            "\\x1b[31mred\\x1b[0m and \\x1b]0;title\\x07 \\x00bell",
        ),
        ("\\u202eturned\\r\\nlines", "\\u202eturned lines"),
        ("\u041a\u043b\u044e\u0447 \u65e0\u6548", "\u041a\u043b\u044e\u0447 \u65e0\u6548"),
    ],
)
def test_what_a_service_says_is_shown_as_plain_text(service, words, shown):
    model, _ = service(Answer(f'{{"error": {{"message": "{words}"}}}}', 403))
    with pytest.raises(ServiceAway) as caught:
        model.ask(request())
    assert shown in str(caught.value)
    str(caught.value).encode("utf-8")


def test_a_short_deadline_does_not_hide_that_nobody_answers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
    with pytest.raises(ServiceAway, match=r"127\.0\.0\.1:\d+ cannot be reached"):
        RemoteModel("m").ask(request(4, seconds=2.0))
