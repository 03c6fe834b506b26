"""What a run will cost, said before it is spent: time at the speed measured on this machine, memory, requests."""

import dataclasses
import statistics
import time
from typing import Any

import torch

from arguments import Arguments
from errors import UsageError
from population import Population
from replay_buffer import ReplayBuffer
from runs.log import duration
from sac import SacConfig, agent_sizes
from task_specs import Task
from workers.machine import cores, memory

_TRIES, _UPDATES = 3, 8

# Bytes that a process of each kind takes beside buffer and agents, as measured on Linux with two of each.
_MAIN, _LEARNER, _COLLECTOR, _REWARD_WORKER = 450e6, 250e6, 130e6, 170e6
_MAIN_WITH_GPU = 3e9  # CUDA's libraries
_COPIES = 3  # of the agents: as they are, as of the last evaluation, and one on the way


def forecast(args: Arguments, population: Population, env_step: float) -> str:
    """One line about the rest of the run.

    Args:
        args: the flags.
        population: the agents, with at least one transition to learn from; a few updates are made and taken back.
        env_step: seconds that an env step takes, as measured over the initial exploration.
    """
    buffer = population.buffer
    update = update_seconds(population, args.batch_size)
    done = buffer.added * args.action_repeat
    left = max(args.total_timesteps - done, 0)
    evaluated = left / args.display_interval * population.count * args.eval_episodes * args.episode_length
    seconds = (left + evaluated) * env_step + left * args.update_cycles * update / args.action_repeat
    requests = args.llm_attempts * args.search_rounds
    return (
        f"{left:,} env steps to go: about {duration(seconds)} at {1e3 * update:.0f} ms an update of all agents and "
        f"{1e3 * env_step:.2f} ms an env step; "
        f"{memory_needed(args, buffer.bytes_per_row, population.config, population.count) / 1e9:.1f} GB of memory; "
        f"at most {requests} requests to {args.model}"
    )


def on_this_machine(args: Arguments) -> Arguments:
    """Return the flags with what the machine decides filled in: the device, and the numbers of processes."""
    there = torch.cuda.is_available()
    if args.device == "cuda" and not there:
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device auto or --device cpu")
    device: Any = ("cuda" if there else "cpu") if args.device == "auto" else args.device
    workers, learners = args.num_workers or cores(), args.num_learners or cores()
    return dataclasses.replace(args, device=device, num_workers=workers, num_learners=learners)


def memory_needed(args: Arguments, bytes_per_row: int, config: SacConfig, agents: int) -> float:
    """Return the bytes of memory that a run takes when its buffer is as full as it will be, all processes together."""
    buffer = bytes_per_row * min(args.buffer_size, args.total_timesteps // args.action_repeat)
    networks = _COPIES * 4 * agents * sum(agent_sizes(config).values())
    workers = args.num_workers * (_COLLECTOR + _REWARD_WORKER)
    if args.device == "cuda":
        learning = _MAIN_WITH_GPU
    else:
        learning = _MAIN + _LEARNER * (0 if args.num_learners == 1 else min(args.num_learners, agents))
    return buffer + networks + workers + learning


def refuse_what_cannot_fit(args: Arguments, task: Task, agents: int) -> None:
    """Raise UsageError when the run needs more memory than can be had, before anything is paid for."""
    free = memory()
    row = ReplayBuffer(1, task.obs_size, task.action_size, task.variable_width, agents, torch.device("cpu"))
    config = args.sac_config(task.obs_size, task.action_size)
    needed = memory_needed(args, row.bytes_per_row, config, agents)
    if free is not None and needed > free:
        raise UsageError(
            f"the run needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB can be had; lower --buffer-size "
            f"({args.buffer_size:,} rows of {row.bytes_per_row} bytes), --num_workers ({args.num_workers}) or "
            f"--num_learners ({args.num_learners})"
        )


def update_seconds(population: Population, batch_size: int) -> float:
    """Median time of one update of all agents, which are left as they were."""
    state = population.state_dict()
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        population.learn(batch_size, _UPDATES)
        population.losses()  # waits for the device
        seconds.append((time.perf_counter() - began) / _UPDATES)
    population.load_state_dict(state)
    return statistics.median(seconds)
