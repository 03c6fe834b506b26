"""Checkpoints: everything that a run needs to continue, on disk, whole or not at all.

``checkpoint/`` holds data files and, for each of the two newest checkpoints, a manifest that names the files it needs
with their checksums. A data file never changes. The rows of the replay buffer are in segments, by the order in which
they were added, so that a checkpoint writes only rows that are new since the last one. Everything is plain JSON and
NumPy; nothing is unpickled.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from errors import WARNING, RunError

_FORMAT = 3
_KEPT = 2
_ARRAY = "@array"  # replaces an array in JSON: its index in the data file
_CHUNK = 1 << 22  # bytes hashed or copied at a time


@dataclass(frozen=True)
class RowStream:
    """Columns of a ring of rows that are written together.

    Attributes:
        version: changes when stored rows get new values; then all are written again.
        columns: arrays (capacity, ...), C-contiguous.
    """

    version: str
    columns: Sequence[np.ndarray]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: the run's ``checkpoint/``; created when the first one is written.
        log: takes one line for the user.
    """

    def __init__(self, directory: Path, log: Callable[[str], None]) -> None:
        self._directory = directory
        self._log = log

    # --- writing ----------------------------------------------------------------------------------------------------

    def save(self, state: Any, rows: Mapping[str, RowStream], added: int) -> None:
        """Write a checkpoint; remove all but the last two.

        Args:
            state: nested dicts and lists of numbers, strings, None, and NumPy arrays or tensors.
            rows: the streams of the replay buffer by name.
            added: how many rows were ever added to the buffer; the newest ones that fit its capacity are stored.

        Raises:
            OSError: the disk is full, or cannot be written. Earlier checkpoints stay intact.
        """
        self._directory.mkdir(exist_ok=True)
        number = next(iter(self._numbers()), 0) + 1
        before = self._newest_manifest()
        arrays: list[np.ndarray] = []
        tree = _without_arrays(state, arrays)
        files = {f"state-{number}.npy": self._write(f"state-{number}.npy", arrays)}
        segments: dict[str, list[list[Any]]] = {}
        for name, stream in rows.items():
            known = before["segments"].get(name, []) if before else []
            first = max(0, added - len(stream.columns[0]))
            kept = [part for part in known if part[0] == stream.version and part[2] > first]
            for part in kept:
                files[_segment(name, *part)] = before["files"][_segment(name, *part)]  # type: ignore[index]
            start = kept[-1][2] if kept else first
            if start < added:
                part = [stream.version, start, added]
                parts = (column[piece] for column in stream.columns for piece in _pieces(start, added, len(column)))
                files[_segment(name, *part)] = self._write(_segment(name, *part), parts)
                kept.append(part)
            segments[name] = kept
        manifest = {"number": number, "added": added, "state": tree, "segments": segments, "files": files}
        text = json.dumps({"format": _FORMAT, **manifest})
        _write_whole(self._directory / f"{number}.json", [f"{_checksum(text)}\n{text}".encode()])
        self._remove_old()

    def _write(self, name: str, arrays: Iterable[np.ndarray]) -> str:
        """Write arrays one after another into a data file; return its checksum."""
        return _write_whole(self._directory / name, arrays)

    def _remove_old(self) -> None:
        """Remove what none of the newest checkpoints needs."""
        numbers = self._numbers()
        needed = {f"{number}.json" for number in numbers[:_KEPT]}
        for number in numbers[:_KEPT]:
            manifest = self._manifest(number)
            needed |= manifest["files"].keys() if manifest else set()
        for path in self._directory.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    # --- reading ----------------------------------------------------------------------------------------------------

    def load(self, rows: Callable[[Any], Mapping[str, RowStream]]) -> Any:
        """Return the state of the newest intact checkpoint, with its rows written back; None if there is none.

        Args:
            rows: returns, given the state, the streams whose columns take the rows.
        """
        for number in self._numbers():
            manifest = self._manifest(number)
            broken = None if manifest else f"{number}.json"
            if manifest:
                broken = next((name for name, sum_ in manifest["files"].items() if self._hash(name) != sum_), None)
            if manifest is None or broken:
                self._log(f"{WARNING}checkpoint {number} is damaged ({broken}); trying the one before")
                continue
            state = _with_arrays(manifest["state"], self._read(f"state-{number}.npy"))
            for name, stream in rows(state).items():
                for part in manifest["segments"][name]:
                    self._read_segment(name, part, stream, manifest["added"])
            for newer in self._numbers():  # damaged ones, on which the next checkpoint must not build
                if newer > number:
                    (self._directory / f"{newer}.json").unlink()
            return state
        return None

    def _read_segment(self, name: str, part: Sequence[Any], stream: RowStream, added: int) -> None:
        _, start, stop = part
        with (self._directory / _segment(name, *part)).open("rb") as file:
            for column in stream.columns:
                number = start
                for piece in _pieces(start, stop, len(column)):
                    stale = max(0, added - len(column) - number)  # rows that newer ones have overwritten since
                    _read_rows(file, column[piece], stale)
                    number += piece.stop - piece.start

    def _read(self, name: str) -> list[np.ndarray]:
        arrays = []
        with (self._directory / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while file.tell() < size:
                arrays.append(np.lib.format.read_array(file, allow_pickle=False))
        return arrays

    def _hash(self, name: str) -> str | None:
        try:
            with (self._directory / name).open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                return digest.hexdigest()
        except OSError:
            return None

    def _numbers(self) -> list[int]:
        """Return the numbers of all checkpoints, newest first."""
        names = [path.stem for path in self._directory.glob("*.json")] if self._directory.exists() else []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _newest_manifest(self) -> dict[str, Any] | None:
        return next((manifest for number in self._numbers() if (manifest := self._manifest(number))), None)

    def _manifest(self, number: int) -> dict[str, Any] | None:
        """Return a manifest; None if it is damaged. Raises RunError if its format is another, to lose no run."""
        try:
            checksum, _, text = (self._directory / f"{number}.json").read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if checksum != _checksum(text):
            return None
        manifest = json.loads(text)
        if manifest["format"] != _FORMAT:
            raise RunError(
                f"checkpoint {number} in {self._directory} has format {manifest['format']}, and this version of LaRes "
                f"reads format {_FORMAT}; go on with the version that wrote it, or begin a new run"
            )
        return manifest


def _segment(name: str, version: str, start: int, stop: int) -> str:
    return f"{name}-{version}-{start}-{stop}.npy"


def _pieces(start: int, stop: int, capacity: int) -> Iterator[slice]:
    """Yield where rows [start, stop), at most `capacity`, are in a ring: one slice or two."""
    while start < stop:
        place = start % capacity
        count = min(stop - start, capacity - place)
        yield slice(place, place + count)
        start += count


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _HashingFile:
    """What `numpy.lib.format.write_array` writes to: a file, and a checksum of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _write_whole(path: Path, parts: Iterable[np.ndarray | bytes]) -> str:
    """Write a file whole or not at all, even across a power cut; return its checksum."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            hashing = _HashingFile(file)
            for part in parts:
                if isinstance(part, bytes):
                    hashing.write(part)
                else:  # in chunks, without a copy of the whole
                    np.lib.format.write_array(hashing, part, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return hashing.digest.hexdigest()


def _read_rows(file: BinaryIO, rows: np.ndarray, skipped: int) -> None:
    """Read an array into `rows`, except the first `skipped`, without a copy of the whole."""
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    file.seek(skipped * rows[:1].nbytes, os.SEEK_CUR)
    count = max(1, _CHUNK // max(1, rows[:1].nbytes))
    for first in range(skipped, len(rows), count):
        part = rows[first : first + count]
        part[:] = np.fromfile(file, part.dtype, part.size).reshape(part.shape)


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return `value` in a form fit for JSON; its arrays and tensors are appended to `arrays`."""
    if isinstance(value, np.ndarray | torch.Tensor):
        arrays.append(np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value, order="C"))
        return {_ARRAY: len(arrays) - 1, "tensor": isinstance(value, torch.Tensor)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _without_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(part, arrays) for part in value]
    return value


def _with_arrays(value: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Return what :func:`_without_arrays` was given, except that tuples become lists and keys become strings."""
    if isinstance(value, dict):
        if _ARRAY in value:
            array = arrays[value[_ARRAY]]
            return torch.from_numpy(array) if value["tensor"] else array
        return {key: _with_arrays(part, arrays) for key, part in value.items()}
    return [_with_arrays(part, arrays) for part in value] if isinstance(value, list) else value
