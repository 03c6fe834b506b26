"""What a run will cost, said before it is spent: time at the speed measured on this machine, memory, requests."""

import statistics
import time

from arguments import Arguments
from population import Population
from runs.log import duration

_TRIES, _UPDATES = 3, 8


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
    memory = buffer.bytes_per_row * min(buffer.capacity, args.total_timesteps // args.action_repeat)
    requests = args.llm_attempts * -(-args.total_timesteps // args.LLM_freq)
    return (
        f"{left:,} env steps to go: about {duration(seconds)} at {1e3 * update:.0f} ms an update of all agents and "
        f"{1e3 * env_step:.2f} ms an env step; {memory / 1e9:.2f} GB for the buffer; "
        f"at most {requests} requests to {args.model}"
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
