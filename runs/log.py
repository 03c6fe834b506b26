"""What a run leaves behind: its directory, its metrics, and what it printed."""

import importlib.metadata
import io
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from errors import WARNING, plain
from runs.boards import Boards
from runs.lock import lock
from runs.reading import read_rows
from runs.terminal import Terminal
from runs.wording import duration
from workers.machine import without_keys
from workers.packages import PACKAGES

_SECONDS_BETWEEN_LINES = 10.0
_ROWS = ("metrics.jsonl", "llm.jsonl", "run.log")  # files to which rows are appended
_PAID = ".paid.jsonl"  # rows of llm.jsonl that came after the checkpoint from which the run resumed


class RunLog:
    """A run's directory and everything written into it.

    Files, and rows of ``.jsonl`` files, are written whole or not at all; of files that belong together, all or none.

    Args:
        parent: the directory of all runs.
        name: the run's name; a number is appended when the name is taken.
        config: the flags, for ``config.json`` and Weights & Biases; with ``quiet`` only ``run.log`` has every line.
        resume: the directory of a run to resume, in place of a new one.

    Attributes:
        boards: TensorBoard and Weights & Biases.

    Raises:
        UsageError: another process writes to that directory.
    """

    def __init__(self, parent: str | Path, name: str, config: Mapping[str, Any], resume: str | None = None) -> None:
        self.directory = Path(resume) if resume else _new_directory(Path(parent), name)
        self._lock = lock(self.directory)
        self._began = time.monotonic()
        self._last_line = -math.inf
        self._terminal = Terminal(bool(config.get("quiet")))
        self._learning_from = 0, 0.0
        self._total = 0
        self._before_cut: list[str] | None = None  # new lines of run.log, until it has been cut at a checkpoint
        self._config = {"flags": {**config, "resume": None}, **_host()}
        if resume:
            self._before_cut = []
            self._compare_versions()
        else:
            self.write_json("config.json", self._config)
        self.boards = Boards(self.directory, config)
        if self.boards.note:
            self.say(self.boards.note)

    @property
    def wall_time(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    # --- files ------------------------------------------------------------------------------------------------------

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Write files to the run's directory, whole, and all of them or none."""
        unfinished = {name: self.directory / f".{name}.unfinished" for name in files}
        try:
            for name, content in files.items():
                with unfinished[name].open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            for path in unfinished.values():  # what is left of them would keep the disk full
                path.unlink(missing_ok=True)
            raise
        for name, path in unfinished.items():
            path.replace(self.directory / name)
        _sync(self.directory)

    def write_text(self, name: str, content: str) -> None:
        """Write a text file to the run's directory; lone surrogates become escapes."""
        self.write_files({name: content.encode(errors="backslashreplace")})

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file to the run's directory; numbers that are not finite become null."""
        self.write_text(name, json.dumps(_strict(content), indent=2, allow_nan=False) + "\n")

    def write_networks(self, networks: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Write each network's state dict to ``{name}.pth``, all or none: no actor is paired with older critics."""
        files = {}
        for name, state in networks.items():
            content = io.BytesIO()
            torch.save(dict(state), content)
            files[f"{name}.pth"] = content.getvalue()
        self.write_files(files)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row to a ``.jsonl`` file."""
        _append(self.directory / name, json.dumps(_strict(row), allow_nan=False) + "\n")

    def population(self, programs: Sequence[Any]) -> None:
        """Write ``population.json``: every function ever proposed. Prompts and responses are in ``llm.jsonl``."""
        told = ("messages", "response")
        rows = [{name: value for name, value in vars(program).items() if name not in told} for program in programs]
        self.write_json("population.json", rows)

    # --- resuming ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the sizes of the files to which rows are appended, and the time that has passed."""
        sizes = {}
        for name in _ROWS:
            if (path := self.directory / name).exists():
                _sync(path)
                sizes[name] = path.stat().st_size
        return {"sizes": sizes, "wall_time": self.wall_time}

    def load_state_dict(self, state: Mapping[str, Any], env_steps: int) -> list[dict[str, Any]]:
        """Cut off everything that was written after a checkpoint; return the rows of llm.jsonl that came after it.

        They stay on disk in a file of their own, since the run may be killed again before they are rewritten. From
        here on the flags of the run are those it was resumed with.
        """
        self._began = time.monotonic() - state["wall_time"]
        self.boards.purge_step = env_steps + 1
        exchanges = self.directory / "llm.jsonl"
        with exchanges.open("ab+") as file:
            file.seek(0)
            settled = file.read(state["sizes"].get("llm.jsonl", 0)).count(b"\n")
        known = {row["request"]: row for path in (self.directory / _PAID, exchanges) for row in read_rows(path)}
        paid_for = [row for request, row in sorted(known.items()) if request > settled]
        self.write_text(_PAID, "".join(f"{json.dumps(row)}\n" for row in paid_for))
        for name in _ROWS:
            path = self.directory / name
            if path.exists():
                _cut(path, state["sizes"].get(name, 0))
        before = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        self.write_json("config.json", {**before, "flags": self._config["flags"]})
        lines, self._before_cut = self._before_cut or [], None
        for line in lines:
            _append(self.directory / "run.log", line)
        return paid_for

    def _compare_versions(self) -> None:
        before = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))["versions"]
        now = _host()["versions"]
        changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if now[name] != before.get(name)]
        if changed:
            self.say(f"{WARNING}other versions than before, so the numbers may differ: {'; '.join(changed)}")

    # --- metrics ----------------------------------------------------------------------------------------------------

    def metrics(self, env_steps: int, row: Mapping[str, Any]) -> None:
        """Write a row of ``metrics.jsonl``, and its numbers to TensorBoard and, if configured, Weights & Biases."""
        row = {"env_steps": env_steps, "wall_time": round(self.wall_time, 3), **row}
        self.append("metrics.jsonl", row)
        self.boards.evaluation(env_steps, row)

    # --- the terminal -----------------------------------------------------------------------------------------------

    def say(self, text: str, *, final: bool = False) -> None:
        """Print lines, and keep them in ``run.log``; control characters are escaped, since the text may be untrusted.

        Warnings, which begin with "warning: ", and `final` lines, which say how the run ended, are always printed.
        """
        text = plain(text)
        self._terminal.say(text, final=final)
        self._keep(text)

    def begin_progress(self, env_steps: int, total: int) -> None:
        """Measure speed from here on."""
        self._learning_from = env_steps, self.wall_time
        self._total = total

    def progress(self, env_steps: int, now: float | None, best_so_far: float | None, cost: Mapping[str, Any]) -> None:
        """Show the run's progress: in place on a terminal, else as a line every few seconds, as in ``run.log``.

        Args:
            env_steps: so far.
            now: success rate of the best agent in the last evaluation, None while that is unknown.
            best_so_far: that of the policy that the run would choose now, None before the first evaluation.
            cost: of the language model: tokens_in, tokens_out, and cost.
        """
        first, began = self._learning_from
        text = f"{env_steps:,} of {self._total:,} env steps"
        speed = (env_steps - first) / (self.wall_time - began)
        if speed > 0:
            text += f", {duration(max(self._total - env_steps, 0) / speed)} left"
        text += f", success now {_percentage(now)}, best so far {_percentage(best_so_far)}"
        if speed > 0:
            text += f", {speed:.0f} a second"
        if cost["tokens_in"]:
            text += f", {cost['tokens_in']:,} tokens in, {cost['tokens_out']:,} out"
        if cost["cost"]:
            text += f", cost {cost['cost']:.2f}"
        line_is_due = time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES
        self._terminal.progress(env_steps, self._total, text, line_is_due)
        if line_is_due:
            self._last_line = time.monotonic()
            self._keep(text)

    def close(self) -> None:
        """Close the terminal, the boards and the lock."""
        self._terminal.close()
        self.boards.close()
        self._lock.close()

    def _keep(self, text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        line = "".join(f"{now} {line}\n" for line in text.split("\n"))
        if self._before_cut is None:
            _append(self.directory / "run.log", line)
        else:
            self._before_cut.append(line)


def _new_directory(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        directory = parent / (name if number == 1 else f"{name}_{number}")
        try:
            directory.mkdir()
        except FileExistsError:  # also when another run has just created it
            number += 1
        else:
            return directory


def _append(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all."""
    rest = line.encode()
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)
            raise


def _cut(path: Path, size: int) -> None:
    """Cut a file of lines at `size` bytes or, if a power loss left it shorter, after its last complete line."""
    if path.stat().st_size < size:
        size = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, size)


def _sync(path: Path) -> None:
    """Make a file's content, or the names in a directory, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@without_keys()
def _host() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    command = ["git", "-C", str(Path(__file__).parents[1]), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        commit: str | None = found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit,
        "host": {"system": platform.platform(), "cpu": processor(), "gpu": gpu},
    }


def processor() -> str:
    """Return the name of the CPU, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _percentage(share: float | None) -> str:
    return "not known yet" if share is None else f"{share:.0%}"


def _strict(value: Any) -> Any:
    """Return the value in strict JSON: NumPy types become Python's, and numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _strict(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _strict(value.tolist())
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
