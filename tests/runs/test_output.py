"""What is printed cannot fail, whoever reads it and in whatever encoding, and the text of others is shown as text."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
sys.path.insert(0, {root!r})
from runs.output import keep_output
keep_output()
print("first", flush=True)
sys.stdin.read()
for number in range(5):
    print("later " + 30_000 * "x", flush=True)
    print("error", file=sys.stderr)
print("at the end, still in the buffer")
os.write(int(sys.argv[1]), b"reached")
sys.exit(3)
"""


def program(**pipes):
    """A process that prints, waits for its input to end, prints more, and says through `alive` that it got through."""
    alive, theirs = os.pipe()
    command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(theirs)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs], **pipes)
    os.close(theirs)
    return process, alive


def assert_it_gets_through(process, alive):
    process.stdin.close()
    assert process.wait(30) == 3
    assert os.read(alive, 10) == b"reached"
    os.close(alive)


def test_a_pipe_that_nobody_reads_any_more_ends_nothing():
    process, alive = program(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stderr.close()
    assert_it_gets_through(process, alive)


def test_standard_error_is_clean_when_standard_output_has_no_reader():
    process, alive = program(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == 5 * b"error\n"
    assert process.wait(30) == 3
    process.stderr.close()
    os.close(alive)


def test_a_terminal_that_is_closed_ends_nothing():
    ours, theirs = pty.openpty()
    process, alive = program(stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 5) == b"first"
    os.close(ours)
    assert_it_gets_through(process, alive)


def test_a_full_disk_behind_the_output_ends_nothing():
    with open("/dev/full", "wb") as full:
        process, alive = program(stdout=full, stderr=full)
    assert_it_gets_through(process, alive)


def test_outputs_that_are_closed_from_the_start_end_nothing():
    command = f'exec {sys.executable} -c "$0" 2 >&- 2>{os.devnull}'
    done = subprocess.run(["bash", "-c", command, PROGRAM.format(root=str(ROOT))], stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 3


def test_a_reader_that_is_slow_loses_nothing():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process, alive = program(stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    process.stdin.close()
    process.stdin = None
    time.sleep(1)
    assert process.poll() is None  # it waits, since the pipe holds more than nothing and less than all
    with os.fdopen(reading, "rb") as file:
        assert len(file.read()) > 150_000
    assert process.wait(30) == 3
    os.close(alive)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_can_show_every_text(encoding):
    text = "Größe 尺寸 \ud83d"
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runs.output; runs.output.keep_output(); "
    done = subprocess.run(
        [sys.executable, "-c", script + f"print({text!r}); print({text!r}, file=sys.stderr)"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == (text + "\n").encode(encoding, "backslashreplace")
