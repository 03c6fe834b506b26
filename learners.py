"""Learners: how the CPU makes the updates of a population, in this process or in several that share its memory.

Threads would not do: two of them lost a quarter of their time to the interpreter's lock, which each call of PyTorch
gives up and takes again. As a script this file is such a process.
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from errors import RunError
from replay_buffer import Transitions
from sac import Agents, SacConfig
from workers.machine import take_long_turns
from workers.pool import Answer, Job, Lost, WorkerPool
from workers.process import Arrays, Header, WorkerProcess, serve
from workers.shared_table import SharedTable

_TRIES = 3  # calls in a row in each of which a learner is lost
_JOB_SECONDS, _UPDATE_SECONDS = 60.0, 10.0  # in which a job must be done: in any case, and for each update


class Piece(NamedTuple):
    """A few updates in a row of one agent."""

    agent: int
    held: bool  # whether the parameter constraint holds it
    updates: int  # made before
    scale: float  # of its rewards
    shift: float
    rows: Tensor  # (U, B), the transitions of each update
    noise: Tensor  # (U, 2, B, A), see `sac.Agents.update`


def learn(agents: Sequence[Agents], transitions: Transitions, piece: Piece) -> None:
    """Make the updates. Each of `agents` is a stack of its own."""
    agent = agents[piece.agent]
    agent.any_constrained = piece.held
    agent.set_updates(piece.updates)
    for number, (rows, noise) in enumerate(zip(piece.rows.split(1), piece.noise.split(1), strict=True), 1):
        agent.update(transitions.batch(rows, piece.agent, piece.scale, piece.shift), noise)
        agent.update_targets(piece.updates + number)


def agents_in(table: SharedTable, config: SacConfig) -> list[Agents]:
    """The agents in a table: a row each, with a column for each name of `sac.agent_sizes`."""
    rows = range(table.capacity)
    return [Agents(config, {name: torch.from_numpy(column[k]) for name, column in table.columns.items()}) for k in rows]


class Learners:
    """Processes that make updates.

    Args:
        count: number of processes.
        config: hyperparameters of the agents.
        agents: the table of the agents, shared for writing, see :func:`agents_in`.
        transitions: the tables from which batches are drawn.
    """

    def __init__(self, count: int, config: SacConfig, agents: SharedTable, transitions: Sequence[SharedTable]) -> None:
        tables = [agents, *transitions]
        first = {
            "config": asdict(config),
            "tables": [[table.fd, table.capacity, table.widths] for table in tables],
        }
        self._agents = agents.capacity
        self._workers = WorkerPool(
            "learner", count, lambda: WorkerProcess("learners", first, fds=[table.fd for table in tables])
        )
        self._losing = 0  # calls in a row in which a learner was lost

    def learn(
        self, parts: Sequence[slice], piece: Callable[[slice, int], Piece], stop: Callable[[], bool]
    ) -> tuple[int, dict[int, str]]:
        """Make the updates of all agents, one of their `parts` after the other.

        What an agent has to do in a part is piece(part, agent); parts are slices of the same range of updates. Once
        `stop` says so, no part is begun any more.

        Returns:
            How many updates each agent has made, and whose learner ended in the midst of one and how: what is left of
            such an agent is neither old nor new.

        Raises:
            RunError: when learners keep ending.
        """
        made, left = 0, deque(parts)
        lost: dict[int, str] = {}
        due: list[tuple[slice, int]] = []
        learning: set[int] = set()

        def next_job(_: WorkerProcess) -> Job | None:
            nonlocal made
            if not any(agent not in learning for _, agent in due) and left:
                if stop():
                    left.clear()
                else:
                    part = left.popleft()
                    due.extend((part, agent) for agent in range(self._agents) if agent not in lost)
                    made = part.stop
            for number, (part, agent) in enumerate(due):
                if agent not in learning:
                    del due[number]
                    learning.add(agent)
                    fields = piece(part, agent)._asdict()
                    arrays = {name: fields.pop(name).numpy() for name in ("rows", "noise")}
                    return Job(fields, _JOB_SECONDS + _UPDATE_SECONDS * len(arrays["rows"]), arrays)
            return None

        def done(_: WorkerProcess, job: Job, outcome: Answer | Lost) -> None:
            agent = job.header["agent"]
            learning.discard(agent)
            if isinstance(outcome, Lost):
                lost[agent] = outcome.how
                due[:] = [task for task in due if task[1] != agent]

        self._workers.run(next_job, done)
        self._losing = self._losing + 1 if lost else 0
        if self._losing == _TRIES:
            how = next(iter(lost.values()))
            raise RunError(f"a learner {how}, as others before it; with too little memory, try --num_learners 1")
        return made, lost

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


def _serve() -> None:
    torch.set_num_threads(1)
    take_long_turns()
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # transitions are for reading
    agents: list[Agents] = []
    transitions = Transitions({})

    def handle(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        nonlocal agents, transitions
        if not agents:
            [address, *addresses] = header["tables"]
            agents = agents_in(SharedTable.attach(*address, writable=True), SacConfig(**header["config"]))
            transitions = Transitions.of([SharedTable.attach(*address) for address in addresses])
        else:
            fields: dict[str, Any] = {**header, **{name: torch.from_numpy(array) for name, array in arrays.items()}}
            learn(agents, transitions, Piece(**fields))
        return {}, {}

    serve(handle)


if __name__ == "__main__":
    _serve()
