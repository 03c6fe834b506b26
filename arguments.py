"""The command line of both entry scripts: one table of flags, each with its default, its range and its help.

The published interface works verbatim. A flag may also be written with the other of ``-`` and ``_``, or with one dash
instead of two, so that ``-damp``, ``--damp``, ``--action_repeat`` and ``--action-repeat`` all do what was meant.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from errors import nearest

Setting = Literal["from_scratch", "with_init"]
Converter = Callable[[str], Any]


def whole(low: int, high: float = math.inf) -> Converter:
    """A converter to an integer in [low, high]; it reads 1000000, 1_000_000 and 1e6 alike."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            number = _number(text)
            value = int(number) if number.is_integer() else low - 1
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number {_range(low, high)}")

    return convert


def real(low: float, high: float = math.inf, *, above: bool = False) -> Converter:
    """A converter to a finite float in [low, high], or with `above` in (low, high]."""

    def convert(text: str) -> float:
        value = _number(text)
        if low <= value <= high and math.isfinite(value) and not (above and value == low):
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is no number {_range(low, high, above)}")

    return convert


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _range(low: float, high: float, above: bool = False) -> str:
    if low == -math.inf:
        return "that is finite"
    if high == math.inf:
        return f"above {low:g}" if above else f"of at least {low:g}"
    return f"above {low:g} and up to {high:g}" if above else f"from {low:g} to {high:g}"


def name(text: str) -> str:
    """A converter for text that must not be empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def path(text: str) -> str:
    """A converter for the name of a file or directory; whether it exists is seen by who reads it."""
    return name(text)


def directory_name(text: str) -> str:
    """A converter for the name of one directory, which must not lead anywhere else."""
    if text in {"", ".", ".."} or re.search(r"[/\\\0]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no plain name; --log-dir says in which directory it lies")
    return text


SWITCH = (0, 1)


@dataclass(frozen=True)
class Flag:
    """One row of the table: the help and the range stand beside the default that they speak of."""

    name: str
    default: Any
    values: Converter | Sequence[Any] | None  # what text becomes, or the choices; None: a flag without a value
    help: str


GROUPS: dict[str, tuple[Flag, ...]] = {
    "task": (
        Flag("--env-name", "window-close-v2", name, "the task; `python task_specs.py` lists them all"),
        Flag("--task_file", None, path, "a Python file with task specs of your own"),
        Flag("--episode-length", 150, whole(1), "env steps in an episode"),
        Flag("--action-repeat", 1, whole(1), "simulator steps that one action lasts; their rewards are summed"),
        Flag("--hide_goal", 0, SWITCH, "1: the observation holds zeros in place of the goal, as published"),
    ),
    "length of the run, and evaluation": (
        Flag("--total-timesteps", 1_000_000, whole(1), "env steps of the run, the initial exploration included"),
        Flag("--init-exploration-steps", 10_000, whole(1), "env steps with uniform random actions at the start"),
        Flag("--stop_success", 0.0, real(0, 1), "end the run when the best agent's success rate is this; 0: never"),
        Flag("--display-interval", 10_000, whole(1), "env steps from one evaluation to the next"),
        Flag("--eval-episodes", 10, whole(1), "episodes that an evaluation takes for each agent"),
        Flag("--final_episodes", 50, whole(1), "fresh episodes of the chosen policy at the very end"),
        Flag("--seed", 123, whole(0), "what all randomness of the run is derived from"),
    ),
    "language model": (
        Flag(
            "--model",
            "gpt-4o-mini",
            name,
            "any model of an OpenAI-compatible service (OPENAI_API_KEY, OPENAI_BASE_URL); "
            "builtin: program search without a model, needs no key; "
            "replay:DIR: the responses recorded in an earlier run; manual:DIR: answers that you put there as files",
        ),
        Flag("--temperature", 1.0, real(0, 2), "sampling temperature of the model"),
        Flag("--llm_attempts", 4, whole(1), "requests that a search round sends at most"),
        Flag("--llm_deadline", 600.0, real(0, above=True), "seconds that a search round waits for the model at most"),
        Flag("--max_llm_calls", 0, whole(0), "requests that the whole run sends at most; 0: no bound"),
        Flag("--max_llm_tokens", 0, whole(0), "tokens that the whole run uses at most, both ways; 0: no bound"),
        Flag("--price_in", 0.0, real(0), "money per million tokens sent, for the cost that the log shows"),
        Flag("--price_out", 0.0, real(0), "money per million tokens received"),
        Flag("--human_feedback", None, path, "a file whose text, if any, goes to the model at each search round"),
        Flag("--dry_run", False, None, "print the first prompt and what the run would cost, then end"),
    ),
    "population and reward search": (
        Flag("--pop_size", 5, whole(1, 64), "reward functions, and with them agents"),
        Flag("--elite_num", 3, whole(1), "best-ranked agents that keep their reward function in a search round"),
        Flag("--LLM_freq", 200_000, whole(1), "env steps from one search round to the next"),
        Flag("--fitness", "success", ("success", "return"), "rank by success rate, or by mean environment return"),
        Flag(
            "--scale_type",
            2,
            (0, 1, 2),
            "how new rewards are mapped onto the best ones: 2: mean and standard deviation, 1: the latter, 0: not",
        ),
        Flag("--buffer_transfer", 0, SWITCH, "0: relabel the buffer with a new function, 1: copy the best column"),
        Flag("--inherit", 1, SWITCH, "1: agents that are not elite take over the best agent's networks"),
        Flag("--constraint_coef", 1.0, real(0), "weight of the squared distance to the inherited networks; 0: none"),
        Flag(
            "--order_check",
            0.0,
            real(0, 1),
            "reject functions that rank a smaller share of the successful episodes above all failed ones; 0: log only",
        ),
    ),
    "collection": (
        Flag(
            "--selection",
            "thompson",
            ("thompson", "uniform", "all"),
            "whose policies collect: Thompson sampling, agents drawn at random, or every agent",
        ),
        Flag("--windows_length", 1000, whole(1), "last outcomes of an agent that Thompson sampling looks at"),
        Flag(
            "--explore_episode",
            0,
            SWITCH,
            "1: one episode more in each iteration, of an untrained policy, as published",
        ),
        Flag("--shared_buffer", 1, SWITCH, "0: each agent learns from what it collected alone"),
        Flag("--buffer-size", 1_000_000, whole(1), "env steps that the replay buffer holds"),
    ),
    "SAC": (
        Flag("--hidden-size", 256, whole(1), "units in each of the three hidden layers"),
        Flag("--q-lr", 3e-4, real(0, above=True), "learning rate of the critics"),
        Flag("--p-lr", 3e-4, real(0, above=True), "learning rate of the actor and the temperature"),
        Flag("--batch-size", 128, whole(1), "transitions that an agent draws for one update"),
        Flag("--update-cycles", 1, whole(1), "updates of each agent per env step"),
        Flag("--reward-scale", 1.0, real(0, above=True), "factor on every reward that is drawn"),
        Flag("--gamma", 0.99, real(0, 1), "discount per env step"),
        Flag("--tau", 5e-3, real(0, 1, above=True), "share of the critics in their targets at each target update"),
        Flag("--target-update-interval", 1, whole(1), "updates from one target update to the next"),
        Flag("--log-std-max", 2.0, real(-math.inf), "upper bound of the policy's log standard deviation"),
        Flag("--log-std-min", -20.0, real(-math.inf), "lower bound of the policy's log standard deviation"),
        Flag(
            "--initial_temperature",
            0.1,
            real(0, above=True),
            "temperature, the weight of the entropy, that learning begins with; 1 acts at random for longer",
        ),
        Flag("--bootstrap_timeouts", 1, SWITCH, "0: treat the time limit as a terminal state, as published"),
    ),
    "machine": (
        Flag("--device", "auto", ("auto", "cpu", "cuda"), "where the networks learn; auto: the GPU if there is one"),
        Flag("--cuda", False, None, "the same as --device cuda"),
        Flag("--num_workers", 0, whole(0), "processes that run environments; 0: one per core"),
        Flag("--num_learners", 0, whole(0), "processes that share the learning on the CPU; 0: one per core"),
        Flag(
            "--overlap",
            0,
            SWITCH,
            "1: collect the next episodes while the agents learn; the policies that collect are one iteration old",
        ),
    ),
    "output": (
        Flag("--log-dir", "logs", path, "the directory in which run directories are made"),
        Flag("--exp_name", None, directory_name, "the run directory's name; none: setting, task, model and seed"),
    ),
}

IGNORED = {  # flag of the published interface: what to use instead, where there is something
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

FLAGS = [flag.name for group in GROUPS.values() for flag in group] + [*IGNORED, "--help"]


def parse_args(argv: Sequence[str] | None, setting: Setting) -> argparse.Namespace:
    """The flags as attributes, ``-`` as ``_`` in their names: ``args.env_name``, ``args.LLM_freq``.

    `argv` are the words after the script's name; None takes the process's own. ``--cuda`` is ``args.device == "cuda"``.
    ``args.ignored_flags`` lists the flags given that are accepted and have no effect, in the order given. A mistake
    prints one line and exits with 2.
    """
    parser = _parser(setting)
    args, rest = parser.parse_known_args(_spell(sys.argv[1:] if argv is None else argv, parser))
    if rest:
        parser.error(f"{rest[0]!r} belongs to no flag; each value stands behind its flag, as in --seed 1 or --seed=1")
    for wrong, message in _contradictions(args, setting):
        if wrong:
            parser.error(message)
    return args


def default_name(args: argparse.Namespace, setting: Setting) -> str:
    """The run directory's name when none is given: setting, task, model and seed, safe in any file system."""
    parts = (setting, args.env_name, args.model[-80:], f"seed{args.seed}")
    return "_".join(re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("_") for part in parts)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


class _Ignore(argparse.Action):
    """Takes a value, or none, and keeps only that the flag was given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        namespace.ignored_flags = [*namespace.ignored_flags, option]


def _parser(setting: Setting) -> _Parser:
    described = {
        "from_scratch": "Train a population of agents on reward functions that a language model writes from scratch.",
        "with_init": "The same search, starting from the task's human-designed reward.",
    }
    parser = _Parser(
        prog=f"lares_{setting}.py",
        usage="%(prog)s [--flag value ...]",
        description=described[setting],
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=112),
        allow_abbrev=False,
    )
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            if flag.name == "--cuda":
                group.add_argument(flag.name, dest="device", action="store_const", const="cuda", help=_help(flag))
            elif flag.values is None:
                group.add_argument(flag.name, action="store_true", help=_help(flag))
            else:
                group.add_argument(flag.name, default=flag.default, **_value(flag), help=_help(flag))
    group = parser.add_argument_group("accepted for compatibility, without effect")
    for ignored, instead in IGNORED.items():
        group.add_argument(ignored, nargs="?", action=_Ignore, default=argparse.SUPPRESS, metavar="X", help=instead)
    parser.set_defaults(ignored_flags=[])
    return parser


def _value(flag: Flag) -> dict[str, Any]:
    if not callable(flag.values):
        assert flag.values is not None
        return {"type": type(flag.values[0]), "choices": flag.values}
    placeholders = {int: "N", float: "X"}
    return {
        "type": flag.values,
        "metavar": placeholders.get(type(flag.default), "PATH" if flag.values is path else "NAME"),
    }


def _help(flag: Flag) -> str:
    if flag.default is None:
        default = "none"
    elif flag.default is False:
        default = "off"
    else:
        default = f"{flag.default:g}" if isinstance(flag.default, float) else str(flag.default)
    return f"{flag.help} (default: {default})"


def _spell(argv: Sequence[str], parser: _Parser) -> list[str]:
    """The same words with every flag in the spelling of the table; a flag that is not in it ends the program."""
    spelled = {flag.lstrip("-").replace("_", "-"): flag for flag in [*FLAGS, "-h"]}
    words = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag.startswith("-") and math.isnan(_number(word)):
            plain = flag.lstrip("-").replace("_", "-")
            if plain not in spelled:
                parser.error(f"there is no flag {flag}{nearest(flag, FLAGS)}")
            word = spelled[plain] + equals + value
        words.append(word)
    return words


def _contradictions(args: argparse.Namespace, setting: Setting) -> list[tuple[bool, str]]:
    """What no flag can get wrong alone: (whether it is wrong, the line that says so)."""
    arms = args.pop_size + (setting == "with_init") + args.explore_episode
    lower = f"--elite_num {args.pop_size - 1} or less" if args.pop_size > 1 else "--elite_num 1"
    return [
        (
            args.elite_num >= args.pop_size and not args.elite_num == args.pop_size == 1,
            f"--elite_num {args.elite_num} leaves nothing to replace in --pop_size {args.pop_size}; give {lower}",
        ),
        (
            args.total_timesteps <= args.init_exploration_steps,
            f"--total-timesteps {args.total_timesteps} leaves nothing to learn after --init-exploration-steps "
            f"{args.init_exploration_steps}; raise the first or lower the second",
        ),
        (
            args.LLM_freq < args.episode_length,
            f"--LLM_freq {args.LLM_freq} is less than one episode; give --episode-length {args.episode_length} or more",
        ),
        (
            args.buffer_size < args.batch_size,
            f"--buffer-size {args.buffer_size} is less than --batch-size {args.batch_size}; raise the first",
        ),
        (
            args.buffer_size < arms * args.episode_length,
            f"--buffer-size {args.buffer_size} is less than the {arms * args.episode_length} env steps that one "
            f"iteration can collect; raise it",
        ),
        (
            args.log_std_min >= args.log_std_max,
            f"--log-std-min {args.log_std_min:g} must be below --log-std-max {args.log_std_max:g}",
        ),
    ]
