"""What stored episodes say of candidates, and which of them are chosen: on constructed episodes, by naive counts."""

import numpy as np
import pytest

from reward_code import Evaluation, Failure
from search.builtin import ProgramSearch
from search.choice import Chooser, known_functions
from search.feedback import AgentReport
from search.reward_function import RewardFunction
from search.rounds import RewardSearch
from search.scoring import Experience, judge, sampled
from search_doubles import INPUTS, FakeWorkers, ScriptedModel, call, make_task, random_columns

REPORT = AgentReport(0.35, 987.6, 123.4, (0.031, 0.22), {})
LENGTH, EPISODES = 5, 24
PROBE = random_columns(np.random.default_rng(8), 60)


class Workers(FakeWorkers):
    """Evaluates row by row, in this process."""

    def evaluate(self, sources, columns, components=False, compiled=True):
        return [self.evaluation(source, columns) for source in sources]

    def evaluation(self, source, columns):
        try:
            rewards = [call(source, state)[0] for state in states(columns)]
        except ZeroDivisionError as error:
            return Failure("error", str(error))
        return Evaluation(np.array(rewards, np.float32), {})


def states(columns):
    for row in range(len(columns["action"])):
        values = {name: columns[at.column][row, at.start : at.stop].astype(float) for name, at in INPUTS.items()}
        yield {name: value if INPUTS[name].shape else float(value[0]) for name, value in values.items()}


def source(expression):
    return f"def compute_reward(obj, target, tcp_center, gripper_opening):\n    return {expression}, {{}}\n"


GAP = "abs(obj[0] - target[0])"
REACH = "np.linalg.norm(obj - tcp_center)"


@pytest.fixture
def experience():
    """Episodes of random states, but for the gap along x, which is smaller throughout the better ones."""
    columns = random_columns(np.random.default_rng(3), EPISODES * LENGTH)
    gap = np.linspace(0.02, 0.4, EPISODES)
    obj, target = INPUTS["obj"].start, INPUTS["target"].start
    columns["variables"][:, obj] = columns["variables"][:, target] + np.repeat(gap, LENGTH)
    return Experience(columns, [LENGTH] * EPISODES, gap <= 0.05, np.maximum(gap - 0.05, 0.0).astype(float))


def candidates(*expressions, first=10):
    return [
        RewardFunction(number, 1, [], source(text), f"answer {number}", [], accepted=True)
        for number, text in enumerate(expressions, first)
    ]


def choose(experience, offered, count, staying=(), tried=()):
    for function in tried:
        function.slot = 0
    known = known_functions([*staying, *tried], staying, "")
    choice = Chooser(
        Workers(), PROBE, experience, known, lambda function, failure: function.reject(failure.kind, "fails")
    )
    wanted = iter(range(count, -1, -1))
    return [function.id for function in choice.best_first(offered, lambda: next(wanted))]


# --- what stored episodes say ----------------------------------------------------------------------------------------


def test_figures_are_what_counting_gives():
    rng = np.random.default_rng(0)
    lengths = [3, 1, 4, 2, 5]
    rewards = rng.normal(size=sum(lengths)).astype(np.float32)
    solved = np.array([True, False, False, True, False])
    distance = np.array([0.0, 0.3, 0.1, 0.0, 0.2])
    ends = np.cumsum(lengths)
    means = [rewards[end - length : end].astype(float).mean() for length, end in zip(lengths, ends, strict=True)]
    figures = judge(rewards, Experience({}, lengths, solved, distance))
    pairs = [means[one] > means[other] for one in (0, 3) for other in (1, 2, 4)]
    assert figures.pairs == pytest.approx(np.mean(pairs))
    mine = [sum(other < mean for other in means) for mean in means]
    ranks = [3.5, 0.0, 2.0, 3.5, 1.0]  # of how near they came; both solved ones are nearest
    assert figures.nearness == pytest.approx(np.corrcoef(mine, ranks)[0, 1])
    reach = float(np.ptp(rewards))
    assert figures.spread == pytest.approx(rewards.astype(float).std() / (reach / 2))
    hundredths = [min(int((reward - rewards.min()) / reach * 100), 99) for reward in rewards]
    assert figures.saturated == max(map(hundredths.count, hundredths)) / len(rewards)


def test_without_a_success_nearness_judges_alone(experience):
    failed = Experience(experience.columns, experience.lengths, np.zeros(EPISODES, bool), experience.distance + 0.01)
    right, wrong = (
        judge(Workers().evaluation(source(text), failed.columns).rewards, failed) for text in (f"-{GAP}", GAP)
    )
    assert right.pairs is wrong.pairs is None
    assert right.nearness > 0.9 > -0.9 > wrong.nearness
    assert right.score > 3 * wrong.score


def test_a_reward_that_is_flat_nearly_everywhere_says_little(experience):
    smooth, sharp = (
        judge(Workers().evaluation(source(text), experience.columns).rewards, experience)
        for text in (f"-{GAP}", f"1.0 if {GAP} < 0.05 else 0.0")
    )
    assert sharp.pairs == smooth.pairs == 1.0
    assert sharp.saturated > 0.9
    assert smooth.score > 2 * sharp.score
    assert judge(np.ones(EPISODES * LENGTH, np.float32), experience).score == 0.0


def test_rewards_a_rounding_apart_are_judged_like_others(experience):
    rewards = np.ones(EPISODES * LENGTH, np.float32)
    rewards[::4] = np.nextafter(np.float32(1), np.float32(2))
    assert judge(rewards, experience).saturated == 0.75
    rewards[:] = 0
    rewards[::4] = 1e-45  # the smallest that there is
    assert judge(rewards, experience).saturated == 0.75


def test_few_enough_episodes_are_looked_at_and_no_rare_success_is_missed():
    solved = np.zeros(1000, bool)
    solved[[5, 500, 999]] = True
    chosen, rows = sampled(solved, [np.arange(number * 400, (number + 1) * 400) for number in range(1000)])
    assert len(chosen) == 200
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen[solved[chosen]]) == {5, 500, 999}
    assert chosen[0] == 0
    assert sum(map(len, rows)) <= 30_000
    assert all((part // 400 == episode).all() for episode, part in zip(chosen, rows, strict=True))
    half, _ = sampled(np.arange(1000) % 2 == 0, [np.arange(1)] * 1000)
    assert np.mean(half % 2) == 0.5
    assert len(sampled(np.zeros(0, bool), [])[0]) == 0


# --- which are chosen ------------------------------------------------------------------------------------------------


def test_the_candidate_that_ranks_right_is_chosen(experience):
    offered = candidates(GAP, f"np.exp(-{GAP} / 0.2)", "gripper_opening")
    assert choose(experience, offered, 1) == [11]
    assert offered[1].figures["nearness"] > 0.9
    assert offered[1].choice.startswith("taken as number 1 of 3: score 0.")
    assert [function.kind for function in offered] == ["surplus", "", "surplus"]
    assert offered[0].choice.startswith("not taken: score 0.")
    assert "beside function 11" in offered[2].choice
    assert offered[0].figures["score"] < offered[1].figures["score"]


def test_the_second_slot_goes_to_one_that_is_unlike_the_first(experience):
    like, unlike = f"-{GAP} - 0.01 * gripper_opening", f"-{GAP} * (1 + np.tanh(6 * tcp_center[0]))"
    assert choose(experience, candidates(f"-{GAP}", like, unlike), 2)[1] == 12
    assert choose(experience, candidates(like, unlike), 1, staying=candidates(f"-{GAP}", first=1)) == [11]


@pytest.mark.parametrize(
    "copy",
    [
        f"2.0 - 3.0 * np.sqrt((obj[0] - target[0]) ** 2) - 1.5 * {REACH}",
        f"-{GAP} - 0.5 * np.sqrt(np.sum((tcp_center - obj) ** 2)) + 1e-4 * gripper_opening",
    ],
)
@pytest.mark.parametrize("role", ["staying", "tried"])
def test_a_copy_in_other_words_is_no_newcomer(experience, copy, role):
    original = candidates(f"-{GAP} - 0.5 * {REACH}", first=1)
    offered = candidates(copy, "gripper_opening")
    assert choose(experience, offered, 2, **{role: original}) == [11]
    assert offered[0].kind == "duplicate"
    assert "function 1" in offered[0].reason
    twice = candidates(f"-{GAP} - 0.5 * {REACH}", copy)
    assert choose(experience, twice, 2) == [10]
    assert "function 10" in twice[1].reason


def test_another_width_is_no_copy(experience):
    wide, narrow = f"np.exp(-{GAP} / 0.5)", f"np.exp(-{GAP} / 0.05)"
    assert choose(experience, candidates(narrow), 1, staying=candidates(wide, first=1)) == [10]


def test_what_differs_only_where_no_agent_has_been_is_no_copy(experience):
    one, other = (f"-{REACH} + {weight} * max(0.0, tcp_center[2] - 0.4)" for weight in (1.0, 5.0))
    at = INPUTS["tcp_center"].start + 2
    experience.columns["variables"][:, at] = np.minimum(experience.columns["variables"][:, at], 0.4)
    assert choose(experience, candidates(other), 1, staying=candidates(one, first=1)) == [10]


def test_one_that_is_flat_where_agents_have_been_is_rejected(experience):
    offered = candidates("max(0.0, 3.0 * tcp_center[2] - 3.0)", "gripper_opening")
    assert choose(experience, offered, 2) == [11]
    assert offered[0].kind == "flat"


def test_one_that_fails_on_a_stored_transition_is_rejected(experience):
    offered = candidates("1 / float(obj[0] - obj[0])", "gripper_opening")
    assert choose(experience, offered, 2) == [11]
    assert (offered[0].kind, offered[0].reason) == ("error", "fails")


# --- in a search round -----------------------------------------------------------------------------------------------


def fenced(expression):
    return f"So be it.\n\n```python\n{source(expression)}```"


def make_search(answers, **options):
    task = make_task()
    builtin = ProgramSearch(task, 1)
    model = ScriptedModel(answers)
    return RewardSearch(
        task, model, Workers(), PROBE, builtin=builtin, setting="from_scratch", log=lambda line: None, **options
    )


ANSWERS = ["gripper_opening", GAP, "1 / float(obj[0] - obj[0])", f"-{GAP} - 0.2 * {REACH}"]


def test_a_round_takes_the_best_of_what_was_asked_for_and_says_why(experience):
    search = make_search([[fenced("0.5")], [fenced(text) for text in ANSWERS], []])
    (first,) = search.initial(1)
    first.slot = 0
    taken = list(search.improve(1, first, REPORT, [(first, REPORT)], 2, experience))
    assert [function.id for function in taken] == [4, 1]
    assert [function.kind for function in search.functions[1:]] == ["", "surplus", "error", ""]
    assert all(function.choice for function in search.functions[1:] if function.kind != "error")
    assert [bool(function.response) for function in search.functions] == [True, True, False, False, True]
    restored = make_search([])
    restored.load_state_dict(search.state_dict())
    assert restored.functions == search.functions


def test_when_the_loop_rejects_the_best_the_next_best_takes_its_place(experience):
    search = make_search([[fenced("0.5")], [fenced(text) for text in ANSWERS], []])
    (first,) = search.initial(1)
    taken = []
    for function in search.improve(1, first, REPORT, [], 1, experience):
        taken.append(function.id)
        if len(taken) == 1:
            function.reject("order", "the loop says no")
    assert taken == [4, 1]
    assert search.functions[2].kind == "surplus"


def test_the_first_come_first_when_that_is_asked_for(experience):
    search = make_search([[fenced("0.5")], [fenced(text) for text in ANSWERS]], scored=False)
    (first,) = search.initial(1)
    assert [function.id for function in search.improve(1, first, REPORT, [], 2, experience)] == [1, 2]
    assert search.functions[1].figures == {}
    assert search.functions[1].choice == ""
