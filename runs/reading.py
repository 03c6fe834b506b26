"""Reads what a run has written, whether it has finished, is still going or was killed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UsageError
from tasks.names import without_version

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The files of one run directory.

    Attributes:
        directory: where they are.
        config: config.json.
        evaluations: the rows of metrics.jsonl, by increasing env steps.
        functions: population.json, every reward function ever proposed; empty before the first evaluation.
        exchanges: the rows of llm.jsonl.
        summary: summary.json; empty while the run goes on, and after it was killed.
    """

    directory: Path
    config: Row
    evaluations: list[Row]
    functions: list[Row]
    exchanges: list[Row]
    summary: Row

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.directory.name

    @property
    def flags(self) -> Row:
        """The flags of the run, by the names of `arguments.Arguments`."""
        return self.config["flags"]

    @property
    def task(self) -> str:
        """The task's name, without MetaWorld's version."""
        return without_version(str(self.flags["env_name"]))

    @property
    def status(self) -> str:
        """How the run ended, "unfinished" if it has not said so."""
        return str(self.summary.get("status", "unfinished"))

    @property
    def env_steps(self) -> int:
        """Env steps as of the last file written."""
        last: int = self.evaluations[-1]["env_steps"] if self.evaluations else 0
        return int(self.summary.get("env_steps") or last)

    @property
    def agents(self) -> list[int]:
        """The agents that were ever evaluated."""
        return sorted({int(agent) for row in self.evaluations for agent in row.get("agents", {})})

    def agent_name(self, agent: int) -> str:
        """Return what to call an agent."""
        return "human agent" if agent == self.flags.get("pop_size") else f"agent {agent}"

    def rounds(self) -> list[int]:
        """Return the env steps at which search rounds took place, as far as evaluations show.

        The first evaluation of a round comes at most a display interval after it; the last one of the round before was
        made for it, at the same env steps.
        """
        steps = []
        for before, after in zip(self.evaluations, self.evaluations[1:], strict=False):
            if after.get("round", 0) > before.get("round", 0):
                steps.append(int(before["env_steps"]))
        return steps


def read_run(directory: Path) -> Run:
    """Return the run in a directory.

    Raises:
        UsageError: the directory holds no run.
    """
    config = _read(directory / "config.json")
    if not isinstance(config, dict) or "flags" not in config:
        raise UsageError(f"{directory} is not a run directory: it has no config.json with flags; give one below logs/")
    functions, summary = _read(directory / "population.json"), _read(directory / "summary.json")
    return Run(
        directory.absolute(),
        config,
        _in_order([row for row in read_rows(directory / "metrics.jsonl") if "env_steps" in row]),
        [row for row in functions if "id" in row] if isinstance(functions, list) else [],
        list(read_rows(directory / "llm.jsonl")),
        summary if isinstance(summary, dict) else {},
    )


def newest_run(parent: Path = Path("logs")) -> Path:
    """Return the run directory below `parent` that began last.

    Raises:
        UsageError: there is none.
    """
    configs = sorted(parent.glob("**/config.json"), key=lambda path: path.stat().st_mtime)
    for config in reversed(configs):
        if (found := _read(config)) and "flags" in found:
            return config.parent
    raise UsageError(f"there is no run below {parent}/; name a run directory, or begin one: bash run.sh quickstart")


def _read(path: Path) -> Any:
    """Return what a JSON file holds, None if there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .jsonl file; a killed run may have left half a row."""
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _in_order(rows: list[Row]) -> list[Row]:
    """Drop the rows that a resumed run has written again."""
    kept: list[Row] = []
    for row in rows:
        while kept and kept[-1]["env_steps"] >= row["env_steps"]:
            kept.pop()
        kept.append(row)
    return kept
