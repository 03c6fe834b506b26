"""The stacked population against plain SAC agents, written out one by one."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from models import Stack, flat_network
from sac import Batch, Population, SacConfig

OBS, ACTION, HIDDEN, BATCH = 7, 3, 16, 12
CONFIG = SacConfig(OBS, ACTION, HIDDEN, q_lr=3e-3, p_lr=2e-3, gamma=0.9, tau=0.05, constraint_coef=0.7)
CPU = torch.device("cpu")


def mlp(state):
    """A plain network from a state dict, as a user without this project would load it."""
    layers = []
    weights = [value for name, value in state.items() if name.endswith("weight")]
    for weight in weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    network.load_state_dict(state)
    return network


class PlainSac:
    """One soft actor-critic agent in the textbook's form, with the parameter constraint as a term of its losses."""

    def __init__(self, networks, log_alpha, anchor=None):
        self.actor, self.q1, self.q2, self.t1, self.t2 = (mlp(state) for state in networks.values())
        self.log_alpha = log_alpha.detach().clone().requires_grad_()
        self.anchor = None if anchor is None else [mlp(state) for state in list(anchor.values())[:3]]
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=CONFIG.p_lr)
        self.q1_optimizer = torch.optim.Adam(self.q1.parameters(), lr=CONFIG.q_lr)
        self.q2_optimizer = torch.optim.Adam(self.q2.parameters(), lr=CONFIG.q_lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=CONFIG.p_lr)

    def policy(self, obs, noise):
        mean, log_std = self.actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(CONFIG.log_std_min, CONFIG.log_std_max).exp())
        before = mean + normal.stddev * noise
        action = torch.tanh(before)
        log_density = (normal.log_prob(before) - torch.log(1 - action**2 + 1e-12)).sum(-1)
        return action, log_density

    def held(self, network, index):
        if self.anchor is None:
            return 0.0
        pairs = zip(network.parameters(), self.anchor[index].parameters(), strict=True)
        return CONFIG.constraint_coef * sum(((p - fixed.detach()) ** 2).sum() for p, fixed in pairs)

    def update(self, obs, action, reward, next_obs, terminal, noise):
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_density = self.policy(next_obs, noise[0])
            pair = torch.cat([next_obs, next_action], -1)
            value = torch.minimum(self.t1(pair), self.t2(pair))[:, 0] - alpha * next_log_density
            goal = reward + CONFIG.gamma * (1 - terminal) * value
        pair = torch.cat([obs, action], -1)
        for index, (critic, optimizer) in enumerate([(self.q1, self.q1_optimizer), (self.q2, self.q2_optimizer)], 1):
            loss = ((critic(pair)[:, 0] - goal) ** 2).mean() + self.held(critic, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        new_action, log_density = self.policy(obs, noise[1])
        pair = torch.cat([obs, new_action], -1)
        loss = (alpha * log_density - torch.minimum(self.q1(pair), self.q2(pair))[:, 0]).mean()
        loss = loss + self.held(self.actor, 0)
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        alpha_loss = -(self.log_alpha * (log_density.detach() - ACTION)).mean()
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        for network, target in ((self.q1, self.t1), (self.q2, self.t2)):
            for source, slow in zip(network.parameters(), target.parameters(), strict=True):
                slow.data.copy_((1 - CONFIG.tau) * slow.data + CONFIG.tau * source.data)

    def networks(self):
        return [self.actor, self.q1, self.q2, self.t1, self.t2]


def random_batch(agents, generator):
    def normal(*shape):
        return torch.randn(agents, BATCH, *shape, generator=generator)

    terminal = (torch.rand(agents, BATCH, generator=generator) < 0.3).float()
    return Batch(normal(OBS), torch.tanh(normal(ACTION)), normal(), normal(OBS), terminal)


def assert_same(population, plain, rtol=1e-4, atol=2e-6):
    for k, agent in enumerate(plain):
        for ours, theirs in zip(population.networks(k).values(), agent.networks(), strict=True):
            for name, value in theirs.state_dict().items():
                torch.testing.assert_close(ours[name], value, rtol=rtol, atol=atol)
        torch.testing.assert_close(population.log_alpha[k], agent.log_alpha, rtol=rtol, atol=atol)


@pytest.mark.parametrize("inherited", [False, True])
def test_a_population_update_equals_separate_plain_updates(inherited):
    agents = 3
    population = Population(agents, CONFIG, CPU, seed=1)
    if inherited:  # before any update the optimizers are as new, as those of the plain agents are
        population.inherit(2, [0, 1])
    anchors = [population.networks(k) if inherited and k != 2 else None for k in range(agents)]
    plain = [PlainSac(population.networks(k), population.log_alpha[k], anchors[k]) for k in range(agents)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        batch = random_batch(agents, generator)
        noise = torch.randn(2, agents, BATCH, ACTION, generator=generator)
        population.update(batch, noise)
        for k, agent in enumerate(plain):
            agent.update(*(column[k] for column in batch), noise[:, k])
    assert_same(population, plain)


def test_a_terminal_state_is_not_bootstrapped_and_a_time_limit_is():
    # With gamma 1 and a reward of one, a critic learns 1 where the state is terminal, and more where it is not.
    config = SacConfig(OBS, ACTION, 32, q_lr=1e-2, gamma=1.0, tau=1.0)
    population = Population(1, config, CPU, seed=3)
    generator = torch.Generator().manual_seed(4)
    batch = random_batch(1, generator)
    terminal = torch.arange(BATCH).remainder(2).float()[None]
    batch = batch._replace(reward=torch.ones(1, BATCH), terminal=terminal)
    for _ in range(200):
        population.update(batch, population.noise(BATCH))
    state = population.networks(0)
    values = mlp(state["best_qf1"])(torch.cat([batch.obs[0], batch.action[0]], -1))[:, 0].detach()
    torch.testing.assert_close(values[1::2], torch.ones(BATCH // 2), atol=0.2, rtol=0)
    assert values[0::2].min() > 2.0


def test_the_squashed_density_integrates_to_one():
    population = Population(1, SacConfig(OBS, 1, HIDDEN), CPU, seed=5)
    obs = torch.randn(1, 1, OBS).expand(1, 4001, OBS)
    mean, log_std = population.actors(obs[:, :1]).chunk(2, -1)
    u = torch.linspace(-12, 12, 4001)[None, :, None]
    with torch.no_grad():
        action, log_density = population.act(obs, (u - mean) / log_std.exp())
    total = torch.trapezoid(log_density[0].exp().double(), action[0, :, 0].double())
    assert total.item() == pytest.approx(1, abs=1e-3)


def trained(seed=6, updates=5, agents=4):
    population = Population(agents, CONFIG, CPU, seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        population.update(random_batch(agents, generator), population.noise(BATCH))
    return population


def moments(population, k):
    """Adam's moments of everything that belongs to agent k."""
    found = []
    for optimizer in (population.actor_optimizer, population.critic_optimizer, population.alpha_optimizer):
        for state in optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                rows = state[name].view(-1, population.count, *state[name].shape[1:])
                found.append(rows[:, k].clone())
    return found


def test_heirs_take_over_networks_targets_optimizers_and_temperature():
    population = trained()
    before = copy.deepcopy(population.networks(0)), moments(population, 0)
    population.inherit(2, [1, 3])
    for heir in (1, 3):
        for ours, best in zip(population.networks(heir).values(), population.networks(2).values(), strict=True):
            for name in ours:
                torch.testing.assert_close(ours[name], best[name], rtol=0, atol=0)
        assert population.log_alpha[heir] == population.log_alpha[2]
        for ours, best in zip(moments(population, heir), moments(population, 2), strict=True):
            assert best.abs().sum() > 0
            torch.testing.assert_close(ours, best, rtol=0, atol=0)
    for name, state in population.networks(0).items():
        for key, value in state.items():
            torch.testing.assert_close(value, before[0][name][key], rtol=0, atol=0)
    for ours, old in zip(moments(population, 0), before[1], strict=True):
        torch.testing.assert_close(ours, old, rtol=0, atol=0)


def test_heirs_learn_on_exactly_as_the_best_would():
    population = trained()
    population.inherit(2, [1])
    population.constrained = [False] * 4
    generator = torch.Generator().manual_seed(8)
    batch = random_batch(1, generator)
    noise = torch.randn(2, 1, BATCH, ACTION, generator=generator)
    population.update(Batch(*(column.expand(4, *column.shape[1:]) for column in batch)), noise.expand(2, 4, -1, -1))
    for ours, best in zip(population.networks(1).values(), population.networks(2).values(), strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], best[name], rtol=1e-6, atol=1e-7)


def test_an_heir_of_the_actor_keeps_its_critics():
    population = trained()
    before = population.networks(3)
    population.inherit_actor(0, 3)
    after, best = population.networks(3), population.networks(0)
    torch.testing.assert_close(after["best_actor_net"], best["best_actor_net"], rtol=0, atol=0)
    for name in ("best_qf1", "best_qf2", "best_target_qf1", "best_target_qf2"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_a_diverged_agent_does_not_touch_the_others():
    sound, broken = trained(), trained()
    with torch.no_grad():
        broken.actors.parameters[0][1] = float("nan")
    generator = torch.Generator().manual_seed(9)
    batch, noise = random_batch(4, generator), torch.randn(2, 4, BATCH, ACTION, generator=generator)
    for population in (sound, broken):
        population.update(batch, noise)
    assert broken.finite().tolist() == [True, False, True, True]
    for k in (0, 2, 3):
        for name, state in sound.networks(k).items():
            torch.testing.assert_close(broken.networks(k)[name], state, rtol=0, atol=0)
    broken.inherit(0, [1])
    assert broken.finite().all()


def test_learning_goes_on_from_a_saved_state_as_if_nothing_had_happened():
    one = trained()
    one.inherit(0, [1])
    two = Population(4, CONFIG, CPU, seed=99)
    two.load_state_dict(one.state_dict())
    generator = torch.Generator().manual_seed(10)
    for _ in range(3):
        batch = random_batch(4, generator)
        for population in (one, two):
            population.update(batch, population.noise(BATCH))
    for k in range(4):
        torch.testing.assert_close(two.networks(k), one.networks(k), rtol=0, atol=0)


def test_losses_are_means_since_they_were_last_read():
    population = trained(updates=0)
    batch = random_batch(4, torch.Generator().manual_seed(11))
    population.update(batch, population.noise(BATCH))
    first = population.losses()
    population.update(batch, population.noise(BATCH))
    second = population.losses()
    assert first["critic_loss"].shape == (4,)
    assert not np.allclose(first["critic_loss"], second["critic_loss"])
    assert math.isclose(first["temperature"][0], 1.0)


def test_a_stack_is_its_networks_side_by_side():
    stack = Stack(3, [5, 8, 8, 2], CPU, torch.Generator().manual_seed(12))
    inputs = torch.randn(3, 6, 5)
    outputs = stack(inputs)
    for k in range(3):
        torch.testing.assert_close(outputs[k], mlp(stack.network_state(k))(inputs[k]))
        row, sizes = flat_network(stack.network_state(k))
        assert sizes == (5, 8, 8, 2)
        np.testing.assert_array_equal(row, stack.flat()[k])
