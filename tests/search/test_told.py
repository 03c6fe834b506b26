"""What goes to the model in a round: the population, a bounded memory, and nothing of the human reward."""

import dataclasses
import json

import numpy as np
import pytest

from reward_code import Evaluation
from search import memory, population_view
from search.feedback import AgentReport, Feedback
from search.reward_function import RewardFunction
from search.tokens import count_tokens, tokens_of
from task_specs import get_task
from tasks.episode import Episode, Score

STEPS, EPISODES = 150, 20
NAMES = ["reach_handle", "align_height", "grasp", "pull_open", "effort"]
SOURCE = "def compute_reward(tcp_center, obj, target):\n    number_{id} = 1.0\n    return number_{id}, {{}}\n"
IDEA = "Come to the handle from above with open fingers, hook it, and pull it to the target line"


def function(id, round=0, parents=(), slot=None, replaced=None, rate=0.05, nearest=0.1234, rank=1, **fields):
    scores = {"success_rate": rate, "nearest_distance": nearest, "rank": rank, "env_return": 987.6}
    return RewardFunction(
        *(id, round, list(parents), SOURCE.format(id=id), f"Idea: {IDEA} {id}.\n```python\npass\n```", []),
        idea=f"{IDEA} {id}.",
        accepted=True,
        slot=slot,
        replaced=replaced,
        scores={"0": scores} if rank else {},
        components=dict.fromkeys(NAMES, (0.5, 0.0, 1.0)) if rank else {},
        evaluations={
            str(number): {"round": 2, "success_rate": 0.05 * number, "nearest_distance": 0.0123 * (10 - number)}
            for number in range(10)
        },
        **fields,
    )


def functions():
    """Five in the population, 7 before the others; three that gave way, two that could not be used."""
    return [
        function(0, slot=0, rank=2, nearest=0.02),
        function(1, slot=1, rate=0.1, rank=4),
        function(2, slot=2, rate=0.0, rank=5),
        function(3, slot=3, rate=0.2, rank=3),
        function(4, slot=4, rate=0.0, nearest=0.9, rank=5),
        dataclasses.replace(
            function(5, 2, rank=0),
            accepted=False,
            kind="syntax",
            reason="line 3: invalid syntax; " + "the parenthesis opened there is never closed " * 9,
        ),
        dataclasses.replace(function(6, 2, rank=0), accepted=False, kind="name", reason="there is no variable handle"),
        function(7, 1, slot=1, replaced=1, rate=0.15, nearest=0.0159, rank=1),
        function(8, 1, [0], slot=2, replaced=2, rate=0.0, rank=4),
        function(9, 1, [0], slot=4, replaced=4, rate=0.05, rank=3),
        dataclasses.replace(function(10, 2, [7], slot=3, replaced=3, rank=0), kind="not-finite", reason="nan"),
    ]


def report(rng, rates=(0.2, 0.05)):
    """Evaluation episodes of drawer-open, some of which are solved, with everything there is to tell."""
    task, episodes = get_task("drawer-open"), []
    for number in range(EPISODES):
        success = np.arange(STEPS) > (100 if number > 15 else STEPS)
        handle = np.array([0.01 * number, 0.7, 0.1])
        way = np.linspace(1, 0, STEPS)[:, None]
        places = {"obj_init_pos": handle, "obj": handle, "target": handle - [0, 0.2, 0]}
        places["tcp_center"] = handle + way * [0.03, -0.12, 0.2] + rng.normal(0, 0.02, 3)
        variables = np.zeros((STEPS, task.variable_width), np.float32)
        for name, where in places.items():
            variables[:, task.inputs[name].start : task.inputs[name].stop] = where
        transitions = {
            "obs": np.zeros((STEPS, 39), np.float32),
            "next_obs": np.zeros((STEPS, 39), np.float32),
            "action": rng.uniform(-1, 1, (STEPS, 4)).astype(np.float32),
            "variables": variables,
            "env_reward": np.full(STEPS, 987.6, np.float32),
            "terminal": np.zeros(STEPS, np.float32),
        }
        distance = np.where(success, 0, rng.uniform(0.04, 0.2, STEPS)).astype(np.float32)
        episodes.append(Episode(transitions, success, distance))
    score = Score(episodes)
    parts = {name: rng.uniform(0, number + 0.5, EPISODES * STEPS) for number, name in enumerate(NAMES)}
    return AgentReport(
        score.success_rate,
        score.env_return,
        1234.5678,
        (score.nearest_distance, score.final_distance),
        {name: (float(values.mean()), float(values.min()), float(values.max())) for name, values in parts.items()},
        0.625,
        score,
        Evaluation(sum(parts.values()), parts),
    )


def feedback(setting="from_scratch", context=16_000):
    return Feedback(get_task("drawer-open"), setting, STEPS, 1, "any", {}, context, None, None, print)


def told(setting="from_scratch", **options):
    known = functions()
    best = known[7]
    writer = feedback(setting)
    best.messages = writer.opening
    return writer.conversation(3, best, report(np.random.default_rng(0), **options), known)


def without_code(text):
    parts = text.split("```")
    return "".join(parts[::2])


# --- how much, and what not ------------------------------------------------------------------------------------------


def test_a_rounds_feedback_for_five_agents_is_short():
    text = told()[-1]["content"]
    for present in (
        "since the last round",
        "the 16 unsolved episodes",
        "ten parts",
        "#10",
        "gave way",
        "not be used",
        "62%",
    ):
        assert present in text
    assert count_tokens(without_code(text)) < 1500


@pytest.mark.parametrize(
    ("text", "count"),  # by the tokenizer cl100k_base
    [
        ("Reward every stage on the way: coming near the object, then moving it.", 16),
        ("- distance from obj to target (x 1000): 199 180 160", 18),
        ("    return 1.0 - np.tanh(np.linalg.norm(obj - target) / 0.1), {}", 24),
    ],
)
def test_tokens_are_counted_nearly_as_a_tokenizer_does(text, count):
    assert 0.9 * count <= count_tokens(text) <= 1.2 * count


def test_from_scratch_nothing_of_the_human_reward_is_told():
    text = json.dumps(told())
    for secret in ("987", f"{987.6 * STEPS:.4g}", "148140", "human", "env_return"):
        assert secret not in text
    assert f"{987.6 * STEPS:.4g}" in told("with_init")[-1]["content"]


# --- the population --------------------------------------------------------------------------------------------------


def test_the_population_stands_in_the_order_of_its_ranks_with_ideas_rewards_and_outcomes():
    lines = population_view.population(functions()).splitlines()
    assert [line.split()[1] for line in lines] == ["#7", "#0", "#9", "#8", "#10"]
    assert lines[0] == f"- #7 (15%, 0.0159): {IDEA} 7; it rewards {', '.join(NAMES[:3])} and 2 more"
    assert lines[-1] == f"- #10 (not evaluated): {IDEA} 10; it failed (not-finite)"


def test_what_gave_way_is_told_with_what_came_for_it():
    lines = population_view.gone(functions()).splitlines()
    assert [line.split()[1] for line in lines] == ["#3", "#1"]  # the best ones
    assert lines[1] == f"- #1 (10%, 0.123): {IDEA} 1; gave way to #7"


def test_the_best_and_the_second_best_are_shown_in_full():
    *_, answer, text = told()
    assert answer == {"role": "assistant", "content": functions()[7].response}
    assert "Function #0, for comparison" in text["content"]
    assert SOURCE.format(id=0).strip() in text["content"]


def test_behind_a_best_human_reward_the_best_function_is_shown():
    text = feedback("with_init").conversation(3, None, report(np.random.default_rng(0)), functions())[-1]["content"]
    assert SOURCE.format(id=7).strip() in text
    assert "since the last round" not in text


@pytest.mark.parametrize(
    ("answer", "idea"),
    [
        ("Idea: push it down.\nThen more.\n```python\nidea: 3\n```", "push it down."),
        ("Well.\n**Idea:** *hook* the handle \u2013 and pull\n```python\n```", "hook* the handle \u2013 and pull"),
        ("**Idea.** The robot hooks it.\n```python\n```", "The robot hooks it."),
        ("<think>Idea: a draft</think>\n- idea - the real one", "the real one"),
        ("The hand goes above. Then it falls.\n\n```python\nx = 1\n```", "The hand goes above."),
        ("A cross of 3 terms:\n\n- `a` rewards\n```python\n```", "A cross of 3 terms"),
        ("def compute_reward(obj):\n    return 1.0\n", ""),
        ("```python\nx = 1", ""),
        ("", ""),
        ("Idea: " + "word " * 99, "word " * 15 + "word \u2026"),
    ],
)
def test_the_idea_of_an_answer(answer, idea):
    assert population_view.idea_of(answer) == idea


# --- memory ----------------------------------------------------------------------------------------------------------


def turns(count, words=10):
    return [
        {"role": role, "content": f"{role} {number}" + " word" * words}
        for number in range(count)
        for role in ("assistant", "user")
    ]


def test_the_last_four_turns_stay():
    assert memory.turns_within(turns(3), 10_000) == turns(3)
    assert memory.turns_within(turns(9), 10_000) == turns(9)[-8:]


@pytest.mark.parametrize(("budget", "kept"), [(0, 1), (230, 1), (460, 2), (690, 3), (920, 4)])
def test_a_budget_of_tokens_drops_the_oldest_first(budget, kept):
    conversation = turns(6, words=110)
    assert memory.turns_within(conversation, budget) == conversation[-2 * kept :]


def test_what_is_forgotten_is_summed_up():
    line = [function(id, parents=[id - 1] if id else [], rate=id / 10) for id in range(7)]
    writer = feedback()
    line[6].messages = [*writer.opening, *turns(3)]
    messages = writer.conversation(9, line[6], report(np.random.default_rng(0)), line)
    assert len(messages) == 2 + 8
    assert messages[2:8] == turns(3)
    earlier = messages[-1]["content"].split("oldest first:\n")[1].split("\n\n")[0].splitlines()
    assert [entry[:10] for entry in earlier] == ["- #0 (0%, ", "- #1 (10%,", "- #2 (20%,"]


def test_the_context_bounds_a_conversation():
    writer = feedback(context=6_000)
    (best,) = line = [function(0)]
    best.messages = [*writer.opening, *turns(3, words=1_000)]
    messages = writer.conversation(9, best, report(np.random.default_rng(0)), line)
    assert messages[2:-2] == turns(3, words=1_000)[4:]
    assert tokens_of(messages) < 6_000
