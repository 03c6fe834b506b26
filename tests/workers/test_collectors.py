"""Episodes do not depend on how many workers there are, and a worker's actor is the learner's."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

import models
from arguments import Arguments
from population import Population
from replay_buffer import ReplayBuffer
from task_specs import get_task
from tasks.episode import UNIFORM, Order
from workers.collectors import _ACTIVATIONS, Collectors, PolicyShape, _fill_undefined

TASK = get_task("window-close")
CONFIG = Arguments("from_scratch", hidden_size=32).sac_config(TASK.obs_size, TASK.action_size)


@pytest.fixture(scope="module")
def population():
    return Population(CONFIG, ReplayBuffer(1, CONFIG.obs_size, CONFIG.action_size, 1, 3, torch.device("cpu")), 0, 1)


def collectors(population, workers, **options):
    pool = Collectors(TASK, PolicyShape(population.sizes), 3, workers, **options)
    pool.set_policies(population.policies())
    return pool


ORDERS = [Order(UNIFORM, 5, 12, 1), Order(0, 6, 20, 2), Order(1, 6, 20), Order(2, 7, 3, 4), Order(0, 6, 20, 2)]


def assert_same(one, two):
    for name, column in one.transitions.items():
        np.testing.assert_array_equal(column, two.transitions[name], err_msg=name)
    np.testing.assert_array_equal(one.success, two.success)
    np.testing.assert_array_equal(one.distance, two.distance)


@pytest.fixture(scope="module")
def episodes(population):
    pool = collectors(population, 1)
    found = pool.run(ORDERS)
    pool.close()
    return found


def test_one_worker_and_two_collect_the_same(population, episodes):
    pool = collectors(population, 2)
    for one, two in zip(episodes, pool.run(ORDERS), strict=True):
        assert_same(one, two)
    pool.close()


def test_the_same_order_gives_the_same_episode_and_another_seed_another(episodes):
    assert_same(episodes[1], episodes[4])
    assert not np.array_equal(episodes[1].transitions["obs"][0], episodes[3].transitions["obs"][0])


def test_transitions_follow_each_other(episodes):
    for episode, order in zip(episodes, ORDERS, strict=True):
        transitions = episode.transitions
        assert {name: column.dtype for name, column in transitions.items()} == dict.fromkeys(transitions, np.float32)
        assert transitions["obs"].shape == (order.steps, TASK.obs_size)
        np.testing.assert_array_equal(transitions["obs"][1:], transitions["next_obs"][:-1])
        assert not transitions["terminal"].any()


def actor(population, agent, obs):
    """What the learner's network says of observations."""
    state = population.networks(agent)["best_actor_net"]
    hidden = obs
    for layer in (0, 2, 4, 6):
        hidden = functional.linear(hidden.relu() if layer else hidden, state[f"{layer}.weight"], state[f"{layer}.bias"])
    return hidden


def test_the_workers_actor_is_the_learners(population, episodes):
    obs = torch.from_numpy(episodes[2].transitions["obs"].copy())
    mean, _ = actor(population, 1, obs).chunk(2, -1)
    np.testing.assert_allclose(episodes[2].transitions["action"], torch.tanh(mean).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", models.ACTIVATIONS)
def test_the_workers_activations_are_the_learners(name):
    values = np.linspace(-4, 4, 81, dtype=np.float32)
    expected = models.ACTIVATIONS[name].module()(torch.from_numpy(values))
    np.testing.assert_allclose(_ACTIVATIONS[name](values), expected.numpy(), atol=1e-6)


def test_a_stochastic_actor_draws_from_the_learners_distribution(population, episodes):
    transitions = episodes[1].transitions
    obs = torch.from_numpy(transitions["obs"].copy())
    mean, log_std = actor(population, 0, obs).chunk(2, -1)
    noise = (np.arctanh(transitions["action"].astype(np.float64)) - mean.numpy()) / log_std.exp().numpy()
    expected = np.random.default_rng(2).standard_normal((20, 4), np.float32)
    np.testing.assert_allclose(noise, expected, atol=1e-3)


def test_the_action_repeat_adds_rewards_up(population):
    pool = collectors(population, 1, action_repeat=2)
    [twice] = pool.run([Order(1, 6, 10)])
    pool.close()
    from tasks.environment import TaskEnvironment

    environment = TaskEnvironment(TASK)
    environment.reset(6)
    rewards = [environment.step(action).env_reward for action in np.repeat(twice.transitions["action"], 2, axis=0)]
    np.testing.assert_allclose(twice.transitions["env_reward"], np.reshape(rewards, (10, 2)).sum(1), rtol=1e-5)


def test_a_worker_that_is_killed_is_replaced_and_its_episode_collected_again(population, episodes):
    pool = collectors(population, 1)
    os.kill(pool._workers[0].pid, signal.SIGKILL)
    assert_same(pool.run([ORDERS[1]])[0], episodes[1])
    pool.close()


@pytest.mark.parametrize(("distance", "filled"), [([0.3, np.nan, 0.1], [0.3, 0.3, 0.1]), ([np.nan, np.inf], [1, 1])])
def test_an_undefined_distance_is_the_farthest_of_its_episode(distance, filled):
    distance = np.array(distance, np.float32)
    _fill_undefined(distance)
    np.testing.assert_array_equal(distance, np.array(filled, np.float32))


def test_workers_import_no_torch():
    code = "import sys, workers.collectors; sys.exit(any(name in sys.modules for name in ('torch', 'openai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs Linux's /proc")
def test_workers_do_not_get_the_keys(population, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("WANDB_API_KEY", "wb-canary")
    pool = collectors(population, 1)
    pool.run([ORDERS[3]])
    with open(f"/proc/{pool._workers[0].pid}/environ", "rb") as file:
        environment = file.read()
    pool.close()
    assert b"PATH=" in environment
    assert b"canary" not in environment
