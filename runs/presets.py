"""Settings of other publications as our flags: presets, their windows, and the published interface's spelling."""

from runs.flags import wrapped
from tasks.names import without_version

PRESETS = {  # the flags that a preset stands for
    # The repository of Li et al. 2025, at commit a84ca91: the commands of its README and, where they say nothing, what
    # its code does. `preset` adds what depends on setting and task.
    "published": (
        "--hide_goal=1 --bootstrap_timeouts=0 --initial_temperature=1 --fitness=return --pop_size=5 --elite_num=3 "
        "--scale_type=2 --buffer_transfer=0 --constraint_coef=1 --total-timesteps=1000000 --LLM_freq=200000 "
        "--init-exploration-steps=10000 "
        "--eval-episodes=20 --action-repeat=1 --n_step=1 --layer_norm=0 --normalize_rewards=0 --policy_delay=1 "
        "--target_entropy=-1 --gamma=0.99 --choice=first --fit_numbers=0"
    ),
    # Ma et al., "Eureka", 2023 (arXiv:2310.12931): every round writes all reward functions anew from the best one's
    # feedback, and each trains new networks on what its own policy collects.
    "eureka": (
        "--restart=1 --elite_num=0 --inherit=0 --shared_buffer=0 --scale_type=0 --selection=all --explore_episode=0 "
        "--choice=first --fit_numbers=0"
    ),
}

WINDOWS: dict[str, dict[str, int]] = {  # the published --windows_length, from the same repository's run.sh
    "from_scratch": {
        "window-close": 500,
        "window-open": 200,
        "button-press": 50,
        "door-close": 100,
        "drawer-open": 200,
    },
    "with_init": {
        "coffee-pull": 20,
        "coffee-push": 20,
        "hand-insert": 50,
        "basketball": 50,
        "dial-turn": 50,
        "soccer": 100,
        "push-back": 100,
        "pick-out-of-hole": 200,
        "hammer": 500,
        "peg-unplug-side": 500,
        "peg-insert-side": 500,
        "button-press-topdown": 500,
    },
}

# The published interface spells these with hyphens, the others with underscores; both are accepted.
HYPHENATED = (
    "env-name episode-length action-repeat total-timesteps init-exploration-steps display-interval eval-episodes "
    "buffer-size hidden-size q-lr p-lr batch-size update-cycles reward-scale target-update-interval log-std-max "
    "log-std-min log-dir"
).split()

IGNORED = {  # flag of the published interface: what to use instead, if there is anything
    "--train-loop-per-epoch": "see --update-cycles",
    "--n-epochs": "see --total-timesteps",
    "--epoch-length": "see --episode-length",
    "--n-updates": "see --update-cycles",
    "--init-exploration-policy": "it is uniform",
    "--entropy-weights": "the temperature is learned",
    "--save-dir": "see --log-dir",
    "--reg": "",
    "--reward-shaping": "",
    "--random-init": "every episode starts from a state of its own",
    "--render": "",
    "--obs-type": "see --hide_goal",
    "--EA_tau": "see --constraint_coef",
    "--c": "see --selection",
    "--RL_ucb": "see --selection",
    "--Inter_Loop_freq": "see --LLM_freq",
    "--ucb_type": "see --selection",
    "--tau_type": "see --tau",
    "--use_dynamic": "",
    "--Type": "",
    "--sigma_init": "",
    "--damp": "",
    "--damp_limit": "",
    "--elitism": "see --elite_num",
}


def preset(name: str, setting: str, task: str) -> list[str]:
    """Return the flags that a preset stands for in this setting, on this task."""
    flags = PRESETS[name].split()
    if name == "published":
        flags.append(f"--explore_episode={int(setting == 'from_scratch')}")
        flags += [
            f"--windows_length={length}" for known, length in WINDOWS[setting].items() if known == without_version(task)
        ]
    return flags


def describe_presets(setting: str) -> str:
    """Return what the help says about the presets."""
    lines = []
    for name in PRESETS:
        lines += [f"--preset {name}:", *wrapped(" ".join(preset(name, setting, "")))]
    windows = ", ".join(f"{length} for {task}" for task, length in WINDOWS[setting].items())
    return "\n".join([*lines, "--windows_length of --preset published:", *wrapped(windows)])
