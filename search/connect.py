"""The model that ``--model`` names, and the search that the flags ask for."""

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from arguments import Arguments
from errors import UsageError
from reward_code import RewardWorkers
from search.builtin import ProgramSearch
from search.examples import solved_examples
from search.offline import ManualModel, ReplayModel
from search.prompting import Prompts
from search.protocol import LanguageModel
from search.remote import RemoteModel
from search.rounds import RewardSearch
from search.turns import inherited_turns
from task_specs import Task


def connect(
    model: str,
    *,
    builtin: LanguageModel,
    task: str = "",
    setting: str = "",
    temperature: float = 1.0,
    answer_tokens: int = 0,
    options: Mapping[str, Any] | None = None,
    max_calls: int = 0,
    max_tokens: int = 0,
) -> LanguageModel:
    """Return the model that ``--model`` names.

    That is ``builtin``, ``replay:DIR`` with what was recorded for `task` in `setting`, ``replay-any:DIR`` whatever it
    was recorded for, ``manual:DIR``, or else a model of a remote service. Nothing is sent before the first request.
    Raises UsageError when that model cannot be used.
    """
    kind, _, directory = model.partition(":")
    if model == "builtin":
        return builtin
    if kind == "replay":
        return ReplayModel(directory, {"task": task, "setting": setting})
    if kind == "replay-any":
        return ReplayModel(directory)
    if kind == "manual":
        return ManualModel(directory)
    if difflib.get_close_matches(model.lower(), ["builtin"], cutoff=0.75):
        raise UsageError(f"there is no --model {model}; did you mean builtin?")
    return RemoteModel(
        model,
        temperature=temperature,
        answer_tokens=answer_tokens,
        options=options,
        max_calls=max_calls,
        max_tokens=max_tokens,
        turns=inherited_turns(),
    )


def connect_by_flags(args: Arguments, task: str, builtin: LanguageModel) -> LanguageModel:
    """Return the model that the flags ask for, for the task of that name.

    Raises UsageError when it cannot be used, or cannot be asked because of the prompts.
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
    """Return the search that the flags ask for; `rest` are those arguments of `RewardSearch` that no flag gives."""
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
        examples=solved_examples(task.name, args.setting) if args.examples == "solved" else (),
        **rest,
    )
