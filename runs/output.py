"""Standard output and standard error that a run of many hours can rely on."""

import io
import os
import select
import sys
from typing import Any, TextIO


def keep_output() -> None:
    """Ensure that writing to standard output and standard error cannot fail, up to the end of the process.

    Once the reader has gone away (``| head``, a pager, a log collector, a closed terminal), further output is dropped.
    Characters that the terminal's encoding lacks are shown as escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed at the start
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            setattr(sys, name, _lasting(stream))


def _lasting(stream: Any) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )


class _Descriptor(io.FileIO):
    """A file descriptor that leads to the null device once writing has failed."""

    def write(self, data: Any, /) -> int:
        while True:
            try:
                written = super().write(data)
            except OSError:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # the reader is slow, and the descriptor does not block
