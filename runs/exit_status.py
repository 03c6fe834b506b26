"""How a run ends: with an exit status, and with one line that says what went wrong."""

import contextlib
import errno
import sys
from collections.abc import Iterator

from errors import RunError, UsageError, plain
from runs.interruption import Interruption
from runs.output import keep_output

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class ExitStatus:
    """The exit status of a run.

    Attributes:
        code: 0, 2 on a usage error, 1 when the run cannot continue, 128 + the signal's number after a signal.
        interruption: remembers a signal until the run can end cleanly.
    """

    def __init__(self) -> None:
        self.code = 0
        self.interruption = Interruption()


@contextlib.contextmanager
def exit_status() -> Iterator[ExitStatus]:
    """Turn what ends a run into its exit status; errors that the user can act on become one line."""
    keep_output()
    status = ExitStatus()
    try:
        with status.interruption:
            yield status
        if status.interruption.signal:
            status.code = 128 + status.interruption.signal
    except UsageError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        status.code = 2
    except RunError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        status.code = 1
    except KeyboardInterrupt:  # the second Ctrl-C: the first is remembered, and the run ends cleanly
        status.code = 130
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        place = plain(str(error.filename or "the run directory"))
        print(f"error: {place}: {error.strerror}; what was written before is kept", file=sys.stderr)
        status.code = 1
