"""From an answer's text to numbers: reward functions are found, checked, proved, compiled and evaluated.

The training process never calls generated code. Here it reads text and looks at its syntax tree; processes that can
hurt nothing do the rest (``docs/trust.md``). This room knows nothing of language models or learning: what it is given
is text, and what it gives is numbers or the reason why there are none.
"""

from reward_code.check import check_source
from reward_code.evaluator import Evaluation, RewardWorkers, Verdict
from reward_code.extract import extract
from reward_code.normal_form import canonical
from reward_code.pool import Failure
from reward_code.syntax import Code, Rejected

__all__ = [
    "Code",
    "Evaluation",
    "Failure",
    "Rejected",
    "RewardWorkers",
    "Verdict",
    "canonical",
    "check_source",
    "extract",
]
