"""One replay buffer for the whole population: every transition carries the raw reward of every reward function."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sac import Batch
from workers.shared_table import SharedTable

EXPLORATION = 255
"""Collector of the transitions that no agent collected."""

_NO_SPREAD = 1e-8  # standard deviation, relative to a mean above 1, below which float32 numbers do not vary

_SMALLEST_SCALE = 1e-3  # of a column of rewards; the inverse of the largest


@dataclass(frozen=True)
class Transitions:
    """What batches are made of.

    Attributes:
        columns: obs (N, O), action (N, A), next_obs (N, O), terminal (N, 1), rewards (N, K) raw; on one device.
    """

    columns: Mapping[str, Tensor]

    @classmethod
    def of(cls, tables: Sequence[SharedTable]) -> "Transitions":
        """Those in the buffer's tables, in this process or another."""
        return cls({name: torch.from_numpy(column) for table in tables for name, column in table.columns.items()})

    def batch(self, rows: Tensor, agents: Tensor | int, scale: Tensor | float, shift: Tensor | float) -> Batch:
        """The transitions in the given rows (n, B), with the reward of one agent, or of each row's own (n, 1)."""
        agent_count = self.columns["rewards"].shape[1]
        rewards = self.columns["rewards"].view(-1)[rows * agent_count + agents]

        def column(name: str) -> Tensor:
            return self.columns[name].index_select(0, rows.reshape(-1)).view(*rows.shape, -1)

        terminal = column("terminal")[..., 0]
        return Batch(column("obs"), column("action"), rewards * scale + shift, column("next_obs"), terminal)


class ReplayBuffer:
    """A ring of transitions in preallocated float32 columns.

    What other processes read lies in two memory files, one for reward workers and one for learners alone. On the CPU
    batches are drawn from the very same memory, on a GPU from device copies that are written once, as transitions
    arrive.

    Rewards are stored raw, one column an agent. A column's (scale, shift) pair is applied when a batch is drawn, so
    that rewards stored before and after the pair was set cannot disagree.

    Args:
        capacity: number of transitions N; when they are full, the oldest rows go.
        obs_size, action_size, variable_width: widths of the columns.
        agents: number of reward columns K.
        device: where batches are wanted.
        shared: False lets every agent draw only from what it collected itself, see :func:`own_rows`.
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
        self.reward_table = SharedTable.create(
            capacity, {"next_obs": obs_size, "action": action_size, "variables": variable_width}
        )
        learner_table = SharedTable.create(capacity, {"obs": obs_size, "terminal": 1, "rewards": agents})
        self.tables = [self.reward_table, learner_table]  # what learners read
        self.columns: dict[str, np.ndarray] = {
            **self.reward_table.columns,
            **learner_table.columns,
            "terminal": learner_table.columns["terminal"][:, 0],
            "env_reward": np.zeros(capacity, np.float32),
            "collector": np.zeros(capacity, np.uint8),
        }
        self.scale = np.ones(agents, np.float32)
        self.shift = np.zeros(agents, np.float32)
        there = Transitions.of(self.tables).columns
        # On the CPU the same memory, elsewhere copies.
        self._drawn = {name: column.to(device) for name, column in there.items() if name != "variables"}
        self.transitions = Transitions(self._drawn)
        self._scale = torch.from_numpy(self.scale).to(device)
        self._shift = torch.from_numpy(self.shift).to(device)
        self._agents = torch.arange(agents, device=device)[:, None]
        self._count = torch.zeros(agents, dtype=torch.int64, device=device)  # rows that each agent may draw from
        # Without sharing, these: agent k draws from its first _count[k].
        self._own = None if shared else torch.zeros((agents, capacity), dtype=torch.int64, device=device)
        self.added = 0
        self._episodes: deque[tuple[int, int, bool]] = deque()  # first row as counted by `added`, rows, success

    @property
    def bytes_per_row(self) -> int:
        """Memory that one transition takes, on the host."""
        return sum(column.itemsize * int(np.prod(column.shape[1:])) for column in self.columns.values())

    def add(self, transitions: Mapping[str, np.ndarray], collector: int, success: bool) -> list[tuple[int, int]]:
        """Store an episode (n rows of each column but rewards and collector); return the row ranges [start, stop).

        `success` says whether the episode solved the task, see :meth:`episode_success`. Raises ValueError, and stores
        nothing, if a number is not finite: one such row would in time spoil every agent.
        """
        for name, values in transitions.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} of a transition is not finite; leave such an episode out")
        count = len(transitions["action"])
        self._episodes.append((self.added, count, success))
        self.added += count
        ranges: list[tuple[int, int]] = []
        done = 0
        while done < count:
            start = (self.added - count + done) % self.capacity
            stop = min(start + count - done, self.capacity)
            for name, values in transitions.items():
                self.columns[name][start:stop] = values[done : done + stop - start]
            self.columns["collector"][start:stop] = collector
            self._publish(start, stop, [name for name in transitions if name in self._drawn])
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

    def episode_success(self) -> np.ndarray:
        """Which of the E episodes that are stored whole solved the task (E,)."""
        return np.array([success for _, _, success in self._episodes], bool)

    def episode_means(self, values: np.ndarray) -> np.ndarray:
        """Means (E,) of `values` (size,) over the same episodes."""
        return np.array(
            [values[np.arange(first, first + count) % self.capacity].mean() for first, count, _ in self._episodes]
        )

    def set_rewards(self, agent: int, start: int, stop: int, values: np.ndarray) -> None:
        """Write the raw rewards (stop - start,) of one agent's function."""
        self.columns["rewards"][start:stop, agent] = values
        if self.device.type != "cpu":
            self._drawn["rewards"][start:stop, agent] = torch.from_numpy(values.astype(np.float32)).to(self.device)

    def trained_rewards(self, agent: int) -> np.ndarray:
        """The rewards (size,) of one column as its agent sees them."""
        return self.columns["rewards"][: self.size, agent] * self.scale[agent] + self.shift[agent]

    def rescale(self, agent: int, model: int | None, kind: int) -> str | None:
        """Set an agent's (scale, shift) so that its rewards in the buffer are spread like those of agent `model`.

        Args:
            agent: the agent whose column is new.
            model: the agent whose rewards, as trained on, are the measure; None leaves the column as it is.
            kind: 2 maps mean and standard deviation, 1 the standard deviation alone, 0 nothing.

        Returns:
            Why the spreads are not the same all the same, as one line, or None if they are: a column that does not vary
            has no scale to give or to take, and the scale stays within bounds.
        """
        self.scale[agent], self.shift[agent] = 1.0, 0.0
        bounded = None
        if kind and model is not None and self.size:
            new = self.columns["rewards"][: self.size, agent].astype(np.float64)
            best = self.trained_rewards(model).astype(np.float64)
            self.scale[agent], bounded = _scale(new, best)
            if kind == 2:
                self.shift[agent] = best.mean() - new.mean() * self.scale[agent]
        self._publish_pairs()
        return bounded

    def draw_rows(self, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Rows (updates, K, batch_size): transitions for each agent, drawn uniformly with replacement.

        The count of rows is read on the device, so that a recorded CUDA graph goes on drawing from all that arrives.
        """
        shape = (updates, self.agents, batch_size)
        picks = torch.randint(1 << 62, shape, generator=generator, device=self.device) % self._count[:, None]
        return picks if self._own is None else self._own.expand(updates, -1, -1).gather(2, picks)

    def batch(self, rows: Tensor) -> Batch:
        """The transitions in rows (K, B), a batch for each agent, with its scaled reward."""
        return self.transitions.batch(rows, self._agents, self._scale[:, None], self._shift[:, None])

    def _publish(self, start: int, stop: int, names: Sequence[str]) -> None:
        if self.device.type != "cpu":  # on the CPU both are one memory
            for name in names:
                values = torch.from_numpy(self.columns[name][start:stop]).to(self.device)
                self._drawn[name][start:stop] = values.view(self._drawn[name][start:stop].shape)

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
        self._scale.copy_(torch.from_numpy(self.scale))
        self._shift.copy_(torch.from_numpy(self.shift))

    def state_dict(self) -> dict[str, Any]:
        """The stored rows, in the ring's own order, and the column pairs."""
        rows = {name: column[: self.size] for name, column in self.columns.items()}
        return {
            "rows": rows,
            "added": self.added,
            "episodes": list(self._episodes),
            "scale": self.scale.copy(),
            "shift": self.shift.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.added = state["added"]
        self._episodes = deque(state["episodes"])
        for name, values in state["rows"].items():
            self.columns[name][: self.size] = values
        self.scale[:], self.shift[:] = state["scale"], state["shift"]
        self._publish(0, self.size, list(self._drawn))
        self._publish_pairs()
        self._publish_counts()


def own_rows(collector: np.ndarray, agent: int) -> np.ndarray:
    """Return the rows from which an agent draws that does not share, given the collector (size,) of each row.

    They are those that it collected, and the initial exploration, which belongs to everyone. Once the ring has
    overwritten all of them, an agent that no longer collects has none, and draws from all rows.
    """
    own = np.flatnonzero((collector == agent) | (collector == EXPLORATION))
    return own if len(own) else np.arange(len(collector))


def _scale(new: np.ndarray, best: np.ndarray) -> tuple[float, str | None]:
    """Return the factor that spreads the rewards `new` like `best`, and why it is not their ratio, if it is not."""
    for who, rewards in (("its own", new), ("the best function's", best)):
        if rewards.std() < _NO_SPREAD * max(1.0, abs(rewards.mean())):
            return 1.0, f"{who} rewards are the same in all transitions, so its scale is 1"
    ratio = float(best.std() / new.std())
    scale = min(max(ratio, _SMALLEST_SCALE), 1 / _SMALLEST_SCALE)
    return scale, None if scale == ratio else f"its scale would be {ratio:.3g}, and is bounded to {scale:g}"
