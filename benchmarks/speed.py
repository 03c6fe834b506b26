"""How fast LaRes is, in ratios: each figure is measured alternately with its yardstick, in one run on one machine.

    python benchmarks/speed.py                       the table: what, yardstick, ratio, target, met or not
    python benchmarks/speed.py --only floor drawing  only these rows
    python benchmarks/speed.py scaling               the cost of an update against population, network and buffer size

`bash run.sh bench` installs what is needed and does the first. Other work on the machine slows down both sides of a
ratio; absolute times say little then. Everything goes into one JSON file as well, with all the samples.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# Sets how the threads of a run wait, which torch reads when it is loaded, so this comes first.
import runs.exit_status  # noqa: F401

# isort: split
import numpy as np
import torch

from benchmarks import speed_rows
from runs.log import processor
from workers.machine import cores

OUT = ROOT / "logs" / "speed" / "speed.json"
SECONDS = 15.0  # that a row's samples take together, unless they are too few
FEWEST, MOST = 3, 40  # pairs of samples
SCALING_SECONDS = 150.0
TOO_LONG = 900.0  # for one process


@dataclass(frozen=True)
class Row:
    """One line of the table; `speed_rows` has the function of its name.

    `most` is the target for a cost, figure / yardstick; `least` is that for a gain, yardstick / figure. A figure
    without a yardstick is compared with the target directly.
    """

    name: str
    what: str
    yardstick: str = ""
    most: float | None = None
    least: float | None = None
    unit: str = "s"
    gpu: bool = False

    @property
    def target(self) -> str:
        return f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"

    def ratio(self, figure: float, yardstick: float) -> float:
        if not self.yardstick:
            return figure
        return figure / yardstick if self.most is not None else yardstick / figure

    def met(self, ratio: float) -> bool:
        return ratio <= self.most if self.most is not None else ratio >= (self.least or 0.0)


MOST_CORES = 0.8 * cores()
TABLE = [
    Row(
        "floor",
        "population update, K = 5, width 256, batch 128",
        "its matrix products alone, by the faster library",
        most=1.5,
    ),
    Row("default", "population update, all flags at their defaults", "a textbook SAC's", most=1.1),
    Row("plain", "population update", "five plain PyTorch agents, a thread each on every core", least=2),
    Row("sb3", "population update", "Stable-Baselines3 SAC, five times, one thread", least=3),
    Row("busy", "population update beside a process that keeps a core busy", "without it", most=2.2),
    Row("two_runs", "updates of two runs at once", "of one run alone, twice", most=1.15),
    Row("drawing", "drawing a batch for every agent", "the update; both in one process", most=0.04),
    Row("relabel", "relabeling a row, compiled", "the interpreted loop", least=25),
    Row("relabel_cold", "relabeling 1,000,000 rows, compilation included", most=3),
    Row("relabel_interpreted", "relabeling a row, not compiled", "the loop in one process", least=MOST_CORES),
    Row(
        "scoring",
        "scoring the candidates of a round on 200 episodes",
        "checking four, relabeling a million rows twice",
        most=1,
    ),
    Row("fitting", "fitting the numbers of three functions", "checking four, relabeling a million rows twice", most=5),
    Row("new_rewards", "six rewards of a new transition", "the environment's step", most=0.05),
    Row("collection", "collecting, an env step", "one worker", least=MOST_CORES),
    Row("evaluation", "evaluating, an env step", "one worker", least=MOST_CORES),
    Row("buffer_row", "buffer, a row of the widest task", most=800, unit="B"),
    Row("whole_loop", "whole loop, an env step", "its updates alone", most=1.1),
    Row("start_up", "start of a run to its first env step", most=6),
    Row("gpu_capture", "population update on a GPU", "without graph capture", least=3, gpu=True),
    Row("gpu_updates", "updates a second on a GPU", least=2_500, unit="/s", gpu=True),
    # 1,500 per second are 1,000,000 in 11 minutes.
    Row("gpu_loop", "env steps a second on a GPU, whole loop", least=1_500, unit="/s", gpu=True),
    Row("gpu_population", "population update on a GPU, K = 20", "K = 5", most=1.6, gpu=True),
]
ROWS = {row.name: row for row in TABLE}

Result = dict[str, Any]


def measure(row: Row) -> Result:
    """Figure, yardstick and their ratio, sample by sample."""
    figure, yardstick = getattr(speed_rows, row.name)()
    pairs = in_turns([figure, yardstick or (lambda: 1.0)], SECONDS)
    figures, yardsticks = zip(*pairs, strict=True)
    ratio = spread([row.ratio(*pair) for pair in pairs])
    return {
        **asdict(row),
        "figure": spread(figures),
        "yardstick_figure": spread(yardsticks) if yardstick else None,
        "ratio": ratio,
        "target": row.target,
        "met": row.met(ratio["median"]),
    }


def measure_scaling() -> Result:
    """Seconds of an update at every point of every axis."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    axes = speed_rows.scaling_samples(device)
    points = [(axis, str(value)) for axis, samples in axes.items() for value in samples]
    rounds = in_turns([sample for samples in axes.values() for sample in samples.values()], SCALING_SECONDS)
    result: dict[str, dict[str, Result]] = {axis: {} for axis in axes}
    for (axis, value), seconds in zip(points, zip(*rounds, strict=True), strict=True):
        result[axis][value] = spread(seconds)
    return {"device": device.type, "axes": result}


def in_turns(samples: Sequence[Callable[[], float]], seconds: float) -> list[tuple[float, ...]]:
    """Take one sample of each, again and again, so that a disturbance hits all; the first round is a warm-up."""
    end = time.monotonic() + seconds
    rounds: list[tuple[float, ...]] = []
    while len(rounds) <= FEWEST or (len(rounds) <= MOST and time.monotonic() < end):
        rounds.append(tuple(sample() for sample in samples))
    return rounds[1:]


def spread(samples: Sequence[float]) -> Result:
    low, median, high = np.percentile(samples, [25, 50, 75]).tolist()
    return {"median": median, "quartiles": [low, high], "samples": list(samples)}


def in_a_process_of_its_own(name: str) -> Result:
    """What `speed.py --worker NAME` measures: no row inherits another's threads, memory or caches."""
    elsewhere = busy_elsewhere()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        command = [sys.executable, __file__, "--worker", name, "--out", str(out)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TOO_LONG, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {TOO_LONG:g} s"}
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
        return {**json.loads(out.read_text(encoding="utf-8")), "cores_busy_before": elsewhere}


def busy_elsewhere() -> float | None:
    """How many cores other processes use, measured while this one sleeps; None if the system does not tell."""
    try:
        total, idle = _jiffies()
        time.sleep(0.5)
        total_after, idle_after = _jiffies()
    except (OSError, ValueError):
        return None
    return round((os.cpu_count() or 1) * (1 - (idle_after - idle) / max(total_after - total, 1)), 2)


def _jiffies() -> tuple[int, int]:
    """Time of all cores since the machine started: the total, and how much of it they were idle."""
    times = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
    return sum(times), times[3] + times[4]


def line(row: Row, result: Result) -> str:
    """The row as the table shows it."""
    start = f"{row.what:57} {row.yardstick:51}"
    if "error" in result:
        return f"{start} {result['error']}"
    ratio = result["ratio"]
    low, high = ratio["quartiles"]
    figures = [quantity(side["median"], row.unit) for side in (result["figure"], result["yardstick_figure"]) if side]
    spans = f"{ratio['median']:.3g} ({low:.3g} to {high:.3g})"
    busy = "?" if result["cores_busy_before"] is None else f"{result['cores_busy_before']:.1f}"
    met = "met" if result["met"] else "missed"
    return f"{start} {' : '.join(figures):>20} {spans:>24} {row.target:>14} {met:>7} {busy:>6}"


def quantity(value: float, unit: str) -> str:
    """A readable number: seconds as ms, us or ns where they are small."""
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")):
            if value * factor >= 1:
                return f"{value * factor:.3g} {name}"
    return f"{value:,.0f} {unit}"


def host() -> Result:
    """What the figures depend on besides the code."""
    gpu = torch.cuda.is_available()
    return {
        "cpu": processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("OMP_", "MKL_"))},
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "driver": _driver() if gpu else None,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def keep(out: Path, **parts: Result) -> None:
    """Put the parts into the file. Other rows in it are kept if they are from the same host."""
    document: Result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if document.get("host") != host():
        document = {"host": host(), "rows": {}}
    for name, part in parts.items():
        document[name] = {**document.get(name, {}), **part}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1), encoding="utf-8")


def table(names: Sequence[str], out: Path) -> int:
    """Measure and print rows; returns how many failed."""
    print(f"{'what':57} {'yardstick':51} {'':>20} {'ratio (quartiles)':>24} {'target':>14} {'':7} {'others':>6}")
    failed = 0
    for name in names:
        row = ROWS[name]
        if row.gpu and not torch.cuda.is_available():
            result: Result = {"error": "not measured: no GPU"}
        else:
            result = in_a_process_of_its_own(name)
            failed += "error" in result
        print(line(row, result), flush=True)
        keep(out, rows={name: result})
    print(f"others: cores that other processes kept busy just before; all samples: {out}")
    return failed


def scaling(out: Path) -> int:
    """Measure how the cost of an update grows, and draw it next to the file; returns whether that failed."""
    result = in_a_process_of_its_own("scaling")
    if "error" in result:
        print(result["error"], file=sys.stderr)
        return 1
    keep(out, scaling=result)
    draw(result, out.with_name("scaling.png"))
    print(f"all samples: {out}; picture: {out.with_name('scaling.png')}")
    return 0


def draw(result: Result, picture: Path) -> None:
    """Draw a panel per axis: milliseconds per update of all agents, median and quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    labels = {
        "population": "agents in the population",
        "hidden size": "units in each of three hidden layers",
        "buffer rows": "transitions in the replay buffer",
    }
    figure, panels = pyplot.subplots(1, len(labels), figsize=(12, 3.8), sharey=True)
    for panel, (axis, label) in zip(panels, labels.items(), strict=True):
        points = {int(value): side for value, side in result["axes"][axis].items()}
        values, medians = list(points), np.array([1e3 * side["median"] for side in points.values()])
        low, high = np.array([[1e3 * quartile for quartile in side["quartiles"]] for side in points.values()]).T
        panel.errorbar(values, medians, (medians - low, high - medians), marker="o", capsize=3, label="measured")
        if axis == "population":
            panel.plot(values, medians[0] * np.array(values), "--", color="gray", label="as many times one agent")
            panel.legend(frameon=False)
        panel.set(xscale="log", yscale="log", xlabel=label)
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time of an update of all agents (ms)")
    where = host()["gpu"] if result["device"] == "cuda" else f"{host()['cpu']}, {host()['cores']} cores"
    figure.suptitle(f"5 agents, 256 units, 100,000 transitions, batch 128, unless varied ({where})", fontsize=11)
    figure.tight_layout()
    figure.savefig(picture, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("table", "scaling"), default="table", help="(default: table)")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help="rows to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, then end")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "logs" / "speed" / "speed.json", help="(default: %(default)s)"
    )
    parser.add_argument("--worker", choices=[*ROWS, "scaling"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        for row in TABLE:
            print(f"{row.name:20} {row.what}{row.yardstick and ' : '}{row.yardstick}")
        return 0
    if args.worker:
        result = measure_scaling() if args.worker == "scaling" else measure(ROWS[args.worker])
        args.out.write_text(json.dumps(result), encoding="utf-8")
        return 0
    if args.command == "scaling":
        return scaling(args.out)
    return 1 if table(args.only or list(ROWS), args.out) else 0


if __name__ == "__main__":
    sys.exit(main())
