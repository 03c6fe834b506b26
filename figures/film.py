"""The video of a run's policy, for its report."""

import sys
from dataclasses import dataclass
from pathlib import Path

from errors import RunError, UsageError
from runs.reading import Run
from runs.video import SUFFIXES

_EPISODES, _SEED = 1, 0  # software rendering takes a fifth of a second per frame


@dataclass(frozen=True)
class Film:
    """A video, or a line that says why there is none."""

    path: Path | None
    remark: str = ""


def film_of(run: Run, may_render: bool) -> Film:
    """Return the newest video in the run's directory; if none is as new as the policy, render it there, if allowed."""
    videos = [path for path in run.directory.iterdir() if path.suffix in SUFFIXES]
    video = max(videos, key=lambda path: path.stat().st_mtime, default=None)
    policy = run.directory / "best_actor_net.pth"
    if not policy.exists():
        return Film(video, "The run has not saved a policy yet; it does so at its first evaluation.")
    if video and video.stat().st_mtime >= policy.stat().st_mtime:
        return Film(video)
    if not may_render:
        return Film(video, "The video is older than the policy." if video else "No video was made.")
    try:
        return Film(_render(run, run.directory / "policy.mp4"))
    except (UsageError, RunError) as error:
        return Film(video, f"No video could be made: {error}")


def _render(run: Run, out: Path) -> Path:
    from runs.evaluation import evaluate_policy  # loads torch and the simulator, which only rendering needs
    from runs.policy import saved_policy
    from runs.renderer import choose_renderer

    choose_renderer()
    print("filming the policy", file=sys.stderr, flush=True)  # the only slow part of a report
    evaluate_policy(run, saved_policy(run), _EPISODES, _SEED).film(out, _EPISODES, camera=None)
    return out
