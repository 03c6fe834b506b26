"""Whatever happens to a worker of any kind at any moment, work goes on, and in the end nothing is left behind."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from arguments import Arguments
from errors import RunError
from population import Population
from replay_buffer import ReplayBuffer
from reward_code.evaluator import Evaluation, RewardWorkers
from reward_rows import INPUTS, rows
from task_specs import get_task
from tasks.episode import UNIFORM, Order
from workers import pool as pool_module
from workers.collectors import Collectors, PolicyShape
from workers.pool import Job, Lost, WorkerPool
from workers.process import WorkerProcess

WORKERS = 2
KILL, STOP, HANG = "kill", "stop", "hang"


class Collecting:
    """Collectors lose nothing: an episode is collected again."""

    def __init__(self):
        self._collectors = Collectors(get_task("window-close"), PolicyShape((39, 8, 8)), 1, WORKERS)
        self._orders = [Order(UNIFORM, seed, 10, seed) for seed in range(4)]
        self.pool, self.close = self._collectors._workers, self._collectors.close

    def work(self):
        return [episode.transitions["obs"] for episode in self._collectors.run(self._orders)]

    def check(self, found, expected, moment, way):
        np.testing.assert_array_equal(found, expected)


class Learning:
    """A learner's death costs its agent what it has learned, if it was at work; the other agents learn on."""

    def __init__(self):
        buffer = ReplayBuffer(50, 4, 2, 1, 3, torch.device("cpu"))
        noise = np.random.default_rng(0).standard_normal((50, 11), np.float32)
        names = {"obs": slice(0, 4), "next_obs": slice(4, 8), "action": slice(8, 10), "variables": slice(10, 11)}
        scalars = dict.fromkeys(("env_reward", "terminal"), np.zeros(50, np.float32))
        buffer.add({name: noise[:, columns] for name, columns in names.items()} | scalars, 0, False)
        config = Arguments("from_scratch", hidden_size=64).sac_config(4, 2)
        self._population = Population(config, buffer, 1, 2, WORKERS)
        self._start = self._population.state_dict()
        self.pool, self.close = self._population._learners._workers, self._population.close

    def work(self):
        self._population.load_state_dict(self._start)
        lost = self._population.learn(128, 24)
        return lost, [self._population.agent_state(agent) for agent in range(3)]

    def check(self, found, expected, moment, way):
        (lost, states), (_, expected_states) = found, expected
        if moment == "sending":
            [how] = lost.values()
            assert how.startswith({KILL: "was killed by SIGKILL", STOP: "was stopped"}[way])
        else:
            assert len(lost) <= (moment == "busy")
        for agent in {0, 1, 2} - lost.keys():
            torch.testing.assert_close(states[agent], expected_states[agent], rtol=0, atol=0)


class Rewarding:
    """A reward worker's death costs the function that it was busy with its place, unless it had not begun."""

    SOURCE = "def compute_reward(obj):\n    return sum([obj[0] * float(f'{n}') for n in range(20)])\n"

    def __init__(self):
        self._workers = RewardWorkers(INPUTS, WORKERS)
        self._rows = rows(2000)
        self.pool, self.close = self._workers._pool._workers, self._workers.close

    def work(self):
        [result] = self._workers.evaluate([self.SOURCE], self._rows)
        return result

    def check(self, found, expected, moment, way):
        if isinstance(found, Evaluation):
            np.testing.assert_array_equal(found.rewards, expected.rewards)
            np.testing.assert_allclose(found.rewards, 190 * self._rows["variables"][:, 3], rtol=1e-5)
        else:
            assert (moment, found.kind) == ("busy", {KILL: "crash", HANG: "timeout"}[way])


class Strike:
    """Something happens to a worker.

    A worker that hangs is one that is stopped on a system that does not say so, and whose time is short.
    """

    def __init__(self, pool, victim, moment, way, patch):
        self._pool, self._victim, self._way = pool, victim, way
        self._wait, self._send = pool._wait, victim.send
        self._deadline = float("inf")
        patch.setattr(pool_module, "_STOPPED_SECONDS", 0.2)
        if way == HANG:
            patch.setattr(WorkerProcess, "stopped", False)
            patch.setattr(pool, "_wait", self._wait_impatiently)
        if moment in ("sending", "busy"):
            patch.setattr(victim, "send", getattr(self, f"_strike_when_{moment}"))
        else:
            self._strike()
            # A signal takes a while to arrive, in which the worker may be given a job.
            os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)

    def _strike(self):
        os.kill(self._victim.pid, signal.SIGKILL if self._way == KILL else signal.SIGSTOP)
        self._deadline = time.monotonic() + 0.2

    def _strike_when_sending(self, *message):
        self._strike()
        self._send(*message)

    def _strike_when_busy(self, *message):
        self._send(*message)
        time.sleep(0.02)
        self._strike()

    def _wait_impatiently(self):
        if self._victim in self._pool._tasks:
            self._pool._tasks[self._victim].deadline = self._deadline
        self._wait()


@pytest.fixture(scope="module", params=[Collecting, Learning, Rewarding])
def kind(request):
    """Started workers of one kind, and what they find when nothing happens to them."""
    kind = request.param()
    kind.expected = kind.work()
    yield kind
    pids = [worker.pid for worker in kind.pool]
    kind.close()
    assert not any(is_there(pid) for pid in pids)


def is_there(pid):
    """Whether there is such a process, ended and not waited for included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def worker_at(pool, moment):
    """A worker to which `moment` applies."""
    if moment == "starting":
        starting = [worker for worker in pool if worker in pool._tasks]
        if not starting:
            pool.replace(pool[0])
        return starting[0] if starting else pool[0]
    return next(worker for worker in pool if worker not in pool._tasks)


@pytest.mark.parametrize(
    ("moment", "way"),
    [(moment, way) for moment in ("idle", "starting", "sending", "busy") for way in (KILL, STOP)] + [("busy", HANG)],
)
def test_work_goes_on_whatever_happens_to_a_worker(kind, monkeypatch, moment, way):
    victim = worker_at(kind.pool, moment)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        Strike(kind.pool, victim, moment, way, patch)
        kind.check(kind.work(), kind.expected, moment, way)
    while victim in kind.pool and time.monotonic() - began < 60:  # it may not have been needed yet
        kind.check(kind.work(), kind.expected, "never", None)
    kind.check(kind.work(), kind.expected, "never", None)
    assert victim not in kind.pool
    assert len(list(kind.pool)) == WORKERS
    assert not is_there(victim.pid)


@pytest.mark.parametrize("way", [KILL, STOP])
@pytest.mark.parametrize("new_kind", [Collecting, Learning, Rewarding])
def test_the_end_is_bounded_and_leaves_nothing_behind(new_kind, way, monkeypatch):
    kind = new_kind()
    pids = [worker.pid for worker in kind.pool]
    Strike(kind.pool, kind.pool[0], "ending", way, monkeypatch)
    began = time.monotonic()
    kind.close()
    assert time.monotonic() - began < 5
    assert not any(is_there(pid) for pid in pids)
    kind.close()


# ---------------------------------------------------------------------------------------------------------------------
# The pool alone, with workers that do nothing but sleep


@pytest.fixture
def sleepers():
    """A function that makes a pool of sleeping workers, which is closed in the end."""
    pools = []

    def make(count, module="tests.workers.sleeper"):
        pools.append(WorkerPool("sleeper", count, lambda: WorkerProcess(module, {})))
        return pools[-1]

    yield make
    for pool in pools:
        began, pids = time.monotonic(), [worker.pid for worker in pool]
        pool.close()
        assert time.monotonic() - began < 5
        assert not any(is_there(pid) for pid in pids)


def outcomes(pool, *jobs):
    """What becomes of jobs that are given once each."""
    waiting, found = list(jobs), {}
    pool.run(lambda _: waiting.pop(0) if waiting else None, lambda _, job, outcome: found.update({job: outcome}))
    return [found[job] for job in jobs]


def test_a_worker_that_does_not_read_holds_nobody_up(sleepers, monkeypatch):
    """Of what it is sent the socket takes only the beginning."""
    pool = sleepers(2)
    large = {"x": np.zeros(4_000_000)}
    began = time.monotonic()
    late, *others = outcomes(pool, Job({"sleep": 60}, 3.0, large), *(Job({"n": n}, 30.0, large) for n in range(5)))
    assert (late.kind, late.how) == ("late", "did not answer within 3 s")
    assert [answer.header["n"] for answer in others] == list(range(5))
    assert all(answer.arrays["x"].nbytes == 32_000_000 for answer in others)
    monkeypatch.setattr(WorkerProcess, "stopped", False)
    os.kill(worker_at(pool, "idle").pid, signal.SIGSTOP)
    found = outcomes(pool, *(Job({"n": n}, 3.0, large) for n in range(4)))
    assert sum(isinstance(outcome, Lost) for outcome in found) == 1
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 6, "signal 40")]
)
def test_a_lost_job_says_how(sleepers, number, name):
    pool = sleepers(1)
    outcomes(pool, Job({}, 30.0))
    send = pool[0].send
    pool[0].send = lambda *message: (send(*message), os.kill(pool[0].pid, number))
    [lost] = outcomes(pool, Job({"sleep": 60}, 30.0))
    assert (lost.kind, lost.how) == ("died", f"was killed by {name}")


def test_workers_that_do_not_start_end_the_run_with_one_line(sleepers):
    with pytest.raises(RunError, match=r"^a sleeper does not start: it ended with exit status 1, 3 times in a row.*$"):
        outcomes(sleepers(2, "tests.workers.no_such_module"), Job({}, 30.0))


def test_a_system_that_gives_no_process_ends_the_run_with_one_line():
    def start():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(RunError, match="a learner cannot be started: Resource temporarily unavailable"):
        WorkerPool("learner", 2, start)


def test_an_answer_that_nobody_waits_for_is_never_taken_for_that_to_another_job(sleepers):
    pool = sleepers(1)
    outcomes(pool, Job({}, 30.0))
    pool[0].send({"unasked": True})
    time.sleep(0.3)
    [answer] = outcomes(pool, Job({"asked": True}, 30.0))
    assert answer.header == {"asked": True}
    with pytest.raises(KeyboardInterrupt):
        pool.run(lambda _: Job({"left": True}, 30.0), interrupt)
    [answer] = outcomes(pool, Job({"asked": True}, 30.0))
    assert answer.header == {"asked": True}


def interrupt(*_):
    raise KeyboardInterrupt


def test_when_the_run_itself_was_stopped_its_workers_are_not_blamed(sleepers, monkeypatch):
    pool = sleepers(1)
    outcomes(pool, Job({}, 30.0))
    wait_any, naps = pool_module.wait_any, [2.5]

    def wait_and_nap(workers, timeout):
        if not naps:
            return wait_any(workers, timeout)
        for number, pause in ((signal.SIGSTOP, naps.pop()), (signal.SIGCONT, 0.0)):
            os.kill(pool[0].pid, number)
            time.sleep(pause)

    monkeypatch.setattr(pool_module, "wait_any", wait_and_nap)
    [answer] = outcomes(pool, Job({"sleep": 0.5}, 2.0))
    assert answer.header == {"sleep": 0.5}
