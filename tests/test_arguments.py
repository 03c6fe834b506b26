"""The command line: the published interface verbatim, ranges, contradictions, and help that tells the truth."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from arguments import Arguments, default_name, parse_args
from runs.flags import flags_of
from runs.presets import HYPHENATED, IGNORED, PRESETS

FROM_SCRATCH = """
    --env-name='window-close-v2' --buffer_transfer=0 --scale_type=2 --Inter_Loop_freq=1000000 --ucb_type='max'
    --windows_length=500 --elite_num=3 --RL_ucb=1 --c=0.0 --EA_tau=0.1 --damp=1e-1 --model=gpt-4o-mini
    --total-timesteps=1000000 --seed=1 --eval-episodes=20 --LLM_freq=200000"""
WITH_INIT = FROM_SCRATCH.replace("window-close", "coffee-pull").replace("500", "20") + " --pop_size=5"


def parse(words, setting="from_scratch"):
    return parse_args(shlex.split(words), setting)


def test_published_commands_mean_what_they_say():
    args = parse(FROM_SCRATCH)
    assert (args.env_name, args.model, args.total_timesteps, args.seed) == (
        "window-close-v2",
        "gpt-4o-mini",
        1_000_000,
        1,
    )
    assert (args.buffer_transfer, args.scale_type, args.windows_length, args.elite_num) == (0, 2, 500, 3)
    assert (args.eval_episodes, args.LLM_freq) == (20, 200_000)
    assert args.ignored_flags == ("--Inter_Loop_freq", "--ucb_type", "--RL_ucb", "--c", "--EA_tau", "--damp")
    args = parse(WITH_INIT, "with_init")
    assert (args.env_name, args.windows_length, args.pop_size) == ("coffee-pull-v2", 20, 5)


def test_there_are_five_search_rounds_unless_a_flag_says_how_often():
    for words in ("", "--total-timesteps=100000", "--total-timesteps=3000"):
        assert parse(words).search_rounds == 5
    assert parse("--total-timesteps=100000").search_interval == 20_000
    assert parse("--total-timesteps=100000 --LLM_freq=5000").search_interval == 5_000
    assert parse("--total-timesteps=2100").search_interval == 420
    assert parse("--total-timesteps=2100 --episode-length=500").search_interval == 500


@pytest.mark.parametrize(
    ("words", "discount"),
    [
        ("--episode-length=500", 0.99),
        ("--episode-length=500 --action-repeat=2", 0.98),
        ("--episode-length=60", 0.95),
        ("--episode-length=5000", 0.995),
        ("--episode-length=60 --gamma=0.5", 0.5),
    ],
)
def test_the_discount_follows_the_length_of_an_episode(words, discount):
    args = parse(words)
    assert args.discount == args.sac_config(4, 2).gamma == pytest.approx(discount)


def test_every_flag_of_the_published_parser_is_taken():
    published = """
        --env-name window-close-v2 --total-timesteps 1e7 --cuda --seed 123 --hidden-size 256 --train-loop-per-epoch 1
        --q-lr 3e-4 --p-lr 3e-4 --n-epochs 3000 --epoch-length 1000 --n-updates 1000 --init-exploration-steps 10000
        --init-exploration-policy uniform --buffer-size 1e6 --batch-size 128 --reward-scale 1 --gamma 0.99
        --log-std-max 2 --log-std-min -20 --entropy-weights 0.2 --tau 5e-3 --target-update-interval 1
        --update-cycles 1 --eval-episodes 10 --display-interval 10000 --save-dir saved_models/ --reg 1e-3
        --reward-shaping --action-repeat 10 --episode-length 150 --random-init --render --obs-type plain
        --model gpt-4o-mini --LLM_freq 200000 --windows_length 1000 --pop_size 5 --EA_tau 0.1 --c 0.1 --RL_ucb 1
        --Inter_Loop_freq 1 --ucb_type mean --buffer_transfer 0 --tau_type 0 --scale_type 2 --use_dynamic 0 --Type 0
        --elite_num 3 -sigma_init 1e-3 -damp 1e-3 -damp_limit 1e-5 -elitism"""
    args = parse(published)
    assert (args.total_timesteps, args.buffer_size, args.action_repeat) == (10_000_000, 1_000_000, 10)
    assert (args.log_std_min, args.q_lr, args.device) == (-20.0, 3e-4, "cuda")
    assert sorted(args.ignored_flags) == sorted(IGNORED)


@pytest.mark.parametrize(
    "words",
    ["-LLM_freq 2e4", "--LLM_freq=20000", "--LLM-freq 20_000", "-LLM-freq=2e4", "--LLM_freq 9e5 --LLM_freq 2e4"],
)
def test_spellings_of_a_flag_are_one_flag(words):
    assert parse(words).LLM_freq == 20_000


@pytest.mark.parametrize("number", ["-2e1", "-20", "-.2e2"])
def test_a_negative_number_is_a_value(number):
    assert parse(f"--log-std-min {number}").log_std_min == parse(f"--log-std-min={number}").log_std_min == -20


def test_numbers_of_integer_flags_are_integers():
    args = parse("--seed 2e3 --buffer-size=1e6 --hidden-size 9007199254740993")
    assert [type(value) for value in (args.seed, args.buffer_size)] == [int, int]
    assert args.hidden_size == 9007199254740993  # through a float it would lose its last digit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seeed 1", "--seeed; did you mean --seed"),
        ("-dampp 1", "there is no flag -dampp"),
        ("--LLM_frequency=5", "did you mean --LLM_freq"),
        ("--windows_len 5", "did you mean --windows_length"),
        ("--seed", "--seed: expected one argument"),
        ("--env-name --seed 1", "--env-name: expected one argument"),
        ("window-close-v2", "'window-close-v2' follows no flag"),
        ("--success 151", "--success 151 is more than the 150 decisions of an episode; give 150 or less"),
        ("--SEED 1", "there is no flag --SEED; did you mean --seed"),
        ("--seed=-1", "'-1' is not a whole number of at least 0"),
        ("--seed 1.5", "'1.5' is not a whole number"),
        ("--seed inf", "'inf' is not a whole number"),
        ("--total-timesteps many", "'many' is not a whole number of at least 1"),
        ("--pop_size 65", "from 1 to 64"),
        ("--gamma nan", "'nan' is not a number from 0 to 1"),
        ("--gamma 1.01", "from 0 to 1"),
        ("--tau 0", "above 0 and up to 1"),
        ("--q-lr 0", "above 0"),
        ("--log-std-max inf", "that is finite"),
        ("--scale_type 3", "choose from 0, 1, 2"),
        ("--fitness succes", "success"),
        ("--env-name=", "it must not be empty"),
        ("--exp_name a/b", "'a/b' is not a plain name"),
        ("--exp_name ..", "not a plain name"),
        ("--pop_size 3", "--elite_num 3 leaves nothing to replace in --pop_size 3; give --elite_num 2 or less"),
        ("--pop_size 1", "give --elite_num 1"),
        ("--total-timesteps 2000", "lower the second"),
        ("--elite_num 0", "give --elite_num 1 or more, or --restart 1"),
        ("--LLM_freq 149", "less than one episode; give --LLM_freq 150 or more"),
        ("--action-repeat 4", "--episode-length 150 is not a multiple of --action-repeat 4; give --episode-length 148"),
        ("--action-repeat 151", "give --episode-length 151"),
        ("--init-exploration-steps 1 --action-repeat 2", "less than one action of --action-repeat 2; raise the first"),
        ("--restart 1", "--restart 1 leaves no networks to take over; give --inherit 0"),
        ("--restart 1 --inherit 0", "no stored rewards for --scale_type 2; give --scale_type 0"),
        ("--preset eureka --LLM_freq 2000", "which --restart 1 repeats in each search round"),
        ("--preset", "--preset: expected one argument"),
        ("--preset paper", "'paper' (choose from 'none', 'published', 'eureka')"),
        ("--buffer-size 1000 --batch-size 1001", "less than --batch-size 1001"),
        ("--buffer-size 700", "less than the 750 transitions that one iteration can collect"),
        ("--log-std-min 2", "must be below --log-std-max 2"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        parse(words)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("lares_from_scratch.py: error: ")
    assert said in err


def test_the_smallest_population_and_buffer_are_taken():
    assert parse("--pop_size 1 --elite_num 1", "with_init").pop_size == 1
    assert parse("--buffer-size 750").buffer_size == 750
    assert parse("--buffer-size 375 --action-repeat 2").buffer_size == 375
    with pytest.raises(SystemExit):  # the human agent may collect an episode more
        parse("--buffer-size 750", "with_init")


def test_a_preset_sets_what_its_help_says_and_flags_behind_it_win(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    for name in PRESETS:
        [listed] = re.findall(rf"^--preset {name}:\n((?:  .*\n)+)", text, re.MULTILINE)
        assert replace(parse(f"--env-name push {listed}"), preset=name) == parse(f"--preset {name} --env-name push")
    published = parse("--hide_goal 0 --preset=published --pop_size 7 --env-name door-close-v2")
    assert (published.hide_goal, published.pop_size, published.windows_length) == (1, 7, 100)
    assert parse("--preset published --windows_length 3").windows_length == 3
    assert parse("--preset published --preset eureka --seed 5").shared_buffer == 0


@pytest.mark.parametrize(("words", "setting"), [(FROM_SCRATCH, "from_scratch"), (WITH_INIT, "with_init")])
def test_the_published_preset_is_the_published_command_and_what_its_code_does(words, setting):
    given = parse(words, setting)
    preset = parse(f"--preset published --seed 1 --env-name {given.env_name}", setting)
    in_code = {
        "hide_goal": 1, "bootstrap_timeouts": 0, "initial_temperature": 1.0, "fitness": "return",
        "explore_episode": int(setting == "from_scratch"), "n_step": 1, "layer_norm": 0, "normalize_rewards": 0,
        "policy_delay": 1, "target_entropy": -1.0, "init_exploration_steps": 10_000, "gamma": 0.99, "choice": "first",
    }  # fmt: skip
    assert replace(given, ignored_flags=(), preset="published", **in_code) == preset


def test_eureka_trains_every_reward_function_from_nothing():
    args = parse("--preset eureka", "with_init")
    assert (args.restart, args.elite_num, args.inherit, args.shared_buffer, args.scale_type) == (1, 0, 0, 0, 0)
    assert (args.selection, args.total_timesteps) == ("all", parse("").total_timesteps)


def test_every_unit_is_known():
    counted = {}
    for name, (_, flag) in flags_of(Arguments).items():
        if flag.unit:
            counted.setdefault(flag.unit, set()).add(name)
    env_steps = {
        "episode_length",
        "action_repeat",
        "total_timesteps",
        "init_exploration_steps",
        "checkpoint_interval",
        "display_interval",
    }
    assert counted == {
        "env steps": {*env_steps, "LLM_freq"},
        "per decision": {"gamma", "update_cycles"},
        "transitions, one per decision": {"buffer_size", "batch_size"},
        "decisions": {"n_step"},
        "updates": {"target_update_interval"},
        "updates of the critics": {"policy_delay"},
        "nats per dimension of the action": {"target_entropy"},
        "episodes": {"eval_episodes", "final_episodes", "windows_length"},
        "agents": {"elite_num"},
        "units": {"hidden_size"},
        "requests": {"llm_attempts", "max_llm_calls"},
        "tokens": {"llm_context", "max_answer_tokens", "max_llm_tokens"},
        "per million tokens": {"price_in", "price_out"},
        "seconds": {"llm_deadline"},
        "processes": {"num_workers", "num_learners"},
    }


def test_help_shows_every_flag_with_its_true_default_and_unit(capsys):
    with pytest.raises(SystemExit) as end:
        parse("-h", "with_init")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = vars(parse("", "with_init"))
    for name, (_, flag) in flags_of(Arguments).items():
        assert f"{flag.heading}:" in text
        assert f" --{name.replace('_', '-') if name.replace('_', '-') in HYPHENATED else name} " in text
        unit, _, default = text.split(f"{flag.help} (")[1].split(")")[0].rpartition("default: ")
        assert unit.rstrip("; ") == flag.unit
        if isinstance(defaults[name], (str, type(None), bool)):
            assert default == {None: "not set", False: "off"}.get(defaults[name], defaults[name])
        else:
            assert float(default) == defaults[name]
    for name in IGNORED:
        assert f" {name} " in text.split("without effect:")[1]


def test_defaults_pass_the_checks_that_values_pass():
    for row, flag in flags_of(Arguments).values():
        if flag.values and row.default is not None:
            assert flag.values(str(row.default)) == row.default
        elif get_origin(row.type) is Literal:
            assert row.default in get_args(row.type)
        else:
            assert row.default is (False if row.type is bool else None)


def test_the_defaults_of_the_command_line_are_those_of_the_table():
    assert parse("", "with_init") == Arguments("with_init")
    assert parse("--cuda") == parse("--device cuda") == Arguments("from_scratch", device="cuda")


def test_flags_are_distinct_in_every_spelling():
    plain = [name.lstrip("-").replace("_", "-") for name in (*flags_of(Arguments), *IGNORED, "cuda", "help", "h")]
    assert len(set(plain)) == len(plain)
    assert set(HYPHENATED) <= set(plain)


def test_no_suggestion_is_a_flag_without_effect(capsys):
    for name in IGNORED:
        with pytest.raises(SystemExit):
            parse(f"{name}x=1")
        said = capsys.readouterr().err
        assert f"there is no flag {name}x" in said
        assert not set(said.rstrip("?\n").split()[6:]) & set(IGNORED)


def test_a_misspelt_field_is_a_type_error(tmp_path):
    for name in ("arguments.py", "errors.py", "runs/__init__.py", "runs/flags.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parents[1] / name, tmp_path / name)
    (tmp_path / "user.py").write_text(
        "from arguments import Arguments\n\n\n"
        "def read(args: Arguments) -> bool:\n    return args.fitness == 'sucess' or args.pop_sise > 1\n\n\n"
        "Arguments('from_scratch', gama=0.9)\nArguments('from_scratch', gamma='0.9')\nArguments('with-init')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict-equality", "--ignore-missing-imports", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    for said in ("Non-overlapping equality", '"pop_sise"', '"gama"', '"gamma"', 'expected "Literal'):
        assert said in done.stdout, done.stdout + done.stderr


def test_run_names_say_what_ran_and_are_safe():
    name = default_name(parse("--env-name door-close --seed 4 --model 'replay:old runs/door/'", "with_init"))
    assert name == "with_init_door-close_replay_old_runs_door_seed4"
    name = default_name(parse("--model manual:" + "/deep" * 100))
    assert name.endswith("_seed123")
    assert len(name) < 150


def test_a_task_file_is_found_again_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("--task_file mine.py").task_file == str(tmp_path / "mine.py")
