"""A whole population of soft actor-critic agents, and how its updates are spread over the hardware.

On the CPU each agent is a stack of its own, and learners take turns at them: none waits for another at every product,
and a busy neighbour slows a run no more than its share. On a GPU all agents are one stack, and the whole update, the
drawing of its batch included, is recorded once as a CUDA graph and replayed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learners import Learners, Piece, agents_in, learn
from replay_buffer import ReplayBuffer
from sac import LOSSES, Batch, SacConfig, agent_sizes, new_agents
from workers.shared_table import SharedTable

_CHUNK = 256  # updates for which rows and noise are drawn at once
_LONGEST, _SHORTEST = 32, 4  # updates of one agent in a row, on the CPU
_WARM_UP = 3  # updates that run before one is recorded, in which libraries allocate what they need


class Population:
    """K soft actor-critic agents.

    Args:
        config: hyperparameters, shared by all agents.
        buffer: what they learn from, with a reward column for each; they live on its device.
        seed: of the initial networks, of the batches, and of the noise of the actions that the losses draw.
        learners: processes that share the work on the CPU, if there are more than one. Results do not depend on it.
    """

    def __init__(self, config: SacConfig, buffer: ReplayBuffer, seed: int, learners: int = 1) -> None:
        self.config = config
        self.buffer = buffer
        self.device = buffer.device
        self.count = buffer.agents
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._learners: Learners | None = None
        if self.device.type != "cpu":
            self._stacks = [new_agents(config, self.count, self.device)]
        elif min(learners, self.count) == 1:
            self._stacks = [new_agents(config, 1, self.device) for _ in range(self.count)]
        else:
            table = SharedTable.create(self.count, agent_sizes(config), writable=True)
            self._stacks = agents_in(table, config)
            self._learners = Learners(min(learners, self.count), config, table, buffer.tables)
        initial = torch.Generator().manual_seed(seed)
        for stack in self._stacks:
            stack.initialize(initial)
        self._places = [(stack, k) for stack in self._stacks for k in range(stack.count)]
        self.updates = 0
        self._losses_since = 0  # number of updates when the losses were last read
        self._step: Callable[[], None] | None = None
        self._recorded_for: tuple[Any, ...] = ()
        self._warm_ups = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of an actor's layers."""
        return self._stacks[0].actors.sizes

    # --- learning ---------------------------------------------------------------------------------------------------

    def learn(self, batch_size: int, updates: int, stop: Callable[[], bool] = lambda: False) -> dict[int, str]:
        """That many updates of every agent, each from a batch of its own; fewer when `stop` says so on the way.

        Returns which agents are of no use any more, and why; see `Learners.learn`. Raises RunError as it does.
        """
        lost: dict[int, str] = {}
        while updates > 0 and not stop():
            count = min(updates, _CHUNK)
            if self.device.type == "cuda":
                self._learn_captured(batch_size, count)
            else:
                lost |= self._learn_in_parts(batch_size, count, stop)
            updates -= count
        return lost

    def update(self, batch: Batch, noise: Tensor) -> None:
        """One update of every agent from the batches of all, with standard normal `noise` (K, 2, B, A)."""
        size = self._stacks[0].count
        parts = zip(*(column.split(size) for column in (*batch, noise)), strict=True)
        for stack, (*own, own_noise) in zip(self._stacks, parts, strict=True):
            stack.update(Batch(*own), own_noise)
            stack.update_targets(self.updates + 1)
        self.updates += 1

    def noise(self, batch_size: int, updates: int = 1) -> Tensor:
        """Standard normal noise (updates, K, 2, batch_size, A) for the losses of so many updates."""
        shape = (updates, self.count, 2, batch_size, self.config.action_size)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _learn_in_parts(self, batch_size: int, updates: int, stop: Callable[[], bool]) -> dict[int, str]:
        rows = self.buffer.draw_rows(updates, batch_size, self.generator)
        noise = self.noise(batch_size, updates)
        scale, shift, held = self.buffer.scale.tolist(), self.buffer.shift.tolist(), self.held
        before, parts = self.updates, list(_parts(updates))

        def piece(part: slice, agent: int) -> Piece:
            done = before + part.start
            return Piece(agent, held[agent], done, scale[agent], shift[agent], rows[part, agent], noise[part, agent])

        if self._learners:
            made, lost = self._learners.learn(parts, piece, stop)
            self.updates += made
            return lost
        for part in parts:
            if stop():
                break
            for agent in range(self.count):
                learn(self._stacks, self.buffer.transitions, piece(part, agent))
            self.updates = before + part.stop
        return {}

    def _learn_captured(self, batch_size: int, updates: int) -> None:
        [stack] = self._stacks

        def step() -> None:
            rows = self.buffer.draw_rows(1, batch_size, self.generator)[0]
            stack.update(self.buffer.batch(rows), self.noise(batch_size)[0])

        for _ in range(updates):
            self._recorded(step, (batch_size, stack.any_constrained))()
            self.updates += 1
            stack.update_targets(self.updates)

    def _recorded(self, step: Callable[[], None], key: tuple[Any, ...]) -> Callable[[], None]:
        """`step` itself while it warms up; then what replays its kernels, until `key` says that they are others."""
        if self._recorded_for != key:
            self._recorded_for, self._step, self._warm_ups = key, None, 0
        if self._warm_ups < _WARM_UP:
            self._warm_ups += 1
            return step
        if self._step is None:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self.generator)
            with torch.cuda.graph(graph):
                step()
            self._step = graph.replay
        return self._step

    def losses(self) -> dict[str, np.ndarray]:
        """Means of each of `sac.LOSSES` (K,) over the updates since the last call. Waits for the device."""
        sums = torch.cat([stack.loss_sums for stack in self._stacks], dim=1)
        means = (sums / max(self.updates - self._losses_since, 1)).cpu().numpy()
        for stack in self._stacks:
            stack.loss_sums.zero_()
        self._losses_since = self.updates
        return dict(zip(LOSSES, means, strict=True))

    def finite(self) -> np.ndarray:
        """Which agents (K,) have only finite parameters. Waits for the device."""
        return torch.cat([stack.finite() for stack in self._stacks]).cpu().numpy()

    # --- inheritance ------------------------------------------------------------------------------------------------

    def inherit(self, best: int, heirs: Sequence[int]) -> None:
        """Give `heirs` everything that agent `best` has learned, optimizer states included, and hold them near it.

        No other agent is held from then on.
        """
        learned = {name: rows for name, rows in self.agent_state(best).items() if name not in _CONSTRAINT}
        for agent, (stack, k) in enumerate(self._places):
            if agent in heirs:
                stack.load(k, learned)
            state = stack.state(k)
            constrained = torch.full_like(state["constrained"], float(agent in heirs))
            stack.load(
                k, {"constrained": constrained, "actor_anchor": state["actor"], "critic_anchor": state["critic"]}
            )

    def inherit_actor(self, best: int, heir: int) -> None:
        """Give `heir` the actor of agent `best` with its optimizer's moments, and nothing else."""
        stack, k = self._places[heir]
        state = self.agent_state(best)
        stack.load(k, {name: state[name] for name in ("actor", "actor_exp_avg", "actor_exp_avg_sq")})

    @property
    def held(self) -> list[bool]:
        """Which agents the parameter constraint holds."""
        return [bool(stack.constrained[k]) for stack, k in self._places]

    # --- saving -----------------------------------------------------------------------------------------------------

    def policies(self) -> np.ndarray:
        """The actors' parameters, float32 (K, P), each laid out as by `models.BatchedMLP.row`."""
        return torch.stack([stack.actors.row(k) for stack, k in self._places]).cpu().numpy()

    def networks(self, agent: int) -> dict[str, dict[str, Tensor]]:
        """An agent's networks as plain state dicts under the names of their files."""
        stack, k = self._places[agent]
        return {
            "best_actor_net": stack.actors.network_state(k),
            "best_qf1": stack.critics.network_state(2 * k),
            "best_qf2": stack.critics.network_state(2 * k + 1),
            "best_target_qf1": stack.targets.network_state(2 * k),
            "best_target_qf2": stack.targets.network_state(2 * k + 1),
        }

    def agent_state(self, agent: int) -> dict[str, Tensor]:
        """Everything that one agent is, copied: see `sac.Agents.state`."""
        stack, k = self._places[agent]
        return stack.state(k)

    def load_agent_state(self, agent: int, state: Mapping[str, Tensor]) -> None:
        """Write what :meth:`agent_state` returned, or a part of it."""
        stack, k = self._places[agent]
        stack.load(k, state)

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, copied: the agents, and the random state."""
        return {
            "agents": [self.agent_state(agent) for agent in range(self.count)],
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, with any number of learners."""
        for agent, one in enumerate(state["agents"]):
            self.load_agent_state(agent, one)
        self.updates = self._losses_since = state["updates"]
        for stack in self._stacks:
            stack.set_updates(self.updates)
            stack.loss_sums.zero_()
        self.generator.set_state(state["generator"])

    def close(self) -> None:
        """End the learners."""
        if self._learners:
            self._learners.close()


def _parts(updates: int) -> Iterator[slice]:
    """Updates in the portions in which agents make them.

    Long ones, since an agent that is taken up comes into the cache first; short ones in the end, so that no learner is
    left alone with the last agent.
    """
    start = 0
    while start < updates:
        stop = min(start + min(_LONGEST, max(_SHORTEST, (updates - start) // 2)), updates)
        yield slice(start, stop)
        start = stop


_CONSTRAINT = {"constrained", "actor_anchor", "critic_anchor"}
