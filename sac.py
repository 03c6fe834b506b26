"""Soft actor-critic for several agents at once: one stack of batched tensors, one update for all.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018 (arXiv:1812.05905): twin critics, tanh-Gaussian
actors, automatic temperature. The agents do not interact; a batch axis is all that they share.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models import Seen, Stack

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
    """What the agents have in common."""

    obs_size: int
    action_size: int
    hidden_size: int = 256
    q_lr: float = 3e-4
    p_lr: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    initial_temperature: float = 0.1
    target_update_interval: int = 1
    reward_scale: float = 1.0
    constraint_coef: float = 1.0


class Agents:
    """K soft actor-critic agents in one stack: actor k, critics 2k and 2k + 1.

    The parameter constraint adds ``constraint_coef * ||theta - anchor||^2`` to the actor loss and to each critic loss
    of the agents that `held` names, the anchor being what the parameters were when it was set.

    Args:
        count: number of agents K.
        config: hyperparameters, shared by all agents.
        device: where the agents live and learn.
        generator: source of the initial networks, on the CPU; agent after agent, so that how a population is cut into
            stacks does not change it.
    """

    def __init__(self, count: int, config: SacConfig, device: torch.device, generator: torch.Generator) -> None:
        self.count = count
        self.config = config
        hidden = [config.hidden_size] * 3
        self.actors = Stack(count, [config.obs_size, *hidden, 2 * config.action_size], device)
        self.critics, self.targets = (
            Stack(2 * count, [config.obs_size + config.action_size, *hidden, 1], device) for _ in range(2)
        )
        for agent in range(count):
            self.actors.initialize(agent, generator)
            self.critics.initialize(2 * agent, generator)
            self.critics.initialize(2 * agent + 1, generator)
        self.targets.values.copy_(self.critics.values)
        self.log_alpha = torch.full((count,), math.log(config.initial_temperature), device=device)
        self.log_alpha_gradient = torch.zeros_like(self.log_alpha)
        actor = {self.actors.values: self.actors.gradient, self.log_alpha: self.log_alpha_gradient}
        self.actor_optimizer = _adam(actor, config.p_lr)
        self.critic_optimizer = _adam({self.critics.values: self.critics.gradient}, config.q_lr)
        self.actor_anchor = self.actors.values.clone()
        self.critic_anchor = self.critics.values.clone()
        self.held = torch.zeros(count, device=device)
        self.any_held = False
        self.loss_sums = torch.zeros(len(LOSSES), count, device=device)

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
        self._hold(self.critics, self.critic_anchor)
        self.critic_optimizer.step()

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
        self._hold(self.actors, self.actor_anchor)
        # The temperature's loss is log_alpha * (entropy - target entropy), the target being -dim(action).
        entropy = -log_density.mean(-1)
        torch.add(entropy, self.config.action_size, out=self.log_alpha_gradient)
        self.actor_optimizer.step()

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

    def finite(self) -> Tensor:
        """Which agents (K,) have only finite parameters."""
        sound = torch.isfinite(self.log_alpha)
        for parameter in (*self.actors.parameters, *self.critics.parameters):
            sound = sound & torch.isfinite(parameter.sum((1, 2))).view(self.count, -1).all(1)
        return sound

    # --- one agent as data ------------------------------------------------------------------------------------------

    def state(self, agent: int) -> dict[str, Tensor]:
        """Everything that an agent is, as copies: rows (n, P) of its networks, and scalars (1,)."""
        state = {name: values[agent, None].clone() for name, values in self._scalars().items()}
        for name, (stack, values) in self._networks().items():
            state[name] = torch.stack([stack.row(index, values) for index in self._places(agent, stack)])
        return state

    def load(self, agent: int, state: Mapping[str, Tensor]) -> None:
        """Write what :meth:`state` returned, or a part of it."""
        for name, values in self._scalars().items():
            if name in state:
                values[agent] = state[name][0]
        for name, (stack, values) in self._networks().items():
            if name in state:
                for index, row in zip(self._places(agent, stack), state[name], strict=True):
                    stack.set_row(index, row, values)
        self.any_held = bool(self.held.any())

    def set_updates(self, count: int) -> None:
        """Tell the optimizers how many steps they have made."""
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for moments in optimizer.state.values():
                moments["step"].fill_(count)

    def _places(self, agent: int, stack: Stack) -> range:
        """Where an agent's networks stand in a stack."""
        each = stack.count // self.count
        return range(each * agent, each * (agent + 1))

    def _networks(self) -> dict[str, tuple[Stack, Tensor]]:
        """Tensors that hold something for each parameter, by name, with the stack that they are laid out like."""
        found = {"actor": (self.actors, self.actors.values), "critic": (self.critics, self.critics.values)}
        for name, optimizer in (("actor", self.actor_optimizer), ("critic", self.critic_optimizer)):
            stack, values = found[name]
            found |= {f"{name}_{moment}": (stack, optimizer.state[values][moment]) for moment in _MOMENTS}
        return found | {
            "target": (self.targets, self.targets.values),
            "actor_anchor": (self.actors, self.actor_anchor),
            "critic_anchor": (self.critics, self.critic_anchor),
        }

    def _scalars(self) -> dict[str, Tensor]:
        """Tensors (K,) that hold something for each agent, by name."""
        moments = self.actor_optimizer.state[self.log_alpha]
        return {
            "log_alpha": self.log_alpha,
            **{f"log_alpha_{moment}": moments[moment] for moment in _MOMENTS},
            "held": self.held,
        }


_MOMENTS = ("exp_avg", "exp_avg_sq")


def _adam(parameters: Mapping[Tensor, Tensor], lr: float) -> torch.optim.Adam:
    """The optimizer of parameters with their gradients, its whole state in place, so that nothing moves in memory."""
    device = next(iter(parameters)).device
    optimizer = torch.optim.Adam(list(parameters), lr=lr, fused=True, capturable=device.type == "cuda")
    # Before a CUDA graph is recorded, some steps are made outside of it, which PyTorch would warn of.
    optimizer._warned_capturable_if_run_uncaptured = True
    for parameter, gradient in parameters.items():
        parameter.grad = gradient
        step = torch.zeros((), dtype=torch.float32, device=device)
        optimizer.state[parameter] = {"step": step, **{name: torch.zeros_like(parameter) for name in _MOMENTS}}
    return optimizer
