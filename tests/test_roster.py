"""Who is in the game, on real networks and a real buffer; only the reward workers are stand-ins."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from arguments import Arguments
from population import Population
from replay_buffer import ReplayBuffer
from reward_code import Failure
from roster import Roster
from search.reward_function import RewardFunction

SIZES = {"obs": 3, "action": 2, "next_obs": 3, "variables": 1}
ARGS = {"order_check": 0.0, "buffer_transfer": 0, "scale_type": 2, "inherit": 1}


class Workers:
    """Rewards are `source` times the first variable, read as a number; "fails" gives none."""

    def __init__(self, buffer):
        self.buffer = buffer

    def evaluate_rows(self, sources, start, stop):
        values = self.buffer.columns["variables"][start:stop, 0]
        failure = Failure("not-finite", "the reward is nan")
        return [failure if source == "fails" else np.float32(source) * values for source in sources]


class Log:
    def __init__(self):
        self.lines, self.files = [], {}
        self.say = self.lines.append
        self.boards = SimpleNamespace(reward_code=lambda slot, source, round: None)

    def write_text(self, name, text):
        self.files[name] = text


def episode(rng, count=20):
    columns = {name: rng.normal(size=(count, width)).astype(np.float32) for name, width in SIZES.items()}
    return {**columns, "env_reward": rng.normal(size=count).astype(np.float32), "terminal": np.zeros(count, np.float32)}


def function(number, source):
    return RewardFunction(number, 0, [], source, f"answer {number}", [], accepted=True)


@pytest.fixture
def game():
    """Three slots and a human agent, with 20 transitions."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(100, 3, 2, 1, 4, torch.device("cpu"))
    population = Population(
        Arguments("from_scratch", hidden_size=8).sac_config(3, 2), buffer, initial_seed=1, learning_seed=2
    )
    log = Log()
    roster = Roster(SimpleNamespace(**ARGS), population, buffer, Workers(buffer), log, human=3)
    for slot, source in enumerate(("1", "2", "3")):
        roster.install(slot, function(slot, source), 0)

    def store():
        [(start, stop)] = buffer.add(episode(rng), 0, False)
        roster.reward([(start, stop)])
        return start, stop

    store()
    return SimpleNamespace(roster=roster, buffer=buffer, population=population, log=log, store=store)


def test_an_agent_without_a_score_stands_behind_those_that_have_one(game):
    scores = {agent: SimpleNamespace(success_rate=rate) for agent, rate in ((3, 0.5), (0, 0.25), (2, 0.0))}
    standings = game.roster.standings(scores, [3, 0, 2], {3})  # every episode of agent 1 was dropped
    assert [(one.agent, one.now) for one in standings] == [(3, 0.5), (0, 0.25), (2, 0.0), (1, None)]


def diverge(game, agent, value=float("nan")):
    critic = game.population.agent_state(agent)["critic"]
    game.population.load_agent_state(agent, {"critic": torch.full_like(critic, value)})


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("actor", "critic", "target", "log_alpha"))


def test_a_diverged_agent_goes_on_getting_rewards(game):
    diverge(game, 1)
    game.roster.check_health({})
    assert game.roster.playing == [0, 2, 3]
    assert game.roster.out == {1: "its networks are unusable: they are not finite"}
    start, stop = game.store()
    rewards = game.buffer.columns["rewards"][start:stop]
    variables = game.buffer.columns["variables"][start:stop, 0]
    np.testing.assert_allclose(rewards[:, 1], 2 * variables)
    np.testing.assert_array_equal(rewards[:, 3], game.buffer.columns["env_reward"][start:stop])


@pytest.mark.parametrize("inherit", [True, False])
def test_nobody_comes_back_with_broken_networks(game, inherit):
    good = game.population.agent_state(1)
    game.roster.remember()
    for agent in (1, 2):
        diverge(game, agent)
    game.roster.check_health({})
    assert game.roster.replace(2, function(3, "5"), 0, 1)
    game.roster._args.inherit = int(inherit)
    game.roster.succeed(0, [2], [0, 3])
    assert game.roster.playing == [0, 1, 2, 3]
    assert game.population.finite().all()
    best, kept, newcomer = (game.population.agent_state(agent) for agent in (0, 1, 2))
    # Who keeps its function keeps the critics that were learned on it.
    assert torch.equal(kept["critic"], good["critic"])
    assert torch.equal(kept["actor"], (best if inherit else good)["actor"])
    assert same(newcomer, best) == inherit
    assert game.population.constrained == [False, False, inherit, False]


def test_a_diverged_human_agent_keeps_critics_of_its_own(game):
    good = game.population.agent_state(3)
    diverge(game, 3)
    game.roster.check_health({})
    game.roster.succeed(0, [], [0])
    human = game.population.agent_state(3)
    assert torch.equal(human["critic"], good["critic"])
    assert torch.equal(human["actor"], game.population.agent_state(0)["actor"])


def test_when_no_slot_is_left_only_those_that_diverged_go_back(game):
    game.roster.remember()
    before = game.population.agent_state(0)
    game.population.learn(4, 3)
    human = game.population.agent_state(3)
    for agent in (0, 1, 2):
        diverge(game, agent, float("inf"))
    game.roster.check_health({})
    assert game.roster.playing == [0, 1, 2, 3]
    assert same(game.population.agent_state(0), before)
    assert same(game.population.agent_state(3), human)
    assert any("no agent of the population is left" in line for line in game.log.lines)


def test_only_good_networks_are_remembered(game):
    diverge(game, 1)
    game.roster.check_health({})
    game.roster.remember()
    assert torch.isfinite(game.roster.state_dict()["good"][1]["critic"]).all()


def test_an_agent_whose_learner_ended_is_out(game):
    game.roster.check_health({2: "its learner was killed by SIGKILL"})
    assert game.roster.playing == [0, 1, 3]
    assert "its learner was killed by SIGKILL" in game.log.lines[-1]


def test_a_failed_function_is_out_until_there_is_a_new_one(game):
    game.roster.functions[1].source = "fails"
    game.store()
    assert game.roster.playing == [0, 2, 3]
    assert (game.roster.functions[1].accepted, game.roster.functions[1].kind) == (False, "not-finite")
    game.roster.succeed(0, [], [0])
    assert game.roster.playing == [0, 2, 3]
    assert game.roster.replace(1, function(3, "7"), 0, 1)
    game.roster.succeed(0, [1], [0])
    assert game.roster.playing == [0, 1, 2, 3]
    size = game.buffer.size
    np.testing.assert_allclose(game.buffer.columns["rewards"][:size, 1], 7 * game.buffer.columns["variables"][:size, 0])
    assert game.roster.functions[1].replaced == 1


def test_a_function_that_fails_on_a_stored_transition_takes_no_slot(game):
    candidate = function(3, "fails")
    before = game.buffer.columns["rewards"].copy()
    assert not game.roster.replace(1, candidate, 0, 1)
    assert (candidate.accepted, candidate.kind) == (False, "not-finite")
    assert game.roster.functions[1].source == "2"
    np.testing.assert_array_equal(game.buffer.columns["rewards"], before)


def test_a_function_that_ranks_solved_episodes_too_low_takes_no_slot(game):
    rng = np.random.default_rng(1)
    for success, value in ((True, 1.0), (True, 3.0), (False, 2.0)):
        columns = episode(rng)
        columns["variables"][:] = value
        [(start, stop)] = game.buffer.add(columns, 0, success)
        game.roster.reward([(start, stop)])
    low, high = function(3, "1"), function(4, "-1")
    game.roster._args.order_check = 0.6
    assert not game.roster.replace(1, low, 0, 1)  # one of the two solved episodes beats every unsolved one
    assert low.order == 0.5
    assert low.kind == "order"
    assert "50%" in low.reason
    game.roster._args.order_check = 0.5
    assert game.roster.replace(1, low, 0, 1) is True
    assert not game.roster.replace(1, high, 0, 1)
    assert high.order == 0.0


def test_candidates_are_scored_on_the_episodes_as_they_were_stored(game):
    rng = np.random.default_rng(1)
    stored = [episode(rng, count) for count in (30, 25, 40)]
    for transitions, success, distance in zip(stored, (False, True, False), (0.3, 0.0, 0.1), strict=True):
        game.buffer.add(transitions, 0, success, distance)  # 100 rows are kept, so the ring overwrites the first one
    experience = game.roster.experience()
    assert experience.lengths == [30, 25, 40]
    assert experience.solved.tolist() == [False, True, False]
    assert experience.distance.tolist() == [0.3, 0.0, 0.1]
    for name in ("next_obs", "action", "variables"):
        np.testing.assert_array_equal(experience.columns[name], np.concatenate([part[name] for part in stored]))
    game.buffer.clear()
    assert game.roster.experience() is None


def test_the_slots_are_renewed_one_after_the_other(game):
    functions = [function(number, source) for number, source in ((3, "4"), (4, "fails"), (5, "6"))]
    assert game.roster.renew([2, 1], functions, 0, 1) == [2, 1]
    assert {slot: game.roster.functions[slot].id for slot in (1, 2)} == {2: 3, 1: 5}


def test_a_constant_best_column_does_not_flatten_a_newcomer(game):
    game.buffer.set_rewards(0, 0, game.buffer.size, np.zeros(game.buffer.size, np.float32))
    assert game.roster.replace(1, function(3, "4"), 0, 1)
    assert game.buffer.trained_rewards(1).std() > 1


def test_it_goes_on_from_its_state(game):
    diverge(game, 1)
    game.roster.check_health({})
    game.roster.functions[2].source = "fails"
    game.store()
    other = Roster(SimpleNamespace(**ARGS), game.population, game.buffer, game.roster._workers, game.log, human=3)
    other.functions = game.roster.functions
    other.load_state_dict(game.roster.state_dict())
    assert other.out == game.roster.out
    assert other.playing == [0, 3]
    other.succeed(0, [], [0])
    assert game.population.finite().all()
