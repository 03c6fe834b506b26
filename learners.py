"""Learners: how the CPU makes the updates of a population, in this process or in several that share its memory.

Threads would not do: two of them lost a quarter of their time to the interpreter's lock, which each call of PyTorch
gives up and takes again. As a script this file is such a process.
"""

import contextlib
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
from workers.machine import public_environment, take_long_turns
from workers.process import Arrays, Header, WorkerDied, WorkerProcess, serve, wait_any
from workers.shared_table import SharedTable

_TRIES = 3  # learners that may end before the run does


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
        self._config = config
        self._tables = [agents, *transitions]
        self._agents = agents.capacity
        self._workers = [self._start() for _ in range(count)]
        self._starting = set(self._workers)
        self._deaths = 0

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
        idle = [worker for worker in self._workers if worker not in self._starting]
        at_work: dict[WorkerProcess, int] = {}
        while due or left or at_work:
            ready = next((task for task in due if task[1] not in at_work.values()), None)
            if idle and ready:
                due.remove(ready)
                worker = idle.pop()
                at_work[worker] = ready[1]
                fields = piece(*ready)._asdict()
                arrays = {name: fields.pop(name).numpy() for name in ("rows", "noise")}
                with contextlib.suppress(WorkerDied):  # which is noticed below
                    worker.send(fields, arrays)
            elif idle and left and stop():
                left.clear()
            elif idle and left:
                part = left.popleft()
                due += [(part, agent) for agent in range(self._agents)]
                made = part.stop
            else:
                for worker in wait_any([*at_work, *self._starting]):
                    agent = at_work.pop(worker, None)
                    self._starting.discard(worker)
                    try:
                        worker.receive()
                        idle.append(worker)
                    except WorkerDied as death:
                        if agent is not None:
                            lost[agent] = str(death)
                        self._replace(worker, death)
        return made, lost

    def _start(self) -> WorkerProcess:
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        fds = [table.fd for table in self._tables]
        worker = WorkerProcess("learners", environment=public_environment() | one_thread, fds=fds)
        addresses = [[table.fd, table.capacity, table.widths] for table in self._tables]
        worker.send({"config": asdict(self._config), "tables": addresses})
        return worker

    def _replace(self, worker: WorkerProcess, death: WorkerDied) -> None:
        self._deaths += 1
        if self._deaths == _TRIES:
            raise RunError(f"a learner {death}, as others before it; with too little memory, try --num_learners 1")
        worker.kill()
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        self._starting.add(fresh)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()


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
