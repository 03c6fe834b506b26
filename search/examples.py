"""Reward functions that solved other tasks, as examples for a model: those in `recordings/solved/`."""

import json
from pathlib import Path
from typing import Any

from arguments import Setting

SOLVED = Path(__file__).parents[1] / "recordings" / "solved"
_MOST = 3


def solved_examples(task: str, setting: Setting, directory: Path = SOLVED) -> list[str]:
    """Return the texts of a few functions that solved other tasks, one per task, those of the best policies first.

    What solved `task` itself is left out: it would give the answer away. From scratch, no function is shown that was
    written with a human reward in view.
    """
    best: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.glob("*/llm.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            known = best.get(row["task"])
            fit = row["task"] != task and (setting == "with_init" or row["setting"] == "from_scratch")
            if fit and (known is None or row["scores"]["success_rate"] > known["scores"]["success_rate"]):
                best[row["task"]] = row
    chosen = sorted(best.values(), key=lambda row: -row["scores"]["success_rate"])[:_MOST]
    return [f"{row['task']}:\n{row['texts'][0].strip()}" for row in chosen]
