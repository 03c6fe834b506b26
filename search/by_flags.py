"""The model, the search and the first messages that the flags ask for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arguments import Arguments
from reward_code import RewardWorkers
from search.builtin import ProgramSearch
from search.connect import connect
from search.examples import solved_examples
from search.prompting import Prompts
from search.protocol import LanguageModel, Message
from search.rounds import RewardSearch
from task_specs import Task
from tasks.environment import Columns


def connect_by_flags(args: Arguments, task: str, builtin: LanguageModel) -> LanguageModel:
    """Return the model that the flags ask for, for the task of that name.

    Raises UsageError when the model cannot be used, or the prompts are faulty.
    """
    Prompts(args.setting, args.prompts)
    return connect(
        args.model,
        builtin=builtin,
        task=task,
        setting=args.setting,
        temperature=args.temperature,
        answer_tokens=args.max_answer_tokens,
        options=args.llm_options,
        max_calls=args.max_llm_calls,
        max_tokens=args.max_llm_tokens,
    )


def search_by_flags(
    args: Arguments,
    task: Task,
    model: LanguageModel,
    builtin: ProgramSearch,
    workers: RewardWorkers,
    probe: Mapping[str, np.ndarray],
    **rest: Any,
) -> RewardSearch:
    """Return the search that the flags ask for; `rest` are the arguments of `RewardSearch` that no flag sets."""
    return RewardSearch(
        task,
        model,
        workers,
        probe,
        builtin=builtin,
        episode_length=args.episode_length,
        action_repeat=args.action_repeat,
        rule=args.success,
        attempts=args.llm_attempts,
        deadline=args.llm_deadline,
        context=args.llm_context,
        human_feedback=args.human_feedback,
        prompts=args.prompts,
        scored=args.choice == "scored",
        fit_numbers=bool(args.fit_numbers),
        examples=_examples(args, task),
        **rest,
    )


def opening_by_flags(args: Arguments, task: Task, starts: Columns) -> list[Message]:
    """Return the messages of the first request, with `starts` as in `Prompts.opening`."""
    prompts = Prompts(args.setting, args.prompts)
    return prompts.opening(task, args.episode_length, args.action_repeat, args.success, starts, _examples(args, task))


def _examples(args: Arguments, task: Task) -> Sequence[str]:
    return solved_examples(task.name, args.setting) if args.examples == "solved" else ()
