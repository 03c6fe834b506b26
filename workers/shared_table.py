"""Columns of numbers in one memory file that processes share."""

import contextlib
import fcntl
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_F_ADD_SEALS = 1033

_F_SEAL_FUTURE_WRITE = 0x0010


@dataclass(frozen=True)
class SharedTable:
    """Float32 columns of equal length in one memory file, which workers read, and write only if that is allowed.

    Each column is a contiguous block of `capacity` rows. A memory file, and not named shared memory: that would be
    unlinked for everyone by the resource tracker of the first worker that is killed (Python before 3.13).
    """

    fd: int
    capacity: int
    widths: dict[str, int]
    columns: dict[str, np.ndarray]

    @classmethod
    def create(cls, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """A new table of zeros. Its pages take memory only once they are written.

        `writable` lets workers write it too.
        """
        size = 4 * capacity * sum(widths.values())
        sealing = hasattr(os, "memfd_create")
        if sealing:
            fd = os.memfd_create("lares", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
        if sealing and not writable:  # from here on nobody, this process included, can map the file for writing again
            with contextlib.suppress(OSError):  # kernels before 5.1; workers map it read-only in any case
                fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))

    @classmethod
    def attach(cls, fd: int, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """The table behind an inherited descriptor, read-only if not said otherwise."""
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        memory = mmap.mmap(fd, 4 * capacity * sum(widths.values()), prot=protection)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))


def _columns(memory: mmap.mmap, capacity: int, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    columns, offset = {}, 0
    for name, width in widths.items():
        block = np.frombuffer(memory, np.float32, capacity * width, offset)
        columns[name] = block.reshape(capacity, width)
        offset += 4 * capacity * width
    return columns
