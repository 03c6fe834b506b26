"""Does every task train in both settings? Runs each for a few hundred env steps with a tiny network; prints a table.

    python benchmarks/all_tasks.py                 all tasks, both settings, two at a time
    python benchmarks/all_tasks.py hammer soccer   only these

It says nothing about how well a task is learned, only that the whole loop works on it, including a search round,
relabeling, evaluation and the final episodes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from task_specs import TASKS

SETTINGS = ("from_scratch", "with_init")
FLAGS = (
    "--model=builtin --total-timesteps=600 --init-exploration-steps=150 --LLM_freq=200 --display-interval=300 "
    "--eval-episodes=2 --final_episodes=2 --hidden-size=16 --batch-size=16 --pop_size=3 --elite_num=2 --num_workers=1 "
    "--num_learners=1 --device=cpu --seed=1"
).split()


def train(task: str, setting: str, logs: Path) -> dict[str, Any]:
    """One run; returns its row of the table."""
    began = time.monotonic()
    command = [sys.executable, str(ROOT / f"lares_{setting}.py"), f"--env-name={task}", f"--log-dir={logs}", *FLAGS]
    done = subprocess.run([*command, f"--exp_name={setting}-{task}"], capture_output=True, text=True, check=False)
    row = {"task": task, "setting": setting, "exit": done.returncode, "seconds": round(time.monotonic() - began, 1)}
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    directory = logs / f"{setting}-{task}"
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    programs = json.loads((directory / "population.json").read_text(encoding="utf-8"))
    used = [program for program in programs if program["slot"] is not None]
    return row | {
        "env_steps": summary["env_steps"],
        "functions": len(used),
        "compiled": sum(program["compiled"] for program in used),
        "rejected": sum(summary["llm"]["rejected"].values()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="(default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (default: 2)")
    parser.add_argument("--out", type=Path, help="where the table goes as JSON (default: nowhere)")
    args = parser.parse_args(argv)
    failed = 0
    rows = []
    with tempfile.TemporaryDirectory() as logs, ThreadPoolExecutor(args.jobs) as pool:
        runs = [pool.submit(train, task, setting, Path(logs)) for task in args.tasks for setting in SETTINGS]
        print(f"{'task':28} {'setting':13} {'exit':>4} {'s':>6} functions compiled rejected")
        for run in runs:
            row = run.result()
            rows.append(row)
            failed += row["exit"] != 0
            counts = f"{row.get('functions', '-'):>9} {row.get('compiled', '-'):>8} {row.get('rejected', '-'):>8}"
            line = f"{row['task']:28} {row['setting']:13} {row['exit']:4} {row['seconds']:6} {counts}"
            print(f"{line} {row.get('error', '')}".rstrip(), flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"{len(rows) - failed} of {len(rows)} runs trained")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
