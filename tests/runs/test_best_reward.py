"""The head of the reward function that a run hands out."""

from arguments import Arguments
from runs.best_reward import best_reward
from runs.champion import Candidate
from search.reward_function import RewardFunction
from task_specs import get_task

BEST = Candidate(2, 7, 3, 12_000, (0.8,), {"success_rate": 0.8}, {})


def lines(text):
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def test_the_human_reward_is_named_as_such():
    task = get_task("drawer-close")
    text = best_reward(Arguments("with_init", env_name="drawer-close"), task, BEST, None, None)
    assert "function:  the human-designed reward, which no model wrote" in lines(text)
    assert "success:   best so far 0.80; the run was interrupted before its final episodes" in lines(text)
    names = {}
    exec(text, names)
    assert callable(names["compute_reward"])
    assert callable(names["tolerance"])


def test_a_head_stays_comments_whatever_the_model_is_called():
    function = RewardFunction(7, 3, [2, 5], "def compute_reward(obj):\n    return obj[0]\n", "", [])
    args = Arguments("from_scratch", model="odd\nimport os")
    text = best_reward(args, get_task("drawer-close"), BEST, function, None)
    assert "function:  7, written in search round 3 from 2 and 5" in lines(text)
    assert "model:     odd import os, seed 123" in lines(text)
    assert text.count("import") == 1
    assert text.endswith("\n\ndef compute_reward(obj):\n    return obj[0]\n")
