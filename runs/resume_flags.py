"""The flags of a resumed run: those it began with, except for what may change."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs.flags import FlagParser

# What may be given with --resume. What depends on the machine is decided anew.
_OF_THE_MACHINE = {"device", "num_workers", "num_learners"}
_MAY_CHANGE = _OF_THE_MACHINE | set(
    "total_timesteps stop_success max_llm_calls max_llm_tokens llm_attempts llm_deadline price_in price_out "
    "checkpoint_interval resume log_dir exp_name task_file human_feedback prompts dry_run quiet ignored_flags".split()
)


def resumed_flags(parser: FlagParser, words: Sequence[str], setting: str, directory: str) -> dict[str, Any]:
    """Return the flags of the run in `directory` by name, except for those in `words` that may change.

    On a usage error, print one line and exit with status 2.
    """
    path = Path(directory) / "config.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["flags"]
        script = f"lares_{stored.pop('setting')}.py"
        stored["ignored_flags"] = tuple(stored["ignored_flags"])
    except (OSError, ValueError, LookupError, TypeError):
        parser.error(f"--resume {directory}: there is no run ({path} cannot be read); give the directory of a run")
    if script != f"lares_{setting}.py":
        parser.error(f"--resume {directory}: that run is one of {script}; use that script")
    parser.set_defaults(**{name: value for name, value in stored.items() if name not in _OF_THE_MACHINE})
    values = parser.values(words)
    for name in stored.keys() - _MAY_CHANGE:
        if values[name] != stored[name]:
            parser.error(
                f"--{name} cannot change when a run is resumed: it was {stored[name]}, and {values[name]} was given; "
                "leave it out, or begin a new run"
            )
    return values
