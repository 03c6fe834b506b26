"""The cost of several runs at once: a sweep of small runs, compared with the same runs one after the other.

    python benchmarks/sweeps.py            eight runs of 3,000 env steps, twice; takes minutes on two cores

The target is a ratio of at most 1.15: concurrent runs share the cores, and must not waste them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workers.machine import cores

FLAGS = (
    "--model builtin --env-name drawer-close --init-exploration-steps 500 --LLM_freq 1000 --display-interval 1000 "
    "--eval-episodes 4 --final_episodes 4"
).split()


def seconds(runs: int, env_steps: int, jobs: int, cpus: int) -> float:
    """Return how long a sweep takes, in its own directory."""
    with tempfile.TemporaryDirectory() as logs:
        words = [*FLAGS, f"--total-timesteps={env_steps}", "--seed", *map(str, range(1, runs + 1))]
        command = [sys.executable, str(ROOT / "sweep.py"), *words, "--jobs", str(jobs), "--cpus", str(cpus)]
        began = time.perf_counter()
        subprocess.run([*command, "--log-dir", logs], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    flags.add_argument("--runs", type=int, default=8, metavar="N", help="(default: 8)")
    flags.add_argument("--env-steps", type=int, default=3000, metavar="N", help="of a run (default: 3000)")
    args = flags.parse_args()
    at_once = seconds(args.runs, args.env_steps, jobs=cores(), cpus=1)
    in_turn = seconds(args.runs, args.env_steps, jobs=1, cpus=cores())
    print(f"{args.runs} runs of {args.env_steps:,} env steps, {cores()} at once: {at_once:.0f} s")
    print(f"one after the other: {in_turn:.0f} s; ratio {at_once / in_turn:.2f}, target at most 1.15")


if __name__ == "__main__":
    main()
