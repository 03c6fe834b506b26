"""How far each run of a sweep is, according to its files: from any terminal, and even after the sweep was killed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import plain_line
from runs.lock import is_locked
from runs.reading import read_rows
from sweeps.files import read
from sweeps.local import output_path, read_record
from sweeps.plan import PlannedRun, Sweep

_TAIL = 4096  # bytes at the end of a log, which contain its last line


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        run: what was planned.
        status: "waiting", "running", "stopped", "failed" or "done".
        tries: how often it was started since the sweep was started.
        host: where it runs or ran.
        env_steps: as of its last evaluation.
        seconds: the time it took to get there.
        success: of its chosen policy, or before its end the best of its evaluations; None without any.
        last_line: of a failed run's output.
    """

    run: PlannedRun
    status: str
    tries: int
    host: str
    env_steps: int
    seconds: float
    success: float | None
    last_line: str = ""

    @property
    def share(self) -> float:
        """The share of its env steps that it has made."""
        return 1.0 if self.status == "done" else min(self.env_steps / self.run.args.total_timesteps, 1.0)


def is_done(directory: Path) -> bool:
    """Return whether the run in a directory is complete."""
    return read(directory / "summary.json").get("status") in {"finished", "solved"}


def read_progress(sweep: Sweep, before: Sequence[Progress] = ()) -> list[Progress]:
    """Return how far each run of the sweep is; runs that were done `before` are not read again."""
    alive = is_locked(sweep.directory)
    done = {one.run.name: one for one in before if one.status == "done"}
    return [done.get(run.name) or _progress(run, sweep.directory_of(run), alive) for run in sweep.runs]


def seconds_left(progress: Sequence[Progress], at_once: int, expected: float | None) -> float | None:
    """Return about how many seconds the sweep will still take, None while nothing is known.

    Args:
        progress: of every run.
        at_once: how many runs there are at once.
        expected: seconds per env step, used until runs have been evaluated.
    """
    steps, seconds = sum(one.env_steps for one in progress), sum(one.seconds for one in progress)
    speed = seconds / steps if steps else expected
    left = [one.run.args.total_timesteps - one.env_steps for one in progress if one.status not in {"done", "failed"}]
    return None if speed is None else speed * max(sum(left) / at_once, max(left, default=0))


def _progress(run: PlannedRun, directory: Path, sweep_is_alive: bool) -> Progress:
    record = read_record(directory)
    status = record.status
    if is_done(directory):
        status = "done"
    elif status == "running" and not sweep_is_alive:
        status = "stopped"  # the sweep was killed, and could not say so
    rows = [row for row in read_rows(directory / "metrics.jsonl") if row.get("best")]
    success = max((row["best"]["success_rate"] for row in rows), default=None)
    final = read(directory / "summary.json").get("final_success_rate")
    return Progress(
        run,
        status,
        record.tries,
        record.host,
        max((row["env_steps"] for row in rows), default=0),
        rows[-1]["wall_time"] if rows else 0.0,
        success if final is None else final,
        _last_line(output_path(directory)) if status == "failed" else "",
    )


def _last_line(path: Path) -> str:
    """Return the last non-empty line of a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return plain_line(next((line for line in reversed(lines) if line.strip()), ""))
