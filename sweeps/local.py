"""Runs as processes on one machine: several at once, each started, resumed and ended as a user would do it."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runs.interruption import Interruption
from runs.lock import is_locked
from search.turns import VARIABLE
from sweeps.desk import Answer, Desk
from sweeps.files import read, write
from sweeps.limits import Bounds, Limits
from sweeps.plan import PlannedRun
from workers.machine import memory

POLL_INTERVAL = 0.2  # seconds
PROJECT = Path(__file__).parents[1]

_LAST_SECONDS = 30.0  # that runs get to end in when this process has to end at once
_MISTAKE = 2  # the exit status after a mistake in the flags, where retrying would not help

# Starts a program as a shell would, with no signal blocked (Ray blocks SIGINT); on Linux the kernel sends it SIGTERM
# when this process is gone, whatever the reason.
_LAUNCH = (
    "import ctypes, os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); "
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass
class Record:
    """What the sweep knows about a run besides the run's own files, in a file next to its directory.

    Attributes:
        status: "waiting", "running", "done", "failed", or "stopped" when it can go on.
        tries: how often it was started since the sweep was started.
        exit_status: of the last process, None while there is none; 128 and more after a signal.
        host: where it runs or ran.
    """

    status: str = "waiting"
    tries: int = 0
    exit_status: int | None = None
    host: str = ""


def read_record(directory: Path) -> Record:
    """Return the record of the run in a directory."""
    return Record(**read(record_path(directory)))


def give_up(directory: Path, why: str) -> None:
    """Record that the run in a directory failed, when none of its processes could say so."""
    with output_path(directory).open("a", encoding="utf-8") as output:
        output.write(f"{why}\n")
    write(record_path(directory), asdict(replace(read_record(directory), status="failed")))


def record_path(directory: Path) -> Path:
    """Return where the record of the run in a directory is kept."""
    return directory.with_name(f"{directory.name}.json")


def output_path(directory: Path) -> Path:
    """Return where the output of all processes of the run in a directory is kept."""
    return directory.with_name(f"{directory.name}.log")


class Machine:
    """Only this machine.

    Args:
        jobs: the most runs at once.
        cpus: cores per run.
    """

    def __init__(self, jobs: int, cpus: int) -> None:
        self._jobs = jobs
        self._cpus = cpus

    def at_once(self, needed: Collection[float]) -> int:
        """Return how many runs, which need so many bytes of memory each, fit at once: `jobs`, or fewer."""
        free = memory()
        return self._jobs if free is None else max(1, min(self._jobs, int(free / max(needed))))

    def see_through(
        self,
        directory: Path,
        runs: Sequence[PlannedRun],
        needed: Mapping[str, float],
        tries: int,
        bounds: Bounds,
        interruption: Interruption,
        look: Callable[[], None],
    ) -> None:
        """See runs through to their ends, or until the user wants to leave.

        Args:
            directory: of the sweep.
            runs: in the order in which they start.
            needed: bytes of memory of each run, by its name.
            tries: how often a run is started at most.
            bounds: what all of them may send to a language model.
            interruption, look: see :meth:`Crew.see_through`.
        """
        answer = Limits(bounds, directory).answer if bounds.any() else None
        crew = Crew(directory, self.at_once(needed.values()), tries, self._cpus, answer)
        crew.see_through(runs, interruption, look)


class Crew:
    """Runs under way on this machine.

    Args:
        directory: of the sweep.
        at_once: the most runs at once.
        tries: how often a run is started at most.
        cpus: the worker and learner processes of a run whose flags do not set them.
        answer: answers runs that ask before they send a request, see `sweeps.limits`; None if they need not ask.
    """

    def __init__(self, directory: Path, at_once: int, tries: int, cpus: int, answer: Answer | None = None) -> None:
        self._directory = directory
        self._at_once = at_once
        self._tries = tries
        self._cpus = cpus
        self._desk = Desk(answer)
        self._under_way: list[_UnderWay] = []
        self._told: int | None = None  # the signal that told the runs to end

    def see_through(
        self, runs: Sequence[PlannedRun], interruption: Interruption, look: Callable[[], None] = lambda: None
    ) -> list[Record]:
        """See the runs through to their ends, or until the user wants to leave; return how each of them ended.

        Args:
            runs: in the order in which they start.
            interruption: a signal or a request for a checkpoint goes to every run; after a signal no more are started.
            look: called several times a second.
        """
        waiting = deque((run, read_record(self._directory / run.name)) for run in runs)
        records = [record for _, record in waiting]
        try:
            while self._under_way or (waiting and not interruption.requested()):
                if interruption.signal and not self._told:
                    self._told = interruption.signal
                    self._send(self._told)
                elif interruption.checkpoint_requested():
                    self._send(signal.SIGUSR1)
                waiting.extendleft(self._ended())
                for _ in range(len(waiting)):
                    if len(self._under_way) >= self._at_once or interruption.requested():
                        break
                    run, record = waiting.popleft()
                    if is_locked(self._directory / run.name):  # by what an earlier sweep left; it ends by itself
                        waiting.append((run, record))
                    else:
                        self._under_way.append(self._begin(run, record))
                look()
                self._desk.serve(POLL_INTERVAL)
        finally:
            self._end()
        return records

    def _begin(self, run: PlannedRun, record: Record) -> "_UnderWay":
        directory = self._directory / run.name
        record.status, record.tries, record.exit_status = "running", record.tries + 1, None
        record.host = platform.node()
        asking = self._desk.admit()
        with output_path(directory).open("ab") as output, asking or contextlib.nullcontext():
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(os.getpid()), sys.executable, *self._words(run, directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | ({VARIABLE: str(asking.fileno())} if asking else {}),
                pass_fds=[asking.fileno()] if asking else [],
                start_new_session=True,  # so that Ctrl-C reaches it only once, through us
            )
        write(record_path(directory), asdict(record))
        return _UnderWay(run, record, process)

    def _words(self, run: PlannedRun, directory: Path) -> list[str]:
        """Return the command that starts or resumes a run, as a user would type it."""
        processes = [f"--{flag}={self._cpus}" for flag in ("num_workers", "num_learners") if flag not in run.flags]
        machine = [
            f"--{flag}={run.flags[flag]}" for flag in ("device", "num_workers", "num_learners") if flag in run.flags
        ]
        script = str(PROJECT / f"lares_{run.setting}.py")
        if (directory / "config.json").exists():
            return [script, f"--resume={directory}", *machine, *processes]
        if directory.exists():  # it was killed before it wrote anything
            shutil.rmtree(directory)
        return [script, *run.words, *processes, f"--log-dir={self._directory}", f"--exp_name={run.name}"]

    def _ended(self) -> list[tuple[PlannedRun, Record]]:
        """Record the runs whose processes have ended; return those that are to be started again."""
        again = []
        for one in list(self._under_way):
            status = one.process.poll()
            if status is None:
                continue
            self._under_way.remove(one)
            record = one.record
            record.exit_status = status if status >= 0 else 128 - status
            if status == 0:
                record.status = "done"
            elif self._told or (status != _MISTAKE and record.tries < self._tries):
                record.status = "stopped"
            else:
                record.status = "failed"
            if record.status == "stopped" and not self._told:
                again.append((one.run, record))
            write(record_path(self._directory / one.run.name), asdict(record))
        return again

    def _send(self, number: int) -> None:
        for one in self._under_way:
            one.process.send_signal(number)

    def _end(self) -> None:
        """End what is still under way if it cannot end on its own: at a second Ctrl-C, or after an error."""
        self._told = self._told or signal.SIGTERM
        self._send(signal.SIGTERM)
        end = time.monotonic() + _LAST_SECONDS
        for one in self._under_way:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(end - time.monotonic(), 0))
            one.process.kill()
            one.process.wait()
        self._ended()


@dataclass
class _UnderWay:
    """A run that has a process."""

    run: PlannedRun
    record: Record
    process: "subprocess.Popen[bytes]"
