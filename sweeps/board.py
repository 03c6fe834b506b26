"""What a sweep shows: a live table on a terminal, lines elsewhere, and its results at the end."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from errors import UsageError
from runs.reading import read_run
from runs.wording import duration
from sweeps.plan import Sweep
from sweeps.progress import Progress, read_progress, seconds_left

_INTERVAL = 2.0  # seconds between two reads of the files
_ORDER = ("running", "failed", "stopped", "done", "waiting")  # of the table's lines, which may be more than fit


class Board:
    """What is shown while a sweep goes on.

    Args:
        sweep: the sweep whose files are read.
        at_once: how many runs there are at once.
        expected: seconds per env step, to estimate the time left until there are evaluations.
    """

    def __init__(self, sweep: Sweep, at_once: int, expected: float | None) -> None:
        self._sweep = sweep
        self._at_once = at_once
        self._expected = expected
        self._next = 0.0
        self._live: Any = None
        self.progress: list[Progress] = []

    def look(self) -> None:
        """Show the current state, unless that was done a moment ago."""
        if time.monotonic() >= self._next:
            self.show()
            self._next = time.monotonic() + _INTERVAL

    def show(self) -> None:
        """Show the current state."""
        before = {one.run.name: one.status for one in self.progress}
        self.progress = read_progress(self._sweep, self.progress)
        if sys.stdout.isatty():
            self._draw()
            return
        for one in self.progress:
            if one.status != before.get(one.run.name, one.status if one.status in {"waiting", "done"} else ""):
                print(line(one), flush=True)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        """Show the state one last time, and leave it on the screen."""
        self.show()
        if self._live:
            self._live.stop()

    def _draw(self) -> None:
        from rich.live import Live  # imported here, since sweeps whose output goes to a file do without

        if self._live is None:
            self._live = Live(auto_refresh=False)
            self._live.start()
        self._live.update(table(self.progress, self._at_once, self._expected), refresh=True)


def line(one: Progress) -> str:
    """Return a run's state in one line."""
    words = f"{one.status:8}{one.run.name}"
    if one.status == "failed":
        return f"{words}: {one.last_line}"
    return f"{words}: success {one.success:.2f}" if one.status == "done" and one.success is not None else words


def headline(progress: Sequence[Progress], at_once: int = 1, expected: float | None = None) -> str:
    """Return the state of all runs in one line."""
    counts = Counter(one.status for one in progress)
    words = [f"{counts[status]} {status}" for status in _ORDER if counts[status]]
    best = max((one.success for one in progress if one.success is not None), default=None)
    if best is not None:
        words.append(f"best success {best:.2f}")
    left = seconds_left(progress, at_once, expected)
    if left:
        words.append(f"about {duration(left)} left")
    return ", ".join(words)


def print_table(progress: Sequence[Progress]) -> None:
    """Print the table, at full width outside of a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table(progress))


def table(progress: Sequence[Progress], at_once: int = 1, expected: float | None = None) -> Any:
    """Return the runs as a `rich` table: those under way first, then those that failed."""
    from rich.table import Table

    shown = Table(title=headline(progress, at_once, expected), title_justify="left", title_style="", box=None)
    for name, justify in (("run", "left"), ("status", "left"), ("env steps", "right"), ("success", "right"),
                          ("time", "right"), ("tries", "right"), ("host", "left")):  # fmt: skip
        shown.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for one in sorted(progress, key=lambda one: _ORDER.index(one.status)):
        success = "" if one.success is None else f"{one.success:.2f}"
        shown.add_row(
            one.run.name,
            one.status,
            f"{one.env_steps:,}",
            success,
            duration(one.seconds),
            str(one.tries or ""),
            one.host,
        )
    return shown


def failures(progress: Sequence[Progress]) -> list[str]:
    """Return a line for each run that failed, with the last line that it printed."""
    return [line(one) for one in progress if one.status == "failed"]


def write_results(sweep: Sweep, progress: Sequence[Progress]) -> str:
    """Draw the runs' curves and tabulate their results, next to their directories; return the tables."""
    from figures.files import compare_runs  # slow to import

    runs = [read_run(sweep.directory_of(one.run)) for one in progress if one.env_steps]
    varied = sweep.varied()
    by = varied if set(varied) - {"setting", "model"} else []
    try:
        written, text, _ = compare_runs(runs, sweep.directory / "results.png", by=by)
    except UsageError:  # no run was evaluated
        return ""
    return f"{text}\n\nin {', '.join(map(str, written))}"
