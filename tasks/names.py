"""What tasks are called."""

import re


def without_version(task: str) -> str:
    """Return the task's name without MetaWorld's version suffix, ``-v2`` or ``-v3``."""
    return re.sub(r"-v[23]$", "", task)
