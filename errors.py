"""The two ways in which a run ends early, the help that their messages give, and texts of others as plain text."""

import difflib
import re
from collections.abc import Iterable

# ECMA-48: control sequences, strings that a terminal would act on, and two-character escapes.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?", re.DOTALL)
# Other control characters, and those that turn the direction of writing; halves of characters become question marks.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class UsageError(Exception):
    """The user's mistake. Entry scripts print the message, one line that says what to do, and exit with 2."""


class RunError(Exception):
    """The run cannot go on. Entry scripts print the message, one line, and exit with 1."""


def one_line(error: BaseException) -> str:
    """Return what an exception says, with its type, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words most like `word`, as the end of an error message: ``"; did you mean a or b?"``, or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def plain_text(text: str, *, one_line: bool = False) -> str:
    """Return a text of others fit to be shown and written: without escape codes, controls and half characters.

    Line ends and tabs stay, unless `one_line` makes every run of white space one space.
    """
    text = _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split()) if one_line else text
