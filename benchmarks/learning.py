"""Learning curves: one agent of ours on the human reward, textbook SAC, and the whole method in both settings.

    python benchmarks/learning.py run agent drawer-open --seed 1      one curve, into a JSON file of its own
    python benchmarks/learning.py run agent_narrow drawer-open        the same, as small as the sweep's agents
    python benchmarks/learning.py run agent_wide drawer-open          larger, and with more updates
    python benchmarks/learning.py run textbook drawer-open            the same as textbook SAC, as ours was once
    python benchmarks/learning.py run sb3 drawer-open                 Stable-Baselines3 (benchmarks/requirements.txt)
    python sweep.py learning --only tuning                            the whole method in both settings
    python benchmarks/learning.py gather logs/learning_tuning         its curves, into files like the others
    python benchmarks/learning.py draw --anchors curves.csv           all curves as a figure and tables

The protocol is that of the published curves it can be held against (Hansen, Su, Wang, "TD-MPC2", ICLR 2024, whose
repository has them as CSV with the columns method, task, env_steps, seed, success): the reward summed over an action
repeat of 2, episodes of 200 env steps, goal visible, success at the last step, env steps counted with the repeat.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

ACTION_REPEAT, EPISODE_LENGTH = 2, 200
DECISIONS = EPISODE_LENGTH // ACTION_REPEAT
RANDOM_DECISIONS = 1_000
EVALUATE_EVERY, EVALUATION_EPISODES = 5_000, 20
FLAGS: dict[str, dict[str, Any]] = {  # of the single agents' learners, beside the defaults
    "agent": {},
    "agent_narrow": {"hidden_size": 128},  # as an agent of the sweep's populations
    "agent_wide": {"hidden_size": 512, "update_cycles": 2},  # for more than a population costs
    "textbook": {
        "gamma": 0.99,
        "n_step": 1,
        "layer_norm": 0,
        "normalize_rewards": 0,
        "policy_delay": 1,
        "target_entropy": -1.0,
        "initial_temperature": 0.1,
    },
}
LABELS = {
    "agent": "one agent, human reward",
    "agent_narrow": "one agent, human reward, 128 units a layer",
    "agent_wide": "one agent, human reward, 512 units a layer, two updates a decision",
    "textbook": "one agent, human reward, textbook SAC",
    "sb3": "Stable-Baselines3's SAC, human reward",
    "from_scratch": "LaRes from scratch, builtin",
    "with_init": "LaRes with init, builtin",
    "from_scratch_wide": "LaRes from scratch, builtin, 256 units a layer",
    "with_init_wide": "LaRes with init, builtin, 256 units a layer",
    # Of an earlier version; none are made any more.
    "from_scratch_textbook": "LaRes from scratch, builtin, textbook SAC",
}

Row = dict[str, Any]


def agent(method: str, task_name: str, seed: int, env_steps: int) -> Iterator[Row]:
    """One agent of ours that learns from the environment's own reward."""
    import torch

    from arguments import Arguments
    from population import Population
    from replay_buffer import ReplayBuffer
    from task_specs import get_task
    from tasks.episode import UNIFORM, Order
    from workers.collectors import Collectors, PolicyShape

    torch.set_num_threads(1)
    task, device = get_task(task_name), torch.device("cpu")
    flags = {"episode_length": EPISODE_LENGTH, "action_repeat": ACTION_REPEAT, **FLAGS[method]}
    args = Arguments("from_scratch", **flags)
    config = args.sac_config(task.obs_size, task.action_size)
    buffer = ReplayBuffer(env_steps, task.obs_size, task.action_size, task.variable_width, 1, device)
    agent = Population(config, buffer, seed, seed)
    collectors = Collectors(task, PolicyShape(agent.sizes), 1, 1, action_repeat=ACTION_REPEAT)
    decisions = evaluated = 0
    while decisions * ACTION_REPEAT < env_steps:
        policy = UNIFORM if decisions < RANDOM_DECISIONS else 0
        [episode] = collectors.run(
            [Order(policy, seed * 1_000_003 + decisions, DECISIONS, noise_seed=seed * 1_000_033 + decisions)]
        )
        for start, stop in buffer.add(episode.transitions, 0, bool(episode.success.any())):
            buffer.set_rewards(0, start, stop, buffer.columns["env_reward"][start:stop])
        decisions += DECISIONS
        if policy == UNIFORM:
            continue
        agent.learn(args.batch_size, round(DECISIONS * args.update_cycles))
        collectors.set_policies(agent.policies())
        if decisions * ACTION_REPEAT >= evaluated + EVALUATE_EVERY:
            evaluated = decisions * ACTION_REPEAT
            seeds = range(2**31 + evaluated, 2**31 + evaluated + EVALUATION_EPISODES)
            episodes = collectors.run([Order(0, number, DECISIONS) for number in seeds])
            yield _row(evaluated, [episode.success for episode in episodes], [e.env_return for e in episodes])
    collectors.close()


def sb3(method: str, task_name: str, seed: int, env_steps: int) -> Iterator[Row]:
    """Stable-Baselines3's SAC with the same networks and hyperparameters, in the same environment."""
    import gymnasium
    import torch
    from stable_baselines3 import SAC

    from task_specs import get_task
    from tasks.environment import TaskEnvironment

    torch.set_num_threads(1)
    task = get_task(task_name)

    class Environment(gymnasium.Env[np.ndarray, np.ndarray]):
        """The task in Gymnasium's form."""

        def __init__(self, seed: int) -> None:
            self.inner = TaskEnvironment(task, action_repeat=ACTION_REPEAT)
            self.seeds = np.random.default_rng(seed)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (task.obs_size,), np.float32)
            self.action_space = gymnasium.spaces.Box(-1, 1, (task.action_size,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
            self.decisions = 0
            return self.inner.reset(int(self.seeds.integers(2**31))), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            step = self.inner.step(action)
            self.decisions += 1
            over = self.decisions >= DECISIONS
            return (
                step.obs,
                step.env_reward,
                step.terminated,
                over,
                {"success": step.success, "env_reward": step.env_reward},
            )

    model = SAC(
        "MlpPolicy",
        Environment(seed),
        learning_rate=3e-4,
        buffer_size=env_steps,
        learning_starts=RANDOM_DECISIONS,
        batch_size=128,
        tau=0.005,
        gamma=0.99,
        ent_coef="auto_0.1",
        target_entropy=-float(task.action_size),
        policy_kwargs={"net_arch": [256] * 3},
        seed=seed,
    )
    for evaluated in range(EVALUATE_EVERY, env_steps + 1, EVALUATE_EVERY):
        model.learn(EVALUATE_EVERY // ACTION_REPEAT, reset_num_timesteps=False)
        environment = Environment(2**31 + evaluated)
        successes, returns = [], []
        for _ in range(EVALUATION_EPISODES):
            obs, _ = environment.reset()
            infos = []
            for _ in range(DECISIONS):
                obs, _, _, _, info = environment.step(model.predict(obs, deterministic=True)[0])
                infos.append(info)
            successes.append(np.array([info["success"] for info in infos]))
            returns.append(sum(info["env_reward"] for info in infos))
        yield _row(evaluated, successes, returns)


def _row(env_steps: int, successes: list[np.ndarray], returns: list[float]) -> Row:
    return {
        "env_steps": env_steps,
        "success": float(np.mean([success[-1] for success in successes])),
        "success_any": float(np.mean([success.any() for success in successes])),
        "env_return": float(np.mean(returns)),
    }


METHODS = {**dict.fromkeys(FLAGS, agent), "sb3": sb3}


def run(method: str, task: str, seed: int, env_steps: int, out: Path) -> None:
    """One curve; its file is written anew after each evaluation."""
    curve: dict[str, Any] = {"method": method, "task": task, "seed": seed, "rows": []}
    start = time.monotonic()
    for row in METHODS[method](method, task, seed, env_steps):
        row["wall_time"] = round(time.monotonic() - start, 1)
        print(f"{method} {task} seed {seed}: {row}", flush=True)
        curve["rows"].append(row)
        _write(curve, out)


def gather(sweeps: Sequence[Path], out: Path) -> None:
    """The curves of all finished runs of sweeps of the whole method, each as a file like the others."""
    from runs.reading import read_run

    for found in [read_run(config.parent) for sweep in sweeps for config in sorted(sweep.glob("*/config.json"))]:
        if "final_last_step_success_rate" not in found.summary:
            print(f"{found.name} has not ended ({found.status}), and is left out")
            continue
        wide = found.flags["hidden_size"] > FLAGS["agent_narrow"]["hidden_size"]
        method, seed = found.flags["setting"] + ("_wide" if wide else ""), found.flags["seed"]
        curve = {
            "method": method,
            "task": found.task,
            "seed": seed,
            "commit": found.config["commit"],
            "rows": [_best(row["env_steps"], "", row["best"]) for row in found.evaluations],
            "solved": found.status == "solved",
            "final": {
                "final": "the chosen policy over 50 fresh episodes",
                **_best(found.env_steps, "final_", found.summary),
                "wall_time": round(found.summary["wall_time"], 1),
            },
        }
        _write(curve, out)


def _best(env_steps: int, prefix: str, row: Row) -> Row:
    return {
        "env_steps": env_steps,
        "success": row[f"{prefix}last_step_success_rate"],
        "success_any": row[f"{prefix}any_step_success_rate"],
        "env_return": row[f"{prefix}env_return"],
    }


def _write(curve: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{curve['method']}-{curve['task']}-{curve['seed']}.json"
    path.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


def draw(out: Path, anchors: Path | None, tasks: Sequence[str], methods: Sequence[str]) -> None:
    """The curves of `tasks` and `methods` (if empty: of all) in `out` as a figure and tables, published ones beside."""
    from figures.curves import Curve, compare, read_published
    from figures.files import write

    curves = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*-*-*.json"))]
    curves = [
        curve
        for curve in curves
        if (not tasks or curve["task"] in tasks) and (not methods or curve["method"] in methods)
    ]
    if not curves:
        sys.exit(f"no such curve is in {out}; make one with: python benchmarks/learning.py run agent window-close")
    ours = []
    for curve in curves:
        steps, success = (np.array([row[name] for row in curve["rows"]], float) for name in ("env_steps", "success"))
        final = curve.get("final", curve["rows"][-1])["success"]
        solved = curve.get("solved", False)
        ours.append(Curve(curve["task"], LABELS[curve["method"]], steps, success, final=final, solved=solved))
    last = max(curve.env_steps[-1] for curve in ours)
    published = read_published(anchors, {curve.task for curve in ours}, last) if anchors else []
    protocol = f"{EPISODE_LENGTH} env steps an episode, action repeat {ACTION_REPEAT}, goal visible"
    written, text = write(compare(ours, published), out / "learning.png", "last_step_success_rate", protocol)
    print(f"{text}\n{len(curves)} curves: {', '.join(map(str, written))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="make one curve")
    one.add_argument("method", choices=METHODS)
    one.add_argument("task")
    one.add_argument("--seed", type=int, default=1, help="(default: 1)")
    one.add_argument("--env-steps", type=int, default=100_000, help="with the action repeat (default: 100000)")
    finished = commands.add_parser("gather", help="take over the curves of finished runs")
    finished.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="directory of a sweep")
    picture = commands.add_parser("draw", help="draw all curves made so far")
    picture.add_argument("--anchors", type=Path, help="CSV of published curves (default: none)")
    picture.add_argument("--tasks", nargs="+", default=[], help="only these (default: all)")
    picture.add_argument("--methods", nargs="+", default=[], choices=LABELS, help="only these (default: all)")
    for command in (one, finished, picture):
        command.add_argument(
            "--out", type=Path, default=ROOT / "results" / "learning", help="(default: results/learning)"
        )
    args = parser.parse_args()
    if args.command == "run":
        run(args.method, args.task, args.seed, args.env_steps, args.out)
    elif args.command == "gather":
        gather(args.sweeps, args.out)
    else:
        draw(args.out, args.anchors, args.tasks, args.methods)


if __name__ == "__main__":
    main()
