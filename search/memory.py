"""What a model remembers: the last turns of the conversation that led to a function, the older ones as a summary."""

from collections.abc import Sequence

from search.population_view import headline
from search.protocol import Message
from search.reward_function import RewardFunction
from search.tokens import tokens_of

_TURNS = 4  # answers, each with what came of it, that are sent word for word at most
_SUMMED_UP = 6


def ancestry(function: RewardFunction, functions: Sequence[RewardFunction]) -> list[RewardFunction]:
    """Return the functions that led to one, oldest first, itself last: of several parents, the first one."""
    line = [function]
    # A recording may name parents that in this run are something else, but never leads back to where it was.
    while earlier := [parent for parent in line[0].parents if parent < line[0].id]:
        line.insert(0, functions[earlier[0]])
    return line


def turns_within(messages: Sequence[Message], budget: int) -> list[Message]:
    """Return the last turns of a conversation.

    Args:
        messages: of assistant and user by turns, an answer and what came of it each.
        budget: tokens that they may have in all; the last turn stays even if it has more.
    """
    turns = [list(messages[start : start + 2]) for start in range(0, len(messages), 2)][-_TURNS:]
    lengths = [tokens_of(turn) for turn in turns]
    while len(turns) > 1 and sum(lengths) > budget:
        del turns[0], lengths[0]
    return [message for turn in turns for message in turn]


def summary(ancestors: Sequence[RewardFunction]) -> str:
    """Return a line for each of the functions, the last ones if they are many, oldest first."""
    return "\n".join(f"- {headline(function)}" for function in ancestors[-_SUMMED_UP:])
