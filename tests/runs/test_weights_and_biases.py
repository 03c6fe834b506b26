"""Weights & Biases without a way to it: one line, and a run that can be sent later."""

import contextlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from runs import weights_and_biases
run, line = weights_and_biases.begin(Path(sys.argv[1]), {{"seed": 1}})
print(line, flush=True)
for step in range(3):
    run.log({{"success_rate": 0.5}}, step=step)
run.finish()
"""
KEY = 40 * "0"


@contextlib.contextmanager
def nobody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    yield address


@contextlib.contextmanager
def silence():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@contextlib.contextmanager
def refusal():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address
        server.shutdown()


@pytest.mark.parametrize(
    ("service", "environment", "reason"),
    [
        (nobody, {"WANDB_MODE": "offline"}, "is offline; "),
        (nobody, {"WANDB_API_KEY": KEY}, "cannot be used and goes on offline (http://ADDRESS: [Errno 111] "),
        (
            silence,
            {"WANDB_API_KEY": KEY},
            "cannot be used and goes on offline (http://ADDRESS does not answer within 4 s); ",
        ),
        (refusal, {"WANDB_API_KEY": "abc"}, "cannot be used and goes on offline (WANDB_API_KEY invalid: "),
        (refusal, {"WANDB_MODE": "online"}, "cannot be used and goes on offline (No API key configured"),
    ],
    ids=["offline", "nobody", "silence", "a key that is none", "no key"],
)
def test_without_a_way_to_the_service_one_line_says_so(tmp_path, service, environment, reason):
    with service() as (host, port):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(tmp_path)],
            env={name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
            | {"WANDB_BASE_URL": f"http://{host}:{port}", "HOME": str(tmp_path)}
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        began = time.monotonic()
        line = process.stdout.readline()
        seconds = time.monotonic() - began
        rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, ""), line
    assert line.startswith("Weights & Biases " + reason.replace("ADDRESS", f"{host}:{port}")), line
    assert f"`wandb sync {tmp_path}/wandb/offline-run-*` sends it later" in line
    assert seconds < 20  # ten, on a machine that has nothing else to do
    with pytest.raises(ProcessLookupError):  # its helper has ended, too
        os.killpg(process.pid, 0)
    [kept] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert re.search(b"success_rate", kept.read_bytes())
