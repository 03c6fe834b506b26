"""Run many runs as one: start what is due, resume what was stopped, and sum up the results.

python sweep.py paper --dry_run                   only print what the 85 published runs are and cost
python sweep.py quick --jobs 2                    two runs at once, on this machine
python sweep.py paper --only from_scratch --model builtin --seed 1 2 3
python sweep.py --env-name door-close-v2 hammer-v2 --seed 1 2 --model builtin
python sweep.py status logs/quick                 their progress, from any terminal
RAY_ADDRESS=... python sweep.py paper --cpus 2    on a cluster, see docs/clusters.md

SWEEP is a YAML file, whose format the docstring of sweeps/plan.py explains, or the name of one in sweeps/: paper,
quick, learning or ablations. Every flag of the entry scripts may follow it; one with several values makes a run of
each, and overrides the same flag in the file. The same command again resumes the sweep where it was stopped.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # our modules come first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from workers.packages import require_packages

    require_packages()

from runs.command import exit_code, parser
from runs.exit_status import exit_status
from runs.flags import real, whole
from runs.interruption import Interruption
from runs.lock import lock
from sweeps.board import Board, failures, headline, print_table, write_results
from sweeps.limits import Bounds
from sweeps.local import Machine, record_path
from sweeps.plan import PlannedRun, Sweep, find, load, plan
from sweeps.progress import is_done, read_progress
from workers.machine import cores

if TYPE_CHECKING:
    from sweeps.cluster import Cluster


def parse_args(words: list[str]) -> tuple[argparse.Namespace, dict[str, list[str]]]:
    """Return the flags of the sweep, and those of its runs, each with all its values."""
    flags = parser(__doc__)
    flags.usage = "%(prog)s [SWEEP] [--flag value ...]\n       %(prog)s status DIR"
    flags.add_argument("--only", action="append", default=[], metavar="NAME", help="only this sweep of the file")
    flags.add_argument("--setting", choices=("from_scratch", "with_init"), help="instead of the file's")
    flags.add_argument(
        "--jobs", type=whole(1), default=os.environ.get("JOBS", "1"), metavar="N",
        help="runs at once on this machine (default: the variable JOBS, or 1)",
    )  # fmt: skip
    flags.add_argument(
        "--cpus", type=whole(1), metavar="N",
        help="cores per run (default: the machine's, divided among the jobs; 1 on a cluster)",
    )  # fmt: skip
    flags.add_argument(
        "--gpus", type=real(0), default=0.0, metavar="X", help="GPUs per run on a cluster, such as 0.25 (default: 0)"
    )
    flags.add_argument(
        "--tries", type=whole(1), default=3, metavar="N", help="how often a run may be started (default: 3)"
    )
    bounds = (
        ("requests_per_minute", "requests to the language model per minute"),
        ("tokens_per_minute", "tokens, sent and received, per minute"),
        ("all_llm_calls", "requests in the whole sweep"),
        ("all_llm_tokens", "tokens in the whole sweep"),
    )
    for flag, what in bounds:
        help_text = f"maximum number of {what}, over all runs (default: no limit)"
        flags.add_argument(f"--{flag}", type=whole(1), default=0, metavar="N", help=help_text)
    flags.add_argument(
        "--log-dir",
        "--log_dir",
        type=Path,
        default=Path("logs"),
        metavar="PATH",
        help="where the sweep's directory goes (default: logs)",
    )
    flags.add_argument(
        "--exp_name", "--exp-name", metavar="NAME", help="name of the sweep's directory (default: SWEEP)"
    )
    flags.add_argument("--dry_run", "--dry-run", action="store_true", help="print the plan, then end")
    named = words[:1] if words and not words[0].startswith("-") else []
    args, rest = flags.parse_known_args(words[len(named) :])
    args.sweep = named[0] if named else ""
    given: dict[str, list[str]] = {}
    values: list[str] | None = None
    for word in rest:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and not _is_number(word):
            given.pop(flag, None)  # of two, the last one counts, at its own place
            values = given[flag] = [value] if equals else []
        elif values is None:
            flags.error(f"{word!r} follows no flag; put each value after its flag, as in --seed 1 or --seed=1")
        else:
            values.append(word)
    if not args.sweep and not given:
        flags.error("there is nothing to run; name a sweep (paper, quick, learning, ablations, or a file) or flags")
    return args, given


def run(args: argparse.Namespace, given: dict[str, list[str]], interruption: Interruption) -> int:
    """Print the plan and carry it out; return the exit status."""
    name = args.exp_name or "_".join([Path(args.sweep).stem or "sweep", *args.only])
    file = find(args.sweep) if args.sweep else None
    sweep = Sweep(args.log_dir / name, plan(file, args.only, args.setting, given))
    sweep.with_earlier()  # which refuses runs with other flags
    open_runs = [one for one in sweep.runs if not is_done(sweep.directory_of(one))]
    done = len(sweep.runs) - len(open_runs)
    print(f"sweep {name} in {sweep.directory}: {len(sweep.runs)} runs{f', {done} of them done' if done else ''}")
    with contextlib.ExitStack() as stack:
        cpus, place = args.cpus or max(cores() // args.jobs, 1), None
        if os.environ.get("RAY_ADDRESS") and open_runs:
            from sweeps.cluster import Cluster  # and its dependencies, only where there is a cluster

            cpus = args.cpus or 1
            place = stack.enter_context(Cluster(cpus, args.gpus))
        return carry_out(args, sweep, open_runs, cpus, place or Machine(args.jobs, cpus), interruption)


def carry_out(
    args: argparse.Namespace,
    sweep: Sweep,
    open_runs: list[PlannedRun],
    cpus: int,
    place: "Machine | Cluster",
    interruption: Interruption,
) -> int:
    """Print what the open runs will cost, carry them out at `place`, and sum up; return the exit status."""
    needed: dict[str, float] = {}
    at_once, expected = 1, None
    if open_runs:
        from sweeps import estimate  # slow to import, since it loads the learning code

        costs = estimate.estimate(open_runs, cpus)
        needed = {name: cost.memory for name, cost in costs.items()}
        at_once = place.at_once(needed.values())
        expected = sum(cost.seconds for cost in costs.values()) / sum(one.args.total_timesteps for one in open_runs)
        print(estimate.describe(costs, at_once), flush=True)
    if args.dry_run:
        for one in open_runs:
            print(f"  {one.name}: lares_{one.setting}.py {' '.join(one.words)}")
        return 0
    sweep.directory.mkdir(parents=True, exist_ok=True)
    with lock(sweep.directory):
        sweep.with_earlier().save()
        open_runs = [one for one in open_runs if not is_done(sweep.directory_of(one))]  # some may have ended by now
        for one in open_runs:
            record_path(sweep.directory_of(one)).unlink(missing_ok=True)
        bounds = Bounds(args.requests_per_minute, args.tokens_per_minute, args.all_llm_calls, args.all_llm_tokens)
        with Board(sweep, at_once, expected) as board:
            if open_runs:
                place.see_through(sweep.directory, open_runs, needed, args.tries, bounds, interruption, board.look)
        results = "" if interruption.requested() else write_results(sweep, board.progress)
    print("\n".join(part for part in (headline(board.progress), *failures(board.progress), results) if part))
    if any(one.status != "done" for one in board.progress):
        print("run the same command again to continue with the rest")
        return 1
    return 0


def status(words: list[str]) -> None:
    """Show the progress of the sweep in a directory."""
    flags = argparse.ArgumentParser(prog="sweep.py status", description="Show how far a sweep is.")
    flags.add_argument("directory", type=Path, metavar="DIR", help="the sweep's directory, such as logs/quick")
    print_table(read_progress(load(flags.parse_args(words).directory)))


def main() -> int:
    """Do what the command line says; return the exit status."""
    words = sys.argv[1:]
    if words[:1] == ["status"]:
        return exit_code(lambda: status(words[1:]))
    args, given = parse_args(words)
    with exit_status() as ended:
        ended.code = run(args, given, ended.interruption)
    return ended.code


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
