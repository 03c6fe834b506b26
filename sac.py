"""Soft actor-critic for a whole population at once: K agents, one stack of batched tensors, one update for all.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018 (arXiv:1812.05905): twin critics, tanh-Gaussian
actors, automatic temperature. The agents do not interact; a batch axis is all that they share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models import Stack

LOSSES = ("critic_loss", "actor_loss", "temperature", "q_value", "entropy")


class Batch(NamedTuple):
    """Transitions for one update, B for each of K agents, float32 on the population's device."""

    obs: Tensor  # (K, B, O)
    action: Tensor  # (K, B, A)
    reward: Tensor  # (K, B), each agent's own
    next_obs: Tensor  # (K, B, O)
    terminal: Tensor  # (K, B), 1 where there is nothing to bootstrap from


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
    target_update_interval: int = 1
    reward_scale: float = 1.0
    constraint_coef: float = 1.0


class Population:
    """K soft actor-critic agents.

    The parameter constraint adds ``constraint_coef * ||theta - anchor||^2`` to the actor loss and to each critic loss
    of the agents that inherited, with the anchor frozen when they did.

    Args:
        count: number of agents K.
        config: hyperparameters, shared by all agents.
        device: where the agents live and learn.
        seed: of the initial networks and of the noise of the actions that the losses draw.
    """

    def __init__(self, count: int, config: SacConfig, device: torch.device, seed: int) -> None:
        self.count = count
        self.config = config
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        initial = torch.Generator().manual_seed(seed)
        hidden = [config.hidden_size] * 3
        # Networks of agent k: actor k, critics k and K + k.
        self.actors = Stack(count, [config.obs_size, *hidden, 2 * config.action_size], device, initial)
        self.critics = Stack(2 * count, [config.obs_size + config.action_size, *hidden, 1], device, initial)
        self.targets = self.critics.copy()
        self.log_alpha = torch.zeros(count, device=device, requires_grad=True)
        capturable = device.type == "cuda"
        self.actor_optimizer = torch.optim.Adam(
            self.actors.parameters, lr=config.p_lr, fused=True, capturable=capturable
        )
        self.critic_optimizer = torch.optim.Adam(
            self.critics.parameters, lr=config.q_lr, fused=True, capturable=capturable
        )
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=config.p_lr, fused=True, capturable=capturable)
        self.actor_anchor = self.actors.copy()
        self.critic_anchor = self.critics.copy()
        self.constrained = [False] * count
        self.updates = 0
        self._losses = torch.zeros(len(LOSSES), count, device=device)
        self._losses_of = 0

    # --- learning ---------------------------------------------------------------------------------------------------

    def noise(self, batch_size: int) -> Tensor:
        """Standard normal noise (2, K, B, A) of one update: for the next actions, and for the actor's."""
        shape = (2, self.count, batch_size, self.config.action_size)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def act(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrized actions (K, B, A) and their log-densities (K, B)."""
        mean, log_std = self.actors(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(self.config.log_std_min, self.config.log_std_max)
        before_tanh = mean + log_std.exp() * noise
        log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in the form that does not underflow for large |u|.
        squash = 2 * (math.log(2) - before_tanh - functional.softplus(-2 * before_tanh))
        return before_tanh.tanh(), (log_density - squash).sum(-1)

    def update(self, batch: Batch, noise: Tensor) -> None:
        """One gradient step of every critic, actor and temperature, and of the targets. Never waits for the device."""
        alpha = self.log_alpha.detach().exp()[:, None]

        with torch.no_grad():
            next_action, next_log_density = self.act(batch.next_obs, noise[0])
            next_value = self._twin(self.targets, batch.next_obs, next_action).amin(0) - alpha * next_log_density
            goal = self.config.reward_scale * batch.reward + self.config.gamma * (1 - batch.terminal) * next_value
        q_values = self._twin(self.critics, batch.obs, batch.action)
        critic_loss = (q_values - goal).square().mean(-1)
        self._step(self.critic_optimizer, critic_loss.sum(), self.critics, self.critic_anchor)

        action, log_density = self.act(batch.obs, noise[1])
        actor_loss = (alpha * log_density - self._twin(self.critics, batch.obs, action).amin(0)).mean(-1)
        self._step(self.actor_optimizer, actor_loss.sum(), self.actors, self.actor_anchor)

        entropy = -log_density.detach().mean(-1)
        # Gradient of the temperature's loss log_alpha * (entropy - target entropy), the target being -dim(action).
        self.log_alpha.grad = entropy + self.config.action_size
        self.alpha_optimizer.step()

        self.updates += 1
        if self.updates % self.config.target_update_interval == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self.targets.parameters, self.critics.parameters, self.config.tau)

        with torch.no_grad():
            self._losses += torch.stack((critic_loss.sum(0), actor_loss, alpha[:, 0], q_values.mean((0, 2)), entropy))
        self._losses_of += 1

    def _twin(self, critics: Stack, obs: Tensor, action: Tensor) -> Tensor:
        """Both critics' values (2, K, B)."""
        inputs = torch.cat((obs, action), dim=-1)
        return critics(inputs.repeat(2, 1, 1)).view(2, self.count, -1)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor, networks: Stack, anchor: Stack) -> None:
        gradients = list(torch.autograd.grad(loss, networks.parameters))
        if self.config.constraint_coef and any(self.constrained):
            held = torch.tensor(self.constrained, device=self.device).repeat(networks.count // self.count)
            strength = 2 * self.config.constraint_coef * held[:, None, None]
            with torch.no_grad():
                for gradient, parameter, fixed in zip(gradients, networks.parameters, anchor.parameters, strict=True):
                    gradient.addcmul_(strength, parameter - fixed)
        for parameter, gradient in zip(networks.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    def losses(self) -> dict[str, np.ndarray]:
        """Means of each of LOSSES (K,) over the updates since the last call. Waits for the device."""
        means = (self._losses / max(self._losses_of, 1)).cpu().numpy()
        self._losses.zero_()
        self._losses_of = 0
        return dict(zip(LOSSES, means, strict=True))

    def finite(self) -> np.ndarray:
        """Which agents (K,) have only finite parameters. Waits for the device."""
        sound = torch.isfinite(self.log_alpha)
        for stack in (self.actors, self.critics):
            for parameter in stack.parameters:
                sound = sound & torch.isfinite(parameter.sum((1, 2))).view(-1, self.count).all(0)
        return sound.cpu().numpy()

    # --- inheritance ------------------------------------------------------------------------------------------------

    def inherit(self, best: int, heirs: Sequence[int]) -> None:
        """Give `heirs` everything that agent `best` has learned, optimizer states included, and hold them near it."""
        tensors = [*self._actor_tensors(), *self._critic_tensors(), *_state(self.alpha_optimizer), self.log_alpha]
        self._copy_rows(tensors, best, heirs)
        self.constrained = [agent in heirs for agent in range(self.count)]
        with torch.no_grad():
            for networks, anchor in ((self.actors, self.actor_anchor), (self.critics, self.critic_anchor)):
                for parameter, fixed in zip(networks.parameters, anchor.parameters, strict=True):
                    fixed.copy_(parameter)

    def inherit_actor(self, best: int, heir: int) -> None:
        """Give `heir` the actor of agent `best` with its optimizer state, and nothing else."""
        self._copy_rows(self._actor_tensors(), best, [heir])

    def _actor_tensors(self) -> list[Tensor]:
        return [*self.actors.parameters, *_state(self.actor_optimizer)]

    def _critic_tensors(self) -> list[Tensor]:
        return [*self.critics.parameters, *self.targets.parameters, *_state(self.critic_optimizer)]

    def _copy_rows(self, tensors: Sequence[Tensor], best: int, heirs: Sequence[int]) -> None:
        with torch.no_grad():
            for tensor in tensors:
                rows = tensor.view(-1, self.count, *tensor.shape[1:])  # the twin critics are one axis more
                rows[:, list(heirs)] = rows[:, [best]]

    # --- saving -----------------------------------------------------------------------------------------------------

    def networks(self, agent: int) -> dict[str, dict[str, Tensor]]:
        """Agent's networks as plain state dicts under the names of their files."""
        return {
            "best_actor_net": self.actors.network_state(agent),
            "best_qf1": self.critics.network_state(agent),
            "best_qf2": self.critics.network_state(self.count + agent),
            "best_target_qf1": self.targets.network_state(agent),
            "best_target_qf2": self.targets.network_state(self.count + agent),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, copied: networks, optimizers, anchors, random state."""
        return {
            "stacks": [[parameter.detach().clone() for parameter in stack.parameters] for stack in self._stacks()],
            "log_alpha": self.log_alpha.detach().clone(),
            "optimizers": [_cloned(optimizer.state_dict()) for optimizer in self._optimizers()],
            "constrained": list(self.constrained),
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        with torch.no_grad():
            for stack, values in zip(self._stacks(), state["stacks"], strict=True):
                for parameter, value in zip(stack.parameters, values, strict=True):
                    parameter.copy_(value)
            self.log_alpha.copy_(state["log_alpha"])
        for optimizer, saved in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(_cloned(saved))
        self.constrained = list(state["constrained"])
        self.updates = state["updates"]
        self.generator.set_state(state["generator"])

    def _stacks(self) -> tuple[Stack, ...]:
        return self.actors, self.critics, self.targets, self.actor_anchor, self.critic_anchor

    def _optimizers(self) -> tuple[torch.optim.Adam, ...]:
        return self.actor_optimizer, self.critic_optimizer, self.alpha_optimizer


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The moments of every parameter. The step count is not among them: all agents have made the same steps."""
    return [moments[name] for moments in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]


def _cloned(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: _cloned(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_cloned(value) for value in tree]
    return tree
