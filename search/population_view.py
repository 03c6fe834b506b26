"""All reward functions at a glance: the idea of each, what it rewards, and how far it got."""

import re
from collections.abc import Sequence

from search.reward_function import RewardFunction

_LONGEST_IDEA = 80  # characters
_TOLD_NAMES = 3
_TOLD_GONE = 2

_IDEA = re.compile(r"^[\W_]*idea[\W_]*?[:.\u2013\u2014-][\W_]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def idea_of(response: str) -> str:
    """Return an answer's idea in one line: what follows "Idea:", else its first sentence, else nothing."""
    prose = _FENCED.sub("", response)
    if stated := _IDEA.findall(prose):
        return _cut(stated[-1])
    if "def compute_reward" in prose:  # code without any prose
        return ""
    lines = [line.strip() for line in prose.splitlines() if re.search(r"\w", line)]
    return _cut(re.split(r"(?<=[.!?])\s", lines[0])[0]) if lines else ""


def standing(functions: Sequence[RewardFunction]) -> list[RewardFunction]:
    """Return the functions in the population, best first; those that no evaluation has ranked come last."""
    holders = {function.slot: function for function in functions if function.slot is not None}
    return sorted(holders.values(), key=lambda function: _figures(function).get("rank", len(functions)))


def population(functions: Sequence[RewardFunction]) -> str:
    """Return a line for each function in the population, best first."""
    return "\n".join(f"- {_line(function)}{_trouble(function)}" for function in standing(functions))


def gone(functions: Sequence[RewardFunction]) -> str:
    """Return a line for each of the best among the functions that were replaced; "" if there are none."""
    heirs = {function.replaced: function for function in functions if function.replaced is not None}
    past = [function for function in functions if function.id in heirs]
    past.sort(key=lambda function: (-_figures(function).get("success_rate", 0), _nearest(function)))
    return "\n".join(
        f"- {headline(function)}; gave way to #{heirs[function.id].id}{_trouble(function)}"
        for function in past[:_TOLD_GONE]
    )


def _outcome(function: RewardFunction) -> str:
    """How far a function got in its last evaluation: success rate, and distance from success at the nearest moment."""
    figures = _figures(function)
    return f"{figures['success_rate']:.0%}, {figures['nearest_distance']:.3g}" if figures else "not evaluated"


def headline(function: RewardFunction) -> str:
    """Return a function's number, how far it got, and its idea, in one line."""
    return f"#{function.id} ({_outcome(function)}): {function.idea.rstrip('.') or 'no idea stated'}"


def _line(function: RewardFunction) -> str:
    names = list(function.components)
    more = f" and {len(names) - _TOLD_NAMES} more" if len(names) > _TOLD_NAMES else ""
    return headline(function) + (f"; it rewards {', '.join(names[:_TOLD_NAMES])}{more}" if names else "")


def _trouble(function: RewardFunction) -> str:
    return f"; it failed ({function.kind})" if function.kind else ""


def _figures(function: RewardFunction) -> dict[str, float]:
    return list(function.scores.values())[-1] if function.scores else {}


def _nearest(function: RewardFunction) -> float:
    return _figures(function).get("nearest_distance", float("inf"))


def _cut(text: str) -> str:
    text = " ".join(text.strip(" *_`:\t").split())
    return text if len(text) <= _LONGEST_IDEA else f"{text[:_LONGEST_IDEA].rsplit(' ', 1)[0]} \u2026"
