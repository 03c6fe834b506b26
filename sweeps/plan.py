"""Which runs a sweep consists of: a YAML file and flags in, runs with names and flags of their own out.

A file holds one sweep, or several by name::

    setting: from_scratch                       # or with_init, or a list of both
    flags: {model: builtin}                     # for every run
    grid:                                       # every combination of these, the last one varying fastest
      env-name: [window-close-v2, door-close-v2]
      seed: [1, 2, 3]
    runs:                                       # each combination once with each of these sets of flags
      - {}
      - {selection: uniform}

Flags are named as in the entry scripts. A value may be a mapping from tasks to values; for a task that is not in it the
flag is left out. Flags on the command line override those of the same name.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml

from arguments import Arguments, Setting, default_name, parse_args
from errors import UsageError, nearest
from sweeps.files import read, write
from tasks.names import without_version

SHIPPED = Path(__file__).parent
FILE = "sweep.json"
Flags = dict[str, str | None]  # by the names of `Arguments`' fields; None stands for a flag without a value

_SETTINGS = get_args(Setting)
_PARTS = ("setting", "flags", "grid", "runs")
_IN_EVERY_NAME = {"env_name", "model", "seed"}  # see `arguments.default_name`
_SET_BY_THE_SWEEP = {"log_dir", "exp_name", "resume", "dry_run"}


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        name: of its directory, within the sweep's.
        setting: which entry script it is a run of.
        flags: in the order in which they are given.
    """

    name: str
    setting: Setting
    flags: Flags

    @property
    def words(self) -> list[str]:
        """The flags as the entry script reads them."""
        return [f"--{flag}" if value is None else f"--{flag}={value}" for flag, value in self.flags.items()]

    @cached_property
    def args(self) -> Arguments:
        """The flags with all defaults; a mistake in them prints one line and exits with status 2."""
        return parse_args(self.words, self.setting)


@dataclass(frozen=True)
class Sweep:
    """Runs in one directory."""

    directory: Path
    runs: Sequence[PlannedRun]

    def directory_of(self, run: PlannedRun) -> Path:
        """Return the directory of a run."""
        return self.directory / run.name

    def varied(self) -> list[str]:
        """Return the flags in which runs of a task differ besides the seed, by the names of `Arguments`' fields."""
        found: dict[tuple[str, str], set[str]] = {}  # the values of a flag on a task
        for run in self.runs:
            for flag in {"setting", *(flag for other in self.runs for flag in other.flags)} - {"env_name", "seed"}:
                found.setdefault((run.args.env_name, flag), set()).add(repr(getattr(run.args, flag, None)))
        return sorted({flag for (_, flag), values in found.items() if len(values) > 1})

    def with_earlier(self) -> "Sweep":
        """Return the sweep with the runs that its directory already has.

        Raises:
            UsageError: one of the runs is already there with other flags.
        """
        before = {run.name: run for run in load(self.directory).runs} if (self.directory / FILE).exists() else {}
        for run in self.runs:
            if before.setdefault(run.name, run) != run:
                raise UsageError(
                    f"{self.directory} has a run {run.name} with other flags ({_difference(before[run.name], run)}); "
                    "give another --exp_name"
                )
        return Sweep(self.directory, list(before.values()))

    def save(self) -> None:
        """Write the runs to the directory."""
        rows = {run.name: {"setting": run.setting, "flags": run.flags} for run in self.runs}
        write(self.directory / FILE, {"runs": rows})


def load(directory: Path) -> Sweep:
    """Return the sweep in a directory, with every run that it ever had.

    Raises:
        UsageError: there is none.
    """
    rows = read(directory / FILE).get("runs")
    if rows is None:
        raise UsageError(
            f"{directory} is not the directory of a sweep: it has no {FILE}; give one that sweep.py has named"
        )
    return Sweep(directory, [PlannedRun(name, row["setting"], row["flags"]) for name, row in rows.items()])


def plan(
    file: Path | None, only: Sequence[str], setting: str | None, given: Mapping[str, Sequence[str]]
) -> list[PlannedRun]:
    """Return the runs of a sweep.

    Args:
        file: the YAML file; None for a sweep given only by flags.
        only: names of the sweeps in the file to take; none for all.
        setting: replaces the settings in the file.
        given: flags on the command line, each with all its values, or none for a flag without a value.

    Raises:
        UsageError: the file has a mistake.
    """
    sweeps = _read(file) if file else {"": {}}
    for name in only:
        if name not in sweeps:
            there = f"it has: {', '.join(sweeps)}" if "" not in sweeps else "it is a single one; leave --only out"
            raise UsageError(f"there is no sweep {name} in {file}{nearest(name, sweeps)}; {there}")
    overridden: dict[str, Sequence[Any]] = {_field(flag): values or [None] for flag, values in given.items()}
    runs: dict[str, PlannedRun] = {}
    for name in only or sweeps:
        where = f"{file}, {name}" if name else str(file or "the command line")
        for run in _combine(where, sweeps[name], setting, overridden):
            if runs.setdefault(run.name, run) != run:
                raise UsageError(
                    f"{where}: two runs are called {run.name} and differ ({_difference(runs[run.name], run)}); "
                    "put what they differ in into grid or runs"
                )
    return list(runs.values())


def find(name: str) -> Path:
    """Return the YAML file at that path, or of that name among those that come with LaRes.

    Raises:
        UsageError: there is none.
    """
    for path in (Path(name), SHIPPED / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise UsageError(
        f"there is no sweep {name}{nearest(name, shipped)}; give a YAML file, or one of {', '.join(shipped)}"
    )


# --- from a file to runs ----------------------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the sweeps of a file by name; a single sweep has no name."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not text in UTF-8; save it as such") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{file} holds no sweep; it needs {', '.join(_PARTS)}, see the docstring of sweeps/plan.py")
    sweeps = {"": content} if content.keys() & set(_PARTS) else {str(name): parts for name, parts in content.items()}
    for name, parts in sweeps.items():
        where = f"{file}, {name}" if name else str(file)
        if not isinstance(parts, dict):
            raise UsageError(f"{where}: expected a mapping with {', '.join(_PARTS)}")
        for part in parts:
            if part not in _PARTS:
                advice = f"{nearest(str(part), _PARTS)}; a sweep has {', '.join(_PARTS)}"
                raise UsageError(f"{where}: there is no {part}{advice}")
    return sweeps


def _combine(
    where: str, parts: Mapping[str, Any], setting: str | None, given: Mapping[str, Sequence[Any]]
) -> Iterator[PlannedRun]:
    """Yield every run of one sweep of a file."""
    base = _mapping(where, "flags", parts.get("flags"))
    grid = {flag: _list(values) for flag, values in _mapping(where, "grid", parts.get("grid")).items()}
    axes = {flag: values for flag, values in grid.items() if flag not in given}
    several = [flag for flag, values in given.items() if len(values) > 1]
    variants = [_mapping(where, "runs", variant) for variant in _list(parts.get("runs") or [{}])]
    variants = [{flag: value for flag, value in variant.items() if flag not in given} for variant in variants]
    settings = _list(setting or parts.get("setting", "from_scratch"))
    for name, values in {"setting": settings, **axes}.items():
        if not values:
            raise UsageError(f"{where}: {name} has no values, so there is nothing to run; give at least one")
    for one in settings:
        if one not in _SETTINGS:
            raise UsageError(f"{where}: setting is {one}, expected {' or '.join(_SETTINGS)}")
        for chosen, variant, ordered in itertools.product(_combinations(axes), variants, _combinations(given)):
            # Later flags override earlier ones, which matters when one of them is a preset.
            flags = _behind(_behind(_behind(base, chosen), variant), ordered)
            yield _run(where, one, flags, [*axes, *variant, *several])


def _combinations(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _behind(flags: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {flag: value for flag, value in flags.items() if flag not in more} | dict(more)


def _run(where: str, setting: Setting, flags: Mapping[str, Any], in_name: Iterable[str]) -> PlannedRun:
    task = str(flags.get("env_name", Arguments.env_name))
    texts: Flags = {}
    for flag, value in flags.items():
        if flag in _SET_BY_THE_SWEEP:
            raise UsageError(f"{where}: a sweep sets --{flag} of its runs itself; leave it out")
        if isinstance(value, dict) and flag != "llm_options":
            by_task = {without_version(str(name)): found for name, found in value.items()}
            if without_version(task) not in by_task:
                continue
            value = by_task[without_version(task)]
        texts[flag] = _text(where, flag, value)
    known: dict[str, Any] = {flag: texts[flag] for flag in _IN_EVERY_NAME if flag in texts}
    shown = [flag for flag in in_name if flag in texts and flag not in _IN_EVERY_NAME]
    words = [default_name(Arguments(setting, **known)), *(f"{flag}-{texts[flag]}" for flag in shown)]
    name = re.sub(r"[^\w.-]+", "_", "_".join(words), flags=re.ASCII)
    return PlannedRun(name, setting, texts)


def _text(where: str, flag: str, value: Any) -> str | None:
    if isinstance(value, list):
        raise UsageError(f"{where}: {flag} has several values, which belong into grid")
    if isinstance(value, dict):
        return json.dumps(value)
    return value if value is None else str(int(value) if isinstance(value, bool) else value)


def _field(flag: Any) -> str:
    """Return the name of a flag's field."""
    return str(flag).lstrip("-").replace("-", "_")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _mapping(where: str, part: str, value: Any) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise UsageError(f"{where}: {part} must map flags to values, and is {value!r}")
    return {_field(flag): found for flag, found in (value or {}).items()}


def _difference(one: PlannedRun, other: PlannedRun) -> str:
    """Return in words how two runs differ."""
    if one.setting != other.setting:
        return f"{one.setting} and {other.setting}"
    pairs = {flag: [run.flags.get(flag, "default") for run in (one, other)] for flag in one.flags | other.flags}
    return ", ".join(f"--{flag} {first} and {second}" for flag, (first, second) in pairs.items() if first != second)
