"""Run many runs as one: start what is to be done, go on with what was stopped, and sum up what came of it.

python sweep.py paper --dry_run                   what the 85 published runs are and cost, and nothing else
python sweep.py quick --jobs 2                    two runs at once, on this machine
python sweep.py paper --only from_scratch --model builtin --seed 1 2 3
python sweep.py --env-name door-close-v2 hammer-v2 --seed 1 2 --model builtin
python sweep.py status logs/quick                 how far they are, from any terminal

SWEEP is a YAML file, whose form the head of sweeps/plan.py explains, or the name of one in sweeps/: paper, quick or
ablations. Every flag of the entry scripts may stand behind it; one with several values makes a run of each, and takes
the place of the same flag in the file. The same command again goes on where the sweep was stopped.
"""

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # what is ours comes first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from workers.packages import require_packages

    require_packages()

from runs.command import exit_code, parser
from runs.exit_status import exit_status
from runs.interruption import Interruption
from runs.lock import lock
from sweeps.board import Board, failures, headline, print_table, write_results
from sweeps.limits import Bounds, Limits
from sweeps.local import Crew, record_path
from sweeps.plan import Sweep, find, load, plan
from sweeps.progress import is_done, read_progress
from workers.machine import cores


def parse_args(words: list[str]) -> tuple[argparse.Namespace, dict[str, list[str]]]:
    """Return the flags of the sweep, and those of its runs, each with all its values."""
    flags = parser(__doc__)
    flags.usage = "%(prog)s [SWEEP] [--flag value ...]\n       %(prog)s status DIR"
    flags.add_argument("--only", action="append", default=[], metavar="NAME", help="this one of the sweeps in the file")
    flags.add_argument("--setting", choices=("from_scratch", "with_init"), help="instead of the file's")
    flags.add_argument(
        "--jobs", type=_whole, default=os.environ.get("JOBS", "1"), metavar="N",
        help="runs at once on this machine (default: the variable JOBS, or 1)",
    )  # fmt: skip
    flags.add_argument(
        "--cpus", type=_whole, metavar="N",
        help="cores of a run, unless its own flags say it (default: the machine's, divided among the jobs)",
    )  # fmt: skip
    flags.add_argument("--tries", type=_whole, default=3, metavar="N", help="starts of a run at most (default: 3)")
    bounds = (
        ("requests_per_minute", "requests to the language model in any minute"),
        ("tokens_per_minute", "tokens, sent and received, in any minute"),
        ("all_llm_calls", "requests in the whole sweep"),
        ("all_llm_tokens", "tokens in the whole sweep"),
    )
    for flag, what in bounds:
        help_text = f"most {what}, of all runs together (default: no bound)"
        flags.add_argument(f"--{flag}", type=_whole, default=0, metavar="N", help=help_text)
    flags.add_argument(
        "--log-dir", "--log_dir", type=Path, default=Path("logs"), metavar="PATH", help="(default: logs)"
    )
    flags.add_argument("--exp_name", "--exp-name", metavar="NAME", help="of the sweep's directory (default: SWEEP)")
    flags.add_argument("--dry_run", "--dry-run", action="store_true", help="print the plan, then end")
    named = words[:1] if words and not words[0].startswith("-") else []
    args, rest = flags.parse_known_args(words[len(named) :])
    args.sweep = named[0] if named else ""
    given: dict[str, list[str]] = {}
    for word in rest:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and not _is_number(word):
            values = given[flag] = []
            values += [value] if equals else []
        elif given:
            given[list(given)[-1]].append(word)
        else:
            flags.error(f"{word!r} belongs to no flag")
    if not args.sweep and not given:
        flags.error("there is nothing to run; name a sweep (paper, quick, ablations or a YAML file) or give flags")
    return args, given


def run(args: argparse.Namespace, given: dict[str, list[str]], interruption: Interruption) -> int:
    """Print the plan and carry it out; return the exit status."""
    name = args.exp_name or "_".join([Path(args.sweep).stem or "sweep", *args.only])
    file = find(args.sweep) if args.sweep else None
    sweep = Sweep(args.log_dir / name, plan(file, args.only, args.setting, given))
    whole = sweep.with_earlier()
    open_runs = [one for one in sweep.runs if not is_done(sweep.directory_of(one))]
    done = len(sweep.runs) - len(open_runs)
    print(f"sweep {name} in {sweep.directory}: {len(sweep.runs)} runs{f', {done} of them done' if done else ''}")
    bounds = Bounds(args.requests_per_minute, args.tokens_per_minute, args.all_llm_calls, args.all_llm_tokens)
    cpus = args.cpus or max(cores() // args.jobs, 1)
    at_once, expected = args.jobs, None
    if open_runs:
        from sweeps import estimate  # slow, since it brings all that learns

        costs = estimate.estimate(open_runs, cpus)
        at_once = estimate.fitting(costs, args.jobs)
        expected = sum(cost.seconds for cost in costs.values()) / sum(one.args.total_timesteps for one in open_runs)
        print(estimate.describe(costs, at_once), flush=True)
    if args.dry_run:
        for one in open_runs:
            print(f"  {one.name}: lares_{one.setting}.py {' '.join(one.words)}")
        return 0
    sweep.directory.mkdir(parents=True, exist_ok=True)
    with lock(sweep.directory):
        whole.save()
        open_runs = [one for one in open_runs if not is_done(sweep.directory_of(one))]  # until now others had it
        for one in open_runs:
            record_path(sweep.directory_of(one)).unlink(missing_ok=True)
        answer = Limits(bounds, sweep.directory).answer if bounds.any() else None
        with Board(sweep, at_once, expected) as board:
            crew = Crew(sweep.directory, at_once, args.tries, cpus, answer)
            crew.see_through(open_runs, interruption, board.look)
        results = "" if interruption.requested() else write_results(sweep, board.progress)
    print("\n".join(part for part in (headline(board.progress), *failures(board.progress), results) if part))
    if any(one.status != "done" for one in board.progress):
        print("the same command again goes on with what is not done")
        return 1
    return 0


def status(words: list[str]) -> None:
    """Show how far the sweep in a directory is."""
    flags = argparse.ArgumentParser(prog="sweep.py status", description="Show how far a sweep is.")
    flags.add_argument("directory", type=Path, metavar="DIR", help="of the sweep, such as logs/quick")
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


def _whole(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
