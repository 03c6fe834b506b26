"""What a run will cost, estimated beforehand: time at the speed measured on this machine, memory, requests."""

import dataclasses
import statistics
import time
from typing import Any

import numpy as np
import torch

from arguments import Arguments
from errors import UsageError
from population import Population
from replay_buffer import ReplayBuffer
from runs.wording import duration
from sac import SacConfig, agent_sizes
from task_specs import Task
from tasks.environment import TaskEnvironment
from workers.machine import cores, memory

_TRIES, _UPDATES = 3, 8

# Bytes that a process of each kind takes besides buffer and agents, as measured on Linux with two of each.
_MAIN, _LEARNER, _COLLECTOR, _REWARD_WORKER = 450e6, 250e6, 130e6, 170e6
_MAIN_WITH_GPU = 3e9  # CUDA's libraries
_COPIES = 3  # of the agents: the current one, that of the last evaluation, and one in transit


def forecast(args: Arguments, population: Population, env_step: float) -> str:
    """Return one line about the rest of the run.

    Args:
        args: the flags.
        population: the agents, with at least one transition to learn from; a few updates are made and undone.
        env_step: seconds per env step, as measured over the initial exploration.
    """
    buffer = population.buffer
    update = update_seconds(population, args.batch_size)
    done = buffer.added * args.action_repeat
    left = max(args.total_timesteps - done, 0)
    seconds = seconds_needed(args, population.count, left, update, env_step)
    requests = args.llm_attempts * args.search_rounds
    return (
        f"{left:,} env steps to go: about {duration(seconds)} at {1e3 * update:.0f} ms an update of all agents and "
        f"{1e3 * env_step:.2f} ms an env step; "
        f"{memory_needed(args, buffer.bytes_per_row, population.config, population.count) / 1e9:.1f} GB of memory; "
        f"at most {requests} requests to {args.model}"
    )


def seconds_needed(args: Arguments, agents: int, env_steps: int, update: float, env_step: float) -> float:
    """Return the seconds that `env_steps` of a run take, given those per update of all agents and per env step."""
    evaluated = env_steps / args.display_interval * agents * args.eval_episodes * args.episode_length
    return (env_steps + evaluated) * env_step + env_steps * args.update_cycles * update / args.action_repeat


def measure(args: Arguments, task: Task, agents: int) -> tuple[float, float]:
    """Return the seconds per update of all agents, and per env step, of a run with these flags.

    Measuring takes a few seconds itself: a few updates on noise, and an episode of random actions.
    """
    args = on_this_machine(args)
    decisions = args.episode_length // args.action_repeat
    sizes = task.obs_size, task.action_size, task.variable_width
    device = torch.device(args.device)
    buffer = ReplayBuffer(decisions * agents, *sizes, agents, device, shared=bool(args.shared_buffer))
    draw = np.random.default_rng(0)
    names = ("obs", "action", "next_obs", "variables", "env_reward")
    noise = {name: draw.uniform(-1, 1, buffer.columns[name][:decisions].shape).astype(np.float32) for name in names}
    for agent in range(agents):
        buffer.add({**noise, "terminal": np.zeros(decisions, np.float32)}, agent, success=False)
    torch.set_num_threads(1)  # as a run does
    population = Population(args.sac_config(task.obs_size, task.action_size), buffer, 0, 0, args.num_learners)
    try:
        update = update_seconds(population, args.batch_size)
    finally:
        population.close()
    environment = TaskEnvironment(task, action_repeat=args.action_repeat)
    try:
        began = time.perf_counter()
        environment.reset(0)
        for action in noise["action"]:
            if environment.step(action).over:
                environment.reset(0)
        env_step = (time.perf_counter() - began) / args.episode_length
    finally:
        environment.close()
    return update, env_step / args.num_workers


def on_this_machine(args: Arguments) -> Arguments:
    """Return the flags with what depends on the machine filled in: the device, and the numbers of processes."""
    there = torch.cuda.is_available()
    if args.device == "cuda" and not there:
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device auto or --device cpu")
    device: Any = ("cuda" if there else "cpu") if args.device == "auto" else args.device
    workers, learners = args.num_workers or cores(), args.num_learners or cores()
    return dataclasses.replace(args, device=device, num_workers=workers, num_learners=learners)


def memory_needed(args: Arguments, bytes_per_row: int, config: SacConfig, agents: int) -> float:
    """Return the bytes of memory that all processes of a run take together when its buffer is as full as it gets."""
    buffer = bytes_per_row * min(args.buffer_size, args.total_timesteps // args.action_repeat)
    networks = _COPIES * 4 * agents * sum(agent_sizes(config).values())
    workers = args.num_workers * (_COLLECTOR + _REWARD_WORKER)
    if args.device == "cuda":
        learning = _MAIN_WITH_GPU
    else:
        learning = _MAIN + _LEARNER * (0 if args.num_learners == 1 else min(args.num_learners, agents))
    return buffer + networks + workers + learning


def bytes_per_row(task: Task, agents: int) -> int:
    """Return the bytes of a transition in the buffer."""
    sizes = task.obs_size, task.action_size, task.variable_width
    return ReplayBuffer(1, *sizes, agents, torch.device("cpu")).bytes_per_row


def refuse_what_cannot_fit(args: Arguments, task: Task, agents: int) -> None:
    """Raise UsageError when the run needs more memory than is free, before anything is paid for."""
    free = memory()
    row = bytes_per_row(task, agents)
    needed = memory_needed(args, row, args.sac_config(task.obs_size, task.action_size), agents)
    if free is not None and needed > free:
        raise UsageError(
            f"the run needs {needed / 1e9:.1f} GB of memory and only {free / 1e9:.1f} GB is free; lower --buffer-size "
            f"({args.buffer_size:,} rows of {row} bytes), --num_workers ({args.num_workers}) or "
            f"--num_learners ({args.num_learners})"
        )


def update_seconds(population: Population, batch_size: int) -> float:
    """Return the median time of one update of all agents, which are left as they were."""
    state = population.state_dict()
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        population.learn(batch_size, _UPDATES)
        population.losses()  # waits for the device
        seconds.append((time.perf_counter() - began) / _UPDATES)
    population.load_state_dict(state)
    return statistics.median(seconds)
