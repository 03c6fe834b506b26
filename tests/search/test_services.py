"""Services as people run them: each refuses, limits, streams and fails in a manner and in words of its own."""

import json
import time

import pytest

from chat_client import MESSAGES, request
from chat_server import Answer, as_json, completion, failure
from search import remote
from search.protocol import BudgetSpent, ServiceAway


def choice(**fields):
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"} | fields]
    }


def events(*pieces, end="data: [DONE]\n\n"):
    """A stream of server-sent events."""
    body = ": a comment\n\n" + "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + end
    return Answer(body, content_type="text/event-stream")


def spelled_out(*texts):
    """The events of a stream that brings these texts in pieces."""
    pieces = []
    for index, text in enumerate(texts):
        pieces += [{"choices": [{"index": index, "delta": {"content": part}}]} for part in (text[:3], text[3:])]
        pieces.append({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 20, "completion_tokens": 5 * len(texts)}
    return events(*pieces, {"choices": [], "usage": usage})


# --- several texts in one request ------------------------------------------------------------------------------------

REFUSALS_OF_N = {
    "a list around the error": as_json(
        [{"error": {"code": 400, "message": "Multiple candidates is not enabled", "status": "INVALID_ARGUMENT"}}], 400
    ),
    "detail": as_json({"detail": "only a single sample can be drawn"}, 422),
    "details": as_json(
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "n"], "msg": "Extra inputs are not permitted"}]}, 422
    ),
    "one line": Answer("Internal Server Error", 500, content_type="text/plain"),
    "an object with 500": as_json(
        {"error": {"code": 500, "message": "slot count exceeded", "type": "server_error"}}, 500
    ),
    "plain text": Answer("bad request: one at a time, please", 400, content_type="text/plain"),
    "error as a string": as_json({"error": "multiple completions are not implemented"}, 400),
    "not implemented": as_json({"message": "not implemented"}, 501),
    "nothing": Answer("", 400),
    "an error within a 200": as_json({"error": {"message": "unsupported value", "code": 400}}),
    "another language": as_json({"error": {"message": "\u8bf7\u6c42\u53c2\u6570\u4e0d\u5408\u6cd5"}}, 400),
}


@pytest.mark.parametrize("refusal", REFUSALS_OF_N.values(), ids=REFUSALS_OF_N)
def test_a_service_that_refuses_n_in_whatever_words_is_asked_without_it(service, refusal):
    def behaviour(body, number):
        time.sleep(0.05)
        return refusal if "n" in body else completion(f"text {number}")

    model, seen = service(behaviour)
    reply = model.ask(request(5))
    assert len(reply.texts) == 5
    assert ["n" in body for body in seen.bodies] == [True, *[False] * 5]
    assert all(body["temperature"] == 1.0 for body in seen.bodies)
    assert seen.busiest > 1
    assert sum("without n" in note for note in reply.notes) == 1

    again = model.ask(request(5))
    assert len(again.texts) == 5
    assert again.notes == []
    assert not any("n" in body for body in seen.bodies[6:])
    assert model.usage.calls == len(seen.bodies) == 11


def test_a_service_that_hangs_with_n_costs_a_part_of_the_deadline(service):
    model, seen = service(lambda body, number: Answer("", delay=60) if "n" in body else completion("text"))
    started = time.monotonic()
    reply = model.ask(request(4, seconds=3.0))
    assert reply.texts == ["text"] * 4
    assert time.monotonic() - started < 2.0
    assert any("without n" in note for note in reply.notes)
    assert model.ask(request(4, seconds=3.0)).texts == ["text"] * 4
    assert sum("n" in body for body in seen.bodies) == 1


def test_a_service_that_was_seen_to_answer_n_has_all_the_time_there_is(service):
    def behaviour(body, number):
        good = completion("one", "two")
        good.delay = 0.0 if number == 0 else 0.8
        return good

    model, seen = service(behaviour)
    model.ask(request(2, seconds=1.5))
    assert model.ask(request(2, seconds=1.5)).texts == ["one", "two"]
    assert len(seen.bodies) == 2


def test_a_service_that_breaks_down_over_n_is_asked_without_it(service, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    model, seen = service(lambda body, number: Answer("x" * 100, drop=True) if "n" in body else completion("text"))
    assert model.ask(request(3)).texts == ["text"] * 3
    assert ["n" in body for body in seen.bodies] == [True, True, False, False, False]


def test_one_bad_moment_does_not_turn_n_off(service, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    good = completion("one", "two", "three")
    model, seen = service(lambda body, number: failure(500, "oops") if number == 1 else good)
    model.ask(request(3))
    assert len(model.ask(request(3)).texts) == 3
    assert [body.get("n") for body in seen.bodies] == [3, 3, 3]


def test_the_temperature_goes_after_n_when_a_service_does_not_say_what_it_dislikes(service):
    def behaviour(body, number):
        return Answer("no", 400) if {"n", "temperature"} & set(body) else completion("text")

    model, seen = service(behaviour)
    reply = model.ask(request(2))
    assert reply.texts == ["text"] * 2
    assert [sorted({"n", "temperature"} & set(body)) for body in seen.bodies] == [
        ["n", "temperature"],
        ["temperature"],
        [],
        [],
    ]
    assert "without temperature" in reply.notes[0]


# --- parameters ------------------------------------------------------------------------------------------------------


def test_options_are_merged_into_every_request_and_never_dropped(service):
    options = {"enable_thinking": False, "temperature": 0.2, "n": None}
    model, seen = service(completion("text"), options=options, answer_tokens=50)
    model.ask(request(2))
    for body in seen.bodies:
        assert body["enable_thinking"] is False
        assert body["temperature"] == 0.2
        assert body["max_tokens"] == 50
        assert "n" not in body
    model, seen = service(failure(400, "temperature is not supported", "temperature"), options={"temperature": 0.2})
    with pytest.raises(ServiceAway, match="temperature is not supported"):
        model.ask(request())
    assert all(body["temperature"] == 0.2 for body in seen.bodies)


@pytest.mark.parametrize(
    ("refused", "taken"),
    [
        ({"max_tokens"}, "max_completion_tokens"),
        ({"max_completion_tokens"}, "max_tokens"),
        ({"max_tokens", "max_completion_tokens"}, None),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_the_bound_on_an_answer_is_sent_under_the_name_that_is_taken(service, refused, taken, named):
    def behaviour(body, number):
        wrong = refused & set(body)
        words = f"Unsupported parameter: {wrong}; is it something else?" if named else "no"
        return failure(400, words) if wrong else completion("text")

    model, seen = service(behaviour, answer_tokens=5000)
    assert model.ask(request()).texts == ["text"]
    assert {name for name in seen.bodies[-1] if name.startswith("max")} == ({taken} if taken else set())
    tried = len(seen.bodies)
    model.ask(request())
    assert len(seen.bodies) == tried + 1


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
        "This model's maximum context length is 4096 tokens. However, you requested 5100 tokens",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 4096]",
    ],
)
def test_a_bound_that_is_too_large_is_left_to_the_service(service, words):
    model, seen = service(
        lambda body, _: failure(400, words) if "max_tokens" in body else completion("text"), answer_tokens=5000
    )
    assert model.ask(request()).texts == ["text"]
    assert len(seen.bodies) == 2


def test_a_service_that_ignores_the_bound_gets_it_under_its_other_name(service):
    def behaviour(body, number):
        return (
            completion("text")
            if "max_completion_tokens" in body
            else completion("te", finish="length", usage=(20, 100))
        )

    model, _ = service(behaviour, answer_tokens=5000)
    cut = model.ask(request())
    assert cut.cut_off == [0]
    assert any("cut off after about 100 tokens" in note for note in cut.notes)
    assert model.ask(request()).texts == ["text"]


def test_cut_off_answers_name_the_flag_to_raise(service):
    model, _ = service(completion("te", finish="length", usage=(20, 100)), answer_tokens=100)
    reply = model.ask(request())
    assert any("raise --max_answer_tokens (now 100)" in note for note in reply.notes)


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Developer instruction is not enabled for this model",
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_the_system_text_goes_into_the_first_user_message_once_that_is_said(service, words, status):
    def behaviour(body, number):
        refused = body["messages"][0]["role"] == "system"
        return failure(status, words) if refused else completion(*["text"] * body.get("n", 1))

    model, seen = service(behaviour)
    reply = model.ask(request(2))
    assert reply.texts == ["text"] * 2
    (message,) = seen.bodies[-1]["messages"]
    assert message == {"role": "user", "content": "You answer.\n\nSay something."}
    assert seen.bodies[-1]["n"] == 2
    model.ask(request(2))
    assert len(seen.bodies) == 3


@pytest.mark.parametrize("status", [413, 429])
def test_a_request_that_is_too_large_for_a_limit_by_the_minute_is_made_smaller(service, status):
    words = "Request too large for model in organization on tokens per minute (TPM): Limit 6000, Requested 21000"
    model, seen = service(
        lambda body, _: failure(status, words) if "n" in body or "max_tokens" in body else completion("text"),
        answer_tokens=5000,
    )
    assert model.ask(request(2)).texts == ["text"] * 2
    assert len(seen.bodies) <= 6


# --- what a 200 may hold ---------------------------------------------------------------------------------------------

OVERLOADED = {"error": {"message": "the provider is overloaded", "code": 503}}


@pytest.mark.parametrize(
    "passing",
    [
        as_json(OVERLOADED),
        as_json({"error": {"message": "Too many requests, slow down", "type": "limit"}}),
        as_json(choice(finish_reason="error", message={"content": ""}, **OVERLOADED)),
        as_json(choice(message={"content": ""}) | OVERLOADED),
        events(OVERLOADED),
    ],
)
def test_an_error_in_a_200_is_an_error_and_is_waited_out(service, monkeypatch, passing):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    model, seen = service(lambda _, number: passing if number == 0 else completion("text"))
    assert model.ask(request()).texts == ["text"]
    assert len(seen.bodies) == 2


def test_an_error_in_a_200_that_lasts_is_told_in_its_own_words(service):
    model, _ = service(as_json({"error": {"message": "Your prompt\nwas flagged by the provider", "code": 403}}))
    with pytest.raises(ServiceAway, match="Your prompt was flagged by the provider"):
        model.ask(request())


def test_the_words_of_a_provider_behind_a_gateway_are_told(service):
    raw = json.dumps({"error": {"message": "the provider has its own reason"}})
    model, _ = service(as_json({"error": {"message": "Provider returned error", "metadata": {"raw": raw}}}, 400))
    with pytest.raises(ServiceAway, match="Provider returned error; the provider has its own reason"):
        model.ask(request())


def test_an_error_beside_a_good_answer_costs_only_its_own(service):
    body = choice(message={"content": "good"})
    body["choices"].append({"message": {"content": ""}, "finish_reason": "error", "error": {"message": "broke"}})
    model, _ = service(lambda _, number: completion("more") if number else as_json(body))
    assert model.ask(request(2)).texts == ["good", "more"]


def test_a_refusal_is_an_answer_that_is_marked_as_one(service):
    body = choice(message={"content": None, "refusal": "I cannot help with that."})
    body["choices"] += choice(message={"content": "text"})["choices"]
    body["choices"] += choice(message={"content": ""}, finish_reason="content_filter")["choices"]
    model, seen = service(as_json(body))
    reply = model.ask(request(3))
    assert reply.texts[:2] == ["I cannot help with that.", "text"]
    assert "content filter" in reply.texts[2]
    assert reply.refused == [0, 2]
    assert len(seen.bodies) == 1


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_an_answer_that_was_taken_for_thinking_counts(service, name):
    model, _ = service(as_json(choice(message={"content": None, name: "so: def f(): ..."})))
    assert model.ask(request()).texts == ["so: def f(): ..."]
    model, _ = service(as_json(choice(message={"content": "the answer", name: "thoughts"})))
    assert model.ask(request()).texts == ["the answer"]


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_service_that_always_streams_is_understood(service):
    model, seen = service(lambda body, _: spelled_out(*["a text"] * body["n"]))
    assert model.ask(request(3)).texts == ["a text"] * 3
    assert len(seen.bodies) == 1
    assert (model.usage.tokens_in, model.usage.tokens_out) == (20, 15)


@pytest.mark.parametrize(
    "words",
    [
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "This model only supports stream mode, please enable the stream parameter",
        "stream: false is not allowed",
    ],
)
def test_streaming_is_asked_for_where_only_that_is_offered(service, words):
    def behaviour(body, number):
        if not body.get("stream"):
            return failure(400, words)
        return failure(400, "unknown field stream_options") if "stream_options" in body else spelled_out("a text")

    model, seen = service(behaviour)
    assert model.ask(request()).texts == ["a text"]
    assert len(seen.bodies) == 3
    model.ask(request())
    assert len(seen.bodies) == 4


def test_thinking_and_refusals_in_a_stream(service):
    pieces = [{"reasoning_content": "thinking"}, {"content": "the "}, {"content": "answer"}]
    model, _ = service(events(*({"choices": [{"index": 0, "delta": delta}]} for delta in pieces)))
    assert model.ask(request()).texts == ["the answer"]
    model, _ = service(
        events(*({"choices": [{"index": 0, "delta": {"refusal": part}}]} for part in ("I ", "will not")))
    )
    assert model.ask(request()).texts == ["I will not"]


@pytest.mark.parametrize(
    "body", ["data: {broken\n\n", "data: 17\n\n", "data:\n\n", 'data: {"choices": [3, {"index": "x"}]}\n\n']
)
def test_a_broken_stream_is_no_text_and_no_crash(service, body):
    model, _ = service(Answer(body, content_type="text/event-stream"))
    reply = model.ask(request())
    assert reply.texts == []
    assert reply.notes


def test_a_stream_that_breaks_off_keeps_what_came_before(service):
    body = spelled_out("a text").body + 'data: {"choices": [{"ind'
    model, _ = service(Answer(body, content_type="text/event-stream"))
    assert model.ask(request()).texts == ["a text"]
    assert (model.usage.tokens_in, model.usage.tokens_out) == (20, 5)
    body = '\ufeffdata: {"choices": 5}\n\n' + spelled_out("a text").body
    model, _ = service(Answer(body, content_type="text/event-stream"))
    assert model.ask(request()).texts == ["a text"]


# --- budgets and memory ----------------------------------------------------------------------------------------------


def test_the_call_budget_holds_while_the_form_is_found(service):
    model, seen = service(lambda body, _: Answer("no", 400) if len(body) > 2 else completion("text"), max_calls=4)
    assert len(model.ask(request(10)).texts) == 2
    assert len(seen.bodies) == 4
    with pytest.raises(BudgetSpent):
        model.ask(request())


def test_the_token_budget_holds_for_requests_in_parallel(service):
    def behaviour(body, number):
        time.sleep(0.1)
        return Answer("no", 400) if "n" in body else completion("text")

    model, _ = service(behaviour, max_tokens=70)
    reply = model.ask(request(10))  # 25 tokens each
    assert len(reply.texts) == 3
    assert "--max_llm_tokens" in reply.notes[-1]


def test_a_request_that_nobody_waited_for_is_counted(service):
    model, _ = service(lambda body, number: Answer("", delay=60) if "n" in body else completion("text"))
    model.ask(request(2, seconds=2.0))
    assert model.usage.calls == 3
    assert model.usage.tokens_in == 2 * 20 + sum(len(message["content"]) for message in MESSAGES) // 4


def test_what_was_learned_about_a_service_survives_a_restart(service):
    def behaviour(body, number):
        return Answer("no", 400) if {"n", "temperature"} & set(body) else completion("text")

    model, seen = service(behaviour)
    model.ask(request(2))
    state = json.loads(json.dumps(model.state_dict()))
    again, seen = service(behaviour)
    again.load_state_dict(state)
    again.ask(request(2))
    assert len(seen.bodies) == 2
