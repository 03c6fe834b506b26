"""Functions that solved other tasks as examples in the first prompt."""

import json

from search.builtin import ProgramSearch
from search.examples import SOLVED, solved_examples
from search.rounds import RewardSearch
from search_doubles import FakeWorkers, ScriptedModel, make_task

ANSWER = "```python\ndef compute_reward(obj):\n    return 0.5, {}\n```"


def keep(directory, task, rate, text, setting="from_scratch"):
    (directory / task).mkdir(exist_ok=True)
    row = {"round": 0, "task": task, "setting": setting, "texts": [text], "scores": {"success_rate": rate}}
    with (directory / task / "llm.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_the_best_of_other_tasks_are_shown_and_nothing_of_the_task_itself(tmp_path):
    keep(tmp_path, "door-close", 0.92, "the door, not so well")
    keep(tmp_path, "door-close", 0.98, "the door")
    keep(tmp_path, "slide", 1.0, "the answer")
    keep(tmp_path, "hammer", 1.0, "from the human reward", setting="with_init")
    keep(tmp_path, "drawer-close", 1.0, "the drawer")
    assert solved_examples("slide", "from_scratch", tmp_path) == [
        "drawer-close:\nthe drawer",
        "door-close:\nthe door",
    ]
    assert "hammer:\nfrom the human reward" in solved_examples("slide", "with_init", tmp_path)
    assert solved_examples("slide", "from_scratch", tmp_path / "none") == []


def test_the_first_prompt_shows_them_when_they_are_asked_for():
    task = make_task()
    for examples in ((), ("door-close:\nthe door",)):
        model = ScriptedModel([[ANSWER]])
        RewardSearch(
            task, model, FakeWorkers(), {}, builtin=ProgramSearch(task, 1), setting="from_scratch", examples=examples
        ).initial(1)
        [request] = model.requests
        assert ("the door" in request.messages[1]["content"]) == bool(examples)
        assert len(request.messages) == 2


def test_the_shipped_ones_can_be_read():
    assert all(text.count("```") == 2 for text in solved_examples("none", "with_init", SOLVED))
