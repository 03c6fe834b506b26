"""plot.py: what is drawn and tabulated is what the files say."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import plot
from errors import UsageError
from figures import statistics
from figures.curves import ALL_TASKS, Curve, compare, curve_of, read_published
from figures.drawing import draw
from figures.files import compare_runs
from figures.tables import cell, improvements, markdown, results
from runs.reading import read_run

ROOT = Path(__file__).parents[2]


def evaluations(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def copied(run, to, shift=0.0, **flags):
    """A run with other flags, whose success differs by `shift`."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("tensorboard", "checkpoint", "*.pth"))
    config = json.loads((to / "config.json").read_text())
    config["flags"] |= flags
    (to / "config.json").write_text(json.dumps(config))
    rows = evaluations(run)
    for row in rows:
        row["best"]["success_rate"] += shift
    (to / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return to


def random_curve(task, label, seed, **more):
    generator = np.random.default_rng(seed)
    values = generator.random(6)
    return Curve(task, label, np.arange(1, 7) * 100.0 + generator.integers(0, 9), values, final=values[-1], **more)


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


def test_the_line_of_one_run_is_its_metrics_and_search_rounds_are_marked(finished_run):
    run = read_run(finished_run)
    [axis] = draw(compare([curve_of(run, "success_rate")]), "success_rate").axes
    drawn = lines(axis)
    expected = [[row["env_steps"], row["best"]["success_rate"]] for row in evaluations(finished_run)]
    assert drawn["from scratch, builtin"].get_xydata().tolist() == expected
    assert list(drawn["search rounds"].get_xdata()) == run.rounds()
    assert axis.get_title() == "drawer-close"


def test_seeds_become_an_interquartile_mean_with_its_band():
    curves = [random_curve("reach", "ours", seed) for seed in range(8)]
    [axis] = draw(compare(curves), "success_rate").axes
    marks = lines(axis)["ours"].get_xdata()
    assert marks[0] == max(curve.env_steps[0] for curve in curves)
    assert marks[-1] == min(curve.env_steps[-1] for curve in curves)
    sample = np.stack([np.interp(marks, curve.env_steps, curve.values) for curve in curves], -1)
    np.testing.assert_allclose(lines(axis)["ours"].get_ydata(), statistics.interquartile_mean([sample]))
    low, high = statistics.interval(statistics.interquartile_mean, [sample])
    outline = {tuple(point) for path in axis.collections[0].get_paths() for point in path.vertices.tolist()}
    assert {*zip(marks, low, strict=True), *zip(marks, high, strict=True)} <= outline


def test_a_run_that_was_solved_counts_on_and_one_that_was_killed_ends_the_line():
    early = Curve("reach", "ours", np.array([100.0, 200.0]), np.array([0.0, 1.0]), solved=True)
    late = Curve("reach", "ours", np.array([100.0, 400.0]), np.array([0.0, 0.5]))
    steps, mean, _ = compare([early, late]).groups[0].line()
    assert steps.tolist() == [100, 200, 400]
    assert mean[-1] == 0.75
    killed = Curve("reach", "ours", np.array([100.0, 200.0]), np.array([0.0, 1.0]))
    assert compare([killed, late]).groups[0].line()[0].tolist() == [100, 200]


def test_a_run_that_was_solved_at_once_can_be_seen():
    figure = draw(
        compare([Curve("reach", "ours", np.array([500.0]), np.array([0.5]), final=1.0, solved=True)]), "q_value"
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axis] = figure.axes
    x, y = axis.transData.transform((500.0, 0.5)).astype(int)
    pixels = np.asarray(canvas.buffer_rgba())
    assert matplotlib.colors.to_hex(pixels[len(pixels) - 1 - y, x, :3] / 255) == axis.get_lines()[0].get_color()


def test_groups_can_be_told_apart_in_grey():
    curves = [random_curve("reach", label, 0) for label in "abcdef"]
    [axis] = draw(compare(curves), "success_rate").axes
    assert len({(line.get_linestyle(), line.get_marker()) for line in axis.get_lines()}) == 6


def test_tables_hold_results_improvement_and_steps():
    ours = [Curve("reach", "ours", np.array([10.0, 20.0]), np.array([0.5, 1.0]), final=final) for final in (0.9, 1.0)]
    theirs = [
        Curve("reach", "theirs", np.array([10.0, 20.0]), np.array([0.1, 0.6]), final=final) for final in (0.6, 0.95)
    ]
    comparison = compare([*ours, *theirs])
    first, second = results(comparison)
    assert (first["group"], first["runs"], first["final"]) == ("ours", 2, 0.95)
    assert (first["env steps to 50%"], first["env steps to 90%"], first["runs at 90%"]) == (10, 20, 2)
    assert (second["env steps to 50%"], second["env steps to 90%"], second["runs at 90%"]) == (20, np.inf, 0)
    [row] = improvements(comparison)
    assert (row["one"], row["other"], row["probability of improvement"]) == ("ours", "theirs", 0.75)
    assert "| theirs | 2 | 0.775 |" in markdown(results(comparison))
    assert cell(np.inf) == "not reached"


def test_groups_over_all_tasks_are_of_labels_that_have_them_all():
    both = [random_curve(task, "both", seed) for task in ("reach", "push") for seed in (1, 2)]
    theirs = [random_curve(task, "theirs", 4) for task in ("reach", "push")]
    comparison = compare([*both, random_curve("reach", "one", 3)], [*theirs, random_curve("push", "another", 5)])
    assert comparison.panels == ["push", "reach", ALL_TASKS]
    over_all = [(group.label, group.published) for group in comparison.groups if group.task == ALL_TASKS]
    assert over_all == [("both", False), ("theirs", True)]
    row = next(row for row in results(comparison) if row["task"] == ALL_TASKS)
    assert row["final"] == pytest.approx(statistics.interquartile_mean([np.array([curve.final for curve in both])]))


def test_published_curves_are_thin_lines_that_name_their_protocol(tmp_path):
    table = tmp_path / "published.csv"
    table.write_text(
        "method,task,env_steps,seed,success,protocol\n"
        "sac,reach,0,1,0.0,repeat2-last\nsac,reach,100,1,0.5,repeat2-last\nsac,reach,100,2,0.7,repeat2-last\n"
        "sac,reach,900,1,1.0,repeat2-last\nsac,push,100,1,0.5,repeat2-last\n"
    )
    published = read_published(table, ["reach"], until=600)
    comparison = compare([random_curve("reach", "ours", 0)], published)
    [axis] = draw(comparison, "success_rate").axes
    line = lines(axis)["published sac (repeat2-last)"]
    assert line.get_xydata().tolist() == [[100.0, 0.6]]
    assert line.get_linewidth() < lines(axis)["ours"].get_linewidth()
    assert improvements(comparison) == []
    table.write_text("method,task,steps\n")
    with pytest.raises(UsageError, match="has no column env_steps, seed, success"):
        read_published(table, ["reach"])


def test_published_curves_may_come_from_a_spreadsheet_and_are_never_overwritten(finished_run, tmp_path):
    published = tmp_path / "curves.csv"
    text = "method,task,env_steps,seed,success\nsac,drawer-close,100,1,0.5\n"
    published.write_text(text, encoding="utf-8-sig")
    [curve] = read_published(published, ["drawer-close"])
    assert curve.final == 0.5
    with pytest.raises(UsageError, match=r"curves.png would overwrite .*curves.csv; give --out another name"):
        compare_runs([read_run(finished_run)], tmp_path / "curves.png", anchors=published)
    assert published.read_text(encoding="utf-8-sig") == text
    published.write_text(text, encoding="utf-16")
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        read_published(published, ["drawer-close"])


def test_the_command_writes_figure_and_tables(finished_run, tmp_path):
    runs = [finished_run, copied(finished_run, tmp_path / "a$^$", 0.5, seed=2, LLM_freq=600, model="$x^")]
    out = tmp_path / "fig.svg"
    command = [
        sys.executable,
        str(ROOT / "plot.py"),
        *map(str, runs),
        "--out",
        str(out),
        "--by",
        "LLM_freq",
        "--by=model",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "fig.md").read_text()
    with (tmp_path / "fig.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["group"] for row in table] == ["LLM_freq 300, model builtin", "LLM_freq 600, model $x^"]
    assert done.stdout.count("LLM_freq 600, model $x^") == 2  # a result, and an improvement
    assert (tmp_path / "fig-improvement.csv").exists()
    assert "<svg" in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "fig.jpg"], "its name must end with .png, .pdf, .svg"),
        (["--by", "LLM_frq"], "there is no such flag; did you mean LLM_freq"),
        (["--metric", "sucess_rate"], "did not measure sucess_rate; did you mean success_rate"),
    ],
)
def test_mistakes_are_answered_in_one_line(finished_run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["plot.py", str(finished_run), "--out", str(tmp_path / "x.png"), *words])
    assert plot.main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
