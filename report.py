"""Write a page about a run, or one that compares several, as a single file that needs no network.

python report.py                                  the newest run below logs/: its report.html
python report.py RUN --out page.html              another one
python report.py RUN RUN RUN                      curves, tables and flags that differ, in comparison.html
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
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in the run directory; comparison.html for several runs)",
    )
    flags.add_argument("--no-video", action="store_true", help="do not film the policy, which takes a minute")
    return flags.parse_args()


def main() -> int:
    """Do what the flags say; return the exit status."""
    args = parse_args()
    return exit_code(lambda: write(args))


def write(args: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    from figures.comparison import comparison  # these are slow to import, and --help need not wait
    from figures.film import film_of
    from figures.report import report

    runs = read_runs(args.runs)
    if len(runs) > 1:
        out, page = args.out or Path("comparison.html"), comparison(runs)
    else:
        [run] = runs
        out, page = args.out or run.directory / "report.html", report(run, film_of(run, may_render=not args.no_video))
    out.write_text(page, encoding="utf-8", errors="replace")
    print(f"the report is in {out}")


if __name__ == "__main__":
    sys.exit(main())
