"""What a model remembers: the last turns of the conversation that led to a function, and a summary of older ones."""

from collections.abc import Sequence

from search.population_view import headline
from search.protocol import Message
from search.reward_function import RewardFunction
from search.tokens import tokens_of

_TURNS = 4  # most answers, each with what came of it, that are sent verbatim
_SUMMED_UP = 6


def ancestry(function: RewardFunction, functions: Sequence[RewardFunction]) -> list[RewardFunction]:
    """Return the functions that led to one, oldest first, itself last; of several parents, the first is followed."""
    line = [function]
    # The parents that a recording names may be other functions in this run; only earlier ones can lead to this one.
    while earlier := [parent for parent in line[0].parents if parent < line[0].id]:
        line.insert(0, functions[earlier[0]])
    return line


def turns_within(messages: Sequence[Message], budget: int) -> list[Message]:
    """Return the last turns of a conversation.

    Args:
        messages: assistant and user in turn, each time an answer and what came of it.
        budget: tokens that they may have in all; the last turn is kept even if it has more.
    """
    turns = [list(messages[start : start + 2]) for start in range(0, len(messages), 2)][-_TURNS:]
    lengths = [tokens_of(turn) for turn in turns]
    while len(turns) > 1 and sum(lengths) > budget:
        del turns[0], lengths[0]
    return [message for turn in turns for message in turn]


def summary(ancestors: Sequence[RewardFunction]) -> str:
    """Return a line for each function, oldest first; if there are many, only for the last ones."""
    return "\n".join(f"- {headline(function)}" for function in ancestors[-_SUMMED_UP:])
