"""Functions that solved a task: kept with the figures of their run, and replayable."""

import json

import pytest

from errors import UsageError
from runs.gallery import keep
from runs.reading import read_run
from search.offline import ReplayModel
from search.protocol import Request

SUMMARY = {
    "status": "solved", "final_success_rate": 0.98, "final_success_interval": [0.9, 1.0], "env_steps": 12_345,
    "chosen_function": 1, "protocol": {"episodes": 50, "success": "any"},
}  # fmt: skip
SOURCE = "def compute_reward(obj):\n    return float(obj[0])\n"


def make_run(directory, **summary):
    functions = [{"id": 0, "round": 0, "source": "wrong"}, {"id": 1, "round": 2, "source": SOURCE}]
    flags = {"env_name": "door-close-v2", "setting": "from_scratch", "model": "builtin", "seed": 7}
    directory.mkdir()
    for name, content in (
        ("config", {"flags": flags}), ("population", functions), ("summary", SUMMARY | summary),
    ):  # fmt: skip
        (directory / f"{name}.json").write_text(json.dumps(content))
    return read_run(directory)


def test_a_function_that_solved_its_task_is_kept_with_its_figures_and_can_be_replayed(tmp_path):
    run = make_run(tmp_path / "run")
    file = keep(run, tmp_path / "solved")
    assert file == tmp_path / "solved" / "door-close" / "1.py"
    text = file.read_text()
    assert SOURCE in text
    assert "0.98 (95% interval 0.90 to 1.00) of 50 fresh episodes after 12,345 env steps" in text
    compile(text, str(file), "exec")
    model = ReplayModel(str(file.parent), {"task": "door-close", "setting": "from_scratch"})
    assert model.ask(Request([], 10, 1e18)).texts == [f"```python\n{SOURCE}```\n"]
    [row] = map(json.loads, (file.parent / "llm.jsonl").read_text().splitlines())
    assert (row["scores"]["function"], row["scores"]["seed"], row["file"]) == (1, 7, "1.py")
    with pytest.raises(UsageError, match="already"):
        keep(run, tmp_path / "solved")


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"final_success_interval": [0.51, 1.0]}, "95% interval 51% to 100%.*must begin at 80%"),
        ({"final_success_rate": None}, "a run that has ended"),
        ({"chosen_function": None}, "no function of its population"),
    ],
)
def test_no_other_function_is_kept(tmp_path, summary, said):
    with pytest.raises(UsageError, match=said):
        keep(make_run(tmp_path / "run", **summary), tmp_path / "solved")
    assert not (tmp_path / "solved").exists()
