"""Many search rounds against a service that misbehaves: the search ends by itself and leaves nothing behind.

``python tests/test_soak.py 200`` runs 200 rounds with real reward workers and prints what they took. The service runs
in a process of its own, as services do: it remembers whatever it was sent, and that is not the search's memory.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import sys
import threading
import time
from pathlib import Path

from search import protocol, remote

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pytest

from chat_server import Answer, completion, failure, serving
from reward_code import RewardWorkers
from search.builtin import ProgramSearch
from search.feedback import AgentReport
from search.remote import RemoteModel
from search.rounds import RewardSearch
from search_doubles import FakeWorkers, make_task, random_columns

REPORT = AgentReport(0.3, 0.0, 1.0, (0.03, 0.2), {"reach": (0.5, 0.0, 1.0)})
PROGRAM = "```python\ndef compute_reward(obj, target):\n    return {} - abs(obj[0] - target[0]), {{}}\n```"
REJECTED = (
    "I cannot help with that.",
    "```python\nimport os\n\n\ndef compute_reward(obj):\n    return len(os.environ)\n```",
    "```python\ndef compute_reward(obj:\n    return 1.0\n```",
    "```python\ndef compute_reward(obj):\n    return open('/tmp/canary', 'w')\n```",
    "```python\ndef compute_reward(obj):\n    return 0.0 * obj[0] / 0.0\n```",
)


def misbehaving(generator):
    """A behaviour for the server: good completions, and everything else that services do."""
    lock = threading.Lock()

    def texts(count):
        weights = [4, *[1] * len(REJECTED)]
        makers = [lambda: PROGRAM.format(generator.randrange(40)), *(lambda text=text: text for text in REJECTED)]
        return [maker() for maker in generator.choices(makers, weights, k=count)]

    def behaviour(body, number):
        with lock:
            count = body.get("n", 1)
            dropped = completion(*texts(count))
            dropped.drop = True
            return generator.choice(
                [
                    *[completion(*texts(count)) for _ in range(6)],
                    completion(*texts(1)),
                    completion(*texts(count), usage=None),
                    completion(*texts(count), finish="length"),
                    completion(),
                    completion("", ""),
                    failure(429, "slow down", Retry_After="0.01"),
                    failure(503, "overloaded", Retry_After="0.01"),
                    failure(400, "content policy"),
                    Answer("<html>502</html>", content_type="text/html"),
                    Answer("{"),
                    Answer("{}", delay=5.0),
                    Answer(" " * 1000, drip=0.01),
                    dropped,
                ]
            )

    return behaviour


def serve(connection):
    """The service's process: says its address, and ends when nobody wants it any more."""
    with serving(misbehaving(random.Random(0))) as (url, _), contextlib.suppress(EOFError):
        connection.send(url)
        connection.recv()


@contextlib.contextmanager
def serving_elsewhere():
    """The misbehaving service in another process; yields its address."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    service = processes.Process(target=serve, args=(theirs,))
    service.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        service.join(10)
        service.kill()


def figures():
    """The time (s), and of this process memory in use (MB), threads, open files and child processes."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone gives back what is not in use
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "time": round(time.monotonic(), 1),
        "memory_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2),
        "threads": sum(not thread.daemon for thread in threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
        "children": len(children),
    }


def soak(rounds, warm, workers, say=lambda line: None):
    """Run the rounds; returns (search, figures after `warm` of them, figures at the end)."""
    task, lines = make_task(), []
    builtin = ProgramSearch(task, 0)
    with serving_elsewhere() as url:
        os.environ.update(OPENAI_API_KEY="sk-soak", OPENAI_BASE_URL=url)
        probe = random_columns(np.random.default_rng(0), 30)
        search = RewardSearch(
            task,
            RemoteModel("m"),
            workers,
            probe,
            builtin=builtin,
            setting="from_scratch",
            attempts=2,
            deadline=0.6,
            log=lines.append,
        )
        population = builtin_population(search)
        for round in range(1, rounds + 1):
            newcomers = list(search.improve(round, population[0], REPORT, [(population[0], REPORT)], 1))
            population = [*newcomers, *population][:2]
            if round == warm:
                early = figures()
            if round % 20 == 0:
                say(f"round {round}: {figures()}, {search.model.usage.calls} calls, rejected {dict(search.rejected)}")
        late = figures()
    assert not any("sk-soak" in line for line in lines)
    return search, early, late


def builtin_population(search):
    remote, search.model = search.model, protocol.Recorded(search.builtin, lambda row: None)
    population = search.initial(2)
    search.model = remote
    return population


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its figures from /proc")
def test_rounds_against_a_misbehaving_service_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(remote, "RETRIES", 1)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "")
    rounds, warm = 30, 10
    search, early, late = soak(rounds, warm, FakeWorkers())
    assert late["time"] - early["time"] < (rounds - warm) * 0.6 + 10
    assert sum(program.accepted for program in search.functions) > 5
    assert sum(search.rejected.values()) > 5
    assert late["threads"] == early["threads"]
    assert late["children"] == early["children"]
    assert late["files"] == early["files"]
    # What lives grows by 2 kB a round, the programs; this is the least that stands out of how pages are filled.
    assert late["memory_mb"] - early["memory_mb"] < 0.1 * (rounds - warm)


if __name__ == "__main__":
    with RewardWorkers(make_task().inputs, 1) as real_workers:
        _, before, after = soak(int(sys.argv[1]), 20, real_workers, say=lambda line: print(line, flush=True))
    print(f"{before} -> {after}")
