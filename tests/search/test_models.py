"""Language models: the openai client against a real server that misbehaves, recordings, and answers by hand."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from chat_server import Answer, completion, failure, serving
from errors import UsageError
from search import offline, remote
from search.connect import connect
from search.protocol import BudgetSpent, Recorded, Reply, Request, ServiceAway, Usage
from search.remote import RemoteModel

KEY = "sk-secret-0123456789abcdef"
MESSAGES = [{"role": "system", "content": "You answer."}, {"role": "user", "content": "Say something."}]


def request(count=1, seconds=20.0, **fields):
    return Request(MESSAGES, count, time.monotonic() + seconds, **fields)


@pytest.fixture
def service(monkeypatch):
    """Starts a server with a behaviour and gives (model, what the server saw)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened = []

    def start(behaviour, **options):
        context = serving(behaviour if callable(behaviour) else lambda body, number: behaviour)
        url, seen = context.__enter__()
        opened.append(context)
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        return RemoteModel("some-model", **options), seen

    yield start
    for context in opened:
        context.__exit__(None, None, None)


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
    with pytest.raises(ServiceAway, match="maximum context length"):
        model.ask(request(2))
    assert len(seen.bodies) <= 2


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "what"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "no model some-model")]
)
def test_a_wrong_key_or_model_fails_at_once_and_keeps_the_secret(service, status, what):
    model, seen = service(failure(status, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(ServiceAway, match=what) as caught:
        model.ask(request(5))
    assert len(seen.bodies) == 1
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


def test_lasting_trouble_ends_with_the_clients_retries(service, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", 2)
    model, seen = service(failure(429, "quota exceeded", Retry_After="0.01"))
    with pytest.raises(ServiceAway, match=r"429.*quota exceeded"):
        model.ask(request(4))
    assert len(seen.bodies) == 3


@pytest.mark.parametrize(
    "answer",
    [
        failure(429, "come back later", Retry_After="100"),
        Answer("{}", delay=30),
        Answer(" " * 10_000, drip=0.05),
    ],
    ids=["retry-after beyond it", "silence", "drip"],
)
def test_nothing_outlasts_the_deadline(service, answer):
    model, _ = service(answer)
    before, started = threading.active_count(), time.monotonic()
    with pytest.raises(ServiceAway, match="was not done when the deadline"):
        model.ask(request(4, seconds=1.0))
    while threading.active_count() > before + 1:  # the server's own thread; one that looked up a name may be leaving
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
    for model in (remote, connect(f"manual:{tmp_path}", builtin=BUILTIN, log=lambda line: None)):
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
    reply = model.ask(request(8, seconds=1.5))
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


# --- which model -----------------------------------------------------------------------------------------------------

BUILTIN = object()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "--model builtin"),
        ({"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "two words"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "localhost:8000"}, "OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http:///v1"}, "OPENAI_BASE_URL"),
    ],
)
def test_a_remote_model_that_cannot_be_used_is_known_before_anything_runs(monkeypatch, environment, expected):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=expected) as caught:
        connect("gpt-4o-mini", builtin=BUILTIN)
    assert "two words" not in str(caught.value)


def test_a_key_with_a_line_end_is_taken_without_it(service, monkeypatch):
    _, seen = service(completion("text"))
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    RemoteModel("m").ask(request())
    assert seen.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_the_kinds_of_models(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert connect("builtin", builtin=BUILTIN) is BUILTIN
    assert connect("llama3:8b", builtin=BUILTIN).name == "llama3:8b"
    assert connect(f"manual:{tmp_path}", builtin=BUILTIN).name == f"manual:{tmp_path}"
    for typo in ("built-in", "bultin", "Builtin"):
        with pytest.raises(UsageError, match="did you mean builtin"):
            connect(typo, builtin=BUILTIN)
    for wrong, expected in ((f"replay:{tmp_path}", "no recording"), ("replay:", "recording"), ("manual:", "directory")):
        with pytest.raises(UsageError, match=expected):
            connect(wrong, builtin=BUILTIN)


def test_the_client_is_not_even_imported_before_the_first_request():
    code = (
        "import sys, search.connect; search.connect.connect('m', builtin=None); "
        "assert not {'openai', 'torch', 'reward_code', 'metaworld'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OPENAI_API_KEY": KEY})


# --- recordings ------------------------------------------------------------------------------------------------------


class Scripted:
    def __init__(self, *answers):
        self.name, self.usage, self.answers = "scripted", Usage(), list(answers)

    def ask(self, request):
        self.usage.add(1, 100, 7)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def outcome(model, *args, **fields):
    try:
        return model.ask(request(*args, **fields))
    except (ServiceAway, BudgetSpent) as error:
        return type(error), str(error)


def test_a_replayed_run_hears_what_the_recorded_one_heard(tmp_path):
    answers = [
        Reply(["a", "bad \u201cquotes\u201d\r\n\t\u0000 \U0001f600"], [[], [3, 4]], [1], ["a note"]),
        Reply([]),
        ServiceAway("away for lunch"),
        Reply(["round one"]),
        BudgetSpent("no money"),
    ]
    rounds = [0, 0, 0, 1, 1]
    rows = []
    recorded = Recorded(Scripted(*answers), rows.append)
    heard = [outcome(recorded, 2, round=round) for round in rounds]
    (tmp_path / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    replay = connect(f"replay:{tmp_path}", builtin=BUILTIN)
    assert [outcome(replay, 2, round=round) for round in rounds] == heard
    assert replay.usage == Usage()
    for round in (0, 1, 2):
        with pytest.raises(ServiceAway, match=f"no more answers for search round {round}"):
            replay.ask(request(round=round))


def test_a_row_tells_the_whole_exchange():
    rows = []
    recorded = Recorded(Scripted(Reply(["a"]), ServiceAway("gone")), rows.append)
    outcome(recorded, 3, round=2)
    outcome(recorded, 3, round=2)
    assert [row["request"] for row in rows] == [1, 2]
    assert rows[0]["messages"] == MESSAGES
    assert (rows[0]["round"], rows[0]["model"], rows[0]["count"], rows[0]["texts"]) == (2, "scripted", 3, ["a"])
    assert (rows[0]["calls"], rows[0]["tokens_in"], rows[0]["tokens_out"]) == (1, 100, 7)
    assert rows[0]["seconds"] >= 0
    assert rows[1]["error"] == {"kind": "ServiceAway", "message": "gone"}


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "{}", "17", "", "[" * 100_000, '{"round": "0", "texts": []}'),
        *(
            f'{{"round": 0, "texts": {rest}}}'
            for rest in (
                *('"a"', "[1]", '["a"], "parents": [[], []]', '["a"], "parents": [1]', '["a"], "parents": [["b"]]'),
                *('["a"], "notes": 3', '["a"], "notes": [3]', '["a"], "cut_off": "a"', '[], "error": {}'),
                *('[], "error": "away"', '[], "error": {"kind": "ServiceAway"}'),
            )
        ),
    ],
    ids=lambda line: line[:50],
)
def test_a_broken_recording_is_named(tmp_path, line):
    good = json.dumps({"round": 0, "texts": ["a"]})
    (tmp_path / "llm.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UsageError, match="line 2"):
        connect(f"replay:{tmp_path}", builtin=BUILTIN)


def test_a_recording_that_is_no_text(tmp_path):
    (tmp_path / "llm.jsonl").write_bytes(b"\x80\xff\x00")
    with pytest.raises(UsageError, match="no recording"):
        connect(f"replay:{tmp_path}", builtin=BUILTIN)


def test_a_recorded_text_can_be_written_to_a_file_whatever_was_done_to_it(tmp_path):
    (tmp_path / "llm.jsonl").write_text('{"round": 0, "texts": ["a\\ud800b"]}\n')
    assert connect(f"replay:{tmp_path}", builtin=BUILTIN).ask(request()).texts == ["a?b"]


# --- by hand ---------------------------------------------------------------------------------------------------------


def answer_later(path, *contents):
    def write():
        for content in contents:
            time.sleep(0.15)
            path.write_text(content, encoding="utf-8")

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_manual_answers_are_read_when_they_are_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(offline, "SETTLED", 0.4)
    lines = []
    model = connect(f"manual:{tmp_path / 'new'}", builtin=BUILTIN, log=lines.append)
    (tmp_path / "new").mkdir()
    whole = f"first\n{offline.NEXT_ANSWER}\n\nsecond \u201cone\u201d\n{offline.NEXT_ANSWER}\n"
    writer = answer_later(tmp_path / "new" / "0001_answer.txt", "", "fir", whole)
    assert model.ask(request(3)).texts == ["first\n", "second \u201cone\u201d\n"]
    writer.join()
    prompt = (tmp_path / "new" / "0001_prompt.txt").read_text()
    assert all(message["content"] in prompt for message in MESSAGES)
    assert offline.NEXT_ANSWER in prompt
    assert "3 independent answers" in prompt
    assert "0001_answer.txt" in lines[0]
    assert model.usage.calls == 1


def test_manual_never_reads_an_earlier_runs_answer(tmp_path):
    (tmp_path / "0007_answer.txt").write_text("stale")
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN, log=lambda line: None)
    started = time.monotonic()
    with pytest.raises(ServiceAway, match=r"0008_answer\.txt"):
        model.ask(request(seconds=0.3))
    assert 0.25 < time.monotonic() - started < 1.0
    assert (tmp_path / "0008_prompt.txt").exists()


def test_manual_whose_answer_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "SETTLED", 0.1)
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN, log=lambda line: (tmp_path / "0001_answer.txt").mkdir())
    with pytest.raises(ServiceAway, match=r"0001_answer\.txt cannot be read"):
        model.ask(request(seconds=5.0))


def test_manual_without_a_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    model = connect(f"manual:{tmp_path / 'file'}", builtin=BUILTIN, log=lambda line: None)
    with pytest.raises(ServiceAway, match="no prompt can be written"):
        model.ask(request())


def test_a_conversation_is_written_with_its_roles(tmp_path):
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN, log=lambda line: None)
    longer = [*MESSAGES, {"role": "assistant", "content": "Something."}, {"role": "user", "content": "More."}]
    with pytest.raises(ServiceAway):
        model.ask(Request(longer, 1, time.monotonic()))
    prompt = (tmp_path / "0001_prompt.txt").read_text()
    assert prompt.index("[assistant]\n\nSomething.") < prompt.index("[user]\n\nMore.")
