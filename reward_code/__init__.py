"""From an answer's text to numbers: reward functions are found, checked, proved, compiled and evaluated.

The training process never calls generated code. Here it reads text and inspects its syntax tree; sandboxed processes do
the rest (``docs/trust.md``). This package knows nothing of language models or learning: it takes text, and returns
numbers or the reason why there are none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reward_code.answers import extract
    from reward_code.check import check_source
    from reward_code.evaluator import Evaluation, RewardWorkers, Verdict
    from reward_code.literals import VariedRewards, numbers_in, with_numbers
    from reward_code.normal_form import canonical
    from reward_code.pool import Failure
    from reward_code.syntax import Rejected

__all__ = [
    "Evaluation",
    "Failure",
    "Rejected",
    "RewardWorkers",
    "VariedRewards",
    "Verdict",
    "canonical",
    "check_source",
    "extract",
    "numbers_in",
    "with_numbers",
]

_MODULES = {
    "canonical": "normal_form",
    "check_source": "check",
    "extract": "answers",
    "Failure": "pool",
    "Rejected": "syntax",
    **dict.fromkeys(("VariedRewards", "numbers_in", "with_numbers"), "literals"),
}


def __getattr__(name: str) -> Any:
    """Return what the package offers; modules load on demand, so that a worker loads only its own."""
    if name in __all__:
        return getattr(import_module(f"reward_code.{_MODULES.get(name, 'evaluator')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
