"""Soft actor-critic for several agents at once: batched networks, one update for all.

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

from models import Activations, BatchedMLP, parameter_count

CRITIC_LOSSES = ("critic_loss", "q_value")
ACTOR_LOSSES = ("actor_loss", "temperature", "entropy")
LOSSES = (*CRITIC_LOSSES, *ACTOR_LOSSES)


class Batch(NamedTuple):
    """Transitions for one update, B for each of K agents, float32 on the agents' device."""

    obs: Tensor  # (K, B, O)
    action: Tensor  # (K, B, A)
    reward: Tensor  # (K, B), each agent's own, discounted and summed over n decisions
    next_obs: Tensor  # (K, B, O), after the last of them
    discount: Tensor  # (K, B), of the value of next_obs: 0 where there is nothing to bootstrap from


class Sample(NamedTuple):
    """Actions drawn from policies by the reparametrization trick, with the factors that their gradient needs."""

    action: Tensor  # (K, B, A)
    log_density: Tensor  # (K, B)
    noise_times_std: Tensor  # (K, B, A), d u / d log_std for the action u before tanh
    unclamped: Tensor  # (K, B, A), 1 where log_std lies within its bounds, 0 where it is clamped


@dataclass(frozen=True)
class SacConfig:
    """Hyperparameters that the agents share; each is a flag, see `arguments`."""

    obs_size: int
    action_size: int
    hidden_size: int
    hidden_layers: int
    activation: str
    q_lr: float
    p_lr: float
    gamma: float
    n_step: int
    tau: float
    log_std_min: float
    log_std_max: float
    initial_temperature: float
    learn_temperature: bool
    target_entropy: float  # per dimension of the action
    policy_delay: int
    layer_norm: bool
    target_update_interval: int
    reward_scale: float
    normalize_rewards: bool
    constraint_coef: float


def agent_sizes(config: SacConfig) -> dict[str, int]:
    """Return the parts of an agent by name, with the number of float32 values in each."""
    actor, critics = parameter_count(_actor_sizes(config)), 2 * parameter_count(_critic_sizes(config))
    learned = {"actor": actor, "critic": critics, "log_alpha": 1}
    moments = {f"{name}_{moment}": size for name, size in learned.items() for moment in _MOMENTS}
    constraint = {"constrained": 1, "actor_anchor": actor, "critic_anchor": critics}
    return {**learned, "target": critics, **moments, **constraint, "loss_sums": len(LOSSES)}


class Agents:
    """K soft actor-critic agents: agent k has actor k, and critics 2k and 2k + 1.

    The parameter constraint adds ``constraint_coef * ||theta - anchor||^2`` to the actor loss and to each critic loss
    of the agents flagged in `constrained`; the anchor is a copy of the parameters from when the flag was set.

    Args:
        config: hyperparameters, shared by all agents.
        memory: a tensor (K * size,) for each name of :func:`agent_sizes`, which holds the agents. Other processes may
            share it.
    """

    def __init__(self, config: SacConfig, memory: Mapping[str, Tensor]) -> None:
        self.config = config
        self.memory = memory
        self.log_alpha, self.constrained = memory["log_alpha"], memory["constrained"]
        self.count = len(self.log_alpha)
        self.actors = BatchedMLP(_actor_sizes(config), memory["actor"], config.activation)
        self.critics, self.targets = (
            BatchedMLP(_critic_sizes(config), memory[name], config.activation, config.layer_norm)
            for name in ("critic", "target")
        )
        self.log_alpha_gradient = torch.zeros_like(self.log_alpha)
        self.any_constrained = False
        self.updates = 0
        self.loss_sums = memory["loss_sums"].view(len(LOSSES), self.count)
        self._steps = {
            name: torch.zeros((), dtype=torch.float32, device=self.log_alpha.device)
            for name in ("actor", "log_alpha", "critic")
        }

    def initialize(self, generator: torch.Generator) -> None:
        """Draw new networks, on the CPU.

        Agents are drawn one after another, so that the same seed gives the same population however it is batched.
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

    def sample(self, outputs: Tensor, noise: Tensor) -> Sample:
        """Return the actions for the actors' `outputs` (K, B, 2A) and standard normal `noise` (K, B, A)."""
        mean, unbounded = outputs.chunk(2, dim=-1)
        log_std = unbounded.clamp(self.config.log_std_min, self.config.log_std_max)
        noise_times_std = log_std.exp() * noise
        before_tanh = mean + noise_times_std
        log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in the form that does not underflow for large |u|.
        squash = 2 * (math.log(2) - before_tanh - functional.softplus(-2 * before_tanh))
        return Sample(
            before_tanh.tanh(), (log_density - squash).sum(-1), noise_times_std, (log_std == unbounded).float()
        )

    @property
    def policy_is_due(self) -> bool:
        """Whether the next update includes an actor step: every `policy_delay`-th one does."""
        return (self.updates + 1) % self.config.policy_delay == 0

    def update(self, batch: Batch, noise: Tensor) -> None:
        """Take one gradient step of every critic and, if it is due, of every actor and temperature.

        `noise` is standard normal (K, 2, B, A): for the next actions, and for the actor's. Never waits for the device.
        """
        size, policy = batch.reward.shape[1], self.policy_is_due
        self.updates += 1
        alpha = self.log_alpha.exp()[:, None]
        # The actor does not change until its own step, so one pass serves the next actions and the actor's loss.
        inputs = torch.cat((batch.next_obs, batch.obs), 1) if policy else batch.next_obs
        outputs, actor_activations = self.actors.forward(inputs)
        sample = self.sample(outputs, noise.flatten(1, 2) if policy else noise[:, 0])
        next_action, next_log_density = sample.action[:, :size], sample.log_density[:, :size]

        next_q = self._q_values(self.targets, batch.next_obs, next_action)[0].amin(1)
        td_target = self.config.reward_scale * batch.reward + batch.discount * (next_q - alpha * next_log_density)
        # Critic loss: the sum over i = 1, 2 of mean((q_i - td_target)^2), so d loss / d q_i = 2 / B (q_i - td_target).
        q_values, activations = self._q_values(self.critics, batch.obs, batch.action)
        td_error = q_values - td_target[:, None]
        d_q = (2 / size * td_error).view(2 * self.count, size, 1)
        self.critics.backward(activations, d_q, parameter_gradient=True)
        self._add_constraint_gradient(self.critics, self.memory["critic_anchor"])
        self._adam_step({"critic": self.critics.gradient}, self.config.q_lr)
        critic_sums, actor_sums = self.loss_sums[:2], self.loss_sums[2:]
        critic_sums += torch.stack((td_error.square().mean(-1).sum(1), q_values.mean((1, 2))))
        if policy:
            actor_sums += self._update_actors(batch.obs, sample, actor_activations, alpha)

    def _update_actors(self, obs: Tensor, sample: Sample, activations: list[Activations], alpha: Tensor) -> Tensor:
        """Take one gradient step of every actor and temperature; return their losses, see `LOSSES`.

        The last B rows of `sample` are actions for `obs` (K, B, O), of which `activations` are the actors'.
        """
        # Actor loss: mean(alpha * log pi(a | s) - min(q_1, q_2)), where a = tanh(u), u = mean + std * noise, and
        # log pi = sum(log N(u; mean, std) - log(1 - a^2)). Hence, for each dimension of the action,
        #   d loss / d mean    = d loss / d q * d q / d a * (1 - a^2) + alpha / B * 2 a
        #   d loss / d log_std = d loss / d mean * std * noise - alpha / B, and 0 where log_std is clamped.
        size = obs.shape[1]
        action, log_density, noise_times_std, unclamped = (column[:, -size:] for column in sample)
        q_of_policy, critic_activations = self._q_values(self.critics, obs, action)
        min_q, argmin = q_of_policy.min(1, keepdim=True)
        d_q = torch.zeros_like(q_of_policy).scatter_(1, argmin, -1 / size).view(2 * self.count, size, 1)
        d_input = self.critics.backward(critic_activations, d_q, input_columns=slice(self.config.obs_size, None))
        assert d_input is not None
        d_action = d_input.view(self.count, 2, size, -1).sum(1)
        entropy_weight = (alpha / size)[..., None]
        d_mean = d_action * (1 - action.square()) + 2 * entropy_weight * action
        d_log_std = (d_mean * noise_times_std - entropy_weight) * unclamped
        d_outputs = torch.cat((d_mean, d_log_std), -1)
        self.actors.backward(activations, d_outputs, rows=slice(-size, None), parameter_gradient=True)
        self._add_constraint_gradient(self.actors, self.memory["actor_anchor"])

        # Temperature loss: log_alpha * (entropy - target entropy).
        entropy = -log_density.mean(-1)
        gradients = {"actor": self.actors.gradient}
        if self.config.learn_temperature:
            target_entropy = self.config.target_entropy * self.config.action_size
            gradients["log_alpha"] = torch.sub(entropy, target_entropy, out=self.log_alpha_gradient)
        self._adam_step(gradients, self.config.p_lr)
        return torch.stack(((alpha * log_density - min_q[:, 0]).mean(-1), alpha[:, 0], entropy))

    def update_targets(self) -> None:
        """Move the targets towards the critics by the factor tau, every `target_update_interval` updates."""
        if self.updates % self.config.target_update_interval == 0:
            self.targets.values.lerp_(self.critics.values, self.config.tau)

    def _q_values(self, critics: BatchedMLP, obs: Tensor, action: Tensor) -> tuple[Tensor, list[Activations]]:
        """Return both critics' values (K, 2, B), and the activations that their gradient needs."""
        pairs = torch.cat((obs, action), dim=-1)[:, None].expand(-1, 2, -1, -1).flatten(0, 1)
        values, seen = critics.forward(pairs)
        return values.view(self.count, 2, -1), seen

    def _add_constraint_gradient(self, networks: BatchedMLP, anchor: Tensor) -> None:
        """Add the gradient of the parameter constraint to that of the loss."""
        if not self.any_constrained:
            return
        constrained = self.constrained[:, None].expand(-1, networks.count // self.count).flatten()
        strength = 2 * self.config.constraint_coef * constrained
        parts = (networks.views(networks.gradient), networks.parameters, networks.views(anchor))
        for gradient, parameter, anchored in zip(*parts, strict=True):
            gradient.addcmul_(strength[:, None, None], parameter - anchored)

    def _adam_step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        """Take one step of Adam (Kingma and Ba, 2014, arXiv:1412.6980) on the named parts of the agents."""
        first, second = ([self.memory[f"{name}_{moment}"] for name in gradients] for moment in _MOMENTS)
        adam(
            [self.memory[name] for name in gradients], list(gradients.values()), first, second, [],
            [self._steps[name] for name in gradients], fused=True, capturable=self.log_alpha.is_cuda, amsgrad=False,
            beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    def finite(self) -> Tensor:
        """Return which agents (K,) have only finite parameters."""
        sound = torch.isfinite(self.log_alpha)
        for parameter in (*self.actors.parameters, *self.critics.parameters):
            sound = sound & torch.isfinite(parameter.sum((1, 2))).view(self.count, -1).all(1)
        return sound

    # --- one agent as data ------------------------------------------------------------------------------------------

    def state(self, agent: int) -> dict[str, Tensor]:
        """Return copies of all parts of an agent: parameters (n, P) of its n networks, and scalars (1,)."""
        state = {}
        for name, values, networks in self._parts():
            if networks is None:
                state[name] = values[agent, None].clone()
            else:
                state[name] = torch.stack(
                    [networks.row(index, values) for index in self._network_indices(agent, networks)]
                )
        return state

    def load(self, agent: int, state: Mapping[str, Tensor]) -> None:
        """Write what :meth:`state` returned, or a part of it."""
        for name, values, networks in self._parts():
            if name not in state:
                continue
            if networks is None:
                values[agent] = state[name][0]
            else:
                for index, row in zip(self._network_indices(agent, networks), state[name], strict=True):
                    networks.set_row(index, row, values)
        self.any_constrained = bool(self.constrained.any())

    def set_updates(self, count: int) -> None:
        """Set the number of updates that the agents have made."""
        self.updates = count
        for name, step in self._steps.items():
            step.fill_(count if name == "critic" else count // self.config.policy_delay)

    def _network_indices(self, agent: int, networks: BatchedMLP) -> range:
        """Return the indices of an agent's networks."""
        each = networks.count // self.count
        return range(each * agent, each * (agent + 1))

    def _parts(self) -> Iterator[tuple[str, Tensor, BatchedMLP | None]]:
        """Yield each part of the agents: name, values, and the networks that share its layout; None for scalars."""
        layouts = {"actor": self.actors, "critic": self.critics, "target": self.critics}
        for name, values in self.memory.items():
            if name != "loss_sums":
                yield name, values, layouts.get(name.split("_")[0])


def new_agents(config: SacConfig, count: int, device: torch.device) -> Agents:
    """Return `count` agents in newly allocated memory, not initialized."""
    memory = {name: torch.zeros(count * size, device=device) for name, size in agent_sizes(config).items()}
    return Agents(config, memory)


def _actor_sizes(config: SacConfig) -> list[int]:
    return [config.obs_size, *[config.hidden_size] * config.hidden_layers, 2 * config.action_size]


def _critic_sizes(config: SacConfig) -> list[int]:
    return [config.obs_size + config.action_size, *[config.hidden_size] * config.hidden_layers, 1]


_MOMENTS = ("exp_avg", "exp_avg_sq")
