"""Does choosing among candidates, and fitting their numbers, pay? The whole method with and without, from scratch.

    python benchmarks/choice.py run            every run that results/choice.json lacks, one after the other
    python benchmarks/choice.py table          their results, for docs/choice.md

All runs have the same env steps and `--model builtin`. From the first search round on, they draw different random
numbers, so two seeds can reveal only large effects.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from runs.reading import read_run

OUT = ROOT / "results" / "choice.json"
TASKS = ("window-close-v2", "door-close-v2")
SEEDS = (1, 2)
VARIANTS = {
    "the first valid candidates": "--choice first",
    "chosen": "--choice scored",
    "chosen, fitted ones among them": "--choice scored --fit_numbers 1",
}
FLAGS = (
    "--model builtin --total-timesteps 12000 --init-exploration-steps 2000 --action_repeat 2 --episode-length 200 "
    "--LLM_freq 3000 --display-interval 1500 --eval-episodes 10 --final_episodes 50 --hidden-size 128"
)

Row = dict[str, Any]


def run(task: str, seed: int, variant: str) -> Row:
    """Make one run, and return its results."""
    with tempfile.TemporaryDirectory() as logs:
        flags = f"{FLAGS} {VARIANTS[variant]} --env-name {task} --seed {seed} --log-dir {logs}"
        subprocess.run([sys.executable, "lares_from_scratch.py", *flags.split()], cwd=ROOT, check=True)
        [directory] = Path(logs).iterdir()
        found = read_run(directory)
        return {
            "task": task,
            "seed": seed,
            "variant": variant,
            "flags": f"{FLAGS} {VARIANTS[variant]}",
            "evaluations": [[row["env_steps"], row["best"]["success_rate"]] for row in found.evaluations],
            "success_rate": found.summary["final_success_rate"],
            "distance": found.summary["final_distance"],
            "proposed": len(found.functions),
            "fitted": sum(bool(row["fitted"]) for row in found.functions),
            "fitted_taken": sum(bool(row["fitted"]) and row["slot"] is not None for row in found.functions),
            "chosen_function_is_fitted": bool(found.functions[found.summary["chosen_function"]]["fitted"]),
            "wall_time": found.summary["wall_time"],
            "commit": found.config["commit"],
        }


def known() -> list[Row]:
    """The runs made so far."""
    return json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else []


def run_all() -> None:
    """Make the missing runs."""
    for seed in SEEDS:
        for task in TASKS:
            for variant in VARIANTS:
                rows = known()
                if not any((row["task"], row["seed"], row["variant"]) == (task, seed, variant) for row in rows):
                    rows.append(run(task, seed, variant))
                    OUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def table() -> None:
    """Print, for each variant, task and seed, the success of the best agent over time, and at the end."""
    print("| task, seed | " + " | ".join(VARIANTS) + " |\n| --- |" + " --- |" * len(VARIANTS))
    for task in TASKS:
        for seed in SEEDS:
            cells = []
            for variant in VARIANTS:
                found = [row for row in known() if (row["task"], row["seed"], row["variant"]) == (task, seed, variant)]
                cells += [_cell(row) for row in found] or ["not run"]
            print(f"| {task.removesuffix('-v2')}, {seed} | " + " | ".join(cells) + " |")


def _cell(row: Row) -> str:
    rates = [rate for _, rate in row["evaluations"]]
    return f"{row['success_rate']:.2f} at the end, {sum(rates) / len(rates):.2f} on average"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    {"run": run_all, "table": table}[parser.parse_args().command]()


if __name__ == "__main__":
    main()
