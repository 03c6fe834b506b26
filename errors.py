"""Errors that end a run, the prefix of warnings, suggestions for messages, and untrusted text made plain."""

import difflib
import re
from collections.abc import Iterable

# Control characters except tab and newline, Unicode line separators and bidirectional marks, lone surrogates.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

FAILURES = (Exception, SystemExit)  # what code that is not ours may raise when it fails

WARNING = "warning: "  # prefix of every warning in the log


class UsageError(Exception):
    """A mistake by the user. Entry scripts print the message, one line that says what to do, and exit with 2."""


class RunError(Exception):
    """The run cannot continue. Entry scripts print the message, one line, and exit with 1."""


def one_line(error: BaseException) -> str:
    """Return an exception's type and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return the known words closest to `word`, to end an error message: ``"; did you mean a or b?"``, or ``""``."""
    spellings = {one.lower(): one for one in known}
    matches = [spellings[match] for match in difflib.get_close_matches(word.lower(), spellings, n=count, cutoff=0.5)]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def plain(text: str) -> str:
    """Return untrusted text so that it can be shown and written anywhere: control characters become escapes."""
    return _NOT_TEXT.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def plain_line(text: str) -> str:
    """Return untrusted text as one line that can be shown and written anywhere."""
    return " ".join(plain(text).split())
