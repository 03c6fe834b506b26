"""One replay buffer for the whole population: every transition carries the raw reward of every reward function."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sac import Batch
from workers.shared_table import SharedTable

EXPLORATION = 255
"""Collector of the transitions that no agent collected."""

_SCALARS = ("terminal", "left", "env_reward", "collector")  # columns with one number per row

_CPU = torch.device("cpu")

_PAIRS = ("scale", "shift", "spread")  # columns with one number per agent

_FOR_BATCHES = ("obs", "action", "next_obs", "terminal", "left", "rewards", "collector", *_PAIRS)

_NO_SPREAD = 1e-8  # standard deviation, relative to a mean above 1, below which float32 numbers count as constant

_GROWTH = 1.01  # factor in transitions added, after which returns are measured again

_SMALLEST_SCALE = 1e-3  # of a column of rewards; the inverse of the largest


class Transitions:
    """The memory from which batches are made, in this process or another.

    Args:
        tables: one with a row per transition and one with a row per agent, see :class:`ReplayBuffer`.
        shared: whether an agent draws from all rows or only from its own, see :func:`own_rows`.
        device: of the batches. On the CPU they are made from the tables' own memory, elsewhere from copies.

    Attributes:
        columns: obs (N, O), action (N, A), next_obs (N, O), terminal (N, 1), left (N, 1), rewards (N, K) raw,
            collector (N, 1), scale (K, 1), shift (K, 1), spread (K, 1).
    """

    def __init__(self, tables: Sequence[SharedTable], shared: bool, device: torch.device = _CPU) -> None:
        self.tables = tables
        self.shared = shared
        columns = {name: column for table in tables for name, column in table.columns.items() if name in _FOR_BATCHES}
        self.columns = {name: torch.from_numpy(column).to(device) for name, column in columns.items()}

    def own_rows(self, agent: int, size: int) -> Tensor | None:
        """Return which of the first `size` rows an agent draws from, None if it is all of them. CPU only."""
        if self.shared:
            return None
        return torch.from_numpy(own_rows(self.columns["collector"][:size, 0].numpy(), agent))

    def batch(self, rows: Tensor, gamma: float, n_step: int = 1, agent: int | None = None) -> Batch:
        """Return the transitions in rows (K, B), line k with the rewards of agent k, or in rows (1, B) of one agent.

        A reward is (raw * scale + shift) / spread, with the agent's own figures. Rewards of `n_step` decisions, fewer
        at the end of an episode, are discounted and summed (Sutton and Barto, "Reinforcement Learning", 2018, chapter
        7), without an off-policy correction.
        """
        agents = torch.arange(len(rows), device=rows.device)[:, None] if agent is None else agent
        scale, shift, spread = (self.columns[name].view(-1)[agents] for name in _PAIRS)
        rewards, capacity = self.columns["rewards"], len(self.columns["obs"])

        def column(name: str, rows: Tensor) -> Tensor:
            return self.columns[name].index_select(0, rows.reshape(-1)).view(*rows.shape, -1)

        def reward(rows: Tensor) -> Tensor:
            return (rewards.view(-1)[rows * rewards.shape[1] + agents] * scale + shift) / spread

        total, last = reward(rows), rows
        discount = torch.full_like(total, gamma)
        if n_step > 1:
            left = column("left", rows)[..., 0]
            for step in range(1, n_step):
                within = left >= step
                last = torch.where(within, (rows + step) % capacity, last)
                total = total + torch.where(within, discount * reward(last), 0.0)
                discount = torch.where(within, discount * gamma, discount)
        discount = discount * (1 - column("terminal", last)[..., 0])
        return Batch(column("obs", rows), column("action", rows), total, column("next_obs", last), discount)


class ReplayBuffer:
    """A ring of transitions in preallocated float32 columns.

    They are in one memory file, of which reward workers map the beginning, and learners all. On the CPU, batches are
    made from the same memory; on a GPU, from copies that are written once, as transitions arrive.

    Rewards are stored raw, one column per agent. A column's (scale, shift) pair is applied when a batch is made, so
    that rewards stored before and after the pair was set are consistent.

    Args:
        capacity: number of transitions N; when it is reached, the oldest rows are overwritten.
        obs_size, action_size, variable_width: widths of the columns.
        agents: number of reward columns K.
        device: of the batches.
        shared: False makes every agent draw only from what it collected itself, see :func:`own_rows`.

    Attributes:
        columns: the stored rows on the host: obs (N, O), action (N, A), next_obs (N, O), variables (N, V),
            rewards (N, K), and terminal, left (decisions that follow in the episode), env_reward and collector (N,).
        scale, shift: the pairs (K,), which :meth:`rescale` sets.
        spread: divisors of the rewards (K,), which :meth:`normalize` sets.
        transitions: the same memory, or its copy, from which batches are made.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        action_size: int,
        variable_width: int,
        agents: int,
        device: torch.device,
        shared: bool = True,
    ) -> None:
        self.capacity = capacity
        self.agents = agents
        self.device = device
        widths = {"next_obs": obs_size, "action": action_size, "variables": variable_width}
        widths |= {"obs": obs_size, "rewards": agents} | dict.fromkeys(_SCALARS, 1)
        self._rows = SharedTable.create(capacity, widths)
        self.columns = {name: x[:, 0] if name in _SCALARS else x for name, x in self._rows.columns.items()}
        pairs = SharedTable.create(agents, dict.fromkeys(_PAIRS, 1))
        self.scale, self.shift, self.spread = (column[:, 0] for column in pairs.columns.values())
        self.scale[:] = self.spread[:] = 1.0
        self.transitions = Transitions([self._rows, pairs], shared, device)
        self._count = torch.zeros(agents, dtype=torch.int64, device=device)  # rows that each agent may draw from
        # Without sharing, these rows: agent k draws from its first _count[k].
        self._own = None if shared else torch.zeros((agents, capacity), dtype=torch.int64, device=device)
        self.added = 0
        self.generation = 0  # how often it was cleared
        self._normalized = 0  # transitions added when :meth:`normalize` last measured
        # First row as counted by `added`, number of rows, success, distance.
        self._episodes: deque[tuple[int, int, bool, float]] = deque()

    @property
    def reward_table(self) -> SharedTable:
        """The columns that reward workers may map: next_obs, action and variables."""
        return self._rows.beginning("next_obs", "action", "variables")

    @property
    def bytes_per_row(self) -> int:
        """Memory that one transition takes, on the host."""
        return sum(column.itemsize * int(np.prod(column.shape[1:])) for column in self.columns.values())

    def add(
        self, transitions: Mapping[str, np.ndarray], collector: int, success: bool, distance: float = 1.0
    ) -> list[tuple[int, int]]:
        """Store an episode (n rows of each column but rewards and collector); return the row ranges [start, stop).

        `success` says whether the episode solved the task, and `distance` how near to success it came, see
        :meth:`episode_success` and :meth:`episode_distance`. Raises ValueError, and stores nothing, if a number is not
        finite: one such row would in time corrupt every agent.
        """
        for name, values in transitions.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} of a transition is not finite; leave such an episode out")
        count = len(transitions["action"])
        transitions = {**transitions, "left": np.arange(count - 1, -1, -1, dtype=np.float32)}
        self._episodes.append((self.added, count, success, distance))
        self.added += count
        ranges: list[tuple[int, int]] = []
        done = 0
        while done < count:
            start = (self.added - count + done) % self.capacity
            stop = min(start + count - done, self.capacity)
            for name, values in transitions.items():
                self.columns[name][start:stop] = values[done : done + stop - start]
            self.columns["collector"][start:stop] = collector
            self._publish(start, stop, transitions)
            ranges.append((start, stop))
            done += stop - start
        while self._episodes[0][0] < self.added - self.capacity:  # its first rows have been overwritten
            self._episodes.popleft()
        self._publish_counts()
        return ranges

    @property
    def size(self) -> int:
        """Number of transitions stored."""
        return min(self.added, self.capacity)

    def clear(self) -> None:
        """Forget all transitions."""
        self.added = 0
        self.generation += 1
        self._normalized = 0
        self._episodes.clear()
        self._publish_counts()

    def episode_success(self) -> np.ndarray:
        """Return which of the E completely stored episodes solved the task (E,)."""
        return np.array([success for _, _, success, _ in self._episodes], bool)

    def episode_distance(self) -> np.ndarray:
        """Return the smallest distance from success in each of the same episodes (E,)."""
        return np.array([distance for *_, distance in self._episodes], float)

    def episode_rows(self) -> list[np.ndarray]:
        """Return the rows of each of the same episodes, in the order of its decisions."""
        return [np.arange(first, first + count) % self.capacity for first, count, *_ in self._episodes]

    def episode_means(self, values: np.ndarray) -> np.ndarray:
        """Return the means (E,) of `values` (size,) over the same episodes."""
        return np.array([values[rows].mean() for rows in self.episode_rows()])

    def set_rewards(self, agent: int, start: int, stop: int, values: np.ndarray) -> None:
        """Write the raw rewards (stop - start,) of one agent's function."""
        self.columns["rewards"][start:stop, agent] = values
        if self.device.type != "cpu":
            raw = torch.from_numpy(values.astype(np.float32)).to(self.device)
            self.transitions.columns["rewards"][start:stop, agent] = raw

    def trained_rewards(self, agent: int) -> np.ndarray:
        """Return the rewards (size,) of one column, scaled and shifted."""
        return self.columns["rewards"][: self.size, agent] * self.scale[agent] + self.shift[agent]

    def rescale(self, agent: int, reference: int, kind: int) -> str | None:
        """Set an agent's (scale, shift) so that its rewards in the buffer are spread like those of agent `reference`.

        Args:
            agent: the agent whose column is new.
            reference: the agent whose scaled and shifted rewards are the target.
            kind: 2 matches mean and standard deviation, 1 only the standard deviation, 0 nothing.

        Returns:
            Why the standard deviations could not be matched, as one line, or None if they were: a constant column has
            no scale, and the scale is bounded.
        """
        self.scale[agent], self.shift[agent] = 1.0, 0.0
        self._normalized = 0
        bounded = None
        if kind and self.size:
            new = self.columns["rewards"][: self.size, agent].astype(np.float64)
            best = self.trained_rewards(reference).astype(np.float64)
            self.scale[agent], bounded = _scale(new, best)
            if kind == 2:
                self.shift[agent] = best.mean() - new.mean() * self.scale[agent]
        self._publish_pairs()
        return bounded

    def normalize(self, gamma: float) -> None:
        """Set each agent's spread to the standard deviation of its discounted returns from every stored decision.

        Critics then learn values of the same magnitude, whatever the unit of a reward function. While hardly anything
        has been added and no column has been rescaled, the spreads stay as they are.
        """
        if not self._episodes or self.added < _GROWTH * self._normalized:
            return
        self._normalized = self.added
        rewards = np.stack([self.trained_rewards(agent) for agent in range(self.agents)], 1)  # (size, K)
        rows = self.episode_rows()
        returns = np.zeros((max(map(len, rows)) + 1, len(rows), self.agents))
        for episode, own in enumerate(rows):
            returns[: len(own), episode] = rewards[own]
        for step in reversed(range(len(returns) - 1)):
            returns[step] += gamma * returns[step + 1]
        taken = np.arange(len(returns))[:, None] < [len(own) for own in rows]
        spread = returns[taken].std(0)
        self.spread[:] = np.where(spread > _NO_SPREAD, spread, 1.0)
        self._publish_pairs()

    def draw_rows(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Return rows (K, batch_size) for one update of every agent, drawn on the device, uniformly with replacement.

        The number of rows is read on the device, so that a captured CUDA graph also draws from rows that arrive later.
        """
        shape = (self.agents, batch_size)
        picks = torch.randint(1 << 62, shape, generator=generator, device=self.device) % self._count[:, None]
        return picks if self._own is None else self._own.gather(1, picks)

    def _publish(self, start: int, stop: int, names: Iterable[str]) -> None:
        if self.device.type == "cpu":  # there, both are the same memory
            return
        for name in set(names) & self.transitions.columns.keys():
            values = torch.from_numpy(self._rows.columns[name][start:stop])
            self.transitions.columns[name][start:stop] = values.to(self.device)

    def _publish_counts(self) -> None:
        if self._own is None:
            self._count.fill_(self.size)
            return
        collector = self.columns["collector"][: self.size]
        for agent in range(self.agents):
            own = own_rows(collector, agent)
            self._own[agent, : len(own)] = torch.from_numpy(own).to(self.device)
            self._count[agent] = len(own)

    def _publish_pairs(self) -> None:
        if self.device.type != "cpu":
            for name in _PAIRS:
                self.transitions.columns[name][:, 0] = torch.from_numpy(getattr(self, name)).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the stored rows, not copied and in ring order, and each agent's scale, shift and spread."""
        rows = {name: column[: self.size] for name, column in self.columns.items()}
        return {
            "rows": rows,
            "added": self.added,
            "generation": self.generation,
            "normalized": self._normalized,
            "episodes": list(self._episodes),
            **{name: getattr(self, name).copy() for name in _PAIRS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.added, self.generation = state["added"], state["generation"]
        self._normalized = state["normalized"]
        self._episodes = deque(state["episodes"])
        for name, values in state["rows"].items():
            self.columns[name][: self.size] = values
        for name in _PAIRS:
            getattr(self, name)[:] = state[name]
        self._publish(0, self.size, self.columns)
        self._publish_pairs()
        self._publish_counts()


def own_rows(collector: np.ndarray, agent: int) -> np.ndarray:
    """Return the rows that an agent draws from without sharing, given the collector (size,) of each row.

    They are those that it collected, and the initial exploration, which belongs to everyone. Once the ring has
    overwritten all of them, an agent that no longer collects has none, and draws from all rows.
    """
    own = np.flatnonzero((collector == agent) | (collector == EXPLORATION))
    return own if len(own) else np.arange(len(collector))


def _scale(new: np.ndarray, best: np.ndarray) -> tuple[float, str | None]:
    """Return the factor that gives `new` the spread of `best`, and why it is not their ratio, if it is not."""
    for who, rewards in (("its own", new), ("the best function's", best)):
        if rewards.std() < _NO_SPREAD * max(1.0, abs(rewards.mean())):
            return 1.0, f"{who} rewards are the same in all transitions, so its scale is 1"
    ratio = float(best.std() / new.std())
    scale = min(max(ratio, _SMALLEST_SCALE), 1 / _SMALLEST_SCALE)
    return scale, None if scale == ratio else f"its scale would be {ratio:.3g}, and is bounded to {scale:g}"
