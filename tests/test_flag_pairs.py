"""Every combination of flags either runs or is refused in one line: all pairs of values, in miniature runs."""

import itertools
import json
import sys
from typing import Any

import pytest
import torch

import lares_from_scratch
import lares_with_init
from arguments import Arguments, contradictions, parse_args
from runs.flags import flags_of

SAMPLE = 6  # runs of the table that the suite makes each time

MINIATURE = {
    "model": "builtin", "total_timesteps": 240, "init_exploration_steps": 40, "episode_length": 20, "LLM_freq": 80,
    "display_interval": 100, "eval_episodes": 2, "final_episodes": 2, "hidden_size": 16, "batch_size": 16,
    "pop_size": 3, "elite_num": 2, "buffer_size": 400, "num_workers": 1, "num_learners": 1, "device": "cpu", "seed": 3,
}  # fmt: skip

# What is tried beside the miniature's own value. Values that make sense only together stand together.
OTHERS: dict[str, list[dict[str, Any]]] = {
    "setting": [{"setting": "with_init"}],
    "episode": [{"episode_length": 40}, {"episode_length": 1, "total_timesteps": 80, "init_exploration_steps": 40}],
    "repeat": [{"action_repeat": 2}, {"action_repeat": 20}],
    "goal": [{"hide_goal": 1}],
    "exploration": [{"init_exploration_steps": 1}, {"init_exploration_steps": 239}],
    "stop": [{"stop_success": 0.5}],
    "display": [{"display_interval": 20}, {"display_interval": 100_000}],
    "evaluation": [{"eval_episodes": 1, "final_episodes": 1}],
    "calls": [{"max_llm_calls": 1}, {"max_llm_tokens": 1}, {"llm_attempts": 1}, {"llm_context": 1}],
    "prices": [{"price_in": 2.0, "price_out": 8.0}],
    "population": [{"pop_size": 1, "elite_num": 1}, {"pop_size": 4, "elite_num": 1}],
    "search": [{"LLM_freq": 40}, {"LLM_freq": 100_000}],
    "fitness": [{"fitness": "return"}],
    "success": [{"success": "last"}, {"success": 3}],
    "scale": [{"scale_type": 0}, {"scale_type": 1}],
    "transfer": [{"buffer_transfer": 1}],
    "inheritance": [{"inherit": 0}, {"constraint_coef": 0.0}, {"restart": 1, "inherit": 0, "scale_type": 0}],
    "eureka": [{"restart": 1, "inherit": 0, "scale_type": 0, "elite_num": 0, "LLM_freq": 80}],
    "order": [{"order_check": 0.8}],
    "examples": [{"examples": "solved"}],
    "choice": [{"choice": "first"}, {"fit_numbers": 1}],
    "selection": [{"selection": "uniform"}, {"selection": "all"}],
    "window": [{"windows_length": 1}],
    "untrained": [{"explore_episode": 1}],
    "sharing": [{"shared_buffer": 0}],
    "buffer": [{"buffer_size": 100}, {"buffer_size": 100_000}],
    "network": [{"hidden_size": 1}, {"hidden_layers": 1, "activation": "tanh"}, {"hidden_layers": 4}],
    "activation": [{"activation": "elu"}],
    "rates": [{"q_lr": 1e-2, "p_lr": 1e-2}],
    "batch": [{"batch_size": 1}, {"batch_size": 90}],
    "updates": [{"update_cycles": 0.3}, {"update_cycles": 2.0}],
    "reward": [{"reward_scale": 0.1}],
    "discount": [{"gamma": 0.0}, {"gamma": 1.0}],
    "returns": [{"n_step": 1}, {"n_step": 20}],
    "critics": [{"layer_norm": 0}],
    "normalization": [{"normalize_rewards": 0}],
    "actors": [{"policy_delay": 1}, {"target_entropy": 0.5}],
    "targets": [{"tau": 1.0}, {"target_update_interval": 7}],
    "bounds": [{"log_std_min": -1.0, "log_std_max": -0.5}],
    "temperature": [{"initial_temperature": 1.0}, {"learn_temperature": 0}],
    "timeouts": [{"bootstrap_timeouts": 0}],
    "processes": [{"num_workers": 2, "num_learners": 2}],
    "overlap": [{"overlap": 1}],
    "checkpoint": [{"checkpoint_interval": 1}],
}

# What ends before the loop, chooses what another test covers, or only names things.
NOT_TRIED = {
    "env_name",
    "task_file",
    "preset",
    "model",
    "temperature",
    "human_feedback",
    "prompts",
    "llm_deadline",
    "dry_run",
}
NOT_TRIED |= {"device", "seed", "log_dir", "exp_name", "max_answer_tokens", "llm_options", "resume", "quiet"}

Row = dict[str, dict[str, Any]]  # by the name of a choice the values taken
Choice = tuple[str, int]
CHOICES = {name: [{}, *others] for name, others in OTHERS.items()}
ALL_CHOICES = sorted((name, number) for name, values in CHOICES.items() for number in range(len(values)))


def arguments_of(row: Row) -> Arguments | None:
    """The flags of a row; None where two of its choices want different values of the same flag."""
    values: dict[str, Any] = {}
    for choice in row.values():
        if any(values.get(name, value) != value for name, value in choice.items()):
            return None
        values |= choice
    return Arguments(**{"setting": "from_scratch", **MINIATURE, **values})


def runs(row: Row) -> bool:
    args = arguments_of(row)
    return args is not None and not contradictions(args)


def pairs() -> list[tuple[Choice, Choice]]:
    """Every two values of different flags."""
    return [(one, other) for one, other in itertools.combinations(ALL_CHOICES, 2) if one[0] != other[0]]


def row_of(*choices: Choice) -> Row:
    return {name: CHOICES[name][number] for name, number in choices}


def covering_rows() -> list[Row]:
    """Few rows in which every pair of values occurs that runs: each takes what adds most pairs not yet seen."""
    left = {pair for pair in pairs() if runs(row_of(*pair))}
    rows = []
    while left:
        taken: list[Choice] = []
        gains = dict.fromkeys(ALL_CHOICES, 0) | dict.fromkeys(min(left), len(ALL_CHOICES))
        while gains:
            choice = max(gains, key=lambda choice: gains[choice])
            if runs(row_of(*taken, choice)):
                taken.append(choice)
                new = {other for pair in left if choice in pair for other in pair}
                gains = {other: gain + (other in new) for other, gain in gains.items() if other[0] != choice[0]}
            else:
                del gains[choice]
        left -= set(itertools.combinations(sorted(taken), 2))
        rows.append(row_of(*taken))
    return rows


ROWS = covering_rows()


def make_run(row, directory, monkeypatch):
    """Run the row's entry script in this process; return its exit status and its run directory."""
    args = arguments_of(row)
    values = {name: getattr(args, name) for name in flags_of(Arguments)}
    defaults = vars(Arguments(args.setting))
    words = [f"--{name}={value}" for name, value in values.items() if value != defaults[name]]
    script = lares_with_init if args.setting == "with_init" else lares_from_scratch
    monkeypatch.setattr(sys, "argv", ["lares", *words, f"--log-dir={directory}", "--exp_name=run"])
    return script.main(), directory / "run"


def check_run(row, directory, monkeypatch):
    code, run = make_run(row, directory, monkeypatch)
    assert code == 0
    args = arguments_of(row)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" or (summary["status"], bool(args.stop_success)) == ("solved", True)
    assert summary["env_steps"] >= args.total_timesteps or summary["status"] == "solved"
    assert summary["protocol"]["episodes"] == args.final_episodes
    for name, value in json.loads((run / "config.json").read_text())["flags"].items():
        assert value == getattr(args, name) or name in NOT_TRIED | {"ignored_flags"}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        for agent in json.loads(line)["agents"].values():
            assert all(value is not None for value in agent.values())  # null stands for what is not finite
    actor = torch.load(run / "best_actor_net.pth")
    assert all(values.isfinite().all() for values in actor.values())


def test_every_pair_of_values_is_in_the_table_or_refused_in_one_line(capsys):
    tried = {
        pair
        for row in ROWS
        for pair in itertools.combinations(sorted((name, CHOICES[name].index(row[name])) for name in row), 2)
    }
    for one, other in pairs():
        args = arguments_of(row_of(one, other))
        if (one, other) not in tried and args is not None:
            words = [f"--{name}={value}" for name, value in vars(args).items() if name in flags_of(Arguments)]
            with pytest.raises(SystemExit) as end:
                parse_args([word for word in words if not word.endswith(("=None", "=False"))], args.setting)
            assert end.value.code == 2
            assert capsys.readouterr().err.count("\n") == 1


def test_every_flag_is_tried():
    tried = {name for choices in OTHERS.values() for choice in choices for name in choice}
    assert tried | NOT_TRIED == {*flags_of(Arguments), "setting"}


@pytest.mark.parametrize("number", range(SAMPLE))
def test_flags_run_together(number, tmp_path, monkeypatch):
    check_run(ROWS[number], tmp_path, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(SAMPLE, len(ROWS)))
def test_all_flags_run_together(number, tmp_path, monkeypatch):
    check_run(ROWS[number], tmp_path, monkeypatch)
