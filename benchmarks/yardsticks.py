"""What the speed of a population is compared with: its bare matrix products, and five agents as others write them.

Nothing here is used for learning, and nothing is tuned: the agents in this file are textbook SAC.
"""

import concurrent.futures
import copy
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sac import SacConfig

Layer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Product = Callable[[Tensor, Tensor, Tensor], Any]  # of the first two, into the third


def bare_products(count: int, config: SacConfig, batch_size: int, threads: int) -> list[Callable[[int], None]]:
    """Ways to compute the products of a number of updates of all agents: with MKL, and with oneDNN if PyTorch has it.

    They run as one batch on PyTorch's own threads, or agent by agent on independent threads.
    """
    together = MatrixProducts(count, config, batch_size)
    alone = [MatrixProducts(1, config, batch_size) for _ in range(count)]
    pool = concurrent.futures.ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def as_one_batch(updates: int) -> None:
        torch.set_num_threads(threads)
        together(_batched, updates)
        torch.set_num_threads(1)

    def agent_by_agent(product: Product, updates: int) -> None:
        piece = 4  # short, so that no thread is left alone with the last agent
        tasks = [pool.submit(agent, product, piece) for _ in range(updates // piece) for agent in alone]
        concurrent.futures.wait(tasks)

    by_agent = [_batched, _onednn] if _LINEAR else [_batched]
    return [as_one_batch, *(functools.partial(agent_by_agent, product) for product in by_agent)]


_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def _batched(left: Tensor, right: Tensor, product: Tensor) -> None:
    torch.bmm(left, right, out=product)


def _onednn(left: Tensor, right: Tensor, _: Tensor) -> None:
    assert _LINEAR is not None
    for a, b in zip(left, right.mT, strict=True):
        _LINEAR(a, b, None, "none", [], "")


class MatrixProducts:
    """The products of one SAC update of K agents, with nothing between them: what every implementation has to compute.

    Critics are 2K networks. Forward: actors on the next and the current observations, target critics, critics on the
    batch, critics under the new actions. Backward: weights and inputs of the critics (except first-layer inputs),
    inputs of the critics under the new actions (only as far as the action), weights and inputs of the actors.
    """

    def __init__(self, count: int, config: SacConfig, batch_size: int) -> None:
        hidden, action = [config.hidden_size] * 3, config.action_size
        actors = _layers(count, [config.obs_size, *hidden, 2 * action], batch_size)
        critics = _layers(2 * count, [config.obs_size + action, *hidden, 1], batch_size)
        first, *others = critics
        forward = [(x, weight, y) for x, weight, y, *_ in actors]
        values = [(x, weight, y) for x, weight, y, *_ in critics]
        self._operands = [*forward, *values, *values, *_gradients(critics), *forward, *values]
        self._operands += [(dy, weight.mT, dx) for _, weight, _, dy, dx, _ in reversed(others)]
        _, weight, _, dy, dx, _ = first
        self._operands += [(dy, weight[:, -action:].mT, dx[..., :action].contiguous()), *_gradients(actors)]

    def __call__(self, product: Product, updates: int) -> None:
        """Compute all of them, `updates` times."""
        for _ in range(updates):
            for operands in self._operands:
                product(*operands)


def _layers(count: int, sizes: list[int], batch_size: int) -> list[Layer]:
    """For each layer its input, weight and output, and the gradients of output, input and weight."""
    rows = []
    for inputs, outputs in itertools.pairwise(sizes):
        shapes = [(batch_size, inputs), (inputs, outputs), (batch_size, outputs)]
        x, weight, y, dx, dweight, dy = (torch.randn(count, *shape) for shape in shapes * 2)
        rows.append((x, weight, y, dy, dx, dweight))
    return rows


def _gradients(layers: list[Layer]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Backward through a stack: the gradients of every weight, and of every input except the first."""
    products = []
    for number, (x, weight, _, dy, dx, dweight) in reversed(list(enumerate(layers))):
        products.append((x.mT, dy, dweight))
        if number > 0:
            products.append((dy, weight.mT, dx))
    return products


class PlainAgent:
    """One SAC agent in plain PyTorch: a module per network, autograd, stock Adam."""

    def __init__(self, config: SacConfig) -> None:
        self.config = config
        self.actor = _network(config.obs_size, config.hidden_size, 2 * config.action_size)
        self.critics = nn.ModuleList(
            _network(config.obs_size + config.action_size, config.hidden_size, 1) for _ in range(2)
        )
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.p_lr)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.q_lr)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=config.p_lr)

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, A) and their log-densities (B, 1)."""
        mean, log_std = self.actor(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(self.config.log_std_min, self.config.log_std_max)
        noise = torch.randn_like(mean)
        before_tanh = mean + log_std.exp() * noise
        log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        log_density -= 2 * (math.log(2) - before_tanh - functional.softplus(-2 * before_tanh))
        return before_tanh.tanh(), log_density.sum(-1, keepdim=True)

    def update(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminal: Tensor) -> None:
        """One gradient step of everything, on B transitions; `reward` and `terminal` are (B, 1)."""
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_density = self.act(next_obs)
            inputs = torch.cat([next_obs, next_action], dim=-1)
            next_value = torch.min(*(target(inputs) for target in self.targets)) - alpha * next_log_density
            goal = reward + self.config.gamma * (1 - terminal) * next_value
        inputs = torch.cat([obs, action], dim=-1)
        critic_loss = sum(functional.mse_loss(critic(inputs), goal) for critic in self.critics)
        _step(self.critic_optimizer, critic_loss)

        new_action, log_density = self.act(obs)
        inputs = torch.cat([obs, new_action], dim=-1)
        value = torch.min(*(critic(inputs) for critic in self.critics))
        _step(self.actor_optimizer, (alpha * log_density - value).mean())

        target_entropy = -float(self.config.action_size)
        _step(self.alpha_optimizer, -(self.log_alpha * (log_density.detach() + target_entropy)).mean())

        with torch.no_grad():
            for parameter, target in zip(self.critics.parameters(), self.targets.parameters(), strict=True):
                target.mul_(1 - self.config.tau).add_(parameter, alpha=self.config.tau)


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    relu = nn.ReLU
    return nn.Sequential(
        *(nn.Linear(inputs, hidden), relu(), nn.Linear(hidden, hidden), relu()),
        *(nn.Linear(hidden, hidden), relu(), nn.Linear(hidden, outputs)),
    )


def _step(optimizer: torch.optim.Optimizer, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


_ROWS = 100_000  # in a replay buffer


def plain_updates(config: SacConfig, batch_size: int) -> Callable[[int], None]:
    """Make one plain agent on one thread; return a function that does a number of updates, drawing included."""
    torch.set_num_threads(1)
    agent = PlainAgent(config)
    widths = (config.obs_size, config.action_size, 1, config.obs_size)
    columns = [torch.randn(_ROWS, width) for width in widths] + [torch.zeros(_ROWS, 1)]

    def learn(updates: int) -> None:
        for _ in range(updates):
            picks = torch.randint(_ROWS, (batch_size,))
            agent.update(*(column[picks] for column in columns))

    return learn


def sb3_updates(config: SacConfig, batch_size: int) -> Callable[[int], None]:
    """The same with Stable-Baselines3: its own networks and replay buffer, on one thread."""
    import gymnasium
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    torch.set_num_threads(1)

    class Environment(gymnasium.Env[np.ndarray, np.ndarray]):
        """Defines the spaces, and is never stepped."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (config.obs_size,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (config.action_size,), np.float32)

    agent = SAC(
        "MlpPolicy",
        Environment(),
        learning_rate=config.p_lr,
        buffer_size=_ROWS,
        batch_size=batch_size,
        tau=config.tau,
        gamma=config.gamma,
        target_entropy=-float(config.action_size),
        policy_kwargs={"net_arch": [config.hidden_size] * 3},
        device="cpu",
    )
    agent.set_logger(Logger(None, []))
    buffer = agent.replay_buffer
    assert buffer is not None
    generator = np.random.default_rng(0)
    for column in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards):
        column[:] = generator.standard_normal(column.shape, np.float32)
    buffer.full = True
    return lambda updates: agent.train(updates, batch_size)
