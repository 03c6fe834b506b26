"""Keep the reward function behind a run's policy, with that policy's results, to be replayed and shown as an example.

python -m runs.gallery                    from the newest run below logs/
python -m runs.gallery RUN RUN            from others

A function whose policy solved its task goes to recordings/solved/TASK/, as a file and as an answer for --model replay:
and --examples solved. Its figures are those of the run's summary.json.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from errors import UsageError
from runs.command import exit_code, parser, read_runs
from runs.reading import Run, read_rows

GALLERY = Path(__file__).parents[1] / "recordings" / "solved"
_SOLVED = 0.8  # least success rate on fresh episodes, at the lower end of the 95% interval: 46 of 50 reach it


def entry(run: Run) -> dict[str, Any]:
    """Return the gallery's row for a run, in the format of llm.jsonl.

    Raises:
        UsageError: the run has not ended, has not solved its task, or its policy learned from the human reward.
    """
    rate = run.summary.get("final_success_rate")
    if rate is None:
        raise UsageError(f"{run.directory} has no final success rate; give a run that has ended")
    low, high = run.summary["final_success_interval"]
    if low < _SOLVED:
        found = f"{rate:.0%} of its final episodes (95% interval {low:.0%} to {high:.0%})"
        raise UsageError(f"{run.directory} solved {found}; the interval must begin at {_SOLVED:.0%} or above")
    chosen = next((row for row in run.functions if row["id"] == run.summary.get("chosen_function")), None)
    if chosen is None:
        raise UsageError(f"the policy of {run.directory} learned from no function of its population")
    flags = run.flags
    return {
        "round": 0,
        "task": run.task,
        "setting": flags["setting"],
        "model": flags["model"],
        "messages": [],
        "count": 1,
        "texts": [f"```python\n{chosen['source'].strip()}\n```\n"],
        "scores": {
            "success_rate": rate,
            "success_interval": run.summary["final_success_interval"],
            "env_steps": run.summary["env_steps"],
            "seed": flags["seed"],
            "function": chosen["id"],
            "round": chosen["round"],
            **run.summary["protocol"],
        },
    }


def keep(run: Run, gallery: Path = GALLERY) -> Path:
    """Add a run's function to the gallery; return its file. Raises UsageError as `entry` does, or if it is there."""
    row = entry(run)
    directory = gallery / row["task"]
    rows = list(read_rows(directory / "llm.jsonl"))
    if any(row["texts"] == other["texts"] for other in rows):
        raise UsageError(f"the function of {run.directory} is in {directory} already")
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{len(rows) + 1}.py"
    scores = row["scores"]
    low, high = scores["success_interval"]
    solved = (
        f"{scores['success_rate']:.2f} (95% interval {low:.2f} to {high:.2f}) of {scores['episodes']} fresh episodes"
    )
    said = [
        f"# {row['task']}, {row['setting']}, by {row['model']}, seed {scores['seed']}, search round {scores['round']}",
        f"# The policy that learned from it last solved {solved} after {scores['env_steps']:,} env steps of the run.",
    ]
    code = row["texts"][0].removeprefix("```python\n").removesuffix("```\n")
    file.write_text("\n".join([*said, "", code]), encoding="utf-8")
    with (directory / "llm.jsonl").open("a", encoding="utf-8") as recording:
        recording.write(json.dumps({"request": len(rows) + 1, **row, "file": file.name}) + "\n")
    return file


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    flags = parser(__doc__)
    flags.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run directories (default: the newest one below logs/)"
    )
    return flags.parse_args()


def main() -> int:
    """Do what the flags say; return the exit status."""
    args = parse_args()

    def keep_all() -> None:
        for run in read_runs(args.runs):
            print(f"kept as {keep(run)}")

    return exit_code(keep_all)


if __name__ == "__main__":
    sys.exit(main())
