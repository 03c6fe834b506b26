"""The model that ``--model`` names."""

import difflib
from collections.abc import Callable

from errors import UsageError
from search.offline import ManualModel, ReplayModel
from search.protocol import LanguageModel
from search.remote import RemoteModel


def connect(
    model: str,
    *,
    builtin: LanguageModel,
    temperature: float = 1.0,
    max_calls: int = 0,
    max_tokens: int = 0,
    log: Callable[[str], None] = print,
) -> LanguageModel:
    """The model that ``--model`` names: ``builtin``, ``replay:DIR``, ``manual:DIR``, or one of a remote service.

    Nothing is sent before the first request. Raises UsageError when that model cannot be used.
    """
    kind, _, directory = model.partition(":")
    if model == "builtin":
        return builtin
    if kind == "replay":
        return ReplayModel(directory)
    if kind == "manual":
        return ManualModel(directory, log)
    if difflib.get_close_matches(model.lower(), ["builtin"], cutoff=0.75):
        raise UsageError(f"there is no --model {model}; did you mean builtin?")
    return RemoteModel(model, temperature=temperature, max_calls=max_calls, max_tokens=max_tokens)
