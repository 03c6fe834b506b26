"""Soft actor-critic for several agents at once: one stack of batched tensors, one update for all.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018 (arXiv:1812.05905): twin critics, tanh-Gaussian
actors, automatic temperature. The agents do not interact; a batch axis is all that they share.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam  # the function behind torch.optim.Adam, which would load PyTorch's compiler

from models import Seen, Stack, parameter_count

LOSSES = ("critic_loss", "actor_loss", "temperature", "q_value", "entropy")


class Batch(NamedTuple):
    """Transitions for one update, B for each of K agents, float32 on the agents' device."""

    obs: Tensor  # (K, B, O)
    action: Tensor  # (K, B, A)
    reward: Tensor  # (K, B), each agent's own
    next_obs: Tensor  # (K, B, O)
    terminal: Tensor  # (K, B), 1 where there is nothing to bootstrap from


class Sample(NamedTuple):
    """Actions drawn from policies by the reparametrization trick, and what their gradient needs."""

    action: Tensor  # (K, B, A)
    log_density: Tensor  # (K, B)
    spread: Tensor  # (K, B, A), standard deviation times noise: the derivative of the action before tanh in log_std
    free: Tensor  # (K, B, A), 1 where log_std is not held by its bounds


@dataclass(frozen=True)
class SacConfig:
    """What the agents have in common; the defaults are those of the flags, see `arguments`."""

    obs_size: int
    action_size: int
    hidden_size: int
    q_lr: float
    p_lr: float
    gamma: float
    tau: float
    log_std_min: float
    log_std_max: float
    initial_temperature: float
    target_update_interval: int
    reward_scale: float
    constraint_coef: float


def agent_sizes(config: SacConfig) -> dict[str, int]:
    """What an agent is, by name, with how many float32 numbers each part has."""
    actor, critics = parameter_count(_actor_sizes(config)), 2 * parameter_count(_critic_sizes(config))
    learned = {"actor": actor, "critic": critics, "log_alpha": 1}
    moments = {f"{name}_{moment}": size for name, size in learned.items() for moment in _MOMENTS}
    constraint = {"held": 1, "actor_anchor": actor, "critic_anchor": critics}
    return {**learned, "target": critics, **moments, **constraint, "loss_sums": len(LOSSES)}


class Agents:
    """K soft actor-critic agents in one stack: actor k, critics 2k and 2k + 1.

    The parameter constraint adds ``constraint_coef * ||theta - anchor||^2`` to the actor loss and to each critic loss
    of the agents that `held` names, the anchor being what the parameters were when it was set.

    Args:
        config: hyperparameters, shared by all agents.
        memory: where the agents are: by the names of :func:`agent_sizes` a tensor (K * size,) each. Another process may
            have the same memory.
    """

    def __init__(self, config: SacConfig, memory: Mapping[str, Tensor]) -> None:
        self.config = config
        self.memory = memory
        self.log_alpha, self.held = memory["log_alpha"], memory["held"]
        self.count = len(self.log_alpha)
        self.actors = Stack(_actor_sizes(config), memory["actor"])
        self.critics, self.targets = (Stack(_critic_sizes(config), memory[name]) for name in ("critic", "target"))
        self.log_alpha_gradient = torch.zeros_like(self.log_alpha)
        self.any_held = False
        self.loss_sums = memory["loss_sums"].view(len(LOSSES), self.count)
        self._steps = {
            name: torch.zeros((), dtype=torch.float32, device=self.log_alpha.device)
            for name in ("actor", "log_alpha", "critic")
        }

    def initialize(self, generator: torch.Generator) -> None:
        """Draw new networks, on the CPU.

        Agent after agent, so that how a population is cut into stacks does not change it.
        """
        for agent in range(self.count):
            self.actors.initialize(agent, generator)
            self.critics.initialize(2 * agent, generator)
            self.critics.initialize(2 * agent + 1, generator)
        self.targets.values.copy_(self.critics.values)
        self.log_alpha.fill_(math.log(self.config.initial_temperature))
        for name in ("actor", "critic"):
            self.memory[f"{name}_anchor"].copy_(self.memory[name])

    # --- learning ---------------------------------------------------------------------------------------------------

    def sample(self, heads: Tensor, noise: Tensor) -> Sample:
        """Actions for the actors' outputs `heads` (K, B, 2A) and standard normal `noise` (K, B, A)."""
        mean, unbounded = heads.chunk(2, dim=-1)
        log_std = unbounded.clamp(self.config.log_std_min, self.config.log_std_max)
        spread = log_std.exp() * noise
        before_tanh = mean + spread
        log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in the form that does not underflow for large |u|.
        squash = 2 * (math.log(2) - before_tanh - functional.softplus(-2 * before_tanh))
        return Sample(before_tanh.tanh(), (log_density - squash).sum(-1), spread, (log_std == unbounded).float())

    def update(self, batch: Batch, noise: Tensor) -> None:
        """One gradient step of every critic, actor and temperature. Never waits for the device.

        `noise` is standard normal (K, 2, B, A): for the next actions, and for the actor's.
        """
        size = batch.reward.shape[1]
        alpha = self.log_alpha.exp()[:, None]
        # The actor does not change until its own step, so that one pass serves the next actions and its loss.
        heads, policy = self.actors.forward(torch.cat((batch.next_obs, batch.obs), 1))
        drawn = self.sample(heads, noise.flatten(1, 2))
        (next_action, action), (next_log_density, log_density) = (x.split(size, 1) for x in drawn[:2])

        next_value = self._values(self.targets, batch.next_obs, next_action)[0].amin(1)
        goal = self.config.reward_scale * batch.reward + self.config.gamma * (1 - batch.terminal) * (
            next_value - alpha * next_log_density
        )
        q_values, seen = self._values(self.critics, batch.obs, batch.action)
        error = q_values - goal[:, None]
        self.critics.backward(seen, (2 / size * error).view(2 * self.count, size, 1), learn=True)
        self._hold(self.critics, self.memory["critic_anchor"])
        self._descend({"critic": self.critics.gradient}, self.config.q_lr)

        values, seen = self._values(self.critics, batch.obs, action)
        value, lower = values.min(1, keepdim=True)
        # The loss is the mean of alpha * log_density - min(q_1, q_2). Its derivatives, from the critics' outputs back:
        d_q = torch.zeros_like(q_values).scatter_(1, lower, -1 / size).view(2 * self.count, size, 1)
        d_pair = self.critics.backward(seen, d_q, inputs=slice(self.config.obs_size, None))
        assert d_pair is not None
        d_action = d_pair.view(self.count, 2, size, -1).sum(1)
        weight = (alpha / size)[..., None]
        d_mean = d_action * (1 - action.square()) + 2 * weight * action
        d_log_std = (d_mean * drawn.spread[:, size:] - weight) * drawn.free[:, size:]
        self.actors.backward(policy, torch.cat((d_mean, d_log_std), -1), rows=slice(size, None), learn=True)
        self._hold(self.actors, self.memory["actor_anchor"])
        # The temperature's loss is log_alpha * (entropy - target entropy), the target being -dim(action).
        entropy = -log_density.mean(-1)
        torch.add(entropy, self.config.action_size, out=self.log_alpha_gradient)
        self._descend({"actor": self.actors.gradient, "log_alpha": self.log_alpha_gradient}, self.config.p_lr)

        actor_loss = (alpha * log_density - value[:, 0]).mean(-1)
        critic_loss = error.square().mean(-1).sum(1)
        self.loss_sums += torch.stack((critic_loss, actor_loss, alpha[:, 0], q_values.mean((1, 2)), entropy))

    def follow(self, updates: int) -> None:
        """Move the targets towards the critics by the share tau, if that is due after so many updates."""
        if updates % self.config.target_update_interval == 0:
            self.targets.values.lerp_(self.critics.values, self.config.tau)

    def _values(self, critics: Stack, obs: Tensor, action: Tensor) -> tuple[Tensor, list[Seen]]:
        """Both critics' values (K, 2, B), and what their gradient needs."""
        pairs = torch.cat((obs, action), dim=-1)[:, None].expand(-1, 2, -1, -1).flatten(0, 1)
        values, seen = critics.forward(pairs)
        return values.view(self.count, 2, -1), seen

    def _hold(self, networks: Stack, anchor: Tensor) -> None:
        """Add the gradient of the parameter constraint."""
        if not self.any_held:
            return
        held = self.held[:, None].expand(-1, networks.count // self.count).flatten()
        strength = 2 * self.config.constraint_coef * held
        parts = (networks.views(networks.gradient), networks.parameters, networks.views(anchor))
        for gradient, parameter, fixed in zip(*parts, strict=True):
            gradient.addcmul_(strength[:, None, None], parameter - fixed)

    def _descend(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """One step of Adam (Kingma and Ba, 2014, arXiv:1412.6980) for the parts of the agents that are named."""
        first, second = ([self.memory[f"{name}_{moment}"] for name in gradients] for moment in _MOMENTS)
        adam(
            [self.memory[name] for name in gradients], list(gradients.values()), first, second, [],
            [self._steps[name] for name in gradients], fused=True, capturable=self.log_alpha.is_cuda, amsgrad=False,
            beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    def finite(self) -> Tensor:
        """Which agents (K,) have only finite parameters."""
        sound = torch.isfinite(self.log_alpha)
        for parameter in (*self.actors.parameters, *self.critics.parameters):
            sound = sound & torch.isfinite(parameter.sum((1, 2))).view(self.count, -1).all(1)
        return sound

    # --- one agent as data ------------------------------------------------------------------------------------------

    def state(self, agent: int) -> dict[str, Tensor]:
        """Everything that an agent is, as copies: rows (n, P) of its networks, and scalars (1,)."""
        state = {}
        for name, values, stack in self._parts():
            if stack is None:
                state[name] = values[agent, None].clone()
            else:
                state[name] = torch.stack([stack.row(index, values) for index in self._places(agent, stack)])
        return state

    def load(self, agent: int, state: Mapping[str, Tensor]) -> None:
        """Write what :meth:`state` returned, or a part of it."""
        for name, values, stack in self._parts():
            if name not in state:
                continue
            if stack is None:
                values[agent] = state[name][0]
            else:
                for index, row in zip(self._places(agent, stack), state[name], strict=True):
                    stack.set_row(index, row, values)
        self.any_held = bool(self.held.any())

    def set_updates(self, count: int) -> None:
        """Tell the optimizers how many steps they have made."""
        for step in self._steps.values():
            step.fill_(count)

    def _places(self, agent: int, stack: Stack) -> range:
        """Where an agent's networks stand in a stack."""
        each = stack.count // self.count
        return range(each * agent, each * (agent + 1))

    def _parts(self) -> Iterator[tuple[str, Tensor, Stack | None]]:
        """What an agent is: name, values, and the stack that they are laid out like, if each is not one number."""
        layouts = {"actor": self.actors, "critic": self.critics, "target": self.critics}
        for name, values in self.memory.items():
            if name != "loss_sums":
                yield name, values, layouts.get(name.split("_")[0])


def new_agents(config: SacConfig, count: int, device: torch.device) -> Agents:
    """So many agents in memory of their own, not initialized."""
    memory = {name: torch.zeros(count * size, device=device) for name, size in agent_sizes(config).items()}
    return Agents(config, memory)


def _actor_sizes(config: SacConfig) -> list[int]:
    return [config.obs_size, *[config.hidden_size] * 3, 2 * config.action_size]


def _critic_sizes(config: SacConfig) -> list[int]:
    return [config.obs_size + config.action_size, *[config.hidden_size] * 3, 1]


_MOMENTS = ("exp_avg", "exp_avg_sq")
