"""The batched population against plain SAC agents, written out one by one."""

import contextlib
import copy
import functools
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import models
from arguments import Arguments
from errors import RunError
from learners import draw
from models import ACTIVATIONS, BatchedMLP, flat_network, parameter_count
from population import Population
from replay_buffer import ReplayBuffer
from sac import Agents, Batch, new_agents
from workers.process import WorkerProcess

OBS, ACTION, HIDDEN, BATCH = 7, 3, 16, 12
FLAGS = Arguments(
    "from_scratch", hidden_size=HIDDEN, initial_temperature=0.1, layer_norm=0, n_step=1, policy_delay=1,
    target_entropy=-1.0, normalize_rewards=0,
)  # fmt: skip
CONFIG = replace(FLAGS, q_lr=3e-3, p_lr=2e-3, gamma=0.9, tau=0.05, constraint_coef=0.7).sac_config(OBS, ACTION)
CPU = torch.device("cpu")

torch.set_num_threads(1)  # as in a run


def mlp(state, activation=nn.ReLU):
    """A plain network from a state dict, as a user without this project would load it."""
    layers = []
    weights = [value for name, value in state.items() if name.endswith("weight")]
    for weight in weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.LayerNorm(len(weight), elementwise_affine=False)]
        layers += [activation()]
    if all(int(name.split(".")[0]) % 2 == 0 for name in state):  # no layer norms: those of three layers would be at 3
        layers = [layer for layer in layers if not isinstance(layer, nn.LayerNorm)]
        network = nn.Sequential(*layers[:-1])
    else:
        network = nn.Sequential(*layers[:-2])
    network.load_state_dict(state)
    return network


class PlainSac:
    """One soft actor-critic agent in the textbook's form, with the parameter constraint as a term of its losses."""

    def __init__(self, networks, log_alpha, anchor=None, config=CONFIG):
        self.config, self.updates = config, 0
        self.actor, self.q1, self.q2, self.t1, self.t2 = (
            mlp(state, ACTIVATIONS[config.activation].module) for state in networks.values()
        )
        self.log_alpha = log_alpha.detach().clone().requires_grad_()
        self.anchor = None if anchor is None else [mlp(state) for state in list(anchor.values())[:3]]
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=CONFIG.p_lr)
        self.q1_optimizer = torch.optim.Adam(self.q1.parameters(), lr=CONFIG.q_lr)
        self.q2_optimizer = torch.optim.Adam(self.q2.parameters(), lr=CONFIG.q_lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=CONFIG.p_lr)

    def double(self):
        """Compute in double precision, before the first update."""
        for network in (*self.networks(), *(self.anchor or ())):
            network.double()
        self.log_alpha.data = self.log_alpha.data.double()

    def policy(self, obs, noise):
        mean, log_std = self.actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(CONFIG.log_std_min, CONFIG.log_std_max).exp())
        before = mean + normal.stddev * noise
        action = torch.tanh(before)
        # 1 - tanh(u)^2 = 1 / cosh(u)^2, which loses no digits near an action of one.
        log_density = (normal.log_prob(before) + 2 * torch.log(torch.cosh(before))).sum(-1)
        return action, log_density

    def constraint(self, network, index):
        if self.anchor is None:
            return 0.0
        pairs = zip(network.parameters(), self.anchor[index].parameters(), strict=True)
        return CONFIG.constraint_coef * sum(((p - fixed.detach()) ** 2).sum() for p, fixed in pairs)

    def update(self, obs, action, reward, next_obs, discount, noise):
        self.updates += 1
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_density = self.policy(next_obs, noise[0])
            pair = torch.cat([next_obs, next_action], -1)
            value = torch.minimum(self.t1(pair), self.t2(pair))[:, 0] - alpha * next_log_density
            td_target = reward + discount * value
        pair = torch.cat([obs, action], -1)
        for index, (critic, optimizer) in enumerate([(self.q1, self.q1_optimizer), (self.q2, self.q2_optimizer)], 1):
            loss = ((critic(pair)[:, 0] - td_target) ** 2).mean() + self.constraint(critic, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if self.updates % self.config.policy_delay == 0:
            self.update_policy(obs, noise[1])
        for network, target in ((self.q1, self.t1), (self.q2, self.t2)):
            for source, slow in zip(network.parameters(), target.parameters(), strict=True):
                slow.data.copy_((1 - CONFIG.tau) * slow.data + CONFIG.tau * source.data)

    def update_policy(self, obs, noise):
        alpha = self.log_alpha.exp().detach()
        new_action, log_density = self.policy(obs, noise)
        pair = torch.cat([obs, new_action], -1)
        loss = (alpha * log_density - torch.minimum(self.q1(pair), self.q2(pair))[:, 0]).mean()
        loss = loss + self.constraint(self.actor, 0)
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        target_entropy = self.config.target_entropy * ACTION
        if not self.config.learn_temperature:
            return
        alpha_loss = -(self.log_alpha * (log_density.detach() + target_entropy)).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()

    def networks(self):
        return [self.actor, self.q1, self.q2, self.t1, self.t2]


def filled_buffer(agents, rows=100, device=CPU):
    """A replay buffer full of noise."""
    buffer = ReplayBuffer(rows, OBS, ACTION, 2, agents, device)
    add_noise(buffer, rows, np.random.default_rng(14))
    return buffer


def add_noise(buffer, rows, numbers, collector=0):
    columns = {"obs": OBS, "action": ACTION, "next_obs": OBS, "variables": 2}
    transitions = {name: numbers.normal(size=(rows, width)).astype(np.float32) for name, width in columns.items()}
    transitions |= {"env_reward": np.zeros(rows, np.float32), "terminal": (numbers.random(rows) < 0.3) * 1.0}
    for start, stop in buffer.add(transitions, collector, False):
        for agent in range(buffer.agents):
            buffer.set_rewards(agent, start, stop, numbers.normal(size=stop - start).astype(np.float32))


def new_population(agents, seed, config=CONFIG, learners=1):
    return Population(config, filled_buffer(agents), initial_seed=seed, learning_seed=seed, learners=learners)


def put_into_one_group(population, seed):
    """Let the agents of a new population be updated together, as they are on a GPU."""
    agents = new_agents(population.config, population.count, CPU)
    agents.initialize(torch.Generator().manual_seed(seed))
    population._groups = [agents]


def update(population, batch, noise):
    """Update every agent once."""
    size = population._groups[0].count
    columns = zip(*(column.split(size) for column in (*batch, noise)), strict=True)
    population.updates += 1
    for agents, (*own, own_noise) in zip(population._groups, columns, strict=True):
        agents.update(Batch(*own), own_noise)
        agents.update_targets()


def random_noise(agents, generator):
    return torch.randn(agents, 2, BATCH, ACTION, generator=generator)


def random_batch(agents, generator):
    def normal(*shape):
        return torch.randn(agents, BATCH, *shape, generator=generator)

    discount = CONFIG.gamma * (torch.rand(agents, BATCH, generator=generator) > 0.3)
    return Batch(normal(OBS), torch.tanh(normal(ACTION)), normal(), normal(OBS), discount)


def assert_same(population, plain, rtol, atol):
    for k, agent in enumerate(plain):
        for ours, theirs in zip(population.networks(k).values(), agent.networks(), strict=True):
            for name, value in theirs.state_dict().items():
                torch.testing.assert_close(ours[name].double(), value, rtol=rtol, atol=atol)
        log_alpha = population.agent_state(k)["log_alpha"][0].double()
        torch.testing.assert_close(log_alpha, agent.log_alpha, rtol=rtol, atol=atol)


@pytest.fixture(params=["double", "float"])
def precision(request, monkeypatch):
    """How close the result has to be: in double precision nothing hides behind rounding."""
    if request.param == "float":
        yield {"rtol": 1e-4, "atol": 2e-6}
        return
    monkeypatch.setattr(models, "_USES_ONEDNN", False)  # it knows single precision alone
    torch.set_default_dtype(torch.float64)
    yield {"rtol": 1e-9, "atol": 1e-11}
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("inherited", [False, True])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_norm": True, "policy_delay": 2, "target_entropy": -0.5},
        {"activation": "tanh", "hidden_layers": 2, "learn_temperature": False},
        {"activation": "elu", "hidden_layers": 1, "layer_norm": True},
    ],
    ids=["textbook", "default", "tanh", "elu"],
)
def test_a_population_update_equals_separate_plain_updates(inherited, together, changes, precision):
    agents = 3
    config = replace(CONFIG, **changes)
    population = new_population(agents, 1, config)
    if together:
        put_into_one_group(population, seed=1)
    if inherited:  # before any update the optimizers are as new, as those of the plain agents are
        population.inherit(2, [0, 1])
    anchors = [population.networks(k) if inherited and k != 2 else None for k in range(agents)]
    log_alpha = math.log(CONFIG.initial_temperature)
    plain = [PlainSac(population.networks(k), torch.tensor(log_alpha), anchors[k], config) for k in range(agents)]
    for agent in plain:
        agent.double()
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        batch = random_batch(agents, generator)
        noise = torch.randn(agents, 2, BATCH, ACTION, generator=generator)
        update(population, batch, noise)
        for k, agent in enumerate(plain):
            agent.update(*(column[k].double() for column in batch), noise[k].double())
    assert_same(population, plain, **precision)


def test_a_terminal_state_is_not_bootstrapped_and_a_time_limit_is():
    # With gamma 1 and a reward of one, a critic learns 1 where the state is terminal, and more where it is not.
    config = replace(FLAGS, hidden_size=32, q_lr=1e-2, tau=1.0).sac_config(OBS, ACTION)
    population = new_population(1, 3, config)
    generator = torch.Generator().manual_seed(4)
    batch = random_batch(1, generator)
    discount = 1 - torch.arange(BATCH).remainder(2).float()[None]
    batch = batch._replace(reward=torch.ones(1, BATCH), discount=discount)
    for _ in range(300):
        update(population, batch, random_noise(1, generator))
    state = population.networks(0)
    values = mlp(state["best_qf1"])(torch.cat([batch.obs[0], batch.action[0]], -1))[:, 0].detach()
    torch.testing.assert_close(values[1::2], torch.ones(BATCH // 2), atol=0.2, rtol=0)
    assert values[0::2].min() > 2.0


def test_the_squashed_density_integrates_to_one():
    agents = new_agents(FLAGS.sac_config(OBS, 1), 1, CPU)
    agents.initialize(torch.Generator().manual_seed(5))
    outputs, _ = agents.actors.forward(torch.randn(1, 1, OBS).expand(1, 4001, OBS))
    mean, log_std = outputs.chunk(2, -1)
    u = torch.linspace(-12, 12, 4001)[None, :, None]
    sample = agents.sample(outputs, (u - mean) / log_std.exp())
    total = torch.trapezoid(sample.log_density[0].exp().double(), sample.action[0, :, 0].double())
    assert total.item() == pytest.approx(1, abs=1e-3)


def trained(seed=6, updates=5, agents=4):
    population = new_population(agents, seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        update(population, random_batch(agents, generator), random_noise(agents, generator))
    return population


def moments(population, k):
    """Adam's moments of everything that belongs to agent k."""
    return [rows for name, rows in population.agent_state(k).items() if "exp_avg" in name]


def test_inheritors_take_over_networks_targets_optimizers_and_temperature():
    population = trained()
    before = copy.deepcopy(population.networks(0)), moments(population, 0)
    population.inherit(2, [1, 3])
    for agent in (1, 3):
        for ours, best in zip(population.networks(agent).values(), population.networks(2).values(), strict=True):
            for name in ours:
                torch.testing.assert_close(ours[name], best[name], rtol=0, atol=0)
        assert population.agent_state(agent)["log_alpha"] == population.agent_state(2)["log_alpha"]
        for ours, best in zip(moments(population, agent), moments(population, 2), strict=True):
            assert best.abs().sum() > 0
            torch.testing.assert_close(ours, best, rtol=0, atol=0)
    for name, state in population.networks(0).items():
        for key, value in state.items():
            torch.testing.assert_close(value, before[0][name][key], rtol=0, atol=0)
    for ours, old in zip(moments(population, 0), before[1], strict=True):
        torch.testing.assert_close(ours, old, rtol=0, atol=0)


def test_inheritors_learn_on_exactly_as_the_best_would():
    population = trained()
    population.inherit(2, [1])
    population.load_agent_state(1, {"constrained": torch.zeros(1)})
    generator = torch.Generator().manual_seed(8)
    batch = random_batch(1, generator)
    noise = torch.randn(1, 2, BATCH, ACTION, generator=generator)
    update(population, Batch(*(column.expand(4, *column.shape[1:]) for column in batch)), noise.expand(4, -1, -1, -1))
    for ours, best in zip(population.networks(1).values(), population.networks(2).values(), strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], best[name], rtol=1e-6, atol=1e-7)


def test_who_inherits_the_actor_alone_keeps_its_critics():
    population = trained()
    before = population.networks(3)
    population.inherit_actor(0, 3)
    after, best = population.networks(3), population.networks(0)
    torch.testing.assert_close(after["best_actor_net"], best["best_actor_net"], rtol=0, atol=0)
    for name in ("best_qf1", "best_qf2", "best_target_qf1", "best_target_qf2"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_a_diverged_agent_does_not_touch_the_others():
    sound, broken = trained(), trained()
    broken.load_agent_state(1, {"actor": torch.full_like(broken.agent_state(1)["actor"], float("nan"))})
    generator = torch.Generator().manual_seed(9)
    batch, noise = random_batch(4, generator), torch.randn(4, 2, BATCH, ACTION, generator=generator)
    for population in (sound, broken):
        update(population, batch, noise)
    assert broken.finite().tolist() == [True, False, True, True]
    for k in (0, 2, 3):
        for name, state in sound.networks(k).items():
            torch.testing.assert_close(broken.networks(k)[name], state, rtol=0, atol=0)
    broken.inherit(0, [1])
    assert broken.finite().all()


@pytest.mark.parametrize("learners", [1, 2])
def test_learning_goes_on_from_a_saved_state_as_if_nothing_had_happened(learners):
    one, two = new_population(3, 7), new_population(3, 7, learners=learners)
    with contextlib.closing(two):
        one.learn(8, 20)
        one.inherit(0, [1])
        one.learn(8, 7)
        two.load_state_dict(one.state_dict())
        for population in (one, two):
            population.learn(8, 13)
        for k in range(3):
            torch.testing.assert_close(two.agent_state(k), one.agent_state(k), rtol=0, atol=0)
        for ours, theirs in zip(two.losses().values(), one.losses().values(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_losses_are_means_since_they_were_last_read():
    population, generator = trained(updates=0), torch.Generator().manual_seed(11)
    batch = random_batch(4, generator)
    update(population, batch, random_noise(4, generator))
    first = population.losses()
    update(population, batch, random_noise(4, generator))
    second = population.losses()
    assert first["critic_loss"].shape == (4,)
    assert not np.allclose(first["critic_loss"], second["critic_loss"])
    assert math.isclose(first["temperature"][0], CONFIG.initial_temperature, rel_tol=1e-6)


def test_losses_of_an_agent_that_diverged_and_returned_are_those_since_its_return():
    population, same = new_population(3, 8), new_population(3, 8)
    good = population.agent_state(1)
    population.load_agent_state(1, {"log_alpha": torch.tensor([float("nan")])})
    population.learn(8, 10)
    population.load_agent_state(1, good)
    same.learn(8, 10)
    same.load_agent_state(1, good)
    for one in (population, same):
        one.learn(8, 5)
    losses, expected = population.losses(), same.losses()
    for name, values in expected.items():
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(losses[name], values)
    assert losses["temperature"][1] == pytest.approx(CONFIG.initial_temperature, rel=0.02)


def random_networks(count, sizes, seed, layer_norm=False):
    networks = BatchedMLP(sizes, torch.zeros(count * parameter_count(sizes)), layer_norm=layer_norm)
    for index in range(count):
        networks.initialize(index, torch.Generator().manual_seed(seed + index))
    return networks


# Without oneDNN, which not every build of PyTorch has and not every processor is fast with, they are PyTorch's own.
@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def products(request, monkeypatch):
    if request.param and models._ONEDNN is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(models, "_USES_ONEDNN", request.param)


@pytest.mark.parametrize("maker", ["GenuineIntel", "AuthenticAMD"])
def test_the_maker_of_the_processor_is_read_where_the_system_tells_it(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(models.platform, "processor", lambda: f"Family 6 Model 85, {maker}")
    assert models._made_by_intel(tmp_path / "cpuinfo") == (maker == "GenuineIntel")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: a name\n")
    monkeypatch.setattr(models.platform, "processor", lambda: "")
    assert models._made_by_intel(tmp_path / "cpuinfo") == (maker == "GenuineIntel")


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("sizes", [(5, 8, 8, 2), (40, 64, 48, 1)])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_stack_is_its_networks_side_by_side(sizes, layer_norm):
    networks = random_networks(3, sizes, 12, layer_norm)
    inputs = torch.randn(3, 6, sizes[0])
    outputs, _ = networks.forward(inputs)
    for k in range(3):
        torch.testing.assert_close(outputs[k], mlp(networks.network_state(k))(inputs[k]))
        row, found = flat_network(networks.network_state(k))
        assert found == sizes
        np.testing.assert_array_equal(row, networks.row(k))


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("sizes", [(5, 8, 8, 2), (40, 64, 48, 1)])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_gradient_of_a_stack_is_that_of_its_networks(sizes, layer_norm):
    networks = random_networks(3, sizes, 13, layer_norm)
    inputs, weights = torch.randn(3, 6, sizes[0]), torch.randn(3, 4, sizes[-1])
    networks.gradient.fill_(float("nan"))
    _, activations = networks.forward(inputs)
    found = networks.backward(
        activations, weights, rows=slice(2, None), parameter_gradient=True, input_columns=slice(2, None)
    )
    for k in range(3):
        network = mlp(networks.network_state(k))
        own = inputs[k, 2:].clone().requires_grad_()
        (network(own) * weights[k]).sum().backward()
        torch.testing.assert_close(found[k], own.grad[:, 2:])
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        expected = torch.cat([part.reshape(-1) for layer in layers for part in (layer.weight.grad.mT, layer.bias.grad)])
        torch.testing.assert_close(networks.row(k, networks.gradient), expected)
    before = networks.gradient.clone()
    assert networks.backward(activations, weights, rows=slice(2, None)) is None
    torch.testing.assert_close(networks.gradient, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes", [{}, {"target_update_interval": 3}, {"policy_delay": 3, "n_step": 3, "layer_norm": True}]
)
def test_however_many_learners_share_the_work_the_population_is_the_same(changes):
    config = replace(CONFIG, **changes)
    populations = [new_population(5, 15, config, learners) for learners in (1, 2, 4)]
    for population in populations:
        with contextlib.closing(population):
            population.inherit(1, [0])  # which the parameter constraint holds from then on
            population.learn(8, 40)
            for start, stop in [(0, 30), (70, 100)]:  # new rewards on a new scale, and both have to arrive
                population.buffer.set_rewards(2, start, stop, np.linspace(-3, 3, 30, dtype=np.float32))
            population.buffer.rescale(2, 1, kind=2)
            population.learn(8, 100)
            assert population.updates == 140
    one, *others = populations
    losses = one.losses()
    for other in others:
        for k in range(5):
            torch.testing.assert_close(other.agent_state(k), one.agent_state(k), rtol=0, atol=0)
        for name, values in other.losses().items():
            np.testing.assert_array_equal(values, losses[name])


def test_learning_is_one_update_after_another():
    learned, updated = (new_population(3, seed=16) for _ in range(2))
    learned.learn(8, 10)
    for number in range(1, 11):
        drawn = [draw(16, agent, number, updated.buffer.size, 8, ACTION) for agent in range(3)]
        rows, noise = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        update(updated, updated.buffer.transitions.batch(rows, CONFIG.gamma), noise)
    for k in range(3):
        torch.testing.assert_close(learned.agent_state(k), updated.agent_state(k), rtol=0, atol=0)


def test_each_update_of_each_agent_draws_from_streams_of_its_own():
    count, size = 1 << 30, 40
    drawn = [draw(seed, agent, n, count, size, ACTION) for seed in (5, 6) for agent in range(3) for n in range(20)]
    rows = torch.cat([rows for rows, _ in drawn])
    assert len(rows.unique()) == rows.numel() == 120 * size  # of a thousand million, none is drawn twice
    noise = torch.cat([noise for _, noise in drawn])
    assert len(noise.unique()) > 0.999 * noise.numel()
    assert abs(np.corrcoef(rows.reshape(-1), noise[:, 0, :, 0].reshape(-1))[0, 1]) < 0.05
    torch.testing.assert_close(draw(5, 2, 19, count, size, ACTION), drawn[59], rtol=0, atol=0)


@pytest.mark.parametrize("learners", [1, 2])
def test_learning_ends_when_it_is_told_to_and_every_agent_has_learned_as_much(learners):
    stopped, same, asked = new_population(3, 17, learners=learners), new_population(3, seed=17), []
    with contextlib.closing(stopped):
        stopped.learn(8, 256, stop=lambda: len(asked) == 4 or asked.append(1))
    assert 0 < stopped.updates < 256
    same.learn(8, stopped.updates)
    for k in range(3):
        torch.testing.assert_close(stopped.agent_state(k), same.agent_state(k), rtol=0, atol=0)


@pytest.mark.parametrize("learners", [1, 2])
def test_from_an_empty_buffer_nothing_is_learned(learners):
    buffer = ReplayBuffer(10, OBS, ACTION, 2, 2, CPU)
    population = Population(CONFIG, buffer, initial_seed=1, learning_seed=2, learners=learners)
    with contextlib.closing(population):
        assert population.learn(8, 5) == {}
        assert population.updates == 0


@pytest.mark.parametrize("learners", [1, 2])
def test_without_sharing_an_agent_learns_from_its_own_rows(learners):
    """Its fellow's rewards are not finite, which it would show if it drew one."""
    buffer = ReplayBuffer(100, OBS, ACTION, 2, 2, CPU, shared=False)
    numbers = np.random.default_rng(3)
    for collector in (0, 1):
        add_noise(buffer, 20, numbers, collector)
        buffer.set_rewards(0, 20 * collector, 20 * collector + 20, np.full(20, [1.0, np.nan][collector], np.float32))
    population = Population(CONFIG, buffer, initial_seed=1, learning_seed=2, learners=learners)
    with contextlib.closing(population):
        population.learn(8, 30)
        assert population.finite().all()
        add_noise(buffer, 100, numbers, 1)  # the ring overwrites all that agent 0 has collected
        population.learn(8, 5)
        assert population.finite().all()


def test_nothing_is_learned_when_it_is_told_to_stop_at_once():
    population = new_population(2, 17, learners=2)
    with contextlib.closing(population):
        population.learn(8, 100, stop=lambda: True)
        assert population.updates == 0
        population.learn(8, 0)
        population.learn(8, 3)
        assert population.updates == 3


def test_the_agent_of_a_learner_that_is_killed_is_lost_and_the_others_learn_on(monkeypatch):
    struck, same = (new_population(3, 22, learners=2) for _ in range(2))
    with contextlib.closing(struck), contextlib.closing(same):

        def strike():
            """Learn while a learner is killed as it gets its first job."""
            send, victims = WorkerProcess.send, []

            def deadly_send(worker, *message):
                if not victims and message[0].get("agent") is not None:
                    victims.append(worker)
                    os.kill(worker.pid, signal.SIGKILL)
                send(worker, *message)

            with monkeypatch.context() as patch:
                patch.setattr(WorkerProcess, "send", deadly_send)
                return struck.learn(8, 50)

        [(agent, why)] = strike().items()
        assert why == "was killed by SIGKILL"
        assert same.learn(8, 50) == {}
        sound = [k for k in range(3) if k != agent]
        for k in sound:
            torch.testing.assert_close(struck.agent_state(k), same.agent_state(k), rtol=0, atol=0)
        for population in (struck, same):
            population.inherit(sound[0], [agent])
            assert population.learn(8, 50) == {}
        for k in range(3):
            torch.testing.assert_close(struck.agent_state(k), same.agent_state(k), rtol=0, atol=0)
        assert len(strike()) == len(strike()) == 1
        with pytest.raises(RunError, match=r"learners keep failing .*was killed by SIGKILL.*--num_learners 1"):
            strike()


def test_an_update_never_waits_for_the_device(monkeypatch):
    # Tensors that have shapes and no values refuse whoever asks for a value, as the recording of a CUDA graph does.
    monkeypatch.setattr(models, "_USES_ONEDNN", False)
    generator = torch.Generator().manual_seed(18)
    agents = new_agents(CONFIG, 3, CPU)
    agents.initialize(generator)
    buffer = filled_buffer(3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for agents.any_constrained in (False, True):
            batch = buffer.transitions.batch(buffer.draw_rows(BATCH, generator), 0.9, 3)
            agents.update(batch, torch.randn(3, 2, BATCH, ACTION, generator=generator))
        agents.update_targets()
        with pytest.raises(DataDependentOutputException):
            batch.obs.sum().item()


def test_an_update_is_recorded_once_and_again_when_its_kernels_are_others(monkeypatch):
    done = []

    class Graph:
        def register_generator_state(self, generator):
            done.append("register")

        def replay(self):
            done.append("replay")

    @contextlib.contextmanager
    def recording(graph):
        before = len(done)
        yield
        done[before:] = ["record"]  # nothing is computed while a graph is recorded

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(Agents, "update", lambda self, batch, noise: done.append("update"))
    population = new_population(2, seed=21)
    put_into_one_group(population, seed=21)
    learn = functools.partial(population._learn_captured, 8, stop=lambda: False)
    learn(5)
    learn(2)
    assert done == ["update", "update", "update", "register", "record", *["replay"] * 4]
    assert population.updates == 7
    done.clear()
    population.inherit(0, [1])  # from now on the parameter constraint is a part of the update
    learn(5)
    assert done == ["update", "update", "update", "register", "record", "replay", "replay"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("changes", [{}, {"target_update_interval": 3}, {"policy_delay": 3, "n_step": 3}])
def test_a_recorded_update_learns_what_the_update_does(changes):
    config = replace(CONFIG, **changes)
    buffer = filled_buffer(3, 1_000, torch.device("cuda"))
    recorded, plain = (Population(config, buffer, initial_seed=19, learning_seed=20) for _ in range(2))
    generator = torch.Generator("cuda").manual_seed(20)
    numbers = np.random.default_rng(20)
    for count in (200, 300, 700):  # more transitions arrive, and the ring comes round
        add_noise(buffer, count, numbers)
        recorded.learn(8, 40)
        for _ in range(40):
            batch = buffer.transitions.batch(buffer.draw_rows(8, generator), config.gamma, config.n_step)
            update(plain, batch, torch.randn((3, 2, 8, ACTION), generator=generator, device="cuda"))
        if count == 300:
            for population in (recorded, plain):
                population.inherit(1, [0])
    for k in range(3):
        for name, rows in plain.agent_state(k).items():
            torch.testing.assert_close(recorded.agent_state(k)[name], rows, rtol=1e-3, atol=1e-5, msg=name)
