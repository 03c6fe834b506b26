"""What a sweep will cost, estimated in advance: hours at the speed of this machine, memory, tokens, money."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from arguments import Arguments
from runs.forecast import bytes_per_row, measure, memory_needed, on_this_machine, seconds_needed
from runs.wording import duration
from search.by_flags import opening_by_flags
from search.connect import costs_tokens
from search.tokens import tokens_of
from sweeps.plan import PlannedRun
from task_specs import Task, get_task

_ANSWER = 350  # tokens of an answer, as in recordings/


@dataclass(frozen=True)
class Estimate:
    """The cost of a run from start to end: seconds, bytes of memory, tokens, and money at the prices in its flags."""

    seconds: float
    memory: float
    tokens_in: int
    tokens_out: int
    money: float


def estimate(runs: Sequence[PlannedRun], cpus: int) -> dict[str, Estimate]:
    """Return what each run will cost on `cpus` cores of this machine, by its name.

    Runs that differ only in task and seed are assumed to be as fast as the first of them, which is measured.

    Raises:
        UsageError: there is no such task.
    """
    speeds: dict[str, tuple[float, float]] = {}
    tasks: dict[tuple[str, str | None], Task] = {}
    found = {}
    for run in runs:
        args = on_this_machine(
            replace(run.args, num_workers=run.args.num_workers or cpus, num_learners=run.args.num_learners or cpus)
        )
        key = args.env_name, args.task_file
        task = tasks[key] = tasks.get(key) or get_task(*key)
        agents = args.pop_size + (args.setting == "with_init")
        kind = repr(replace(args, env_name="", seed=0))
        if kind not in speeds:
            speeds[kind] = measure(args, task, agents)
        config = args.sac_config(task.obs_size, task.action_size)
        tokens_in, tokens_out = _tokens(args, task)
        found[run.name] = Estimate(
            seconds_needed(args, agents, args.total_timesteps, *speeds[kind]),
            memory_needed(args, bytes_per_row(task, agents), config, agents),
            tokens_in,
            tokens_out,
            (tokens_in * args.price_in + tokens_out * args.price_out) / 1e6,
        )
    return found


def describe(estimates: Mapping[str, Estimate], at_once: int) -> str:
    """Return in one line what the runs will cost together, with that many at once."""
    at_once = max(min(at_once, len(estimates)), 1)
    costs = estimates.values()
    seconds = max(sum(cost.seconds for cost in costs) / at_once, max(cost.seconds for cost in costs))
    money = sum(cost.money for cost in costs)
    tokens_in, tokens_out = sum(cost.tokens_in for cost in costs), sum(cost.tokens_out for cost in costs)
    words = [
        f"about {duration(seconds)} at this machine's speed, {at_once} at once",
        f"{max(cost.memory for cost in costs) / 1e9:.1f} GB of memory each",
        f"at least {tokens_in:,} tokens sent and {tokens_out:,} received" if tokens_in else "no tokens",
    ]
    if money:
        words.append(f"which costs {money:.2f}")
    elif tokens_in:
        words.append("--price_in and --price_out say what they cost")
    return "; ".join(words)


def _tokens(args: Arguments, task: Task) -> tuple[int, int]:
    """Return the tokens sent and received if each search round needs one request."""
    if not costs_tokens(args.model):
        return 0, 0
    opening = tokens_of(opening_by_flags(args, task, {}))
    rounds = args.search_rounds
    answers = 2 * args.pop_size + 2 * (args.pop_size - args.elite_num) * (rounds - 1)
    return rounds * opening, answers * _ANSWER
