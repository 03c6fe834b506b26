"""Evaluate a policy that a run has saved, in fresh episodes; film it, or export it as a program of its own.

python evaluate.py                                the chosen policy of the newest run below logs/
python evaluate.py RUN --agent 3 --round 2        another one
python evaluate.py RUN --video policy.mp4         needs EGL or OSMesa
python evaluate.py RUN --export policy.pt         for torch.jit.load, without this project
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
    flags.add_argument("run", nargs="?", type=Path, help="a run directory (default: the newest one below logs/)")
    flags.add_argument("--agent", type=int, metavar="K", help="whose policy (default: the one chosen by the run)")
    flags.add_argument(
        "--round", type=int, metavar="R", help="as it was at the end of a search round (default: the last)"
    )
    flags.add_argument("--episodes", type=int, default=50, metavar="N", help="fresh episodes (default: 50)")
    flags.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    flags.add_argument("--workers", type=int, default=0, metavar="N", help="processes; 0: one per core (default: 0)")
    flags.add_argument("--verbose", action="store_true", help="one line per episode")
    flags.add_argument("--json", action="store_true", help="print JSON")
    flags.add_argument("--video", type=Path, metavar="FILE", help="film the first episodes, into an .mp4 or .gif")
    flags.add_argument("--video-episodes", type=int, default=3, metavar="N", help="how many of them (default: 3)")
    flags.add_argument("--camera", metavar="NAME", help="where to film from (default: corner2 on MetaWorld)")
    flags.add_argument("--export", type=Path, metavar="FILE", help="write the policy as TorchScript")
    args = flags.parse_args()
    for name, least in (("episodes", 1), ("seed", 0), ("workers", 0), ("video_episodes", 1)):
        if getattr(args, name) < least:
            flags.error(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least {least}")
    return args


def main() -> int:
    """Do what the flags say; return the exit status."""
    args = parse_args()
    return exit_code(lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate the policy, and print how it did."""
    from runs.evaluation import evaluate_policy  # these are slow to import, and --help need not wait for them
    from runs.policy import export, saved_policy
    from runs.renderer import choose_renderer
    from runs.video import check_video

    if args.video:
        check_video(args.video)
        choose_renderer()
    [run] = read_runs([args.run] if args.run else [])
    policy = saved_policy(run, args.agent, args.round)
    if args.export:
        export(run, policy, args.export)
    found = evaluate_policy(run, policy, args.episodes, args.seed, args.workers)
    print(found.json() if args.json else found.text(args.verbose))
    if args.export:
        print(f"the policy is in {args.export}, for torch.jit.load", file=sys.stderr)
    if args.video:
        found.film(args.video, args.video_episodes, args.camera)
        print(f"the video is in {args.video}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
