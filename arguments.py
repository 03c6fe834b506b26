"""The command line of both entry scripts: one table of flags, each with its default, unit, range and help.

The published interface works verbatim; `runs.flags` says which spellings of a flag are accepted.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runs.flags import FlagParser, directory_name, file, flag, json_object, name, path, real, success_rule, whole
from runs.presets import HYPHENATED, IGNORED, PRESETS, describe_presets, preset
from runs.resume_flags import resumed_flags

if TYPE_CHECKING:
    from sac import SacConfig

Setting = Literal["from_scratch", "with_init"]
Switch = Literal[0, 1]


@dataclass(frozen=True)
class Arguments:
    """The flags of a run. ``Arguments("from_scratch", pop_size=3)`` is the default run with a smaller population.

    Env steps are steps of the simulator. A decision is one action of a policy, which lasts ``action_repeat`` env steps
    and becomes one transition. Without an action repeat the three are the same.
    """

    setting: Setting

    env_name: str = flag("window-close-v2", "the task; `python task_specs.py` lists them all", name, heading="task")
    task_file: str | None = flag(None, "a Python file with task specs of your own", file)
    episode_length: int = flag(150, "length of an episode", whole(1), unit="env steps")
    action_repeat: int = flag(1, "how long each action is held; its rewards are summed", whole(1), unit="env steps")
    hide_goal: Switch = flag(0, "1: zeros replace the goal in the observation, as published")
    preset: Literal["none", "published", "eureka"] = flag(
        "none",
        "sets the flags listed below; flags given after it override them; published: as the published code; eureka: "
        "as Ma et al. 2023, where training starts over in each search round",
    )

    total_timesteps: int = flag(
        1_000_000,
        "length of the run, initial exploration included",
        whole(1),
        unit="env steps",
        heading="length of the run, and evaluation",
    )
    init_exploration_steps: int = flag(2_000, "uniformly random actions at the start", whole(1), unit="env steps")
    stop_success: float = flag(
        0.0, "end the run once an evaluation and --final_episodes reach this success rate; 0: never", real(0, 1)
    )
    display_interval: int = flag(10_000, "interval between evaluations", whole(1), unit="env steps")
    eval_episodes: int = flag(10, "episodes per agent in each evaluation", whole(1), unit="episodes")
    final_episodes: int = flag(
        50,
        "fresh episodes on which the best policies are compared, and as many again to evaluate the one that is chosen",
        whole(1),
        unit="episodes",
    )
    seed: int = flag(123, "seed of all randomness in the run", whole(0))

    model: str = flag(
        "gpt-4o-mini",
        "any model of an OpenAI-compatible service (OPENAI_API_KEY, OPENAI_BASE_URL); builtin: program search without "
        "a model, needs no key; replay:DIR: the responses recorded in an earlier run of the same task and setting, "
        "replay-any:DIR: of any; manual:DIR: answers that you put there as files",
        name,
        heading="language model",
    )
    temperature: float = flag(1.0, "sampling temperature of the model", real(0, 2))
    max_answer_tokens: int = flag(
        16_384, "maximum length of one answer, thinking included; 0: the service's own limit", whole(0), unit="tokens"
    )
    llm_options: dict[str, Any] | None = flag(
        None,
        "parameters for the body of each request, as in '{\"top_p\": 0.9}'; null leaves one of ours out",
        json_object,
    )
    llm_attempts: int = flag(4, "maximum number of requests in a search round", whole(1), unit="requests")
    llm_deadline: float = flag(
        600.0, "maximum time that a search round waits for the model", real(0, above=True), unit="seconds"
    )
    llm_context: int = flag(
        16_000,
        "maximum length of the conversation sent to the model, by our own count; older turns are summarized",
        whole(1),
        unit="tokens",
    )
    max_llm_calls: int = flag(0, "maximum number of requests in the whole run; 0: no limit", whole(0), unit="requests")
    max_llm_tokens: int = flag(0, "maximum for the whole run, sent and received; 0: no limit", whole(0), unit="tokens")
    price_in: float = flag(0.0, "price of tokens sent, for the cost in the log", real(0), unit="per million tokens")
    price_out: float = flag(0.0, "price of tokens received", real(0), unit="per million tokens")
    human_feedback: str | None = flag(None, "a file whose text, if any, goes to the model at each search round", path)
    prompts: str | None = flag(
        None, "a directory with your own versions of all the files in prompts/from_scratch or prompts/with_init", path
    )
    examples: Literal["none", "solved"] = flag(
        "none", "solved: the first prompt shows functions that solved other tasks, those kept in recordings/solved/"
    )
    dry_run: bool = flag(False, "print the first prompt and what the run would cost, then exit")

    pop_size: int = flag(
        5,
        "number of reward functions, each with an agent of its own",
        whole(1, 64),
        heading="population and reward search",
    )
    elite_num: int = flag(
        3, "number of best agents that keep their reward function in a search round", whole(0), unit="agents"
    )
    LLM_freq: int = flag(0, "interval between search rounds; 0: a fifth of the run", whole(0), unit="env steps")
    fitness: Literal["success", "return"] = flag(
        "success",
        "rank agents by success rate and, where chance explains the difference, by how near to success they came; "
        "return: by success rate, then by the environment's return, as published",
    )
    success: str | int = flag(
        "any", "when an episode is solved: at any decision, at its last one, or at each of its last N", success_rule
    )
    scale_type: Literal[0, 1, 2] = flag(
        2, "rescale new rewards to the best function's 2: mean and standard deviation, 1: standard deviation; 0: do not"
    )
    buffer_transfer: Switch = flag(0, "0: relabel the buffer with a new function, 1: copy the best column")
    inherit: Switch = flag(1, "1: agents with a new reward function start from the best agent's networks")
    restart: Switch = flag(
        0, "1: each search round begins anew: new networks for all agents, an empty buffer, and the initial exploration"
    )
    constraint_coef: float = flag(
        1.0, "weight of the squared distance to the inherited networks; 0: no constraint", real(0)
    )
    order_check: float = flag(
        0.0,
        "smallest share of the successful episodes that a function must rank above all failed ones; 0: only log it",
        real(0, 1),
    )
    choice: Literal["scored", "first"] = flag(
        "scored",
        "which valid candidates take open slots: those that score best on stored episodes and differ from each other; "
        "first: the first ones, as published",
    )
    fit_numbers: Switch = flag(
        0, "1: in each search round, also try the elites' reward functions with numbers fitted to stored episodes"
    )
    selection: Literal["thompson", "uniform", "all"] = flag(
        "thompson",
        "whose policies collect: agents drawn by Thompson sampling, drawn at random, or every agent",
        heading="collection",
    )
    windows_length: int = flag(
        1000,
        "each agent's latest episodes, solved at the last decision or not, that Thompson sampling looks at",
        whole(1),
        unit="episodes",
    )
    explore_episode: Switch = flag(
        0, "1: one more episode in each iteration, of a policy that is never trained, as published from scratch"
    )
    shared_buffer: Switch = flag(1, "0: each agent learns only from what it collected")
    buffer_size: int = flag(1_000_000, "capacity of the replay buffer", whole(1), unit="transitions, one per decision")

    hidden_size: int = flag(256, "width of each hidden layer", whole(1), unit="units", heading="SAC")
    hidden_layers: int = flag(3, "number of hidden layers in each network", whole(1, 16))
    activation: Literal["relu", "tanh", "elu"] = flag("relu", "activation function of the hidden layers")
    q_lr: float = flag(3e-4, "learning rate of the critics", real(0, above=True))
    p_lr: float = flag(3e-4, "learning rate of the actor and the temperature", real(0, above=True))
    batch_size: int = flag(
        128, "size of the batch for one update of an agent", whole(1), unit="transitions, one per decision"
    )
    update_cycles: float = flag(
        1.0, "updates of each agent; 0.5: one for every second decision", real(0, above=True), unit="per decision"
    )
    reward_scale: float = flag(1.0, "factor applied to every reward drawn from the buffer", real(0, above=True))
    gamma: float | None = flag(
        None,
        "discount; if not set, 1 - 5 / (decisions in an episode), kept within 0.95 and 0.995 (Hansen et al. 2024)",
        real(0, 1),
        unit="per decision",
    )
    n_step: int = flag(3, "length of n-step returns", whole(1, 100), unit="decisions")
    tau: float = flag(
        5e-3, "how far the targets move towards the critics in each target update", real(0, 1, above=True)
    )
    target_update_interval: int = flag(1, "interval between target updates", whole(1), unit="updates")
    log_std_max: float = flag(2.0, "upper bound of the policy's log standard deviation", real(-float("inf")))
    log_std_min: float = flag(-20.0, "lower bound of the policy's log standard deviation", real(-float("inf")))
    initial_temperature: float = flag(
        0.01,
        "initial weight of the entropy term; with 1, as published, agents act at random for longer",
        real(0, above=True),
    )
    learn_temperature: Switch = flag(1, "0: keep the temperature at --initial_temperature")
    target_entropy: float = flag(
        -0.5,
        "policy entropy that the temperature is tuned to reach",
        real(-float("inf")),
        unit="nats per dimension of the action",
    )
    layer_norm: Switch = flag(1, "1: layer normalization in the critics")
    normalize_rewards: Switch = flag(1, "1: divide rewards by the standard deviation of an agent's discounted returns")
    policy_delay: int = flag(
        2, "interval between updates of the actor and the temperature", whole(1), unit="updates of the critics"
    )
    bootstrap_timeouts: Switch = flag(1, "0: treat the time limit as a terminal state, as published")

    device: Literal["auto", "cpu", "cuda"] = flag(
        "auto",
        "where the networks are trained; auto: the GPU if there is one",
        heading="machine",
        shorthands={"--cuda": "cuda"},
    )
    num_workers: int = flag(0, "worker processes that run environments; 0: one per core", whole(0), unit="processes")
    num_learners: int = flag(0, "processes that share learning on the CPU; 0: one per core", whole(0), unit="processes")
    overlap: Switch = flag(
        0, "1: collect the next episodes while the agents learn; the policies that collect are one iteration old"
    )

    checkpoint_interval: int = flag(
        50_000, "interval between checkpoints", whole(1), unit="env steps", heading="output"
    )
    resume: str | None = flag(
        None,
        "directory of a run to continue from its last checkpoint, with its flags; only these may be changed: "
        "--total-timesteps, --stop_success, --task_file, --human_feedback, --prompts, --device, --num_workers, "
        "--num_learners, limits, prices and output",
        path,
    )
    log_dir: str = flag("logs", "directory in which run directories are created", path)
    exp_name: str | None = flag(
        None, "name of the run directory; if not set: setting, task, model, seed", directory_name
    )
    quiet: bool = flag(False, "print only warnings and how the run ended; run.log has every line")

    ignored_flags: tuple[str, ...] = ()  # the flags given that are accepted without effect, in the order given

    @property
    def search_interval(self) -> int:
        """Env steps from one search round to the next: `LLM_freq`, or a fifth of the run, as in the paper."""
        return self.LLM_freq or max(self.total_timesteps // 5, self.episode_length)

    @property
    def latest_search(self) -> int:
        """Env steps after which no search round begins: in the last tenth of a run, new rewards would teach little."""
        return self.total_timesteps * 9 // 10

    @property
    def search_rounds(self) -> int:
        """Number of search rounds, the first population included."""
        return 1 + self.latest_search // self.search_interval

    @property
    def discount(self) -> float:
        """Discount of a decision: `gamma`, or one that suits the episode length (Hansen et al., "TD-MPC2", 2024)."""
        decisions = self.episode_length / self.action_repeat
        return min(max(1 - 5 / decisions, 0.95), 0.995) if self.gamma is None else self.gamma

    def sac_config(self, obs_size: int, action_size: int) -> "SacConfig":
        """Return the hyperparameters of all agents of a task with these observation and action sizes."""
        from sac import SacConfig  # here, so that --help and a typo do not wait for torch

        return SacConfig(
            obs_size=obs_size,
            action_size=action_size,
            hidden_size=self.hidden_size,
            hidden_layers=self.hidden_layers,
            activation=self.activation,
            q_lr=self.q_lr,
            p_lr=self.p_lr,
            gamma=self.discount,
            tau=self.tau,
            log_std_min=self.log_std_min,
            log_std_max=self.log_std_max,
            initial_temperature=self.initial_temperature,
            learn_temperature=bool(self.learn_temperature),
            n_step=self.n_step,
            target_entropy=self.target_entropy,
            policy_delay=self.policy_delay,
            layer_norm=bool(self.layer_norm),
            normalize_rewards=bool(self.normalize_rewards),
            target_update_interval=self.target_update_interval,
            reward_scale=self.reward_scale,
            constraint_coef=self.constraint_coef,
        )


DESCRIPTIONS: dict[Setting, str] = {
    "from_scratch": "Train a population of agents on reward functions that a language model writes from scratch.",
    "with_init": "Train a population of agents on reward functions that a language model makes from the human one.",
}


def parse_args(argv: Sequence[str] | None, setting: Setting) -> Arguments:
    """Parse `argv`, the words after the script's name, into flags; None means those of this process.

    On a usage error, print one line and exit with status 2.
    """
    parser = FlagParser(
        Arguments, f"lares_{setting}.py", DESCRIPTIONS[setting], describe_presets(setting), HYPHENATED, IGNORED
    )
    words = parser.spell(sys.argv[1:] if argv is None else argv)
    if directory := parser.values(words)["resume"]:
        args = Arguments(setting, **resumed_flags(parser, words, setting, directory))
    else:
        task = parser.values(words)["env_name"]
        presets = {f"--preset={name}": preset(name, setting, task) for name in PRESETS}
        # A preset is expanded in place, so that flags after it override its own.
        words = [part for word in words for part in (word, *presets.get(word, ()))]
        args = Arguments(setting, **parser.values(words))
    for message in contradictions(args):
        parser.error(message)
    return args


def remarks_on(args: Arguments) -> list[str]:
    """Return remarks on flags that are odd but not wrong, one line each."""
    remarks = []
    if args.ignored_flags:
        remarks.append(f"without effect: {', '.join(args.ignored_flags)}")
    if args.human_feedback and not Path(args.human_feedback).exists():
        remarks.append(f"--human_feedback {args.human_feedback} does not exist yet; it is read at each search round")
    return remarks


def default_name(args: Arguments) -> str:
    """Return the run directory's name when none is given: setting, task, model and seed, safe in any file system."""
    parts = (args.setting, args.env_name, args.model[-80:], f"seed{args.seed}")
    return "_".join(re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("_") for part in parts)


def contradictions(args: Arguments) -> list[str]:
    """Return errors in combinations of flags, each as one line that says what to give instead."""
    policies = args.pop_size + (args.setting == "with_init") + args.explore_episode
    decisions = args.episode_length // args.action_repeat
    lower = f"--elite_num {args.pop_size - 1} or less" if args.pop_size > 1 else "--elite_num 1"
    multiple = args.action_repeat * max(decisions, 1)
    cases = [
        (
            args.elite_num >= args.pop_size and not args.elite_num == args.pop_size == 1,
            f"--elite_num {args.elite_num} leaves nothing to replace in --pop_size {args.pop_size}; give {lower}",
        ),
        (
            args.elite_num == 0 and not args.restart,
            "--elite_num 0 leaves nothing to scale new rewards to; give --elite_num 1 or more, or --restart 1",
        ),
        (
            args.episode_length % args.action_repeat > 0,
            f"--episode-length {args.episode_length} is not a multiple of --action-repeat {args.action_repeat}; "
            f"give --episode-length {multiple}",
        ),
        (
            args.init_exploration_steps < args.action_repeat,
            f"--init-exploration-steps {args.init_exploration_steps} is less than one action of --action-repeat "
            f"{args.action_repeat}; raise the first or lower the second",
        ),
        (
            args.total_timesteps <= args.init_exploration_steps,
            f"--total-timesteps {args.total_timesteps} leaves nothing to learn after --init-exploration-steps "
            f"{args.init_exploration_steps}; raise the first or lower the second",
        ),
        (
            0 < args.LLM_freq < args.episode_length,
            f"--LLM_freq {args.LLM_freq} is less than one episode; give --LLM_freq {args.episode_length} or more",
        ),
        (
            bool(args.restart) and args.search_interval <= args.init_exploration_steps,
            f"--LLM_freq {args.search_interval} leaves nothing to learn after --init-exploration-steps "
            f"{args.init_exploration_steps}, which --restart 1 repeats in each search round; raise the first",
        ),
        (
            bool(args.restart and args.inherit),
            "--restart 1 leaves no networks to take over; give --inherit 0 with it",
        ),
        (
            bool(args.restart and args.scale_type),
            f"--restart 1 leaves no stored rewards for --scale_type {args.scale_type}; give --scale_type 0 with it",
        ),
        (
            isinstance(args.success, int) and args.success > decisions,
            f"--success {args.success} is more than the {decisions} decisions of an episode; give {decisions} or less",
        ),
        (
            args.buffer_size < args.batch_size,
            f"--buffer-size {args.buffer_size} is less than --batch-size {args.batch_size}; raise the first",
        ),
        (
            args.buffer_size < policies * decisions,
            f"--buffer-size {args.buffer_size} is less than the {policies * decisions} transitions that one iteration "
            f"can collect; raise it",
        ),
        (
            args.log_std_min >= args.log_std_max,
            f"--log-std-min {args.log_std_min:g} must be below --log-std-max {args.log_std_max:g}",
        ),
    ]
    return [message for wrong, message in cases if wrong]
