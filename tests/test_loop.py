"""The loop on real MetaWorld: search rounds, relabeling, inheritance, masks and the ablations."""

import contextlib
import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest
import torch

from arguments import parse_args
from errors import UsageError
from lares import LaRes
from replay_buffer import EXPLORATION
from reward_code import Failure
from runs.interruption import Interruption
from search_doubles import ScriptedModel
from workers.randomness import Use

SMALL = (
    "--model=builtin --env-name=window-close-v2 --total-timesteps=900 --init-exploration-steps=120 --episode-length=40 "
    "--LLM_freq=200 --display-interval=100000 --eval-episodes=2 --final_episodes=2 --hidden-size=16 --batch-size=16 "
    "--pop_size=4 --elite_num=2 --num_workers=1 --num_learners=1 --device=cpu --seed=3 --buffer-size=2000"
)


@contextlib.contextmanager
def loop(tmp_path, setting="from_scratch", flags=""):
    args = parse_args(f"{SMALL} --log-dir={tmp_path} --exp_name=run {flags}".split(), setting)
    with LaRes(args, Interruption(), prompts=setting, human_agent=setting == "with_init") as lares:
        yield lares


def begin(lares):
    lares.first_population()
    lares.explore()


@pytest.fixture
def scratch(tmp_path, request):
    with loop(tmp_path, flags=getattr(request, "param", "")) as lares:
        begin(lares)
        yield lares


@pytest.fixture
def init(tmp_path):
    with loop(tmp_path, "with_init") as lares:
        begin(lares)
        yield lares


def evaluated(lares):
    lares.evaluate()
    return set(lares.scores)


def learn(lares, updates):
    lares.updates_due = updates
    lares.learn()


def ranked_as(lares, monkeypatch, success):
    """Let the next evaluation find that agent k solves `success[k]` of its episodes."""
    genuine = lares.simulator.evaluate

    def evaluate(agents, *rest):
        found = genuine(agents, *rest)
        for agent, score in found.items():
            for number, episode in enumerate(score.episodes):
                episode.success[:] = number < success[agent] * len(score.episodes)
                episode.distance[:] = ~episode.success
        return found

    monkeypatch.setattr(lares.simulator, "evaluate", evaluate)


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
        expected = interpreted(scratch, scratch.roster.functions[slot].source, range(size))
        np.testing.assert_allclose(scratch.buffer.columns["rewards"][:size, slot], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scratch", ["--seed=4"], indirect=True)  # with which builtin writes nothing that is constant
def test_a_search_round_keeps_elites_and_relabels_the_rest(scratch, monkeypatch):
    scratch.collect()
    learn(scratch, 3)
    before = dict(scratch.roster.functions)
    columns = scratch.buffer.columns["rewards"][: scratch.buffer.size].copy()
    best_networks = scratch.population.networks(2)
    ranked_as(scratch, monkeypatch, [0.5, 0, 1, 0])
    scratch.search_round()

    size = scratch.buffer.size
    for slot in (0, 2):
        assert scratch.roster.functions[slot] is before[slot]
        np.testing.assert_array_equal(scratch.buffer.columns["rewards"][:size, slot], columns[:, slot])
        assert (scratch.buffer.scale[slot], scratch.buffer.shift[slot]) == (1, 0)
    assert scratch.population.constrained == [False, True, False, True]
    best = scratch.buffer.trained_rewards(2)
    for slot in (1, 3):
        function = scratch.roster.functions[slot]
        assert function is not before[slot]
        assert set(function.parents) <= {before[0].id, before[2].id}
        expected = interpreted(scratch, function.source, range(size))
        np.testing.assert_allclose(scratch.buffer.columns["rewards"][:size, slot], expected, rtol=1e-5, atol=1e-6)
        trained = scratch.buffer.trained_rewards(slot)
        assert trained.mean() == pytest.approx(best.mean(), rel=1e-3, abs=1e-3)
        assert trained.std() == pytest.approx(best.std(), rel=1e-3)
        torch.testing.assert_close(scratch.population.networks(slot), best_networks, rtol=0, atol=0)
    assert scratch.thompson.rates() == [0.5] * 4
    rows = json.loads((scratch.log.directory / "population.json").read_text())
    assert [row["id"] for row in rows] == list(range(len(rows)))
    for slot in (1, 3):
        row = rows[scratch.roster.functions[slot].id]
        assert row["raw_mean"] * row["scale"] + row["shift"] == pytest.approx(best.mean(), rel=1e-3, abs=1e-3)
        assert row["raw_std"] * row["scale"] == pytest.approx(best.std(), rel=1e-3)
    assert {row["slot"] for row in rows if row["round"] == 1 and row["accepted"]} >= {1, 3}
    for slot in (1, 3):
        code = (scratch.log.directory / f"Iter_1_Reward_Code_{slot}.py").read_text()
        assert code == scratch.roster.functions[slot].source


def test_new_transitions_get_the_new_functions_reward_on_the_same_scale(scratch, monkeypatch):
    ranked_as(scratch, monkeypatch, [1, 0.5, 0, 0])
    scratch.search_round()
    old = scratch.buffer.trained_rewards(3).copy()
    pair = scratch.buffer.scale[3], scratch.buffer.shift[3]
    scratch.collect()
    assert (scratch.buffer.scale[3], scratch.buffer.shift[3]) == pair
    np.testing.assert_array_equal(scratch.buffer.trained_rewards(3)[: len(old)], old)
    rows = range(len(old), scratch.buffer.size)
    expected = interpreted(scratch, scratch.roster.functions[3].source, rows) * pair[0] + pair[1]
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
    before = dict(init.roster.functions)
    init.search_round()
    assert [slot for slot in init.slots if init.roster.functions[slot] is not before[slot]] == [0, 2, 3]
    for slot in (0, 2, 3):  # the scale is that of the human reward, the best agent's
        trained, human = init.buffer.trained_rewards(slot), init.buffer.trained_rewards(4)
        assert trained.std() == pytest.approx(human.std(), rel=1e-3)


@pytest.mark.parametrize(("fitness", "ranking"), [("success", [3, 1, 0, 2]), ("return", [1, 3, 2, 0])])
def test_ranking_goes_by_success_then_by_how_near_it_was_or_as_published_by_return(
    scratch, monkeypatch, fitness, ranking
):
    """The human-designed reward, which the environment returns, decides nothing unless it is asked for."""
    scratch.args = dataclasses.replace(scratch.args, fitness=fitness, elite_num=4)
    genuine, told = scratch.simulator.evaluate, []

    def evaluate(agents, *rest):
        found = genuine(agents, *rest)
        figures = zip([0, 1, 0, 1], [0.1, 0.3, 0.2, 0.2], [5, 9, 7, 2], strict=True)
        for score, (success, distance, env_return) in zip(found.values(), figures, strict=True):
            for episode in score.episodes:
                episode.success[:], episode.distance[:] = success, distance
                episode.transitions["env_reward"] = np.full(1, env_return, np.float32)
        return found

    monkeypatch.setattr(scratch.simulator, "evaluate", evaluate)
    monkeypatch.setattr(scratch.search, "improve", lambda _, best, report, elites, *rest: told.append(elites) or [])
    scratch.search_round()
    assert [function.slot for function, _ in told[0]] == ranking


def test_a_lucky_episode_is_outranked_by_nearness_over_fresh_episodes(scratch, monkeypatch):
    genuine, used, told = scratch.simulator.evaluate, [], []

    def evaluate(agents, policies, episodes, use, number):
        used.append(use)
        found = genuine(agents, policies, episodes, use, number)
        for agent, score in found.items():
            for place, episode in enumerate(score.episodes):
                lucky = agent == 0 and place == 0 and len(used) == 1
                episode.success[:], episode.distance[:] = lucky, [0.4, 0.3, 0.1, 0.2][agent]
        return found

    monkeypatch.setattr(scratch.simulator, "evaluate", evaluate)
    monkeypatch.setattr(scratch.search, "improve", lambda _, best, report, elites, *rest: told.append(elites) or [])
    scratch.search_round()
    assert [function.slot for function, _ in told[0]] == [2, 3]
    assert used == [Use.EVALUATION_START, Use.RANKING_START]
    starts = {episode.transitions["obs"][0].tobytes() for episode in told[0][0][1].score.episodes}
    assert len(starts) == 4  # twice the episodes of an evaluation, all of them different
    assert scratch.roster.functions[0].scores["0"]["success_rate"] == 0.25
    assert [scratch.roster.functions[slot].scores["0"]["rank"] for slot in scratch.slots] == [4, 3, 1, 2]


def test_a_function_that_fails_later_loses_its_place_alone(scratch, monkeypatch):
    genuine = scratch.reward_workers.evaluate_rows

    failure = Failure("not-finite", "the reward is nan")
    broken = scratch.roster.functions[1].source

    def failing(sources, start, stop):
        found = genuine(sources, start, stop)
        return [failure if source == broken else rewards for source, rewards in zip(sources, found, strict=True)]

    monkeypatch.setattr(scratch.reward_workers, "evaluate_rows", failing)
    scratch.collect()
    monkeypatch.undo()
    assert list(scratch.roster.failed) == [1]
    failed = scratch.roster.functions[1]
    assert (failed.accepted, failed.kind, failed.reason) == (False, "not-finite", "the reward is nan")
    assert scratch.search.rejected == {"not-finite": 1}
    for _ in range(20):
        assert 1 not in scratch.choose_arms()
    assert evaluated(scratch) == {0, 2, 3}
    scratch.search_round()
    assert scratch.roster.functions[1].source != broken
    assert scratch.roster.out == {}


def test_a_diverged_agent_is_masked_and_comes_back_as_an_heir(scratch):
    actor = scratch.population.agent_state(2)["actor"]
    scratch.population.load_agent_state(2, {"actor": torch.full_like(actor, float("inf"))})
    learn(scratch, 1)
    assert list(scratch.roster.diverged) == [2]
    assert evaluated(scratch) == {0, 1, 3}
    scratch.search_round()
    assert scratch.roster.out == {}
    assert scratch.population.finite().all()


def test_from_scratch_nothing_depends_on_the_human_reward(scratch, tmp_path):
    """The same run with another environment's reward makes the same choices."""
    scratch.collect()
    scratch.learn()
    scratch.search_round()
    chosen = [[f.source for f in scratch.roster.functions.values()], scratch.champions.best.agent]
    with loop(tmp_path / "other") as other:
        genuine = other.simulator._collectors.run

        def unrewarded(orders):
            episodes = genuine(orders)
            for episode in episodes:
                episode.transitions["env_reward"] = np.full_like(episode.transitions["env_reward"], 7)
            return episodes

        other.simulator._collectors.run = unrewarded
        begin(other)
        other.collect()
        other.learn()
        other.search_round()
        assert [[f.source for f in other.roster.functions.values()], other.champions.best.agent] == chosen


def test_spare_candidates_take_the_place_of_those_that_fail_on_the_buffer(scratch):
    x = float(scratch.buffer.columns["next_obs"][7, 0])
    bad = "def compute_reward(obs):\n    assert abs(obs[0] - %r) > 1e-12\n    return obs[%d]\n"
    good = "def compute_reward(obs):\n    return obs[%d]\n"
    scratch.search.model.model = ScriptedModel([[bad % (x, 1), bad % (x, 2), good % 1, good % 2]])
    before = dict(scratch.roster.functions)
    scratch.search_round()
    replaced = [slot for slot in scratch.slots if scratch.roster.functions[slot] is not before[slot]]
    assert {scratch.roster.functions[slot].source for slot in replaced} == {good % 1, good % 2}
    assert [f.kind for f in scratch.search.functions[-4:]] == ["error", "error", "", ""]
    number = scratch.search.functions[-4].id
    state = json.loads((scratch.log.directory / f"Failed_State_{number}.json").read_text())
    assert state["obs"][0] == x


def test_no_broken_policy_acts(tmp_path):
    with loop(tmp_path, flags="--inherit 0 --selection all") as lares:
        begin(lares)
        actor = lares.population.agent_state(2)["actor"]
        lares.population.load_agent_state(2, {"actor": torch.full_like(actor, float("nan"))})
        learn(lares, 1)
        lares.search_round()
        lares.collect()
        assert 2 in lares.buffer.columns["collector"][: lares.buffer.size]
        assert np.isfinite(lares.buffer.columns["action"][: lares.buffer.size]).all()
        assert lares.population.finite().all()


def test_episodes_that_the_simulator_spoils_are_dropped(scratch):
    genuine, before = scratch.simulator._collectors.run, scratch.env_steps

    def spoiled(orders):
        first, *rest = genuine(orders)
        first.transitions["next_obs"] = first.transitions["next_obs"].copy()
        first.transitions["next_obs"][3, 2] = np.inf
        return [first, *rest]

    scratch.simulator._collectors.run = spoiled
    arms = len(scratch.choose_arms())
    scratch.args = dataclasses.replace(scratch.args, selection="all")
    scratch.collect()
    assert arms >= 1
    assert scratch.simulator.dropped == 1
    assert scratch.env_steps == before + 3 * 40
    assert np.isfinite(scratch.buffer.columns["next_obs"]).all()
    assert "dropped an episode" in (scratch.log.directory / "run.log").read_text(encoding="utf-8")


def test_a_collector_that_is_killed_while_idle_is_replaced(scratch):
    [pid] = [worker.pid for worker in scratch.collectors._workers]
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    scratch.collect()
    assert scratch.buffer.size > 120
    assert [worker.pid for worker in scratch.collectors._workers] != [pid]


def test_an_agent_without_rows_of_its_own_goes_on(tmp_path):
    with loop(tmp_path, flags="--shared_buffer 0 --buffer-size 300 --total-timesteps 3000") as lares:
        begin(lares)
        lares.choose_arms = lambda: [0]
        for _ in range(10):
            lares.collect()
            lares.learn()
        assert lares.population.finite().all()
        assert EXPLORATION not in lares.buffer.columns["collector"]


def test_a_policy_that_only_seemed_to_solve_the_task_does_not_end_the_run(tmp_path, monkeypatch):
    with loop(tmp_path, flags="--stop_success 0.9") as lares:
        begin(lares)
        ranked_as(lares, monkeypatch, [0, 0, 1, 0])  # policy 0 of a confirmation is the candidate: it solves nothing
        lares.evaluate()
        assert lares.goes_on()
        assert lares.champions.best.confirmed["success_rate"] == 0
        monkeypatch.undo()
        ranked_as(lares, monkeypatch, [1, 0, 0, 0])
        lares.evaluate()
        assert not lares.goes_on()
        assert lares.status == "solved"
        lares.finish()
        summary = json.loads((lares.log.directory / "summary.json").read_text())
        assert (summary["status"], summary["chosen_agent"], summary["final_success_rate"]) == ("solved", 0, 1.0)
        assert summary["chosen_function"] == lares.roster.functions[0].id


def test_a_task_that_is_solved_needs_no_search_round_and_a_resumed_run_knows_it(tmp_path, monkeypatch):
    with loop(tmp_path, flags="--stop_success 0.9") as lares:
        begin(lares)
        lares.collect()
        ranked_as(lares, monkeypatch, [1, 0, 0, 0])
        monkeypatch.setattr(lares.search, "improve", pytest.fail)
        steps = lares.env_steps
        lares.search_round()
        lares.collect()
        assert (lares.round, lares.env_steps) == (0, steps)
        lares.interruption.signal = signal.SIGTERM  # before the loop comes to see that it is solved
        assert not lares.goes_on()
        lares.finish()
        assert json.loads((lares.log.directory / "summary.json").read_text())["status"] == "interrupted"
    with loop(tmp_path, flags=f"--stop_success 0.9 --resume {tmp_path / 'run'}") as lares:
        assert not lares.goes_on()
        assert (lares.status, lares.env_steps) == ("solved", steps)


def test_updates_that_an_interruption_cut_short_are_made_in_the_last_iteration_too(scratch):
    scratch.env_steps = scratch.args.total_timesteps
    scratch.updates_left = 7
    assert scratch.goes_on()
    scratch.collect()
    scratch.learn()
    assert (scratch.population.updates, scratch.env_steps) == (7, scratch.args.total_timesteps)
    assert not scratch.goes_on()
    assert scratch.status == "finished"


def test_a_resumed_run_compiles_its_reward_functions_again(tmp_path):
    with loop(tmp_path) as lares:
        begin(lares)
        compiled = dict(lares.reward_workers._compiled)
        assert any(compiled.values())
    with loop(tmp_path, flags=f"--resume {tmp_path / 'run'}") as lares:
        assert lares.reward_workers._compiled.items() <= compiled.items()
        assert len(lares.reward_workers._compiled) == len({f.source for f in lares.roster.functions.values()})


def test_losses_are_means_since_the_last_evaluation(scratch, monkeypatch):
    rows = []
    monkeypatch.setattr(scratch.log, "metrics", lambda env_steps, row: rows.append(row))
    losses = []
    genuine = scratch.population.losses
    monkeypatch.setattr(scratch.population, "losses", lambda: losses.append(genuine()) or losses[-1])
    for updates in (3, 4):
        learn(scratch, updates)
    scratch.evaluate()
    assert len(losses) == 1
    assert rows[0]["agents"][1]["critic_loss"] == losses[0]["critic_loss"][1]


def test_a_time_limit_is_terminal_only_when_asked_for(tmp_path):
    for flags, expected in (("", 0), ("--bootstrap_timeouts=0", 3)):
        with loop(tmp_path, flags=flags) as lares:
            begin(lares)
            assert lares.buffer.columns["terminal"][: lares.buffer.size].sum() == expected


def test_ablations(tmp_path, monkeypatch):
    flags = "--selection=all --inherit=0 --shared_buffer=0 --explore_episode=1 --buffer_transfer=1 --action-repeat=2"
    with loop(tmp_path, flags=flags) as lares:
        begin(lares)
        assert lares.choose_arms() == [0, 1, 2, 3, lares.untrained]
        networks = lares.population.networks(3)
        lares.collect()
        assert lares.env_steps == 120 + 5 * 40
        assert lares.buffer.size == lares.env_steps // 2
        collector = lares.buffer.columns["collector"][: lares.buffer.size]
        assert {who: (collector == who).sum() for who in np.unique(collector)} == {
            0: 20, 1: 20, 2: 20, 3: 20, EXPLORATION: 80
        }  # fmt: skip
        ranked_as(lares, monkeypatch, [1, 0.5, 0, 0, 0])
        lares.search_round()
        torch.testing.assert_close(lares.population.networks(3), networks, rtol=0, atol=0)
        assert not any(lares.population.constrained)
        np.testing.assert_allclose(lares.buffer.trained_rewards(3), lares.buffer.trained_rewards(0), rtol=1e-5)
        learn(lares, 2)


def test_uniform_selection_ignores_success(tmp_path):
    with loop(tmp_path, flags="--selection=uniform") as lares:
        begin(lares)
        for _ in range(100):
            lares.thompson.update(0, True)
        drawn = [arm for _ in range(300) for arm in lares.choose_arms()]
        counts = np.bincount(drawn, minlength=4)
        assert counts.min() > 0.8 * counts.max()


def test_with_overlap_the_agents_learn_from_what_was_there_before(tmp_path):
    with loop(tmp_path, flags="--overlap 1 --total-timesteps 400") as lares:
        begin(lares)
        assert lares.buffer.size == 120
        for _ in range(3):
            before, policies, due = lares.population.updates, lares.population.policies(), lares.updates_due
            lares.collect()
            lares.learn()
            assert lares.population.updates == before + due
            # They collected with the weights that they had before they learned.
            np.testing.assert_array_equal(lares.collectors._weights.columns["weights"][:4], policies)
        assert lares.population.updates == lares.buffer.size - 120 - lares.updates_due > 0
        assert not np.array_equal(lares.population.policies(), policies)
        # An interruption before it collects leaves both for the resumed run: the policies that collect come first.
        lares.interruption.signal = signal.SIGTERM
        updates, due = lares.population.updates, lares.updates_due
        lares.collect()
        lares.learn()
        assert (lares.population.updates, lares.updates_due) == (updates, due)


def test_eureka_trains_each_rounds_functions_from_nothing(tmp_path):
    """Ma et al. 2023: new networks, an empty buffer and new functions in every slot, from the best one's feedback."""
    with loop(tmp_path, flags="--preset eureka --pop_size 3") as lares:
        begin(lares)
        lares.collect()
        learn(lares, 3)
        before, networks, actions = (
            dict(lares.roster.functions),
            lares.population.networks(1),
            lares.buffer.columns["action"][0].copy(),
        )
        steps = lares.env_steps
        lares.search_round()
        assert all(lares.roster.functions[slot] is not before[slot] for slot in lares.slots)
        assert not torch.equal(lares.population.networks(1)["best_qf1"]["0.weight"], networks["best_qf1"]["0.weight"])
        assert lares.buffer.size == 120
        assert lares.env_steps == steps + 120
        assert not np.array_equal(lares.buffer.columns["action"][0], actions)
        for slot in lares.slots:
            expected = interpreted(lares, lares.roster.functions[slot].source, range(120))
            np.testing.assert_allclose(lares.buffer.columns["rewards"][:120, slot], expected, rtol=1e-4, atol=1e-5)
        fresh = lares.population.agent_state(0)
        assert not fresh["critic_exp_avg"].any()
        lares.collect()
        assert len(np.unique(lares.buffer.columns["collector"][: lares.buffer.size])) == 4  # every agent and nobody
        lares.learn()
        assert lares.population.finite().all()


@pytest.mark.parametrize(("rule", "rate"), [("any", 1.0), ("last", 0.5), ("3", 0.0)])
def test_success_can_be_asked_to_hold(tmp_path, monkeypatch, rule, rate):
    with loop(tmp_path, flags=f"--success {rule}") as lares:
        begin(lares)
        genuine = lares.simulator._collectors.run

        def run(orders):
            episodes = genuine(orders)
            for number, episode in enumerate(episodes):
                episode.success[:] = False
                episode.success[-2 + number % 2] = True  # solved for one decision: the last but one, or the last
            return episodes

        monkeypatch.setattr(lares.simulator._collectors, "run", run)
        lares.evaluate()
        assert {score.success_rate for score in lares.scores.values()} == {rate}
        assert {score.any_step_success_rate for score in lares.scores.values()} == {1.0}
        words = {"any": "at any of its 40 steps", "last": "at its last step", "3": "at each of its last 3 steps"}[rule]
        assert words in lares.search.feedback.opening[1]["content"]


def test_a_task_without_success_is_ranked_by_return_or_refused(tmp_path):
    tasks = tmp_path / "own.py"
    tasks.write_text(
        "TASKS = {'swing': {'description': 'Swing up.', 'make': 'Pendulum-v1', 'variables': "
        "{'angle': {'read': 'np.arctan2(obs[1], obs[0])', 'meaning': 'from upright', 'role': 'object'}}}}"
    )
    flags = f"--task_file {tasks} --env-name swing --fitness"
    with pytest.raises(UsageError, match="does not say when it is solved; give --fitness return"):
        loop(tmp_path, flags=f"{flags} success").__enter__()
    with loop(tmp_path, flags=f"{flags} return") as lares:
        lares.search.model.model = ScriptedModel(
            [[f"def compute_reward(angle):\n    return {n} * angle\n" for n in range(1, 9)]]
        )
        begin(lares)
        lares.collect()
        lares.learn()
        lares.evaluate()
        returns = {agent: score.env_return for agent, score in lares.scores.items()}
        assert lares.champions.best.agent == max(returns, key=returns.get)


def test_more_candidates_than_agents_leave_the_untrained_policy_alone(tmp_path):
    with loop(tmp_path, flags="--pop_size 1 --elite_num 1 --explore_episode 1 --display-interval 40") as lares:
        begin(lares)
        untrained = lares.collectors._weights.columns["weights"][lares.untrained].copy()
        for _ in range(6):
            lares.collect()
            lares.learn()
            lares.evaluate()
        assert len(lares.champions.candidates) == 5
        lares.confirm(5)
        np.testing.assert_array_equal(lares.collectors._weights.columns["weights"][lares.untrained], untrained)
        assert untrained.any()
