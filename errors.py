"""The two ways in which a run ends early, and the help that their messages give."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """The user's mistake. Entry scripts print the message, one line that says what to do, and exit with 2."""


class RunError(Exception):
    """The run cannot go on. Entry scripts print the message, one line, and exit with 1."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words most like `word`, as the end of an error message: ``"; did you mean a or b?"``, or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
