"""How a run ends early and how it warns, the help that messages give, and texts of others as plain text."""

import difflib
import re
from collections.abc import Iterable

# Control characters but for tab and end of line, marks that reorder the line they stand in, halves of characters.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

WARNING = "warning: "  # begins every line of the log that warns


class UsageError(Exception):
    """The user's mistake. Entry scripts print the message, one line that says what to do, and exit with 2."""


class RunError(Exception):
    """The run cannot go on. Entry scripts print the message, one line, and exit with 1."""


def one_line(error: BaseException) -> str:
    """Return what an exception says, with its type, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words most like `word`, as the end of an error message: ``"; did you mean a or b?"``, or nothing."""
    spellings = {one.lower(): one for one in known}
    matches = [spellings[match] for match in difflib.get_close_matches(word.lower(), spellings, n=count, cutoff=0.5)]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def plain(text: str) -> str:
    """Return text of others as it can be shown and written anywhere: what is not text becomes escapes."""
    return _NOT_TEXT.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def plain_line(text: str) -> str:
    """Return text of others as one line that can be shown and written anywhere."""
    return " ".join(plain(text).split())
