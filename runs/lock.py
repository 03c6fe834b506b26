"""A lock on a directory: one process at a time writes to it."""

import fcntl
import os
import platform
from pathlib import Path
from typing import TextIO

from errors import UsageError

_NAME = ".lock"


def lock(directory: Path) -> TextIO:
    """Return an open file whose lock keeps other processes out of a directory until it is closed.

    The kernel releases it when the process ends, however it ends. Raises UsageError when another process holds it.
    """
    file = (directory / _NAME).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UsageError(
            f"{directory} is in use by process {file.read().strip() or 'unknown'}; wait until it has ended, or stop it"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}")
    file.flush()
    return file


def is_locked(directory: Path) -> bool:
    """Return whether a process, this one included, holds the lock of a directory."""
    try:
        with (directory / _NAME).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
