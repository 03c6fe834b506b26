"""Two walls around generated code, each tried alone: the check of its syntax tree, and the worker that runs it."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from harmful_code import HARMFUL, WITHOUT_THE_CHECK, Harmful
from reward_code import Evaluation, Rejected, RewardWorkers, Verdict, check_source
from reward_rows import INPUTS, rows

NAMES = [harmful.name for harmful in HARMFUL]
GOOD = (
    "def compute_reward(obs, obj):\n    return np.sqrt(np.linalg.norm(obj)) + math.exp(-sum(obs)) * tolerance(obs[0])\n"
)
FREE = "def compute_reward(obs):\n    import os\n    return float(os.getpid())\n"


class Attack:
    """All the functions let loose on one pool of workers, and what became of them and of what they aimed at."""

    def __init__(self, folder: Path, port: int, **options) -> None:
        self.signals: list[int] = []
        self.sources, self.canaries = {}, {}
        for number, harmful in enumerate(HARMFUL):
            canary = folder / str(number) / "canary"
            canary.parent.mkdir(parents=True)
            canary.write_text("alive")
            self.canaries[harmful.name] = canary
            code = harmful.code.format(canary=str(canary), port=port, parent=os.getpid())
            self.sources[harmful.name] = f"```python\n{WITHOUT_THE_CHECK if 'check' in options else ''}{code}```"
        before = signal.signal(signal.SIGUSR1, lambda number, _: self.signals.append(number))
        os.environ["LARES_CANARY"] = "secret"
        try:
            with RewardWorkers(INPUTS, count=2, time_limit=1.0, memory_limit_mb=300, **options) as workers:
                good = workers.check([GOOD], rows(20))[0].source
                self.before = workers.evaluate([good], rows(50, seed=1), components=True)[0]
                self.gap = workers.missing_containment
                if self.gap and "check" in options:
                    return  # nothing would hold these back
                self.free = workers.check([WITHOUT_THE_CHECK + FREE], rows(20))[0]
                verdicts = workers.check(list(self.sources.values()), rows(20))
                self.verdicts = dict(zip(NAMES, verdicts, strict=True))
                self.after = workers.evaluate([good] * 2, rows(50, seed=1), components=True)
        finally:
            self.environment = os.environ.pop("LARES_CANARY")
            signal.signal(signal.SIGUSR1, before)

    def assert_nothing_happened(self, name: str) -> None:
        """The file is what it was and alone in its folder, and nobody has touched this process."""
        canary = self.canaries[name]
        assert canary.read_text() == "alive"
        assert canary.stat().st_mode & 0o777 == 0o644
        assert [file.name for file in canary.parent.iterdir()] == ["canary"]
        assert self.signals == []
        assert self.environment == "secret"


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def both_walls(tmp_path_factory, listener):
    os.umask(0o022)
    return Attack(tmp_path_factory.mktemp("both"), listener.getsockname()[1])


@pytest.fixture(scope="module")
def second_wall(tmp_path_factory, listener):
    os.umask(0o022)
    attack = Attack(tmp_path_factory.mktemp("second"), listener.getsockname()[1], check=lambda code, inputs: code)
    if attack.gap:
        pytest.skip(f"this machine cannot contain everything: {attack.gap}")
    return attack


def test_there_are_enough_of_them():
    assert len(set(NAMES)) == len(NAMES)
    assert sum(not harmful.kinds for harmful in HARMFUL) >= 60


@pytest.mark.parametrize(
    "harmful", [harmful for harmful in HARMFUL if not harmful.kinds], ids=lambda harmful: harmful.name
)
def test_the_check_alone_rejects_it_with_a_reason(harmful: Harmful):
    with pytest.raises(Rejected) as rejected:
        check_source(harmful.code.format(canary="/nowhere", port=1, parent=1), INPUTS)
    assert 10 < len(rejected.value.reason) < 500
    assert "\n" not in rejected.value.reason


@pytest.mark.parametrize("harmful", [harmful for harmful in HARMFUL if harmful.kinds], ids=lambda harmful: harmful.name)
def test_the_check_leaves_it_to_the_proof(harmful: Harmful):
    check_source(harmful.code.format(canary="/nowhere", port=1, parent=1), INPUTS)


@pytest.mark.parametrize("harmful", HARMFUL, ids=lambda harmful: harmful.name)
def test_both_walls_reject_it_and_nothing_happens(harmful: Harmful, both_walls: Attack):
    verdict: Verdict = both_walls.verdicts[harmful.name]
    assert not verdict.accepted
    assert verdict.reason
    if harmful.kinds:
        assert verdict.kind in harmful.kinds.split(", "), verdict.reason
    both_walls.assert_nothing_happened(harmful.name)


@pytest.mark.slow
def test_nothing_but_the_second_wall_holds_them_back(both_walls: Attack, second_wall: Attack):
    assert not both_walls.free.accepted
    assert second_wall.free.accepted, second_wall.free.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_second_wall_alone_contains_it(name: str, second_wall: Attack):
    second_wall.assert_nothing_happened(name)


# What these would do to the machine, the kernel refuses: so they cannot end well even when nobody reads them first.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("write a file", "read a file", "np.memmap", "remove", "chmod", "subprocess", "fork", "exec"),
        *("signal to the parent", "thread", "lift the limits", "connect", "datagram", "read the environment"),
        *("read the parent's environment", "replace a function of the real NumPy", "replace a builtin", "large array"),
        *("change an input", "make the input writable", "nested loops", "time", "urandom", "end the process", "abort"),
    ],
)
def test_the_second_wall_alone_gives_it_no_reward(name: str, second_wall: Attack):
    assert not second_wall.verdicts[name].accepted


@pytest.mark.slow
def test_nobody_called(both_walls: Attack, second_wall: Attack, listener: socket.socket):
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.slow
@pytest.mark.parametrize("walls", ["both_walls", "second_wall"])
def test_other_functions_are_not_affected(walls: str, request):
    attack: Attack = request.getfixturevalue(walls)
    assert isinstance(attack.before, Evaluation)
    for after in attack.after:
        assert isinstance(after, Evaluation)
        np.testing.assert_array_equal(after.rewards, attack.before.rewards)
