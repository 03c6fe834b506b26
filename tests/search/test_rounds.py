"""The search round: what is asked, what is taken, what is told."""

import dataclasses
import json
import time

import numpy as np
import pytest

from errors import RunError, UsageError
from reward_code import RewardWorkers
from search.builtin import ProgramSearch
from search.feedback import AgentReport
from search.offline import ReplayModel
from search.programs import SHAPES, Gene, read_genome, write_program
from search.protocol import BudgetSpent, Reply, ServiceAway
from search.rounds import RewardSearch
from search.terms import MOVE, task_terms
from search_doubles import HUMAN_SOURCE, FakeWorkers, ScriptedModel, make_task, random_columns

REPORT = AgentReport(0.35, 987.6, 123.4, (0.031, 0.22), {"reach": (0.5, 0.25, 0.75)})
AWAY = ServiceAway("the service is out for lunch")


def make_search(model=None, *, task=None, workers=None, **options):
    task = task or make_task()
    builtin = ProgramSearch(task, 1)
    lines = []
    options = {"setting": "from_scratch", "log": lines.append, **options}
    search = RewardSearch(task, model or builtin, workers or FakeWorkers(), {}, builtin=builtin, **options)
    search.lines = lines
    return search


def good(value):
    return f"So be it.\n\n```python\ndef compute_reward(obj):\n    return {value}, {{}}\n```"


def improve(search, functions, count=2, best=0, report=REPORT):
    elites = [(function, report) for function in functions]
    return list(search.improve(1, functions[best], report, elites, count))


def said(search):
    return "\n".join(search.lines)


# --- filling the population ------------------------------------------------------------------------------------------


def test_builtin_goes_end_to_end():
    search = make_search()
    functions = search.initial(5)
    improved = improve(search, functions[:2], 3)
    assert len(functions) == 5
    assert len(improved) == 3
    assert all(function.accepted and function.source and not function.reason for function in functions + improved)
    assert {parent for function in improved for parent in function.parents} <= {functions[0].id, functions[1].id}
    assert any(function.parents for function in improved)
    assert [function.id for function in search.functions] == list(range(len(search.functions)))
    assert {function.round for function in improved} == {1}


def test_asks_for_twice_the_open_slots_until_full():
    model = ScriptedModel([[good(1), "no code"], [good(2), good(3), good(4)]])
    search = make_search(model)
    functions = search.initial(3)
    assert [function.response for function in functions] == [good(1), good(2), good(3)]
    assert [request.count for request in model.requests] == [6, 4]
    kinds = [(function.accepted, function.kind) for function in search.functions]
    assert kinds == [(True, ""), (False, "no-code"), (True, ""), (True, ""), (False, "surplus")]
    assert search.rejected == {"no-code": 1}
    # Whatever was proposed can be read later; what nobody goes on with takes no memory beside that.
    assert search.functions[4].source == "def compute_reward(obj):\n    return 4, {}\n"
    assert [bool(function.response) for function in search.functions] == [True, False, True, True, False]


def test_no_more_candidates_are_checked_than_are_wanted():
    workers = FakeWorkers()
    make_search(ScriptedModel([["bad", *map(good, range(9))]]), workers=workers).initial(3)
    assert workers.calls == [3, 1]


def test_attempts_are_bounded():
    model = ScriptedModel([["def broken(:"]] * 99)
    search = make_search(model, attempts=3)
    with pytest.raises(RunError):
        search.initial(2)
    assert len(model.requests) == 3


def test_the_deadline_is_the_rounds_not_the_requests():
    class Slow(ScriptedModel):
        def ask(self, request):
            self.left = [*getattr(self, "left", []), request.deadline - time.monotonic()]
            time.sleep(0.3)
            return super().ask(request)

    model = Slow([["nothing"]] * 99)
    with pytest.raises(RunError):
        make_search(model, attempts=9, deadline=0.75).initial(2)
    assert len(model.requests) == 3
    assert model.left[0] > 0.7
    assert model.left[2] < 0.2


def test_a_round_has_longer_by_what_it_waited_for_its_turn():
    model = ScriptedModel([Reply(["nothing"], held=100.0), Reply(["nothing"], held=100.0), [good(1)]])
    make_search(model, deadline=5).initial(1)
    assert [round(request.deadline - time.monotonic(), -2) for request in model.requests] == [0, 100, 200]


def test_a_run_that_is_asked_to_stop_asks_no_more():
    model = ScriptedModel([[good(1)]] * 9)
    search = make_search(model, stop=lambda: len(model.requests) == 1)
    functions = search.initial(1)
    model.requests.clear()
    assert len(improve(search, functions, 3)) == 0
    assert len(model.requests) == 1


@pytest.mark.parametrize("trouble", [AWAY, BudgetSpent("the money is gone")])
def test_trouble_in_the_first_round_ends_the_run_in_one_line(trouble):
    model = ScriptedModel([trouble])
    with pytest.raises(RunError, match=str(trouble)) as caught:
        make_search(model).initial(5)
    assert "scripted" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(model.requests) == 1


def test_a_first_round_of_rubbish_ends_the_run_with_the_first_reason():
    search = make_search(ScriptedModel([["def compute_reward(:", "text"]]))
    with pytest.raises(RunError, match=r"rejected \(1 syntax, 1 no-code\).*line 1: invalid syntax"):
        search.initial(2)
    assert "line 1: invalid syntax" in said(search)


def test_builtin_fills_a_first_population_that_the_model_leaves_open():
    rows = []
    search = make_search(ScriptedModel([[good(1)], AWAY]), record=rows.append)
    functions = search.initial(4)
    assert functions[0].response == good(1)
    assert all(read_genome(function.source) for function in functions[1:])
    assert len(functions) == 4
    assert "scripted gave 1 of 4 reward functions; builtin writes the others" in said(search)
    assert [row["model"] for row in rows] == ["scripted"] * 2  # a replay's own builtin does the same again


@pytest.mark.parametrize("trouble", [AWAY, BudgetSpent("the money is gone")])
def test_trouble_in_a_later_round_keeps_old_functions(trouble):
    search = make_search(ScriptedModel([list(map(good, range(3))), [good(8)], trouble]))
    functions = search.initial(3)
    assert [function.response for function in improve(search, functions, 2)] == [good(8)]
    assert "1 of 2 open slots keep their old function" in said(search)
    assert str(trouble) in said(search)


def test_an_empty_round_is_no_reason_to_end():
    search = make_search(ScriptedModel([[good(1)]]), attempts=2)
    functions = search.initial(1)
    assert improve(search, functions, 2) == []


def test_copies_are_rejected():
    copy = good(1).replace("    return", "    # the same\n\n    return")
    model = ScriptedModel([[good(1), copy, good(2)], [good(3), good(1), copy, good(3), good(4)]])
    search = make_search(model)
    functions = search.initial(2)
    assert [function.response for function in functions] == [good(1), good(2)]
    improved = improve(search, functions[:1], 2)
    assert [function.response for function in improved] == [good(3), good(4)]
    assert search.rejected == {"duplicate": 4}


def test_a_dropped_function_may_come_back():
    search = make_search(ScriptedModel([[good(1), good(2)], [good(2)]]))
    functions = search.initial(2)
    assert [function.response for function in improve(search, functions[:1], 1)] == [good(2)]


def test_the_human_reward_is_no_candidate_with_init():
    copy = f"```python\n{HUMAN_SOURCE}```"
    search = make_search(ScriptedModel([[copy, good(1)]]), setting="with_init")
    assert [function.response for function in search.initial(1)] == [good(1)]
    assert search.rejected == {"duplicate": 1}


def test_an_answer_that_was_cut_off_is_known_as_such():
    reply = Reply(["def compute_reward(obj", good(1), "```python\ndef compute_r"], cut_off=[0, 1])
    search = make_search(ScriptedModel([reply]))
    (function,) = search.initial(1)
    assert function.response == good(1)  # whole in spite of it
    assert search.functions[0].kind == "cut-off"
    assert "token limit" in search.functions[0].reason
    assert "invalid syntax" in search.functions[0].reason


def test_usage_is_counted_by_round_and_in_all():
    search = make_search(ScriptedModel([[good(1)], [good(2)], [good(3), good(4)]]))
    functions = search.initial(2)
    improve(search, functions, 2)
    assert search.cost(price_in=10, price_out=1000) == {
        "calls": 3,
        "tokens_in": 300,
        "tokens_out": 40,
        "cost": pytest.approx((300 * 10 + 40 * 1000) / 1e6),
        "rounds": [
            {"calls": 2, "tokens_in": 200, "tokens_out": 20},
            {"calls": 1, "tokens_in": 100, "tokens_out": 20},
        ],
    }


# --- what the model hears --------------------------------------------------------------------------------------------


def test_a_second_request_of_a_round_tells_why_the_first_failed():
    model = ScriptedModel([["def x(:", "def y(:", "text", good(1), good(2)], [good(3)]])
    make_search(model, attempts=2).initial(3)
    first, second = (request.messages for request in model.requests)
    assert second[0] == first[0]
    assert len(second) == 2
    assert second[1]["content"].startswith(first[1]["content"].rstrip())
    told = second[1]["content"][len(first[1]["content"]) - 1 :]
    assert "- syntax: line 1: invalid syntax (2 times)" in told
    assert "- no-code:" in told
    assert "surplus" not in told


def test_the_next_round_hears_of_the_last_rounds_rejections():
    model = ScriptedModel([["def x(:", good(1), good(2), good(3)], []])
    search = make_search(model, attempts=1)
    improve(search, search.initial(1))
    feedback = model.requests[-1].messages[-1]["content"]
    assert "- syntax: line 1: invalid syntax" in feedback
    assert "surplus" not in feedback


def test_the_best_response_goes_back_with_what_came_of_it():
    model = ScriptedModel([[good(1), good(2)], [good(3)]])
    search = make_search(model, attempts=1)
    functions = search.initial(2)
    improve(search, functions, best=1)
    messages = model.requests[-1].messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[:2] == model.requests[0].messages
    assert messages[2]["content"] == good(2)
    for figure in ("35%", "123.4", "reach: mean 0.5, min 0.25, max 0.75"):
        assert figure in messages[3]["content"]


def test_a_models_answers_descend_from_the_function_that_it_was_shown():
    model = ScriptedModel([[good(1)], [good(2), "no code"]])
    search = make_search(model)
    (best,) = search.initial(1)
    (better,) = search.improve(1, best, REPORT, [(best, REPORT)], 1)
    assert best.parents == []
    assert better.parents == [best.id]
    assert [function.parents for function in search.functions[1:]] == [[best.id], [best.id]]


def test_what_the_model_says_of_parents_is_taken_as_it_is():
    reply = Reply([good(2), good(3), good(4)], parents=[[1], [], [0, 1]])
    search = make_search(ScriptedModel([[good(0), good(1)], reply]))
    functions = search.initial(2)
    improved = improve(search, functions, 3)
    assert [function.parents for function in improved] == [[1], [], [0, 1]]


def test_the_model_is_handed_the_parents():
    model = ScriptedModel([[good(1), good(2)], [good(3)]])
    search = make_search(model)
    functions = search.initial(2)
    improve(search, functions, 1)
    parents = model.requests[-1].parents
    assert [(parent.id, parent.score) for parent in parents] == [(0, 0.35), (1, 0.35)]
    assert parents[0].components == REPORT.components
    assert parents[0].source == functions[0].source


def test_a_conversation_is_continued_and_stays_bounded():
    model = ScriptedModel([[good(number)] for number in range(9)])
    search = make_search(model)
    best = search.initial(1)[0]
    lengths = []
    for round in range(1, 8):
        (best,) = search.improve(round, best, REPORT, [(best, REPORT)], 1)
        messages = model.requests[-1].messages
        lengths.append(len(messages))
        assert messages[-2] == {"role": "assistant", "content": good(round - 1)}
        roles = [message["role"] for message in messages]
        assert roles == ["system", "user", *["assistant", "user"] * (len(roles) // 2 - 1)]
    assert lengths == [4, 6, 8, 10, 10, 10, 10]
    assert messages[:2] == search.feedback.opening


def test_from_scratch_nothing_of_the_human_reward_is_told(tmp_path):
    model = ScriptedModel([[good(1), "bad"], [good(2)], [good(3)]])
    search = make_search(model, human_feedback=str(tmp_path / "none"))
    functions = search.initial(2)
    improve(search, functions)
    text = json.dumps([request.messages for request in model.requests])
    for secret in ("secret", "987.6", "human-designed", "human_reward"):
        assert secret not in text


def test_with_init_the_human_reward_and_its_return_are_told():
    model = ScriptedModel([[good(1)], [good(2)]])
    search = make_search(model, setting="with_init")
    functions = search.initial(1)
    improve(search, functions, 1)
    assert "secret_human_shaping = 1.0" in model.requests[0].messages[1]["content"]
    assert "987.6" in model.requests[1].messages[-1]["content"]


def test_a_best_human_reward_is_what_is_to_be_improved():
    model = ScriptedModel([[good(1)], [good(2)]])
    search = make_search(model, setting="with_init")
    (function,) = search.initial(1)
    report = AgentReport(0.9, 555.5, 555.5, (0.0, 0.07), {})
    (improved,) = search.improve(1, None, report, [(function, REPORT)], 1)
    messages = model.requests[-1].messages
    assert [message["role"] for message in messages] == ["system", "user"]
    for part in ("secret_human_shaping = 1.0", "90%", "555.5"):
        assert part in messages[1]["content"]
    assert improved.messages == messages


def test_with_init_needs_a_human_reward():
    with pytest.raises(UsageError, match="no human reward"):
        make_search(task=make_task(human_reward=None), setting="with_init")


def test_human_feedback_is_read_anew_at_each_round(tmp_path):
    path = tmp_path / "feedback.txt"
    model = ScriptedModel([[good(number)] for number in range(9)])
    search = make_search(model, human_feedback=str(path))
    best = search.initial(1)[0]

    def told(round):
        search.lines.clear()
        list(search.improve(round, best, REPORT, [], 1))
        return model.requests[-1].messages[-1]["content"]

    assert "person" not in told(1)
    path.write_text(" \n")
    assert "person" not in told(2)
    path.write_text("The arm pushes {from} the wrong side \u2013 turn it.\n", encoding="utf-8")
    assert "The arm pushes {from} the wrong side \u2013 turn it." in told(3)
    assert "human feedback" in said(search)
    path.write_bytes(b"\xff\xfe\xfa")
    assert "person" not in told(4)
    assert "cannot be read" in said(search)


# --- what the loop says no to ----------------------------------------------------------------------------------------


def test_a_candidate_that_the_loop_rejects_makes_room_for_the_next():
    model = ScriptedModel([[good(1)], [good(2), good(3), good(4), good(5)], [good(6), good(7)]])
    search = make_search(model)
    (first,) = search.initial(1)
    taken = []
    for function in search.improve(1, first, REPORT, [], 2):
        if function.response in (good(2), good(3), good(5)):
            function.reject("not-finite", "the reward is nan in a stored transition")
        else:
            taken.append(function.response)
    assert taken == [good(4), good(6)]
    assert [request.count for request in model.requests] == [2, 4, 2]
    assert search.rejected == {"not-finite": 3}
    assert (
        "- not-finite: the reward is nan in a stored transition (3 times)" in model.requests[2].messages[-1]["content"]
    )
    assert not any("keep their old function" in line for line in search.lines)


def test_the_order_and_the_distance_of_the_best_function_are_told():
    model = ScriptedModel([[good(1)], [good(2)], [good(3)]])
    search = make_search(model)
    (function,) = search.initial(1)
    (other,) = improve(search, [function], 1, report=dataclasses.replace(REPORT, order=0.625))
    told = model.requests[-1].messages[-1]["content"]
    assert "62%" in told
    assert "0.031 at the nearest moment of an episode, 0.22 at its end" in told
    list(search.improve(2, other, REPORT, [], 1))
    assert "solved episodes so far" not in model.requests[-1].messages[-1]["content"]


# --- state -----------------------------------------------------------------------------------------------------------


def test_a_restored_search_goes_on_as_the_first_would_have():
    first = make_search()
    functions = first.initial(3)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = make_search()
    second.load_state_dict(state)
    assert second.functions == first.functions
    continued = [improve(search, search.functions[:2], 3) for search in (first, second)]
    assert continued[0] == continued[1]
    assert functions[0] == second.functions[0]


def test_counters_go_on_after_a_restart():
    rows = []
    first = make_search(ScriptedModel([["bad"], [good(1)]]), record=rows.append)
    first.initial(1)
    second = make_search(ScriptedModel([["bad", good(2)]]), record=rows.append)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    improve(second, second.functions[1:2], 1)
    assert [row["request"] for row in rows] == [1, 2, 3]
    assert (second.model.usage.calls, second.model.usage.tokens_in) == (3, 300)
    assert second.rejected == {"no-code": 2}
    assert second.functions[-1].id == len(second.functions) - 1


def test_a_recorded_run_is_reproduced_without_its_model(tmp_path):
    def run(model):
        rows = []
        search = make_search(model, record=rows.append)
        functions = search.initial(3)
        improved = improve(search, functions[1:], 2)
        list(search.improve(2, improved[0], REPORT, [], 2))
        return search, rows

    answers = [[good(1), "bad"], AWAY, [good(2), good(1), good(3)], ["bad"], [good(4)], BudgetSpent("no money")]
    original, rows = run(ScriptedModel(answers))
    (tmp_path / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again, _ = run(ReplayModel(str(tmp_path)))
    assert again.functions == original.functions
    assert again.model.usage.calls == again.model.usage.tokens_in == 0


# --- with real reward workers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    """Reward workers for the small task, and a probe for them."""
    with RewardWorkers(make_task().inputs, 1) as workers:
        yield workers, random_columns(np.random.default_rng(0), 40)


def test_every_term_in_every_shape_passes_the_whole_check(real):
    workers, probe = real
    task = make_task()
    terms = {term.name: term for term in task_terms(task, HUMAN_SOURCE)}
    texts = []
    for first in range(7):
        genome = {}
        for name, term in terms.items():
            shape = term.shapes[first % len(term.shapes)]
            gate = "above" if term.stage == MOVE and not SHAPES[shape].may_be_negative else ""
            numbers = {number: bounds.high for number, bounds in term.ranges(shape, bool(gate)).items()}
            genome[name] = Gene(shape, numbers, gate)
        texts.append(write_program(task, terms, genome))
    verdicts = workers.check(texts, probe)
    assert [verdict.reason for verdict in verdicts if not verdict.accepted] == []
    assert [verdict.note for verdict in verdicts if not verdict.compiled] == []
    for text, verdict in zip(texts, verdicts, strict=True):
        assert read_genome(verdict.source) == read_genome(text)  # parents are read from what the check has left
    assert min(verdict.probe_std for verdict in verdicts) > 0.1


def test_the_whole_path(real):
    task = make_task()
    builtin = ProgramSearch(task, 4)
    hostile = "```python\nimport os\n\n\ndef compute_reward(obj):\n    return os.getpid()\n```"
    wrong = "```python\ndef compute_reward(objekt):\n    return 1.0\n```"
    model = ScriptedModel([[hostile, wrong, good("float(obj[0])")]])
    search = RewardSearch(
        task, model, *real, builtin=builtin, setting="from_scratch", attempts=1, log=lambda line: None
    )
    functions = search.initial(2)
    assert improve(search, functions) == []
    assert len(functions) == 2
    assert all(function.accepted for function in functions)
    assert sum(search.rejected.values()) == 2
    assert "obj" in search.functions[1].reason


def test_a_function_that_follows_the_prompt_is_accepted(real):
    first_line = make_search().feedback.opening[1]["content"].strip().splitlines()[-1]
    source = (
        f"{first_line}\n"
        '    reach = tolerance(float(obj[0]), bounds=(0.0, 0.1), margin=0.2, sigmoid="gaussian")\n'
        "    return 10.0 * hamacher_product(reach, 0.5), {'reach': reach}\n"
    )
    workers, probe = real
    (verdict,) = workers.check([f"```python\n{source}```"], probe)
    assert verdict.accepted, verdict.reason
