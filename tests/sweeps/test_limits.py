"""One rate and one budget for all runs: against a naive count, and asked for by processes."""

import json
import random
from pathlib import Path

import pytest

from runs.interruption import Interruption
from sweep_doubles import make_sweep
from sweeps import limits
from sweeps.limits import Bounds, Limits, Spent
from sweeps.local import Crew


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def has_room(sent, moment, tokens, bounds):
    """Whether a request at that moment keeps the bounds in the minute before it: the definition, written out."""
    recent = [other for when, other in sent if moment - 60 < when <= moment]
    within = len(recent) < bounds.requests_per_minute and sum(recent) + tokens <= bounds.tokens_per_minute
    return within or not recent


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_holds_more_than_the_rate_and_nothing_waits_longer_than_it_must(tmp_path, seed):
    draw, clock = random.Random(seed), Clock()
    bounds = Bounds(requests_per_minute=4, tokens_per_minute=1000)
    shared, sent = Limits(bounds, tmp_path, clock), []
    for _ in range(60):
        clock.now += draw.choice([0, 0, 1, 10, 50])
        tokens = draw.choice([10, 200, 500, 1200])
        number, seconds = shared.ask(tokens)
        moment = clock.now + seconds
        assert has_room(sent, moment, tokens, bounds)
        earliest = max([clock.now, *(when for when, _ in sent)])
        candidates = [earliest, *(when + 60 for when, _ in sent if when + 60 >= earliest)]
        assert moment == pytest.approx(min(when for when in candidates if has_room(sent, when, tokens, bounds)))
        used = max(tokens + draw.choice([-5, 0]), 0)
        shared.used(number, used)
        sent.append((moment, used))
    assert sent[-1][0] > 1000 + 60 * sum(tokens for _, tokens in sent) / 2000


def test_without_a_rate_nothing_waits(tmp_path):
    shared = Limits(Bounds(calls=100), tmp_path, Clock())
    assert [shared.ask(10_000)[1] for _ in range(50)] == [0.0] * 50


def test_the_budget_counts_what_is_under_way_and_outlives_the_sweep(tmp_path):
    shared = Limits(Bounds(calls=4, tokens=1000), tmp_path, Clock())
    first, _ = shared.ask(600)
    shared.ask(500)
    with pytest.raises(Spent, match="all 1000 tokens of the sweep are used up or under way"):
        shared.ask(10)
    shared.used(first, 100)
    shared.ask(10)
    again = Limits(Bounds(calls=4, tokens=1000), tmp_path, Clock())
    again.used(again.ask(10)[0], 10)
    with pytest.raises(Spent, match="all 4 requests of the sweep are used up"):
        again.ask(10)
    assert json.loads((tmp_path / limits.FILE).read_text()) == {"calls": 4, "tokens": 110}


SCRIPT = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, ROOT)
from search.protocol import BudgetSpent
from search.turns import VARIABLE, inherited_turns
flags = dict(word.split("=", 1) for word in sys.argv[1:])
directory = Path(flags["--log-dir"]) / flags["--exp_name"]
directory.mkdir()
turns, granted = inherited_turns(), []
assert VARIABLE not in os.environ
try:
    for _ in range(3):
        number, seconds = turns.ask(100)
        granted.append(time.monotonic() + seconds)
        turns.used(number, 90)
except BudgetSpent as error:
    (directory / "spent").write_text(str(error))
(directory / "granted").write_text(json.dumps(granted))
"""


def test_the_runs_of_a_crew_share_rate_and_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MINUTE", 6.0)
    root = str(Path(__file__).parents[2])
    sweep = make_sweep(tmp_path, monkeypatch, SCRIPT.replace("ROOT", repr(root)), [1, 2, 3])
    shared = Limits(Bounds(requests_per_minute=2, calls=7), sweep.directory)
    records = Crew(sweep.directory, 2, 1, 1, shared.answer).see_through(sweep.runs, Interruption())
    assert [record.status for record in records] == ["done"] * 3
    granted = [json.loads((sweep.directory_of(run) / "granted").read_text()) for run in sweep.runs]
    moments = sorted(moment for one in granted for moment in one)
    assert len(moments) == 7
    assert all(later - earlier > 5.5 for earlier, later in zip(moments, moments[2:], strict=False))
    assert (sweep.directory_of(sweep.runs[2]) / "spent").read_text() == "all 7 requests of the sweep are used up"
    assert json.loads((sweep.directory / limits.FILE).read_text()) == {"calls": 7, "tokens": 630}
