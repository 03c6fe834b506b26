"""What a sweep consists of: the shipped ones are the published runs, and a file says which runs there are."""

import pytest

from arguments import parse_args
from errors import UsageError
from sweeps.plan import SHIPPED, PlannedRun, Sweep, find, load, plan

FROM_SCRATCH = {"window-close": 500, "window-open": 200, "button-press": 50, "door-close": 100, "drawer-open": 200}
WITH_INIT = (
    dict.fromkeys(["coffee-pull", "coffee-push"], 20)
    | dict.fromkeys(["hand-insert", "basketball", "dial-turn"], 50)
    | dict.fromkeys(["soccer", "push-back"], 100)
    | {"pick-out-of-hole": 200}
    | dict.fromkeys(["hammer", "peg-unplug-side", "peg-insert-side", "button-press-topdown"], 500)
)


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("setting", "windows"), [("from_scratch", FROM_SCRATCH), ("with_init", WITH_INIT)])
def test_the_paper_is_what_was_published(setting, windows):
    runs = plan(find("paper"), [setting], None, {})
    found = {(run.args.env_name, run.args.seed): run.args.windows_length for run in runs}
    assert found == {(f"{task}-v2", seed): length for task, length in windows.items() for seed in range(1, 6)}
    for run in runs:
        args = run.args
        assert run.setting == args.setting == setting
        assert (args.model, args.total_timesteps, args.eval_episodes) == ("gpt-4o-mini", 1_000_000, 20)
        assert (args.LLM_freq, args.elite_num, args.scale_type, args.buffer_transfer) == (200_000, 3, 2, 0)
        assert args.ignored_flags == ("--Inter_Loop_freq", "--ucb_type", "--RL_ucb", "--c", "--EA_tau", "--damp")
        assert ("pop_size" in run.flags) == (setting == "with_init")
        assert run.words[run.words.index("--damp=1e-1")]


@pytest.mark.parametrize(("name", "count"), [("paper", 85), ("quick", 4), ("ablations", 225), ("learning", 52)])
def test_every_shipped_sweep_holds_runs_that_can_begin(name, count):
    runs = plan(find(name), [], None, {})
    assert len({run.name for run in runs}) == count
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == {"paper", "quick", "ablations", "learning"}


def test_flags_take_the_place_of_the_files(tmp_path):
    given = {"--env-name": ["hammer", "door-close", "door-close-v3"], "--seed": ["7", "8"], "--tau": ["1"]}
    runs = plan(find("paper"), ["from_scratch"], None, given)
    assert [(run.args.env_name, run.args.seed, run.flags.get("windows_length")) for run in runs] == [
        ("hammer", 7, None),
        ("hammer", 8, None),
        ("door-close", 7, "100"),
        ("door-close", 8, "100"),
        ("door-close-v3", 7, "100"),
        ("door-close-v3", 8, "100"),
    ]
    assert all(run.args.tau == 1 for run in runs)


def test_a_preset_counts_where_it_stands(tmp_path):
    file = write(tmp_path, "flags: {elite_num: 1, preset: published}\ngrid: {n_step: [2, 4]}\n")
    assert [(run.args.elite_num, run.args.n_step) for run in plan(file, [], None, {})] == [(3, 2), (3, 4)]
    [run] = plan(file, [], None, {"--elite-num": ["2"], "--n_step": ["5"]})
    assert (run.args.elite_num, run.args.n_step, run.args.hide_goal) == (2, 5, 1)
    [last] = plan(write(tmp_path, "flags: {elite_num: 1}"), [], None, {"--preset": ["published"]})
    assert last.args.elite_num == 3


def test_names_say_what_varies(tmp_path):
    text = "setting: [from_scratch, with_init]\nflags: {model: builtin}\ngrid: {seed: [1, 2]}\n"
    file = write(tmp_path, text + "runs: [{}, {selection: uniform, tau: 0.01}]\n")
    names = [run.name for run in plan(file, [], None, {})]
    assert names[:3] == [
        "from_scratch_window-close-v2_builtin_seed1",
        "from_scratch_window-close-v2_builtin_seed1_selection-uniform_tau-0.01",
        "from_scratch_window-close-v2_builtin_seed2",
    ]
    assert len(set(names)) == 8
    assert Sweep(tmp_path, plan(file, [], None, {})).varied() == ["selection", "setting", "tau"]
    assert [run.name for run in plan(file, [], "with_init", {"--seed": ["3"], "--selection": ["all"]})] == [
        "with_init_window-close-v2_builtin_seed3",
        "with_init_window-close-v2_builtin_seed3_tau-0.01",
    ]


def test_flags_alone_are_a_sweep():
    runs = plan(None, [], None, {"--seed": ["1", "1", "2"], "--cuda": [], "-damp": ["1e-1"]})
    assert [(run.args.seed, run.args.device) for run in runs] == [(1, "cuda"), (2, "cuda")]
    assert runs[0].words == ["--seed=1", "--cuda", "--damp=1e-1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "mine.yaml holds no sweep; it needs setting, flags, grid, runs"),
        ("flags: {seed: 1", "mine.yaml is not YAML: while parsing"),
        ("flags: {seed: [1, 2]}", "mine.yaml: seed has several values, which belong into grid"),
        ("flags: 3", "mine.yaml: flags must map flags to values, and is 3"),
        ("grid: {seed: [1]}\nrun: []", "mine.yaml: there is no run; did you mean runs"),
        ("a: {flgs: {}}", "mine.yaml, a: there is no flgs; did you mean flags"),
        ("grid: {seed: []}", "mine.yaml: seed has no values, so there is nothing to run; give at least one"),
        ("setting: []", "mine.yaml: setting has no values, so there is nothing to run; give at least one"),
        ("setting: both", "mine.yaml: setting is both, expected from_scratch or with_init"),
        ("flags: {log-dir: here}", "a sweep sets --log_dir of its runs itself; leave it out"),
        ("a: {flags: {tau: 1}}\nb: {flags: {tau: 0.5}}", "differ (--tau 1 and 0.5); put what they differ in"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        plan(write(tmp_path, text), [], None, {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_in_another_encoding_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("# \u00e9\nflags: {}\n", encoding="latin-1")
    with pytest.raises(UsageError, match="is not text in UTF-8; save it as such"):
        plan(tmp_path / "mine.yaml", [], None, {})


def test_a_sweep_may_be_called_by_a_number(tmp_path):
    file = write(tmp_path, "1: {grid: {seed: [1, 2]}}\n2: {}\n")
    assert len(plan(file, ["1"], None, {})) == 2


def test_what_is_not_there_gets_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"no sweep x in .*; it is a single one; leave --only out"):
        plan(write(tmp_path, "flags: {tau: 1}"), ["x"], None, {})
    with pytest.raises(UsageError, match="no sweep papr; did you mean paper"):
        find("papr")
    with pytest.raises(
        UsageError, match=r"no sweep with_int in .*; did you mean with_init.*it has: from_scratch, with"
    ):
        plan(find("paper"), ["with_int"], None, {})
    with pytest.raises(UsageError, match="is not the directory of a sweep"):
        load(tmp_path)


def test_a_mistake_in_a_runs_flags_is_the_entry_scripts_own(tmp_path, capsys):
    [run] = plan(write(tmp_path, "flags: {sede: 1}"), [], None, {})
    with pytest.raises(SystemExit) as ended:
        run.args  # noqa: B018
    assert ended.value.code == 2
    assert "there is no flag --sede; did you mean --seed" in capsys.readouterr().err


def test_a_sweep_grows_and_never_changes_a_run(tmp_path):
    first, second = (plan(None, [], None, {"--seed": [str(seed)]}) for seed in (1, 2))
    Sweep(tmp_path, first).with_earlier().save()
    Sweep(tmp_path, second).with_earlier().save()
    assert load(tmp_path).runs == [*first, *second]
    other = PlannedRun(first[0].name, "from_scratch", first[0].flags | {"tau": "0.5"})
    with pytest.raises(UsageError, match=r"with other flags \(--tau default and 0.5\); give another --exp_name"):
        Sweep(tmp_path, [other]).with_earlier()
    assert parse_args(first[0].words, "from_scratch") == first[0].args
