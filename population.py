"""A whole population of soft actor-critic agents, and how its updates are spread over the hardware.

On the CPU the population is cut into as many stacks as there are threads: each thread works alone, so none waits for
another at every product, and a busy neighbour slows a run no more than its share. On a GPU there is one stack, and the
whole update, the drawing of its batch included, is recorded once as a CUDA graph and replayed.
"""

import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sac import LOSSES, Agents, Batch, SacConfig

_CHUNK = 64  # updates between two looks at `stop`, and between two meetings of the threads
_PIECE = 8  # updates that a thread makes of one stack before it takes the next that waits
_WARM_UP = 3  # updates that run before one is recorded, in which libraries allocate what they need


class Source(Protocol):
    """Where batches come from: a replay buffer, as the population sees it."""

    def draw_rows(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Rows (updates, K, batch_size) for each agent, each drawn for itself."""

    def batch(self, rows: Tensor, first: int = 0) -> Batch:
        """The transitions in the given rows (k, B), the first of which belong to agent `first`."""


class Population:
    """K soft actor-critic agents.

    Args:
        count: number of agents K.
        config: hyperparameters, shared by all agents.
        device: where the agents live and learn.
        seed: of the initial networks, of the batches, and of the noise of the actions that the losses draw.
        threads: CPU threads that share the work; results do not depend on them beyond rounding.
    """

    def __init__(self, count: int, config: SacConfig, device: torch.device, seed: int, threads: int = 1) -> None:
        self.count = count
        self.config = config
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        initial = torch.Generator().manual_seed(seed)
        size = max(1, count // threads) if device.type == "cpu" else count
        shares = [range(count)[start : start + size] for start in range(0, count, size)]
        self._stacks = [Agents(len(share), config, device, initial) for share in shares]
        self._firsts = [share.start for share in shares]
        self._places = [(stack, k) for stack in self._stacks for k in range(stack.count)]
        self._threads = concurrent.futures.ThreadPoolExecutor(
            threads, "learner", initializer=torch.set_num_threads, initargs=(1,)
        )
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

    def learn(self, source: Source, batch_size: int, updates: int, stop: Callable[[], bool] = lambda: False) -> None:
        """That many updates of every agent, each from a batch of its own; fewer when `stop` says so on the way."""
        while updates > 0 and not stop():
            count = min(updates, _CHUNK)
            if self.device.type == "cuda":
                self._learn_captured(source, batch_size, count)
            else:
                self._learn_threaded(source, batch_size, count)
            updates -= count

    def update(self, batch: Batch, noise: Tensor) -> None:
        """One update of every agent from the batches of all, with standard normal `noise` (K, 2, B, A)."""
        for first, stack in zip(self._firsts, self._stacks, strict=True):
            own = slice(first, first + stack.count)
            stack.update(Batch(*(column[own] for column in batch)), noise[own])
            stack.follow(self.updates + 1)
        self.updates += 1

    def noise(self, batch_size: int, updates: int = 1) -> Tensor:
        """Standard normal noise (updates, K, 2, batch_size, A) for the losses of so many updates."""
        shape = (updates, self.count, 2, batch_size, self.config.action_size)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _learn_threaded(self, source: Source, batch_size: int, updates: int) -> None:
        rows = source.draw_rows(updates, batch_size, self.generator)
        noise = self.noise(batch_size, updates)

        def learn(index: int, start: int) -> tuple[int, int]:
            first, stack = self._firsts[index], self._stacks[index]
            own = slice(first, first + stack.count)
            for number in range(start, min(start + _PIECE, updates)):
                stack.update(source.batch(rows[number, own], first), noise[number, own])
                stack.follow(self.updates + number + 1)
            return index, start + _PIECE

        at_work = {self._threads.submit(learn, index, 0) for index in range(len(self._stacks))}
        while at_work:
            done, at_work = concurrent.futures.wait(at_work, return_when=concurrent.futures.FIRST_COMPLETED)
            for index, start in (future.result() for future in done):
                if start < updates:
                    at_work.add(self._threads.submit(learn, index, start))
        self.updates += updates

    def _learn_captured(self, source: Source, batch_size: int, updates: int) -> None:
        [stack] = self._stacks

        def step() -> None:
            stack.update(source.batch(source.draw_rows(1, batch_size, self.generator)[0]), self.noise(batch_size)[0])

        for _ in range(updates):
            self._recorded(step, (source, batch_size, stack.any_held))()
            self.updates += 1
            stack.follow(self.updates)

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
            held = torch.full_like(state["held"], float(agent in heirs))
            stack.load(k, {"held": held, "actor_anchor": state["actor"], "critic_anchor": state["critic"]})

    def inherit_actor(self, best: int, heir: int) -> None:
        """Give `heir` the actor of agent `best` with its optimizer's moments, and nothing else."""
        stack, k = self._places[heir]
        state = self.agent_state(best)
        stack.load(k, {name: state[name] for name in ("actor", "actor_exp_avg", "actor_exp_avg_sq")})

    @property
    def held(self) -> list[bool]:
        """Which agents the parameter constraint holds."""
        return [bool(stack.held[k]) for stack, k in self._places]

    # --- saving -----------------------------------------------------------------------------------------------------

    def policies(self) -> np.ndarray:
        """The actors' parameters, float32 (K, P), each laid out as by `models.Stack.row`."""
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
        """Continue from what :meth:`state_dict` returned, on any number of threads."""
        for agent, one in enumerate(state["agents"]):
            self.load_agent_state(agent, one)
        self.updates = self._losses_since = state["updates"]
        for stack in self._stacks:
            stack.set_updates(self.updates)
            stack.loss_sums.zero_()
        self.generator.set_state(state["generator"])


_CONSTRAINT = {"held", "actor_anchor", "critic_anchor"}
