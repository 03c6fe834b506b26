"""Models without a service: recordings, and answers that a person puts into files."""

import json
import threading
import time

import pytest

from chat_client import MESSAGES, request
from errors import UsageError
from search import offline
from search.connect import connect
from search.protocol import BudgetSpent, LanguageModel, Recorded, Reply, Request, ServiceAway, Usage

BUILTIN = object()


# --- recordings ------------------------------------------------------------------------------------------------------


class Scripted(LanguageModel):
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
    with pytest.raises(UsageError, match="not a recording"):
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
    model = connect(f"manual:{tmp_path / 'new'}", builtin=BUILTIN)
    (tmp_path / "new").mkdir()
    whole = f"first\n{offline.NEXT_ANSWER}\n\nsecond \u201cone\u201d\n{offline.NEXT_ANSWER}\n"
    writer = answer_later(tmp_path / "new" / "0001_answer.txt", "", "fir", whole)
    assert model.ask(request(3, log=lines.append)).texts == ["first\n", "second \u201cone\u201d\n"]
    writer.join()
    prompt = (tmp_path / "new" / "0001_prompt.txt").read_text()
    assert all(message["content"] in prompt for message in MESSAGES)
    assert offline.NEXT_ANSWER in prompt
    assert "3 independent answers" in prompt
    assert "0001_answer.txt" in lines[0]
    assert model.usage.calls == 1


def test_manual_never_reads_an_earlier_runs_answer(tmp_path):
    (tmp_path / "0007_answer.txt").write_text("stale")
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    started = time.monotonic()
    with pytest.raises(ServiceAway, match=r"0008_answer\.txt"):
        model.ask(request(seconds=0.3))
    assert 0.25 < time.monotonic() - started < 1.0
    assert (tmp_path / "0008_prompt.txt").exists()


def test_manual_whose_answer_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "SETTLED", 0.1)
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    with pytest.raises(ServiceAway, match=r"0001_answer\.txt cannot be read"):
        model.ask(request(seconds=5.0, log=lambda line: (tmp_path / "0001_answer.txt").mkdir()))


def test_manual_without_a_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    model = connect(f"manual:{tmp_path / 'file'}", builtin=BUILTIN)
    with pytest.raises(ServiceAway, match="no prompt can be written"):
        model.ask(request())


def test_a_conversation_is_written_with_its_roles(tmp_path):
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    longer = [*MESSAGES, {"role": "assistant", "content": "Something."}, {"role": "user", "content": "More."}]
    with pytest.raises(ServiceAway):
        model.ask(Request(longer, 1, time.monotonic()))
    prompt = (tmp_path / "0001_prompt.txt").read_text()
    assert prompt.index("[assistant]\n\nSomething.") < prompt.index("[user]\n\nMore.")
