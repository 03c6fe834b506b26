"""Learning curves: one agent of ours with the human reward, Stable-Baselines3 with the same, and the whole method.

    python benchmarks/learning.py run human window-close --seed 1     one curve, into a JSON file of its own
    python benchmarks/learning.py run sb3 window-close --seed 1       needs benchmarks/requirements.txt
    python benchmarks/learning.py run lares window-close --seed 1     lares_from_scratch.py with --model builtin
    python benchmarks/learning.py draw --anchors curves.csv           all curves as a figure, tables and one JSON

The protocol is that of the published curves it can be held against (Hansen, Su, Wang, "TD-MPC2", ICLR 2024, whose
repository has them as CSV with the columns method, task, env_steps, seed, success): the reward summed over an action
repeat of 2, episodes of 200 env steps, goal visible, success at the last step, env steps counted with the repeat.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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
TEMPERATURE = 0.1
LABELS = {
    "human": "LaRes' SAC",
    "sb3": "Stable-Baselines3's SAC",
    "lares": "LaRes from scratch, builtin, without the human reward",
}

Row = dict[str, Any]


def human(task_name: str, seed: int, env_steps: int, temperature: float) -> Iterator[Row]:
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
    config = Arguments("from_scratch", initial_temperature=temperature).sac_config(task.obs_size, task.action_size)
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
        agent.learn(128, DECISIONS)
        collectors.set_policies(agent.policies())
        if decisions * ACTION_REPEAT >= evaluated + EVALUATE_EVERY:
            evaluated = decisions * ACTION_REPEAT
            seeds = range(2**31 + evaluated, 2**31 + evaluated + EVALUATION_EPISODES)
            episodes = collectors.run([Order(0, number, DECISIONS) for number in seeds])
            yield _row(evaluated, [episode.success for episode in episodes], [e.env_return for e in episodes])
    collectors.close()


def sb3(task_name: str, seed: int, env_steps: int, temperature: float) -> Iterator[Row]:
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
        ent_coef=f"auto_{temperature:g}",
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
                obs, _, _, _, info = environment.step(model.predict(obs)[0])
                infos.append(info)
            successes.append(np.array([info["success"] for info in infos]))
            returns.append(sum(info["env_reward"] for info in infos))
        yield _row(evaluated, successes, returns)


def lares(task_name: str, seed: int, env_steps: int, temperature: float) -> Iterator[Row]:
    """The whole method from scratch: population 5, no language model, nothing of the human reward."""
    runs = ROOT / "logs" / "learning"
    name = f"lares-{task_name}-{seed}-{time.time_ns()}"
    command = [
        *(sys.executable, str(ROOT / "lares_from_scratch.py"), "--model=builtin", f"--env-name={task_name}"),
        *(f"--seed={seed}", f"--total-timesteps={env_steps}", f"--LLM_freq={env_steps // 5}", f"--exp_name={name}"),
        *(f"--action-repeat={ACTION_REPEAT}", f"--episode-length={EPISODE_LENGTH}", f"--log-dir={runs}"),
        *(f"--init-exploration-steps={RANDOM_DECISIONS * ACTION_REPEAT}", f"--display-interval={EVALUATE_EVERY}"),
        *(f"--eval-episodes={EVALUATION_EPISODES}", f"--initial_temperature={temperature}", "--windows_length=500"),
        "--num_learners=1",  # like the others, so that their times can be compared
    ]
    metrics, read = runs / name / "metrics.jsonl", 0
    with subprocess.Popen(command) as process:
        running = True
        while running:
            running = process.poll() is None
            rows = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
            for row in map(json.loads, rows[read:]):
                best = row["best"]
                yield {
                    "env_steps": row["env_steps"],
                    "success": best["last_step_success_rate"],
                    "success_any": best["success_rate"],
                    "env_return": best["env_return"],
                }
            read = len(rows)
            time.sleep(2)
    if process.returncode:
        sys.exit(f"lares_from_scratch.py ended with {process.returncode}")


def _row(env_steps: int, successes: list[np.ndarray], returns: list[float]) -> Row:
    return {
        "env_steps": env_steps,
        "success": float(np.mean([success[-1] for success in successes])),
        "success_any": float(np.mean([success.any() for success in successes])),
        "env_return": float(np.mean(returns)),
    }


METHODS = {"human": human, "sb3": sb3, "lares": lares}


def run(method: str, task: str, seed: int, env_steps: int, temperature: float, out: Path) -> None:
    """One curve; its file is written anew after each evaluation."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    start = time.monotonic()
    for row in METHODS[method](task, seed, env_steps, temperature):
        rows.append({**row, "wall_time": round(time.monotonic() - start, 1)})
        print(f"{method} {task} seed {seed}: {rows[-1]}", flush=True)
        curve = {"method": method, "task": task, "seed": seed, "initial_temperature": temperature, "rows": rows}
        (out / f"{method}-{task}-{temperature:g}-{seed}.json").write_text(json.dumps(curve), encoding="utf-8")


def draw(out: Path, anchors: Path | None) -> None:
    """All curves found in `out` as `learning.json`, and as a figure and tables, published ones beside them."""
    from figures.curves import Curve, compare, read_published
    from figures.files import write

    curves = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*-*-*.json"))]
    if not curves:
        sys.exit(f"there are no curves in {out}; make some with: python benchmarks/learning.py run human window-close")
    ours = []
    for curve in curves:
        label = LABELS[curve["method"]]
        if curve["initial_temperature"] != TEMPERATURE:
            label += f", initial temperature {curve['initial_temperature']:g}"
        steps, success = (np.array([row[name] for row in curve["rows"]], float) for name in ("env_steps", "success"))
        ours.append(Curve(curve["task"], label, steps, success, final=float(success[-1])))
    last = max(curve.env_steps[-1] for curve in ours)
    published = read_published(anchors, {curve.task for curve in ours}, last) if anchors else []
    protocol = f"{EPISODE_LENGTH} env steps an episode, action repeat {ACTION_REPEAT}, goal visible"
    written, text = write(compare(ours, published), out / "learning.png", "last_step_success_rate", protocol)
    (out / "learning.json").write_text(json.dumps(curves, indent=1), encoding="utf-8")
    print(f"{text}\n{len(curves)} curves: {', '.join(map(str, [*written, out / 'learning.json']))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="make one curve")
    one.add_argument("method", choices=METHODS)
    one.add_argument("task")
    one.add_argument("--seed", type=int, default=1, help="(default: 1)")
    one.add_argument("--env-steps", type=int, default=100_000, help="with the action repeat (default: 100000)")
    one.add_argument("--temperature", type=float, default=TEMPERATURE, help="initial temperature (default: 0.1)")
    picture = commands.add_parser("draw", help="draw all curves made so far")
    picture.add_argument("--anchors", type=Path, help="CSV of published curves (default: none)")
    for command in (one, picture):
        command.add_argument("--out", type=Path, default=ROOT / "logs" / "learning", help="(default: logs/learning)")
    args = parser.parse_args()
    if args.command == "run":
        run(args.method, args.task, args.seed, args.env_steps, args.temperature, args.out)
    else:
        draw(args.out, args.anchors)


if __name__ == "__main__":
    main()
