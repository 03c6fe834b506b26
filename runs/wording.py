"""How figures of runs are worded."""


def duration(seconds: float) -> str:
    """Return a time span as a person would say it: ``40 s``, ``12 min``, ``3.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
