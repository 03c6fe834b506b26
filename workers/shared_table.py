"""Columns of numbers in a memory file that processes share."""

import contextlib
import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_F_ADD_SEALS = 1033

_F_SEAL_FUTURE_WRITE = 0x0010


@dataclass(frozen=True)
class SharedTable:
    """Float32 columns of equal length in one memory file, which workers read, and write only if that is allowed.

    Each column is a contiguous block of `capacity` rows. The file is not named shared memory, since the resource
    tracker of the first killed worker would unlink that for everyone (Python before 3.13).
    """

    fd: int
    capacity: int
    widths: dict[str, int]
    columns: dict[str, np.ndarray]

    @classmethod
    def create(cls, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """Return a new table of zeros, whose pages take memory only once they are written.

        `writable` lets workers write to it as well.
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
        weakref.finalize(memory, os.close, fd)  # with the columns, which keep `memory` alive
        if sealing and not writable:  # from here on nobody, this process included, can map the file for writing again
            with contextlib.suppress(OSError):  # kernels before 5.1; workers map it read-only anyway
                fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))

    @classmethod
    def attach(cls, fd: int, capacity: int, widths: Mapping[str, int], *, writable: bool = False) -> "SharedTable":
        """Return the table behind an inherited descriptor (see `address`), read-only unless `writable`."""
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        memory = mmap.mmap(fd, 4 * capacity * sum(widths.values()), prot=protection)
        return cls(fd, capacity, dict(widths), _columns(memory, capacity, widths))

    @property
    def address(self) -> tuple[int, int, dict[str, int]]:
        """What a worker that inherits the descriptor needs to attach the table."""
        return self.fd, self.capacity, self.widths

    def beginning(self, *names: str) -> "SharedTable":
        """Return the table of the first columns alone: a worker that attaches it maps none of the others."""
        if list(names) != list(self.widths)[: len(names)]:
            raise ValueError(f"{', '.join(names)}: not the first columns of {', '.join(self.widths)}")
        widths = {name: self.widths[name] for name in names}
        return SharedTable(self.fd, self.capacity, widths, {name: self.columns[name] for name in names})


def _columns(memory: mmap.mmap, capacity: int, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    columns, offset = {}, 0
    for name, width in widths.items():
        block = np.frombuffer(memory, np.float32, capacity * width, offset)
        columns[name] = block.reshape(capacity, width)
        offset += 4 * capacity * width
    return columns
