"""The model that ``--model`` names."""

import difflib
from collections.abc import Mapping
from typing import Any

from errors import UsageError
from search.offline import ManualModel, ReplayModel
from search.protocol import LanguageModel
from search.remote import RemoteModel
from search.turns import inherited_turns

_WITHOUT_TOKENS = ("replay:", "replay-any:", "manual:")  # prefixes of such models' names


def costs_tokens(model: str) -> bool:
    """Return whether ``--model`` names a model whose tokens are counted."""
    return model != "builtin" and not model.startswith(_WITHOUT_TOKENS)


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

    That is ``builtin``, ``replay:DIR`` (a recording for `task` in `setting`), ``replay-any:DIR`` (any recording),
    ``manual:DIR``, or else a model of a remote service. Nothing is sent before the first request. Raises UsageError
    when that model cannot be used.
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
