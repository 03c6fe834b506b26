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


class Paid(Scripted):
    costs = True


def test_only_answers_are_not_asked_for_again_but_all_that_was_sent_counts():
    """A key that was wrong, or a service that was away, must not fail a run again when it is resumed."""
    rows = []
    killed = Recorded(
        Paid(Reply(["a"]), ServiceAway("the key is wrong (401)"), Reply(["b"]), Reply(["c"])), rows.append
    )
    for count in (1, 2, 3, 4):
        outcome(killed, count)
    resumed = Recorded(Paid(Reply(["x"]), Reply(["y"])), rows.append)
    resumed.resume(rows[:4])
    assert resumed.usage == Usage(1, 100, 7)  # the request that failed was sent
    assert outcome(resumed, 1).texts == ["a"]
    assert outcome(resumed, 3).texts == ["b"]
    assert resumed.usage == Usage(3, 300, 21)
    assert outcome(resumed, 5).texts == ["x"]  # another request than the recorded one, so that the rest is of no use
    assert resumed.usage == Usage(5, 500, 35)
    assert outcome(resumed, 4).texts == ["y"]


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


# --- what a recording is of ------------------------------------------------------------------------------------------


def test_a_recording_of_another_task_or_setting_is_refused_unless_asked_for(tmp_path):
    rows = []
    about = {"task": "window-close", "setting": "from_scratch"}
    Recorded(Scripted(Reply(["a"])), rows.append, about).ask(request())
    (tmp_path / "llm.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert connect(f"replay:{tmp_path}", builtin=BUILTIN, **about).ask(request()).texts == ["a"]
    for other in ({"task": "door-close"}, {"setting": "with_init"}):
        (name,) = other
        with pytest.raises(UsageError, match=f"{about[name]}.*{other[name]}.*--model replay-any:") as caught:
            connect(f"replay:{tmp_path}", builtin=BUILTIN, **{**about, **other})
        assert "\n" not in str(caught.value)
        assert connect(f"replay-any:{tmp_path}", builtin=BUILTIN, **{**about, **other}).ask(request()).texts == ["a"]


def test_a_recording_that_does_not_say_what_it_is_of_is_taken(tmp_path):
    (tmp_path / "llm.jsonl").write_text('{"round": 0, "texts": ["a"]}\n')
    assert connect(f"replay:{tmp_path}", builtin=BUILTIN, task="t", setting="s").ask(request()).texts == ["a"]


def test_a_resumed_run_goes_on_in_its_recording(tmp_path):
    rows = [{"round": round, "texts": [text]} for round, text in ((0, "a"), (0, "b"), (1, "c"))]
    (tmp_path / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = Recorded(connect(f"replay:{tmp_path}", builtin=BUILTIN), lambda row: None)
    first.ask(request())
    second = Recorded(connect(f"replay:{tmp_path}", builtin=BUILTIN), lambda row: None)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.ask(request()).texts == ["b"]
    assert second.ask(request(round=1)).texts == ["c"]
    assert second.requests == 3


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
    writers = []

    def log(line):
        lines.append(line)
        writers.append(answer_later(tmp_path / "new" / "0001_answer.txt", "fir", whole))

    assert model.ask(request(3, log=log)).texts == ["first\n", "second \u201cone\u201d\n"]
    for writer in writers:
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


FUNCTION = "def compute_reward(obj):\n    return {}\n"
ONE, TWO = FUNCTION.format(1), FUNCTION.format(2)


@pytest.mark.parametrize(
    "separator",
    [
        offline.NEXT_ANSWER,
        "---- next answer ----",
        "-----next answer-----",
        "\u2014 Next Answer \u2014",
        "----- nxt answer -----",
        "----- next anser",
        "next answer",
        "> ----- next answer -----",
        "----------",
        "***",
        "## Answer 2",
        "answer 2:",
    ],
)
def test_a_mistyped_separator_loses_no_answer(separator):
    fenced = [f"Here it is.\n```python\n{code}```\nIt is good." for code in (ONE, TWO)]
    assert offline.split_answers(f"{fenced[0]}\n{separator}\n{fenced[1]}\n") == [f"{text}\n" for text in fenced]


@pytest.mark.parametrize("line", ["---", "# ----------", "## Answer 1", "The next answer is better than this one."])
def test_what_belongs_to_one_answer_is_not_parted(line):
    for text in (f"An idea.\n{line}\n{ONE}", f"{ONE}{line}\nThat is all.\n"):
        (whole,) = offline.split_answers(text)
        assert whole == text


def answering(directory, files, lines):
    """A log that keeps its lines, and puts answers into files once the first one says that they are waited for."""

    def log(line):
        if not lines:
            for name, text in files.items():
                (directory / name).write_text(text, "utf-8")
        lines.append(line)

    return log


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(offline, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(offline, "SETTLED", 0.2)
    monkeypatch.setattr(offline, "QUIET", 1.0)


def test_answers_in_files_of_their_own_and_what_became_of_them(tmp_path, quick):
    model, lines = connect(f"manual:{tmp_path}", builtin=BUILTIN), []
    for number in (10, 2, 1):
        (tmp_path / f"0001_answer_{number}.txt").write_text(f"answer {number}", "utf-8")
    files = {f"0002_answer_{number}.txt": f"answer {number}" for number in (10, 2, 1)}
    assert model.ask(request(3, log=answering(tmp_path, files, lines))).texts == [
        "answer 1\n",
        "answer 2\n",
        "answer 10\n",
    ]
    assert len(lines) == 1
    model.told([("accepted", ""), ("syntax", "line 3\nis odd"), ("surplus", "there were enough")])
    assert (tmp_path / "0002_verdict.txt").read_text("utf-8").splitlines() == [
        "0002_answer_1.txt: accepted",
        "0002_answer_2.txt: syntax: line 3 is odd",
        "0002_answer_10.txt: surplus: there were enough",
    ]


def test_the_place_of_each_of_several_answers_in_a_file_is_told(tmp_path, quick):
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    both = {"0001_answer.txt": f"one\n{offline.NEXT_ANSWER}\ntwo\n"}
    Recorded(model, lambda row: None).ask(request(2, log=answering(tmp_path, both, [])))
    Recorded(model, lambda row: None).told([("accepted", ""), ("no code", "there is none")])
    verdict = (tmp_path / "0001_verdict.txt").read_text()
    assert verdict == "0001_answer.txt, answer 1: accepted\n0001_answer.txt, answer 2: no code: there is none\n"


def test_fewer_files_than_wanted_are_taken_when_no_more_come(tmp_path, quick):
    model, lines = connect(f"manual:{tmp_path}", builtin=BUILTIN), []
    started = time.monotonic()
    assert model.ask(request(9, log=answering(tmp_path, {"0001_answer_2.txt": "two"}, lines))).texts == ["two\n"]
    assert time.monotonic() - started >= 1.0
    assert "1 of 9 answers" in lines[1]


def test_what_is_there_at_the_deadline_is_taken(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(offline, "QUIET", 60.0)
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    log = answering(tmp_path, {"0001_answer_2.txt": "two"}, [])
    assert model.ask(request(9, seconds=1.5, log=log)).texts == ["two\n"]


@pytest.mark.parametrize("empty", ["", " \n\ufeff\n", f"\n{offline.NEXT_ANSWER}\n"])
def test_an_empty_file_is_told_at_once_and_waited_for(tmp_path, quick, empty):
    model, lines = connect(f"manual:{tmp_path}", builtin=BUILTIN), []
    path = tmp_path / "0001_answer.txt"

    def fill(line):
        lines.append(line)
        path.write_text("an answer" if "no answer" in line else empty, "utf-8")

    assert model.ask(request(log=fill)).texts == ["an answer\n"]
    assert sum("0001_answer.txt holds no answer" in line for line in lines) == 1
    assert model.usage.calls == 1


def test_the_deadline_stands_in_the_prompt_file(tmp_path, quick):
    before = time.time()
    with pytest.raises(ServiceAway):
        connect(f"manual:{tmp_path}", builtin=BUILTIN).ask(request(seconds=1.0))
    stated = {time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(before + seconds)) for seconds in (1, 2, 3)}
    prompt = (tmp_path / "0001_prompt.txt").read_text()
    assert any(moment in prompt for moment in stated)


def test_an_answer_saved_by_another_editor_is_read(tmp_path, quick):
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "text").write_bytes("\u201cquoted\u201d".encode("utf-16"))
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    move = (tmp_path / "later" / "text").rename
    assert model.ask(request(log=lambda line: move(tmp_path / "0001_answer.txt"))).texts == ["\u201cquoted\u201d\n"]


def test_a_resumed_run_takes_up_the_prompt_that_was_open(tmp_path, quick):
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    state = model.state_dict()
    with pytest.raises(ServiceAway):
        model.ask(request(seconds=0.1))
    (tmp_path / "0001_answer.txt").write_text("answered meanwhile")
    resumed = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    resumed.load_state_dict(state)
    assert resumed.ask(request()).texts == ["answered meanwhile\n"]
    with pytest.raises(ServiceAway, match="0002_answer"):
        resumed.ask(request(seconds=0.1))


def test_a_verdict_stays_when_a_resumed_run_has_the_next_answers_already(tmp_path, quick):
    model = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    model.ask(request(log=answering(tmp_path, {"0001_answer.txt": "one"}, [])))
    model.told([("accepted", "")])
    resumed = connect(f"manual:{tmp_path}", builtin=BUILTIN)
    resumed.load_state_dict(model.state_dict())
    resumed.told([("accepted", "")])  # of answers in llm.jsonl, for which it was not asked
    assert (tmp_path / "0001_verdict.txt").read_text() == "0001_answer.txt: accepted\n"
