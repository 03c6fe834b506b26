"""Learners: updates of a population on the CPU, in this process or in several that share its memory.

Threads are too slow: two of them lost a quarter of their time to the global interpreter lock, which each PyTorch call
releases and reacquires. Run as a script, this file is such a process.
"""

import functools
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from errors import RunError
from replay_buffer import Transitions
from sac import Agents, SacConfig
from workers.machine import take_long_turns
from workers.pool import Answer, Job, Lost, WorkerPool
from workers.process import Arrays, Header, Message, WorkerProcess, serve
from workers.shared_table import SharedTable

_TRIES = 3  # consecutive calls that lose a learner, after which the run ends
_JOB_SECONDS, _UPDATE_SECONDS = 60.0, 10.0  # time limit of a job: a base, and for each update
_ROWS, _NOISE = range(2)  # what an update draws


class UpdateJob(NamedTuple):
    """A few consecutive updates of one agent."""

    agent: int
    constrained: bool  # whether the parameter constraint applies to it
    made: int  # updates before these
    updates: int
    begun: int  # number of updates when the agent began to learn, for its optimizers
    batch_size: int
    stored: int  # transitions in the buffer


def draw(seed: int, agent: int, update: int, count: int, batch_size: int, action_size: int) -> tuple[Tensor, Tensor]:
    """Return rows (1, B) of the first `count`, and standard normal noise (1, 2, B, A), for an agent's n-th update.

    Each has a stream of its own, which depends neither on the process that makes the update nor on earlier updates.
    The streams are parts of one counter-based random sequence (Philox, Salmon et al., "Parallel random numbers: as
    easy as 1, 2, 3", 2011), so that no two of them overlap.
    """

    def stream(use: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=seed, counter=[0, use, agent, update]))

    rows = stream(_ROWS).integers(count, size=(1, batch_size))
    noise = stream(_NOISE).standard_normal((1, 2, batch_size, action_size), np.float32)
    return torch.from_numpy(rows), torch.from_numpy(noise)


def learn(agents: Sequence[Agents], transitions: Transitions, seed: int, job: UpdateJob) -> None:
    """Make the updates of a job; each element of `agents` holds one agent."""
    agent = agents[job.agent]
    agent.any_constrained = job.constrained
    agent.set_updates(job.made - job.begun)
    config = agent.config
    own = transitions.own_rows(job.agent, job.stored)
    count = job.stored if own is None else len(own)
    for update in range(job.made + 1, job.made + job.updates + 1):
        rows, noise = draw(seed, job.agent, update, count, job.batch_size, config.action_size)
        rows = rows if own is None else own[rows]
        agent.update(transitions.batch(rows, config.gamma, config.n_step, job.agent), noise)
        agent.update_targets()


def agents_in(table: SharedTable, config: SacConfig) -> list[Agents]:
    """Return the agents in a table: a row each, with a column for each name of `sac.agent_sizes`."""
    rows = range(table.capacity)
    return [Agents(config, {name: torch.from_numpy(column[k]) for name, column in table.columns.items()}) for k in rows]


class Learners:
    """Processes that make updates.

    Args:
        count: number of processes.
        config: hyperparameters of the agents.
        agents: the table of the agents, shared for writing, see :func:`agents_in`.
        transitions: the memory from which batches are made.
        seed: seed of everything that updates draw, see :func:`draw`.
    """

    def __init__(self, count: int, config: SacConfig, agents: SharedTable, transitions: Transitions, seed: int) -> None:
        first = {
            "config": asdict(config),
            "agents": agents.address,
            "transitions": [table.address for table in transitions.tables],
            "shared": transitions.shared,
            "seed": seed,
        }
        fds = [table.fd for table in (agents, *transitions.tables)]
        self._agents = range(agents.capacity)
        self._workers = WorkerPool("learner", count, lambda: WorkerProcess("learners", first, fds=fds))
        self._losing = 0  # consecutive calls in which a learner was lost

    def learn(
        self, chunks: Iterable[range], job_for: Callable[[int, range], UpdateJob], stop: Callable[[], bool]
    ) -> tuple[int, dict[int, str]]:
        """Make the updates of all agents, chunk by chunk.

        An agent's job in a chunk is job_for(agent, chunk). Once `stop` returns true, no further chunk is started.

        Returns:
            How many updates each agent has made; and for each agent whose learner died during one, how it died: the
            parameters of such an agent are only partly updated.

        Raises:
            RunError: learners keep dying.
        """
        made, chunks_left = 0, deque(chunks)
        due: list[UpdateJob] = []
        learning: set[int] = set()  # no two learners may have the same agent
        lost: dict[int, str] = {}

        def next_job(_: WorkerProcess) -> Job | None:
            nonlocal made
            if chunks_left and all(job.agent in learning for job in due):
                if stop():
                    chunks_left.clear()
                else:
                    chunk = chunks_left.popleft()
                    made = chunk.stop
                    due.extend(job_for(agent, chunk) for agent in self._agents if agent not in lost)
            for job in due:
                if job.agent not in learning:
                    due.remove(job)
                    learning.add(job.agent)
                    return Job(job._asdict(), _JOB_SECONDS + _UPDATE_SECONDS * job.updates)
            return None

        def done(_: WorkerProcess, job: Job, outcome: Answer | Lost) -> None:
            agent = job.header["agent"]
            learning.remove(agent)
            if isinstance(outcome, Lost):
                lost[agent] = outcome.how
                due[:] = [job for job in due if job.agent != agent]

        self._workers.run(next_job, done)
        self._losing = self._losing + 1 if lost else 0
        if self._losing == _TRIES:
            how = next(iter(lost.values()))
            raise RunError(f"learners keep failing (the last one {how}); if memory is short, give --num_learners 1")
        return made, lost

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


def _serve() -> None:
    torch.set_num_threads(1)
    take_long_turns()
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # transitions are read-only
    handle_job: Callable[[UpdateJob], None] | None = None

    def handle(header: Header, _: Arrays) -> Message:
        nonlocal handle_job
        if handle_job is None:
            agents = agents_in(SharedTable.attach(*header["agents"], writable=True), SacConfig(**header["config"]))
            tables = [SharedTable.attach(*address) for address in header["transitions"]]
            transitions = Transitions(tables, header["shared"])
            handle_job = functools.partial(learn, agents, transitions, header["seed"])
        else:
            handle_job(UpdateJob(**header))
        return {}, {}

    serve(handle)


if __name__ == "__main__":
    _serve()
