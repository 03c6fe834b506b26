"""What comes back from reward workers: the right rewards in the right rows, and failures that cost no one else."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import reward_code
from errors import RunError
from reward_code import Evaluation, Failure, RewardWorkers
from reward_code import pool as reward_pool
from reward_code.worker import Executable, Failed, Worker
from reward_rows import INPUTS, WIDTHS, rows
from workers import pool as worker_pool
from workers.shared_table import SharedTable

FAST = (
    "def compute_reward(obj, target, action):\n    return -np.linalg.norm(obj - target) - 0.01 * np.sum(action ** 2)\n"
)
SLOW = "def compute_reward(obj, obs):\n    return float(len(f'{10 * obs[0]:.2f}')) + obj[0]\n"  # nothing for Numba
PARTS = (
    "def compute_reward(obj, gripper_opening):\n"
    "    parts = {'x': obj[0], 'solved': obj[1] > 0, 'text': 'a', 'vector': obj}\n"
    "    if obj[2] > 0:\n"
    "        parts['sometimes'] = 1.5\n"
    "    return obj[0] + gripper_opening, parts\n"
)
# Innocent on the probe, whose first object coordinate stays below 0.6.
RARE = "def compute_reward(obj):\n    if obj[0] > 0.9:\n        {}\n    return float(obj[1])\n"


def expected(source: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    """The rewards by plain calls, row by row."""
    namespace: dict = {"np": np}
    exec(source, namespace)
    function = namespace["compute_reward"]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    rewards = []
    for row in range(len(columns["action"])):
        arguments = []
        for name in names:
            place = INPUTS[name]
            value = columns[place.column][row, place.start : place.stop].astype(np.float64)
            arguments.append(value if place.shape else float(value[0]))
        result = function(*arguments)
        rewards.append(result[0] if isinstance(result, tuple) else result)
    return np.array(rewards, np.float32)


def rewards_of(result) -> np.ndarray:
    assert isinstance(result, Evaluation), result
    return result.rewards


@pytest.fixture(scope="module")
def table():
    table = SharedTable.create(20_000, WIDTHS)
    for name, column in rows(20_000, seed=3).items():
        table.columns[name][:] = column
    return table


@pytest.fixture(scope="module")
def workers(table):
    with RewardWorkers(INPUTS, count=2, table=table, time_limit=2.0) as workers:
        verdicts = workers.check([FAST, SLOW, PARTS], rows(60))
        assert [verdict.accepted for verdict in verdicts] == [True] * 3
        assert [verdict.compiled for verdict in verdicts] == [True, False, True]
        assert "Numba cannot compile it" in verdicts[1].note
        yield workers


def test_relabeling_equals_calling_the_function_row_by_row(workers, table):
    """Over several requests, both forms, in the order in which the sources were given."""
    columns = {name: column[5:6005] for name, column in table.columns.items()}
    slow, fast, again = workers.evaluate_rows([SLOW, FAST, SLOW], 5, 6005)
    np.testing.assert_allclose(fast, expected(FAST, columns), rtol=1e-6)
    np.testing.assert_array_equal(slow, expected(SLOW, columns))
    np.testing.assert_array_equal(again, slow)
    assert fast.dtype == slow.dtype == np.float32
    assert len(workers.evaluate_rows([FAST], 20_000, 20_000)[0]) == 0


def test_new_rows_of_the_table_are_seen_at_once(workers, table):
    before = workers.evaluate_rows([FAST], 0, 10)[0]
    saved = table.columns["variables"][:10].copy()
    table.columns["variables"][:10] += 1.0
    table.columns["variables"][:10, 3:6] += 1.0
    after = workers.evaluate_rows([FAST], 0, 10)[0]
    table.columns["variables"][:10] = saved
    assert np.all(before != after)


def test_rewards_do_not_depend_on_how_the_rows_are_handed_over_or_split(workers, table):
    columns = {name: column[:3000] for name, column in table.columns.items()}
    with RewardWorkers(INPUTS, count=1) as alone:
        alone.check([FAST, SLOW], rows(60))
        for source in (FAST, SLOW):
            shared = workers.evaluate_rows([source], 0, 3000)[0]
            np.testing.assert_array_equal(shared, rewards_of(workers.evaluate([source], columns)[0]))
            np.testing.assert_array_equal(shared, rewards_of(alone.evaluate([source], columns)[0]))


def test_components_are_read_row_by_row(workers):
    columns = rows(500, seed=4)
    obj = columns["variables"][:, 3:6]
    result = workers.evaluate([PARTS], columns, components=True)[0]
    np.testing.assert_array_equal(result.rewards, expected(PARTS, columns))
    assert set(result.components) == {"x", "solved", "sometimes"}
    np.testing.assert_array_equal(result.components["x"], obj[:, 0])
    np.testing.assert_array_equal(result.components["solved"], obj[:, 1] > 0)
    np.testing.assert_array_equal(result.components["sometimes"], np.where(obj[:, 2] > 0, 1.5, 0.0))


def test_components_cannot_flood_or_spoil_a_log(workers):
    source = (
        "def compute_reward(obj):\n"
        "    parts = {f'{i}': obj[0] for i in range(1000)}\n"
        "    return obj[0], {'\x1b[31m\\nred': 1.0, 'long' * 1000: 2.0, **parts}\n"
    )
    result = workers.evaluate([source], rows(3), components=True)[0]
    assert len(result.components) == 64
    assert list(result.components)[:2] == ["[31m red", ("long" * 1000)[:60]]


def test_components_with_odd_names(workers):
    source = (
        "def compute_reward(obj):\n"
        "    n, deep = 10, ()\n"
        "    for i in range(14):\n"
        "        n = n * n\n"
        "    for i in range(3000):\n"
        "        deep = (deep,)\n"
        f"    return obj[0], {{'{'x' * 59} y': 1.0, 3: 2.0, True: 3.0, n: 4.0, deep: 5.0, '': 6.0}}\n"
    )
    result = workers.evaluate([source], rows(3), components=True)[0]
    assert list(result.components) == ["x" * 59, "3", "1", "inf"]


def test_a_fresh_worker_has_the_parts_of_numpy_that_load_when_they_are_first_used():
    methods = "all any clip max mean min prod std sum var".split()
    uses = [f"np.max(obs.{name}({'0, 1' if name == 'clip' else ''}))" for name in methods]
    with RewardWorkers(INPUTS) as fresh:
        body = f"text = f'{{obs}} {{obs!r}}'\n    return float(len(text) > 0) + sum([{', '.join(uses)}])"
        good, greedy = fresh.check(
            [f"def compute_reward(obs):\n    {text}\n" for text in (body, "return np.eye(10 ** 6).sum()")], rows(5)
        )
    assert good.accepted, good.reason
    assert greedy.kind == "memory"  # the error that says so is one of these parts


def test_equal_candidates_are_proved_once_and_answered_each(workers):
    verdicts = workers.check([FAST, "no code", f"```python\n{FAST}```"], rows(60))
    assert verdicts[0] == verdicts[2]
    assert not verdicts[1].accepted
    rewards = expected(FAST, rows(60)).astype(float)
    assert verdicts[0].probe_mean == pytest.approx(rewards.mean(), rel=1e-5)
    assert verdicts[0].probe_std == pytest.approx(rewards.std(), rel=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Failures after the proof


def spoiled(row: int) -> dict[str, np.ndarray]:
    columns = rows(700, seed=5)
    columns["variables"][:, 3:6] = 0.5
    columns["variables"][row, 3] = 0.95
    return columns


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("return [][0]", "error"),
        ("return 1.0 / (0.0 * float(obj[0]))", "error"),
        ("return math.log(0.0 * obj[0])", "error"),
        ("return float(obj[3])", "error"),
        ("return np.exp(1000.0 * obj[0])", "not-finite"),
        ("return math.sqrt(-obj[0])", "error"),
        ("return float(-obj[0]) ** 0.5", "type"),
        ("obj[0] = 0.0", "mutation"),
        ("return np.ones(10 ** 6).repeat(10 ** 4).sum()", "memory"),
        (
            "x = 0.0\n        for i in range(1000000):\n            for j in range(1000000):\n"
            "                x = math.sin(x + j)\n        return x",
            "timeout",
        ),
    ],
)
def test_failure_in_a_state_that_the_probe_did_not_hold(workers, code: str, kind: str):
    """It costs that function its rewards and names the state; the others of the same request are served."""
    source = RARE.format(code)
    assert workers.check([source], rows(60))[0].accepted
    failure, good = workers.evaluate([source, FAST], spoiled(432))
    assert isinstance(failure, Failure)
    assert failure.kind == kind, failure.reason
    assert failure.row == 432
    assert failure.state is not None
    assert failure.state["obj"] == pytest.approx([0.95, 0.5, 0.5])
    assert isinstance(failure.state["gripper_opening"], float)
    np.testing.assert_allclose(rewards_of(good), expected(FAST, spoiled(432)), rtol=1e-6)
    harmless = {name: column[:400] for name, column in spoiled(432).items()}
    assert isinstance(workers.evaluate([source], harmless)[0], Evaluation)


def test_machine_code_never_answers_where_python_raises_or_differs(workers):
    """A division by a NumPy zero gives infinity in Python, and an exception in machine code: Python's way counts."""
    source = "def compute_reward(obj):\n    return 1.0 / (1.0 + 1.0 / (obj[0] - 0.5) ** 2)\n"
    assert workers.check([source], rows(60))[0].compiled
    columns = rows(200, seed=6)
    columns["variables"][7, 3] = 0.5
    with np.errstate(all="ignore"):
        by_hand = expected(source, columns)
    assert by_hand[7] == 0.0
    np.testing.assert_allclose(rewards_of(workers.evaluate([source], columns)[0]), by_hand, rtol=1e-6)


def test_row_of_a_failure_in_the_table_counts_as_the_table_does(workers, table):
    source = RARE.format("return [][0]")
    assert workers.check([source], rows(60))[0].accepted
    saved = table.columns["variables"][15_000].copy()
    table.columns["variables"][15_000, 3] = 0.95
    failure = workers.evaluate_rows([source], 100, 19_000)[0]
    table.columns["variables"][15_000] = saved
    assert isinstance(failure, Failure)
    assert failure.row == 15_000
    assert failure.state is not None
    assert failure.state["obj"][0] == pytest.approx(0.95)


def test_source_that_was_never_checked_is_checked_first(workers):
    bad, good = workers.evaluate(
        ["import os\n" + FAST.replace("0.01", "os.getpid()"), "def compute_reward(obj):\n    return 2.0 * obj[0]\n"],
        rows(9),
    )
    assert isinstance(bad, Failure)
    assert bad.kind == "import"
    np.testing.assert_allclose(rewards_of(good), 2 * rows(9)["variables"][:, 3])


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def processes_of(pool: RewardWorkers) -> list[int]:
    return pool._pool.pids


def test_worker_that_was_killed_costs_nothing(workers):
    for pid in processes_of(workers):
        os.kill(pid, signal.SIGKILL)
    np.testing.assert_allclose(rewards_of(workers.evaluate([FAST], rows(50))[0]), expected(FAST, rows(50)), rtol=1e-6)


def test_function_that_ends_its_process_fails_alone():
    """The check of the syntax tree is left out, so that the function can."""
    source = "def compute_reward(obj):\n    import os\n    return 1.0 if obj[0] < 0.9 else os._exit(3)\n"
    prelude = "__builtins__.update(reward_utils.tolerance.__globals__['__builtins__'])\n"
    with RewardWorkers(INPUTS, count=2, check=lambda code, inputs: code) as pool:
        assert pool.check([f"```\n{prelude}{source}```"], rows(20))[0].accepted
        failure, good = pool.evaluate([prelude + source, FAST], spoiled(333))
    assert isinstance(failure, Failure)
    assert failure.kind == "crash"
    assert failure.row == 333
    assert "exit status 3" in failure.reason
    np.testing.assert_allclose(rewards_of(good), expected(FAST, spoiled(333)), rtol=1e-6)


def test_forged_answer_is_a_crash_and_not_ours():
    forged = [
        "b'nonsense' * 100",
        "struct.pack('!QQ', 2, 0) + b'{}'",
        "struct.pack('!QQ', 100000, 0) + b'[' * 100000",
        '(lambda text: struct.pack(\'!QQ\', len(text), 0) + text)(b\'[{"mean": 0, "std": "x"}, []]\')',
        "(lambda text: struct.pack('!QQ', len(text), 0) + text)(b'[[], [[\"a\", \"O\", [3]]]]')",
    ]
    codes = [
        "__builtins__.update(reward_utils.tolerance.__globals__['__builtins__'])\n"
        f"def compute_reward(obj):\n    import os, struct, sys\n"
        f"    os.write(int(sys.argv[1]), {message})\n    return 1.0\n"
        for message in forged
    ]
    with RewardWorkers(INPUTS, count=2, time_limit=1.0, check=lambda code, inputs: code) as pool:
        *verdicts, good = pool.check([*(f"```\n{code}```" for code in codes), FAST], rows(20))
    assert [verdict.kind for verdict in verdicts] == ["crash"] * len(forged)
    assert good.accepted


def test_workers_know_no_secret_and_import_no_learner(monkeypatch, workers):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with RewardWorkers(INPUTS) as pool:
        pool.check([FAST], rows(10))
        environment = Path(f"/proc/{processes_of(pool)[0]}/environ").read_text()
        maps = Path(f"/proc/{processes_of(pool)[0]}/maps").read_text()
    assert "secret" not in environment
    assert set(re.findall(r"(\w+)=", environment)) <= {
        *("PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        *("MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_OPT"),
    }
    assert "libtorch" not in maps
    assert "mujoco" not in maps


def test_parent_needs_no_numba_and_no_simulator():
    slow = ("numba", "torch", "mujoco", "openai")
    code = f"from reward_code import RewardWorkers; import sys; print([m for m in {slow} if m in sys.modules])"
    folder = Path(reward_code.__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder) == "[]\n"


def test_worker_makes_room_for_a_fresh_one_in_time(monkeypatch):
    """Machine code is never freed; so a worker leaves after some sources, and nobody notices."""
    monkeypatch.setattr(reward_pool, "_SOURCES_OF_A_WORKER", 3)
    codes = [SLOW.replace("10 *", f"{number} *") for number in range(9)]
    with RewardWorkers(INPUTS, count=2) as pool:
        first = set(processes_of(pool))
        verdicts = pool.check(codes, rows(60))
        assert [verdict.reason for verdict in verdicts if not verdict.accepted] == []
        assert not first & set(processes_of(pool))
        assert len(processes_of(pool)) == 2
        columns = rows(50)
        np.testing.assert_allclose(rewards_of(pool.evaluate([FAST], columns)[0]), expected(FAST, columns), rtol=1e-6)


def test_interrupt_leaves_a_pool_that_works(workers, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker_pool, "wait_any", interrupt)
        with pytest.raises(KeyboardInterrupt):
            workers.evaluate([SLOW], rows(100))
    columns = rows(50, seed=8)
    np.testing.assert_array_equal(rewards_of(workers.evaluate([SLOW], columns)[0]), expected(SLOW, columns))


def test_worker_that_does_not_start_ends_the_run_with_one_line(monkeypatch):
    monkeypatch.setattr(reward_pool, "_environment", lambda: {"PYTHONHOME": "/nowhere"})
    with RewardWorkers(INPUTS) as pool, pytest.raises(RunError, match="a reward worker does not start: it ended"):
        pool.check([FAST], rows(5))


def test_hanging_function_is_ended_in_time(workers):
    hang = "def compute_reward(obj):\n    xs = [1.0]\n    for x in xs:\n        xs[0] = x\n        xs = xs + []\n"
    endless = "    for i in range(999999):\n        for j in range(999999):\n            pass\n    return 1.0\n"
    started = time.monotonic()
    verdict, good = workers.check([hang + endless, FAST], rows(10))
    assert verdict.kind == "timeout"
    assert good.accepted
    assert time.monotonic() - started < 30


def test_time_is_that_of_the_quicker_of_two_passes(monkeypatch):
    """What the first calls of a function cost once says nothing of the million that follow."""
    places = {name: [x.column, x.start, x.stop, x.shape] for name, x in INPUTS.items()}
    clock = iter([0.0, 1.0, 1.002])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    function = Executable(FAST, places, np.zeros(1, np.int64))
    answer, _ = Worker()._prove(function, rows(2))
    assert answer["mean"] == pytest.approx(expected(FAST, rows(2)).mean())
    clock = iter([0.0, 1.0, 1.005])
    with pytest.raises(Failed, match=r"a call takes 2\.5 ms; 2 ms are allowed"):
        Worker()._prove(function, rows(2))
