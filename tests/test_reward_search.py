"""The search round: what is asked, what is taken, what is told."""

import json

from program_search import ProgramSearch
from reward_search import AgentReport, RewardSearch
from search_doubles import FakeWorkers, ScriptedModel, make_task

REPORT = AgentReport(0.3, 12.0, 200.0, {"reach": (0.1, 0.0, 0.2)}, {"obj_to_target": 0.21})


def make_search(model=None, *, task=None, workers=None, **options):
    task = task or make_task()
    builtin = ProgramSearch(task, 1)
    options = {"setting": "from_scratch", "log": lambda line: None, **options}
    return RewardSearch(task, model or builtin, workers or FakeWorkers(), {}, builtin=builtin, **options)


def code(value):
    return f"So be it.\n\n```python\ndef compute_reward(obj):\n    return {value}, {{}}\n```"


def test_builtin_goes_end_to_end():
    search = make_search()
    programs = search.initial(5)
    improved = search.improve(1, programs[0], REPORT, [(programs[0], REPORT), (programs[1], REPORT)], 3)
    assert len(programs) == 5
    assert len(improved) == 3
    assert all(program.accepted and program.source for program in programs + improved)
    assert {parent for program in improved for parent in program.parents} <= {programs[0].id, programs[1].id}
    assert [program.id for program in search.programs] == list(range(len(search.programs)))
    json.dumps(search.state_dict(), allow_nan=False)


def test_asks_for_twice_the_open_slots_until_full():
    model = ScriptedModel([[code(1), "no code"], [code(2), code(3), code(4)]])
    search = make_search(model)
    assert [program.response for program in search.initial(3)] == [code(1), code(2), code(3)]
    assert [request.count for request in model.requests] == [6, 4]
