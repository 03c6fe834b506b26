"""A population of soft actor-critic agents, and how its updates are spread over the hardware.

On the CPU, agents are updated one by one, and learners take turns at them: none waits for another at every matrix
product, and a busy neighbour slows a run by no more than its share. On a GPU, all are updated together, and the whole
update, including the sampling of its batch, is captured once as a CUDA graph and replayed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learners import Learners, UpdateJob, agents_in, learn
from replay_buffer import ReplayBuffer
from sac import ACTOR_LOSSES, CRITIC_LOSSES, LOSSES, Agents, SacConfig, agent_sizes, new_agents
from workers.shared_table import SharedTable

_LONGEST, _SHORTEST = 32, 4  # consecutive updates of one agent, on the CPU
_UNTIL_ASKED = 256  # updates on a GPU between two checks of `stop`
_WARM_UP = 3  # actor steps made before an update is captured, so that libraries allocate what they need


class Population:
    """K soft actor-critic agents.

    Args:
        config: hyperparameters, shared by all agents.
        buffer: what they learn from, with a reward column for each; they live on its device.
        initial_seed: seed of the initial networks.
        learning_seed: seed of the batches' rows and of the noise in the losses.
        learners: number of processes that share the work on the CPU. Results do not depend on it.
    """

    def __init__(
        self, config: SacConfig, buffer: ReplayBuffer, initial_seed: int, learning_seed: int, learners: int = 1
    ) -> None:
        self.config = config
        self.buffer = buffer
        self.device = buffer.device
        self.count = buffer.agents
        self._learning_seed = learning_seed
        self._generator = torch.Generator(self.device).manual_seed(learning_seed)  # of all draws in updates on a GPU
        self._learners: Learners | None = None
        if self.device.type != "cpu":
            self._groups = [new_agents(config, self.count, self.device)]
        elif min(learners, self.count) == 1:
            self._groups = [new_agents(config, 1, self.device) for _ in range(self.count)]
        else:
            table = SharedTable.create(self.count, agent_sizes(config), writable=True)
            self._groups = agents_in(table, config)
            self._learners = Learners(min(learners, self.count), config, table, buffer.transitions, learning_seed)
        initial = torch.Generator().manual_seed(initial_seed)
        for group in self._groups:
            group.initialize(initial)
        self.updates = 0
        self._begun = 0  # number of updates when the agents began to learn
        self._losses_since = np.zeros(self.count, np.int64)  # updates made before an agent's sums of losses began
        self._recorded: dict[bool, Callable[[], None]] = {}  # without and with an actor step
        self._recorded_for: tuple[Any, ...] = ()
        self._warm_ups = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of an actor's layers."""
        return self._groups[0].actors.sizes

    # --- learning ---------------------------------------------------------------------------------------------------

    def learn(self, batch_size: int, updates: int, stop: Callable[[], bool] = lambda: False) -> dict[int, str]:
        """Make `updates` updates of every agent, each from batches of its own; fewer if `stop` returns true.

        With an empty buffer, nothing is learned. Returns which agents can no longer be used, and why; see
        `Learners.learn`. Raises RunError as it does.
        """
        if not self.buffer.size:
            return {}
        if self.config.normalize_rewards:
            self.buffer.normalize(self.config.gamma)
        if self.device.type == "cuda":
            self._learn_captured(batch_size, updates, stop)
            return {}
        before, stored, constrained = self.updates, self.buffer.size, self.constrained

        def job_for(agent: int, chunk: range) -> UpdateJob:
            return UpdateJob(
                agent, constrained[agent], before + chunk.start, len(chunk), self._begun, batch_size, stored
            )

        if self._learners:
            made, lost = self._learners.learn(_chunks(updates), job_for, stop)
            self.updates += made
            return lost
        for chunk in _chunks(updates):
            if stop():
                break
            for agent in range(self.count):
                learn(self._groups, self.buffer.transitions, self._learning_seed, job_for(agent, chunk))
            self.updates = before + chunk.stop
        return {}

    def _learn_captured(self, batch_size: int, updates: int, stop: Callable[[], bool]) -> None:
        [agents] = self._groups
        shape = (self.count, 2, batch_size, self.config.action_size)

        def step() -> None:
            rows = self.buffer.draw_rows(batch_size, self._generator)
            noise = torch.randn(shape, generator=self._generator, device=self.device)
            agents.update(self.buffer.transitions.batch(rows, self.config.gamma, self.config.n_step), noise)

        for update in range(updates):
            if update % _UNTIL_ASKED == 0 and stop():
                break
            self._make(step, agents, (batch_size, agents.any_constrained))
            self.updates += 1
            agents.update_targets()

    def _make(self, step: Callable[[], None], agents: Agents, key: tuple[Any, ...]) -> None:
        """Make an update: by `step` during warm-up, then by replaying its kernels, until `key` changes."""
        if self._recorded_for != key:
            self._recorded_for, self._recorded, self._warm_ups = key, {}, 0
        if self._warm_ups < _WARM_UP * self.config.policy_delay:
            self._warm_ups += 1
            step()
            return
        policy = agents.policy_is_due
        if policy not in self._recorded:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph):
                step()
            agents.updates -= 1  # capturing does not execute the update
            self._recorded[policy] = graph.replay
        self._recorded[policy]()
        agents.updates += 1

    def losses(self) -> dict[str, np.ndarray]:
        """Return the means of each of `sac.LOSSES` (K,) over the updates since the last call. Waits for the device.

        For an agent that has inherited or been loaded since then, they are means over the updates after that.
        """
        sums = torch.cat([group.loss_sums for group in self._groups], dim=1).cpu().numpy()
        delay, before, now = self.config.policy_delay, self._losses_since - self._begun, self.updates - self._begun
        counts = {
            **dict.fromkeys(CRITIC_LOSSES, now - before),
            **dict.fromkeys(ACTOR_LOSSES, now // delay - before // delay),
        }
        means = [one / np.maximum(counts[name], 1) for name, one in zip(LOSSES, sums, strict=True)]
        for group in self._groups:
            group.loss_sums.zero_()
        self._losses_since[:] = self.updates
        return dict(zip(LOSSES, means, strict=True))

    def finite(self) -> np.ndarray:
        """Return which agents (K,) have only finite parameters. Waits for the device."""
        return torch.cat([group.finite() for group in self._groups]).cpu().numpy()

    # --- inheritance ------------------------------------------------------------------------------------------------

    def start_over(self, initial_seed: int) -> None:
        """Give every agent new networks, optimizers and temperatures."""
        initial = torch.Generator().manual_seed(initial_seed)
        self._begun = self.updates
        for group in self._groups:
            for values in group.memory.values():
                values.zero_()
            group.initialize(initial)
            group.set_updates(0)
            group.any_constrained = False
        self._losses_since[:] = self.updates

    def inherit(self, best: int, inheritors: Collection[int]) -> None:
        """Give `inheritors` all that agent `best` has learned, optimizer states included, and constrain them to it.

        No other agent is constrained from then on.
        """
        learned = {name: rows for name, rows in self.agent_state(best).items() if name not in _CONSTRAINT}
        for agent in range(self.count):
            if agent in inheritors:
                self.load_agent_state(agent, learned)
            group, k = self._place(agent)
            state = group.state(k)
            constrained = torch.full_like(state["constrained"], float(agent in inheritors))
            group.load(
                k, {"constrained": constrained, "actor_anchor": state["actor"], "critic_anchor": state["critic"]}
            )

    def inherit_actor(self, best: int, inheritor: int) -> None:
        """Give `inheritor` the actor of agent `best` with its optimizer's moments, and nothing else."""
        state = self.agent_state(best)
        self.load_agent_state(inheritor, {name: state[name] for name in ("actor", "actor_exp_avg", "actor_exp_avg_sq")})

    @property
    def constrained(self) -> list[bool]:
        """Whether the parameter constraint keeps each agent near what it inherited."""
        return [bool(constrained) for group in self._groups for constrained in group.constrained]

    # --- saving -----------------------------------------------------------------------------------------------------

    def policies(self) -> np.ndarray:
        """Return the actors' parameters, float32 (K, P), each laid out as by `models.BatchedMLP.row`."""
        return torch.stack([group.actors.row(k) for group, k in map(self._place, range(self.count))]).cpu().numpy()

    def untrained_policy(self, seed: int) -> np.ndarray:
        """Return the parameters (P,) of an actor that has learned nothing, laid out as by :meth:`policies`."""
        untrained = new_agents(self.config, 1, torch.device("cpu"))
        untrained.initialize(torch.Generator().manual_seed(seed))
        return untrained.actors.row(0).numpy()

    def networks(self, agent: int) -> dict[str, dict[str, Tensor]]:
        """Return an agent's networks as plain state dicts under the names of their files."""
        group, k = self._place(agent)
        return {
            "best_actor_net": group.actors.network_state(k),
            "best_qf1": group.critics.network_state(2 * k),
            "best_qf2": group.critics.network_state(2 * k + 1),
            "best_target_qf1": group.targets.network_state(2 * k),
            "best_target_qf2": group.targets.network_state(2 * k + 1),
        }

    def agent_state(self, agent: int) -> dict[str, Tensor]:
        """Return copies of all parts of one agent, see `sac.Agents.state`."""
        group, k = self._place(agent)
        return group.state(k)

    def load_agent_state(self, agent: int, state: Mapping[str, Tensor]) -> None:
        """Write what :meth:`agent_state` returned, or a part of it. The agent's sums of losses start from zero."""
        group, k = self._place(agent)
        group.load(k, state)
        group.loss_sums[:, k] = 0.0
        self._losses_since[agent] = self.updates

    def state_dict(self) -> dict[str, Any]:
        """Return copies of everything needed to continue. The CPU needs no random state, see `learners.draw`."""
        return {
            "agents": [self.agent_state(agent) for agent in range(self.count)],
            "updates": self.updates,
            "begun": self._begun,
            "loss_sums": [group.loss_sums[:, k].clone() for group, k in map(self._place, range(self.count))],
            "losses_since": self._losses_since.copy(),
            "generator": None if self.device.type == "cpu" else self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, with any number of learners."""
        self.updates, self._begun = state["updates"], state["begun"]
        for agent, one in enumerate(state["agents"]):
            self.load_agent_state(agent, one)
            group, k = self._place(agent)
            group.loss_sums[:, k] = state["loss_sums"][agent]
        self._losses_since[:] = state["losses_since"]
        for group in self._groups:
            group.set_updates(self.updates - self._begun)
        if self.device.type != "cpu" and state["generator"] is not None:  # None: the run began on a CPU
            self._generator.set_state(state["generator"])

    def close(self) -> None:
        """End the learners."""
        if self._learners:
            self._learners.close()

    def _place(self, agent: int) -> tuple[Agents, int]:
        """Return the group that an agent is updated in, and its index there."""
        return (self._groups[0], agent) if len(self._groups) == 1 else (self._groups[agent], 0)


def _chunks(updates: int) -> Iterator[range]:
    """Yield the chunks in which agents make the updates.

    They are long, since each turn has to bring an agent into the cache, and short towards the end, so that no learner
    is left alone with the last agent.
    """
    start = 0
    while start < updates:
        stop = min(start + min(_LONGEST, max(_SHORTEST, (updates - start) // 2)), updates)
        yield range(start, stop)
        start = stop


_CONSTRAINT = {"constrained", "actor_anchor", "critic_anchor"}
