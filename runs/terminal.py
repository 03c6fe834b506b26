"""What a run shows as it runs: lines, and its progress in one line that stays in place on a terminal."""

import functools
import os
import sys
from typing import Any

from errors import WARNING


class Terminal:
    """Standard output: a terminal, on which progress stays in one line at the bottom, or a plain stream of lines.

    Args:
        quiet: whether to leave out all but warnings and final lines.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._progress: Any = None  # while it is shown in place

    def say(self, text: str, *, final: bool = False) -> None:
        """Show lines; `final` ones say how the run ended, and end the progress."""
        warns = text.startswith(WARNING)
        if self._quiet and not (warns or final):
            return
        if final:
            self.close()
        if self._progress:
            from rich.text import Text

            styled = Text(text, "yellow" if warns else "")  # a style of the print would color the progress below, too
            self._progress.console.print(styled, no_wrap=True, overflow="ignore", crop=False)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def progress(self, done: int, total: int, text: str, line_is_due: bool) -> None:
        """Show the run's progress; where it cannot stay in place, only when a line is due."""
        if self._quiet:
            return
        if not self._stays_in_place:
            if line_is_due:
                self.say(text)
            return
        if self._progress is None:
            self._progress = _progress_line()
            self._progress.start()
            self._progress.add_task("")
        [task] = self._progress.task_ids
        self._progress.update(task, completed=done, total=total, description=text, refresh=True)

    def close(self) -> None:
        """Stop updating the progress."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    @functools.cached_property
    def _stays_in_place(self) -> bool:
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _progress_line() -> Any:
    """Return a progress line of rich that is refreshed only on request, without a thread of its own."""
    from rich.console import Console  # here, because most runs write to a file and do without
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    return Progress(
        BarColumn(bar_width=10), words, console=Console(file=sys.stdout), auto_refresh=False,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
