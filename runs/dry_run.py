"""What a run would send first, and what that would cost, without sending or training anything."""

import numpy as np

from arguments import Arguments, Setting
from search.prompting import Prompts
from search.tokens import tokens_of
from task_specs import Task
from tasks.environment import PROBE_STARTS, record_probe


def describe(args: Arguments, setting: Setting, task: Task, probe_seed: int) -> str:
    """The first messages word for word, the variables with their ranges on the probe, and the cost as far as known."""
    probe = record_probe(task, probe_seed, bool(args.hide_goal), args.action_repeat)
    starts = {name: column[:PROBE_STARTS] for name, column in probe.items()}
    messages = Prompts(setting, args.prompts).opening(
        task, args.episode_length, args.action_repeat, args.success, starts
    )
    lines = [f"[{message['role']}]\n\n{message['content'].strip()}\n" for message in messages]
    lines.append(f"[variables, and their ranges over the {len(probe['action'])} transitions of the probe]\n")
    for variable in task.variables:
        place = task.inputs[variable.name]
        values = probe[place.column][:, place.start : place.stop]
        low, high = (_numbers(bound(axis=0)) for bound in (values.min, values.max))
        lines.append(f"{variable.name} {variable.shape} {variable.unit}: from {low} to {high}; {variable.meaning}")
    tokens = tokens_of(messages)
    rounds = args.search_rounds
    lines.append(
        f"\n[cost]\n\nThe first request is about {tokens:,} tokens and asks for {2 * args.pop_size} answers. There are "
        f"{rounds} search rounds of 1 to {args.llm_attempts} requests, later ones longer by the best answer and its "
        f"feedback: at least {rounds * tokens:,} tokens in all. What comes back is not known before."
    )
    if args.price_in:
        lines.append(f"At --price_in {args.price_in:g} that is {rounds * tokens * args.price_in / 1e6:.4f} or more.")
    lines.append("Nothing was sent.")
    return "\n".join(lines)


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3g}" for value in values)
