"""The loop on real MetaWorld: search rounds, relabeling, inheritance, masks and the ablations."""

import contextlib
import json

import numpy as np
import pytest
import torch

from arguments import parse_args
from lares import BROKEN, FAILED, LaRes
from replay_buffer import EXPLORATION
from reward_code import Failure
from runs.interruption import Interruption
from runs.log import RunLog
from search.builtin import ProgramSearch
from search.connect import connect
from task_specs import get_task

SMALL = (
    "--model=builtin --env-name=window-close-v2 --total-timesteps=900 --init-exploration-steps=120 --episode-length=40 "
    "--LLM_freq=200 --display-interval=100000 --eval-episodes=2 --final_episodes=2 --hidden-size=16 --batch-size=16 "
    "--pop_size=4 --elite_num=2 --num_workers=1 --num_learners=1 --device=cpu --seed=3 --buffer-size=2000"
)


@contextlib.contextmanager
def loop(tmp_path, setting="from_scratch", flags=""):
    args = parse_args(f"{SMALL} {flags}".split(), setting)
    task = get_task(args.env_name)
    builtin = ProgramSearch(task, args.seed)
    log = RunLog(tmp_path, "run", vars(args))
    lares = LaRes(args, setting, task, connect(args.model, builtin=builtin), builtin, log, Interruption())
    try:
        yield lares
    finally:
        lares.close()
        log.close()


@pytest.fixture
def scratch(tmp_path):
    with loop(tmp_path) as lares:
        lares.begin()
        yield lares


@pytest.fixture
def init(tmp_path):
    with loop(tmp_path, "with_init") as lares:
        lares.begin()
        yield lares


def scores_of(lares, success):
    """What an evaluation finds when agent k solves `success[k]` of its episodes."""
    found = type(lares).evaluate(lares)
    for agent, share in enumerate(success):
        for number, episode in enumerate(found[agent].episodes):
            episode.success[:] = number < share * len(found[agent].episodes)
    return found


def learn(lares, updates):
    lares.updates_due = updates
    lares.learn()
    lares.watch()


def ranked_as(lares, monkeypatch, success):
    monkeypatch.setattr(lares, "evaluate", lambda: scores_of(lares, success))


def interpreted(lares, source, rows):
    """The rewards of stored rows by calling the function itself, one row after the other."""
    import math

    import reward_utils

    names = {"np": np, "math": math, **{name: getattr(reward_utils, name) for name in dir(reward_utils)}}
    exec(source, names)
    arguments = names["compute_reward"].__code__.co_varnames[: names["compute_reward"].__code__.co_argcount]
    values = []
    for row in rows:
        given = {}
        for name in arguments:
            place = lares.task.inputs[name]
            part = lares.buffer.columns[place.column][row, place.start : place.stop].astype(np.float64)
            given[name] = part if place.shape else float(part[0])
        reward = names["compute_reward"](**given)
        values.append(reward[0] if isinstance(reward, tuple) else reward)
    return np.array(values)


def test_every_transition_carries_the_reward_of_every_function(scratch):
    scratch.collect()
    size = scratch.buffer.size
    assert size == scratch.env_steps > 120
    for slot in scratch.slots:
        expected = interpreted(scratch, scratch.programs[slot].source, range(size))
        np.testing.assert_allclose(scratch.buffer.columns["rewards"][:size, slot], expected, rtol=1e-5, atol=1e-6)


def test_a_search_round_keeps_elites_and_relabels_the_rest(scratch, monkeypatch):
    scratch.collect()
    learn(scratch, 3)
    before = dict(scratch.programs)
    columns = scratch.buffer.columns["rewards"][: scratch.buffer.size].copy()
    best_networks = scratch.population.networks(2)
    ranked_as(scratch, monkeypatch, [0.5, 0, 1, 0])
    scratch.search_round()

    size = scratch.buffer.size
    for slot in (0, 2):
        assert scratch.programs[slot] is before[slot]
        np.testing.assert_array_equal(scratch.buffer.columns["rewards"][:size, slot], columns[:, slot])
        assert (scratch.buffer.scale[slot], scratch.buffer.shift[slot]) == (1, 0)
    assert scratch.population.constrained == [False, True, False, True]
    best = scratch.buffer.trained_rewards(2)
    for slot in (1, 3):
        program = scratch.programs[slot]
        assert program is not before[slot]
        assert program.parents
        assert set(program.parents) <= {before[0].id, before[2].id}
        expected = interpreted(scratch, program.source, range(size))
        np.testing.assert_allclose(scratch.buffer.columns["rewards"][:size, slot], expected, rtol=1e-5, atol=1e-6)
        trained = scratch.buffer.trained_rewards(slot)
        assert trained.mean() == pytest.approx(best.mean(), rel=1e-3, abs=1e-3)
        assert trained.std() == pytest.approx(best.std(), rel=1e-3)
        torch.testing.assert_close(scratch.population.networks(slot), best_networks, rtol=0, atol=0)
    assert scratch.thompson.rates() == [0.5] * 4
    rows = json.loads((scratch.log.directory / "population.json").read_text())
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert {row["slot"] for row in rows if row["round"] == 1 and row["accepted"]} >= {1, 3}
    for slot in (1, 3):
        code = (scratch.log.directory / f"Iter_1_Reward_Code_{slot}.py").read_text()
        assert code == scratch.programs[slot].source


def test_new_transitions_get_the_new_functions_reward_on_the_same_scale(scratch, monkeypatch):
    ranked_as(scratch, monkeypatch, [1, 0.5, 0, 0])
    scratch.search_round()
    old = scratch.buffer.trained_rewards(3).copy()
    pair = scratch.buffer.scale[3], scratch.buffer.shift[3]
    scratch.collect()
    assert (scratch.buffer.scale[3], scratch.buffer.shift[3]) == pair
    np.testing.assert_array_equal(scratch.buffer.trained_rewards(3)[: len(old)], old)
    rows = range(len(old), scratch.buffer.size)
    expected = interpreted(scratch, scratch.programs[3].source, rows) * pair[0] + pair[1]
    np.testing.assert_allclose(scratch.buffer.trained_rewards(3)[len(old) :], expected, rtol=1e-4, atol=1e-4)


def test_the_human_agent_learns_from_the_environments_reward_and_is_never_replaced(init, monkeypatch):
    assert init.agents == [0, 1, 2, 3, 4]
    init.collect()
    size = init.buffer.size
    np.testing.assert_array_equal(init.buffer.columns["rewards"][:size, 4], init.buffer.columns["env_reward"][:size])
    assert 4 in init.buffer.columns["collector"][:size]  # it collects in every iteration
    learn(init, 3)
    critic = init.population.networks(4)["best_qf1"]
    ranked_as(init, monkeypatch, [0, 1, 0.5, 0, 0])
    init.search_round()
    after = init.population.networks(4)
    torch.testing.assert_close(after["best_actor_net"], init.population.networks(1)["best_actor_net"], rtol=0, atol=0)
    torch.testing.assert_close(after["best_qf1"], critic, rtol=0, atol=0)
    assert init.population.constrained == [True, False, False, True, False]
    np.testing.assert_array_equal(init.buffer.columns["rewards"][:size, 4], init.buffer.columns["env_reward"][:size])


def test_an_elite_human_agent_leaves_one_more_slot_open(init, monkeypatch):
    ranked_as(init, monkeypatch, [0, 0.5, 0, 0, 1])
    before = dict(init.programs)
    init.search_round()
    assert [slot for slot in init.slots if init.programs[slot] is not before[slot]] == [0, 2, 3]
    for slot in (0, 2, 3):  # the scale is that of the human reward, the best agent's
        trained, human = init.buffer.trained_rewards(slot), init.buffer.trained_rewards(4)
        assert trained.std() == pytest.approx(human.std(), rel=1e-3)


def test_ranking_goes_by_success_then_return_then_index(scratch, monkeypatch):
    found = scores_of(scratch, [0, 1, 0.5, 1])
    returns = [9.0, 1.0, 5.0, 2.0]
    for agent, score in found.items():
        for episode in score.episodes:
            episode.transitions["env_reward"] = np.full(1, returns[agent], np.float32)
    assert scratch.rank(found) == [3, 1, 2, 0]
    for score in found.values():
        for episode in score.episodes:
            episode.success[:] = False
    assert scratch.rank(found) == [0, 2, 3, 1]
    for score in found.values():
        for episode in score.episodes:
            episode.transitions["env_reward"] = np.ones(1, np.float32)
    assert scratch.rank(found) == [0, 1, 2, 3]


def test_a_function_that_fails_later_loses_its_place_alone(scratch, monkeypatch):
    genuine = scratch.reward_workers.evaluate_rows

    failure = Failure("not-finite", "the reward is nan")
    broken = scratch.programs[1].source

    def failing(sources, start, stop):
        found = genuine(sources, start, stop)
        return [failure if source == broken else rewards for source, rewards in zip(sources, found, strict=True)]

    monkeypatch.setattr(scratch.reward_workers, "evaluate_rows", failing)
    scratch.collect()
    monkeypatch.undo()
    assert scratch.masked == {1: FAILED}
    failed = scratch.programs[1]
    assert (failed.accepted, failed.kind, failed.reason) == (False, "not-finite", "the reward is nan")
    assert scratch.search.rejected["not-finite"] == 1
    for _ in range(20):
        assert 1 not in scratch.choose_arms()
    assert set(scratch.evaluate()) == {0, 2, 3}
    scratch.search_round()
    assert scratch.programs[1].source != broken
    assert scratch.masked == {}


def test_a_diverged_agent_is_masked_and_comes_back_as_an_inheritor(scratch):
    actor = scratch.population.agent_state(2)["actor"]
    scratch.population.load_agent_state(2, {"actor": torch.full_like(actor, float("inf"))})
    learn(scratch, 1)
    assert scratch.masked == {2: BROKEN}
    assert set(scratch.evaluate()) == {0, 1, 3}
    scratch.search_round()
    assert scratch.masked == {}
    assert scratch.population.finite().all()


def test_an_agent_whose_learner_was_killed_comes_back_as_an_inheritor(scratch, monkeypatch):
    monkeypatch.setattr(scratch.population, "learn", lambda *_: {1: "was killed by SIGKILL"})
    learn(scratch, 1)
    assert scratch.masked == {1: BROKEN}
    said = (scratch.log.directory / "run.log").read_text(encoding="utf-8")
    assert "agent 1 is out until the next search round: its networks are broken (its learner was killed" in said
    monkeypatch.undo()
    learn(scratch, 1)
    assert scratch.masked == {1: BROKEN}
    scratch.search_round()
    assert scratch.masked == {}
    torch.testing.assert_close(scratch.snapshot["agents"][1], scratch.population.agent_state(1), rtol=0, atol=0)


def test_when_all_diverge_the_last_good_networks_return(scratch):
    scratch.evaluate()
    good = scratch.population.networks(0)
    for agent in scratch.agents:
        scratch.population.load_agent_state(agent, {"log_alpha": torch.tensor([float("nan")])})
    learn(scratch, 1)
    assert scratch.masked == {}
    torch.testing.assert_close(scratch.population.networks(0), good, rtol=0, atol=0)


def test_the_order_check_compares_solved_with_unsolved_episodes(scratch):
    source = "def compute_reward(tcp_center, target):\n    return -np.linalg.norm(tcp_center - target)\n"
    assert scratch.order_share(source) is None  # nothing is solved yet
    means = scratch.buffer.episode_means(interpreted(scratch, source, range(scratch.buffer.size)))
    solved = np.argsort(means)[[0, 2]]  # of three episodes, the worst and the best are called solved
    scratch.buffer._episodes = type(scratch.buffer._episodes)(
        (first, count, number in solved) for number, (first, count, _) in enumerate(scratch.buffer._episodes)
    )
    assert scratch.order_share(source) == 0.5
    assert scratch.order_share("def compute_reward(obj):\n    return 1.0 * obj[0] / 0.0\n") is None


def test_a_time_limit_is_terminal_only_when_asked_for(tmp_path):
    for flags, expected in (("", 0), ("--bootstrap_timeouts=0", 3)):
        with loop(tmp_path, flags=flags) as lares:
            lares.begin()
            assert lares.buffer.columns["terminal"][: lares.buffer.size].sum() == expected


def test_ablations(tmp_path, monkeypatch):
    flags = "--selection=all --inherit=0 --shared_buffer=0 --explore_episode=1 --buffer_transfer=1 --action-repeat=2"
    with loop(tmp_path, flags=flags) as lares:
        lares.begin()
        assert lares.choose_arms() == [0, 1, 2, 3, 4]
        networks = lares.population.networks(3)
        lares.collect()
        assert lares.env_steps == 120 + 5 * 40
        assert lares.buffer.size == lares.env_steps // 2
        collector = lares.buffer.columns["collector"][: lares.buffer.size]
        assert {who: (collector == who).sum() for who in np.unique(collector)} == {
            0: 20, 1: 20, 2: 20, 3: 20, EXPLORATION: 80
        }  # fmt: skip
        ranked_as(lares, monkeypatch, [1, 0.5, 0, 0])
        lares.search_round()
        torch.testing.assert_close(lares.population.networks(3), networks, rtol=0, atol=0)
        assert not any(lares.population.constrained)
        np.testing.assert_allclose(lares.buffer.trained_rewards(3), lares.buffer.trained_rewards(0), rtol=1e-5)
        learn(lares, 2)


def test_uniform_selection_ignores_success(tmp_path):
    with loop(tmp_path, flags="--selection=uniform") as lares:
        lares.begin()
        for _ in range(100):
            lares.thompson.update(0, True)
        drawn = [arm for _ in range(300) for arm in lares.choose_arms()]
        counts = np.bincount(drawn, minlength=4)
        assert counts.min() > 0.8 * counts.max()


def test_with_overlap_the_agents_learn_from_what_was_there_before(tmp_path):
    with loop(tmp_path, flags="--overlap 1 --total-timesteps 400") as lares:
        lares.begin()
        assert lares.buffer.size == 120
        for _ in range(3):
            before, policies, due = lares.population.updates, lares.population.policies(), lares.updates_due
            lares.collect()
            assert lares.population.updates == before + due
            # They collected with the weights that they had before they learned.
            np.testing.assert_array_equal(lares.collectors._weights.columns["weights"][:4], policies)
        assert lares.population.updates == lares.buffer.size - 120 - lares.updates_due > 0
        assert not np.array_equal(lares.population.policies(), policies)
