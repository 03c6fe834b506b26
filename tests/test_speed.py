"""The speed table: samples in turns, honest rows, and one file of one host. What is fast is not tested here."""

import json

import pytest

from benchmarks import speed, speed_rows


@pytest.fixture
def fake_row(monkeypatch):
    """A cost of 2 s over a yardstick of 1 s, and the order in which both were asked."""
    asked = []

    def sides():
        return lambda: asked.append("figure") or 2.0, lambda: asked.append("yardstick") or 1.0

    monkeypatch.setattr(speed, "SECONDS", 0.0)
    monkeypatch.setattr(speed_rows, "fake", sides, raising=False)
    return speed.Row("fake", "a cost", "another", most=1.5), asked


def test_every_row_has_its_function_and_one_target():
    assert len(speed.ROWS) == len(speed.TABLE)
    for row in speed.TABLE:
        assert callable(getattr(speed_rows, row.name))
        assert (row.most is None) != (row.least is None)


def test_figure_and_yardstick_are_sampled_in_turns_after_a_warm_up(fake_row):
    row, asked = fake_row
    result = json.loads(json.dumps(speed.measure(row)))
    assert asked == ["figure", "yardstick"] * (speed.FEWEST + 1)
    assert result["ratio"] == {"median": 2.0, "quartiles": [2.0, 2.0], "samples": [2.0] * speed.FEWEST}
    assert result["met"] is False
    assert "missed" in speed.line(row, result | {"cores_busy_before": 0.0})


@pytest.mark.parametrize(
    ("row", "figure", "yardstick", "ratio", "met"),
    [
        (speed.Row("a", "cost", "of", most=1.5), 3.0, 2.0, 1.5, True),
        (speed.Row("a", "gain", "over", least=2), 3.0, 2.0, 2 / 3, False),
        (speed.Row("a", "size", most=800, unit="B"), 801.0, 1.0, 801.0, False),
        (speed.Row("a", "rate", least=1500, unit="/s"), 1500.0, 1.0, 1500.0, True),
    ],
)
def test_a_ratio_says_how_much_a_cost_is_or_how_large_a_gain(row, figure, yardstick, ratio, met):
    assert row.ratio(figure, yardstick) == pytest.approx(ratio)
    assert row.met(ratio) is met


def test_a_gpu_row_without_a_gpu_is_not_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: False)
    assert speed.table(["gpu_updates"], tmp_path / "speed.json") == 0
    assert "not measured: no GPU" in capsys.readouterr().out


def test_one_file_holds_the_rows_of_one_host(monkeypatch, tmp_path):
    out = tmp_path / "new" / "speed.json"
    speed.keep(out, rows={"a": {"met": True}})
    speed.keep(out, rows={"b": {"met": True}})
    speed.keep(out, scaling={"device": "cpu"})
    document = json.loads(out.read_text())
    assert set(document["rows"]) == {"a", "b"}
    assert document["host"] == speed.host()
    monkeypatch.setattr(speed, "processor", lambda: "another")
    speed.keep(out, rows={"c": {}})
    assert set(json.loads(out.read_text())["rows"]) == {"c"}


def test_small_times_are_shown_in_small_units():
    assert [speed.quantity(seconds, "s") for seconds in (2.5, 0.025, 2.5e-5, 2.5e-8)] == [
        *("2.5 s", "25 ms", "25 us", "25 ns")
    ]
    assert speed.quantity(2500, "/s") == "2,500 /s"
