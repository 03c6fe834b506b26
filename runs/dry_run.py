"""What a run would send first, and what that would cost, without sending or training anything."""

import numpy as np

from arguments import Arguments
from search.by_flags import opening_by_flags
from search.connect import costs_tokens
from search.tokens import tokens_of
from task_specs import Task
from tasks.environment import PROBE_STARTS, record_probe


def describe(args: Arguments, task: Task, probe_seed: int) -> str:
    """Return the first messages verbatim, the variables and their ranges on the probe, and the cost as far as known."""
    probe = record_probe(task, probe_seed, bool(args.hide_goal), args.action_repeat)
    starts = {name: column[:PROBE_STARTS] for name, column in probe.items()}
    messages = opening_by_flags(args, task, starts)
    lines = [f"[{message['role']}]\n\n{message['content'].strip()}\n" for message in messages]
    lines.append(f"[variables, and their ranges over the {len(probe['action'])} transitions of the probe]\n")
    for variable in task.variables:
        place = task.inputs[variable.name]
        values = probe[place.column][:, place.start : place.stop]
        low, high = (_numbers(bound(axis=0)) for bound in (values.min, values.max))
        lines.append(f"{variable.name} {variable.shape} {variable.unit}: from {low} to {high}; {variable.meaning}")
    lines.append(f"\n[cost]\n\n{_cost(args, tokens_of(messages))}\nNothing was sent.")
    return "\n".join(lines)


def _cost(args: Arguments, tokens: int) -> str:
    """Return what is known about a run's cost when its first request has that many tokens."""
    rounds = args.search_rounds
    if not costs_tokens(args.model):
        return f"--model {args.model} costs no tokens."
    cost = (
        f"The first request is about {tokens:,} tokens and asks for {2 * args.pop_size} answers. There are "
        f"{rounds} search rounds of 1 to {args.llm_attempts} requests, later ones longer by the best answer and its "
        f"feedback: at least {rounds * tokens:,} tokens in all. What comes back is not known before."
    )
    if args.price_in:
        cost += f"\nAt --price_in {args.price_in:g} that is {rounds * tokens * args.price_in / 1e6:.4f} or more."
    return cost


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3g}" for value in values)
