"""A process in a terminal of its own, held by the test."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# A fork beside the threads of the test's own process can hang, so a process of its own takes the terminal over.
_TAKE_OVER = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def start_in_terminal(command: Sequence[str], **how: Any) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a command, its program given by path, under a terminal; return the process and our side of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_OVER, *map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        **how,
    )
    os.close(theirs)
    return process, ours
