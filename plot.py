"""Draw the curves of runs and tabulate their results, as interquartile means over seeds with 95% intervals.

python plot.py RUN... --out fig.pdf               a panel for each task, a line for each setting and model
python plot.py RUN... --by LLM_freq               a line for each value of a flag
python plot.py RUN... --anchors published.csv     published curves beside them: method,task,env_steps,seed,success
                                                  and, if it has one, protocol: how that success was measured

Its tables are written next to the figure: fig.md, fig.csv and, with two groups of a task, fig-improvement.csv.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # our modules come first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from workers.packages import require_packages

    require_packages()

from runs.command import exit_code, parser, read_runs


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    flags = parser(__doc__)
    flags.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run directories (default: the newest one below logs/)"
    )
    flags.add_argument(
        "--out", type=Path, default=Path("curves.png"), metavar="FILE", help=".png, .pdf or .svg (default: curves.png)"
    )
    flags.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="FLAG",
        help="group by a flag, or by several (default: setting, model)",
    )
    flags.add_argument(
        "--metric", default="success_rate", metavar="NAME",
        help="of the best agent, as metrics.jsonl names it: last_step_success_rate, env_return, ... "
        "(default: success_rate)",
    )  # fmt: skip
    flags.add_argument("--anchors", type=Path, metavar="FILE", help="CSV of published curves (default: none)")
    return flags.parse_args()


def main() -> int:
    """Do what the flags say; return the exit status."""
    args = parse_args()
    return exit_code(lambda: plot(args))


def plot(args: argparse.Namespace) -> None:
    """Write the figure and its tables, and print the tables."""
    from figures.drawing import check_figure  # slow to import, and --help need not wait for it
    from figures.files import compare_runs

    check_figure(args.out)
    written, text, left_out = compare_runs(read_runs(args.runs), args.out, args.metric, args.by, args.anchors)
    for run in left_out:
        print(f"{run.directory} has not been evaluated yet, and is left out", file=sys.stderr)
    print(text)
    print("in " + ", ".join(map(str, written)), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
