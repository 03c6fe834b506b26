"""Sweeps of runs that a script of the test stands in for."""

from sweeps import local
from sweeps.plan import Sweep, plan


def make_sweep(root, monkeypatch, script, seeds):
    """Return a sweep of a run for each seed, whose entry script is `script`, in a new directory below `root`."""
    (root / "lares_from_scratch.py").write_text(script)
    monkeypatch.setattr(local, "PROJECT", root)
    sweep = Sweep(root / "sweep", plan(None, [], None, {"--seed": list(map(str, seeds)), "--model": ["builtin"]}))
    sweep.directory.mkdir()
    return sweep
