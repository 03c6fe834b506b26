"""What became of reward functions, and why."""

import json
import shutil

from figures.lineage import lives
from runs.reading import read_run


def test_lives_follow_slots_and_ranks(finished_run):
    run = read_run(finished_run)
    family = lives(run)
    elite_num, rounds = run.flags["elite_num"], max(life.round for life in family)
    assert rounds >= 2
    for round in range(rounds + 1):
        alive = [
            life
            for life in family
            if life.slot is not None and life.round <= round and (life.ended is None or life.ended > round)
        ]
        assert sorted(life.slot for life in alive) == list(range(run.flags["pop_size"]))
        if round:
            assert sum(round in life.elite for life in alive) == elite_num
    for life in family:
        for parent in life.parents:
            assert family[parent].slot is not None
            assert family[parent].round < life.round
    [chosen] = [life for life in family if "hands out" in life.fate]
    assert chosen.id == run.summary["chosen_function"]


def test_the_fate_says_why(finished_run, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished_run, directory, ignore=shutil.ignore_patterns("tensorboard", "checkpoint", "*.pth"))
    functions = json.loads((directory / "population.json").read_text())
    replaced = [row["replaced"] for row in functions if row["replaced"] is not None and row["round"] == 1]
    ranked, out = (functions[number] for number in replaced[:2])
    rejected = next(row for row in functions if row["slot"] is None)
    out["scores"] = {}
    rejected["kind"], rejected["reason"] = "syntax", "it is no Python"
    (directory / "population.json").write_text(json.dumps(functions))
    evaluations = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for row in evaluations:
        row["out"] = {str(out["slot"]): "its networks are of no use"}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluations))

    family = lives(read_run(directory))
    rank = ranked["scores"]["0"]["rank"]
    assert family[ranked["id"]].fate.startswith(f"ranked {rank} at search round 1, where function ")
    assert "was out (its networks are of no use) at search round 1" in family[out["id"]].fate
    assert family[rejected["id"]].fate == "rejected (syntax): it is no Python"

    ranked["kind"], ranked["reason"], ranked["accepted"] = "not-finite", "the reward is nan", False
    (directory / "population.json").write_text(json.dumps(functions))
    assert "failed later (not-finite): the reward is nan" in lives(read_run(directory))[ranked["id"]].fate
