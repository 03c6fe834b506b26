"""What the commands on runs have in common: their parser, the runs that they are given, and how they end."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from errors import RunError, UsageError
from runs.interruption import raise_on_ctrl_c
from runs.reading import Run, newest_run, read_run


def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser whose help begins with the command's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """Return the runs in the directories, the newest one below logs/ if none is given."""
    return [read_run(directory) for directory in directories or [newest_run()]]


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; return its exit status: 0, 2 on a usage error, 1 when it cannot continue, 130 on Ctrl-C."""
    raise_on_ctrl_c()
    try:
        command()
        sys.stdout.flush()
    except (UsageError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # the reader, a pager for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
