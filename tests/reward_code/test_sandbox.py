"""The limits that a worker takes, with the filter of system calls and on a machine that has none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reward_code import sandbox

_ATTEMPTS = """
import json, os, socket, sys
sys.path.insert(0, {folder!r})
from reward_code import sandbox
{prepare}
report = os.fdopen(os.dup(1), "w")
mine, theirs = socket.socketpair()
gap = sandbox.enter(64)
outcomes = {{"gap": gap}}
def attempt(name, action):
    try:
        action()
        outcomes[name] = "done"
    except BaseException as error:
        outcomes[name] = type(error).__name__
attempt("read", lambda: open("/etc/passwd").close())
attempt("write", lambda: open({canary!r}, "w").close())
attempt("write to what is open", lambda: os.write({fd}, b"x"))
attempt("socket", lambda: socket.socket().close())
attempt("descriptor", lambda: os.close(os.dup(1)))
attempt("remove", lambda: os.remove({canary!r}))
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("memory", lambda: bytearray(1 << 30))
attempt("a little memory", lambda: bytearray(1 << 20))
attempt("lift", lambda: sandbox.resource.setrlimit(sandbox.resource.RLIMIT_NOFILE, (64, 64)))
attempt("talk", lambda: (mine.settimeout(None), mine.sendall(b"x"), theirs.recv(1)))
print(json.dumps(outcomes), file=report, flush=True)
"""


def attempts(canary: Path, prepare: str = "") -> dict[str, str]:
    canary.write_text("alive")
    with canary.open("a") as file:
        code = _ATTEMPTS.format(
            folder=str(Path(sandbox.__file__).parents[1]), prepare=prepare, canary=str(canary), fd=file.fileno()
        )
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[file.fileno()], check=True, timeout=60
        )
    assert canary.read_text() == "alive"
    return json.loads(result.stdout)


def test_with_the_filter_nothing_is_left_but_computing_and_talking(tmp_path):
    outcomes = attempts(tmp_path / "canary")
    if outcomes.pop("gap"):
        pytest.skip("this machine has no filter of system calls")
    assert outcomes.pop("talk") == outcomes.pop("a little memory") == "done"
    assert outcomes.pop("memory") == "MemoryError"
    assert outcomes.pop("write to what is open") == "OSError"
    assert outcomes.pop("lift") in ("PermissionError", "ValueError")
    assert set(outcomes.values()) == {"PermissionError"}, outcomes


def test_without_the_filter_it_says_so_and_still_opens_nothing(tmp_path):
    outcomes = attempts(tmp_path / "canary", "sandbox._CALLS.clear(); os.remove = os.kill = None")
    assert "system calls are not filtered" in outcomes["gap"]
    assert outcomes["talk"] == outcomes["a little memory"] == "done"
    for name in ("read", "write", "write to what is open", "socket", "descriptor"):
        assert outcomes[name] == "OSError", name
    if sys.platform == "linux":
        assert outcomes["memory"] == "MemoryError"
        assert outcomes["fork"] == ("done" if os.getuid() == 0 else "BlockingIOError")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("architecture", ["its own", "another"])
def test_filter_lets_through_what_is_listed_and_nothing_else(machine: str, architecture: str):
    """The filter, run by hand on every call number; what a future kernel adds is refused like what there is."""
    code = sandbox._filter(machine)
    audit = sandbox._ARCHITECTURE[machine] if architecture == "its own" else 0x40000003
    steps = [sandbox.struct.unpack_from("=HBBI", code, start) for start in range(0, len(code), 8)]

    def verdict(number: int, argument: int = 0) -> int:
        data = {sandbox._AT_NUMBER: number, sandbox._AT_ARCHITECTURE: audit, sandbox._AT_SECOND_ARGUMENT: argument}
        position = value = 0
        while True:
            operation, if_true, if_false, constant = steps[position]
            if operation == sandbox._RETURN:
                return constant
            position += 1
            if operation == sandbox._LOAD:
                value = data[constant]
            else:
                position += if_true if value == constant else if_false

    passed = {number for number in range(600) if verdict(number) == sandbox._ALLOW}
    assert passed == (set(sandbox._CALLS[machine].values()) if architecture == "its own" else set())
    assert verdict(0x40000000 | 1) == sandbox._REFUSE  # the x32 numbers of x86-64
    non_blocking = verdict(sandbox._IOCTL[machine], sandbox._FIONBIO)
    assert non_blocking == (sandbox._ALLOW if architecture == "its own" else sandbox._REFUSE)
    assert verdict(sandbox._IOCTL[machine], 0x5412) == sandbox._REFUSE  # typing into a terminal
