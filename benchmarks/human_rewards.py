"""How well the derived human rewards agree with the environments' own: a table of all tasks.

    python benchmarks/human_rewards.py [TASK ...]

Each task is run for three random and three expert episodes of 150 steps. `float64` is the largest relative deviation of
the derived reward from the environment's; `compiled` that of its compiled form from the interpreted one. `float32` is
the largest deviation when all inputs have passed through a float32 buffer, relative to the reward or to 1, whichever is
larger; a step at which it is above 1e-4 sits on a threshold, and is counted instead. `success` counts the steps at
which the derived criterion or the entry's `success_expression` differs from the environment's.
"""

import argparse
import ast
import math
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import reward_utils
from reward_code import check_source
from reward_code.compile import compile_rows
from task_specs import TASKS, get_task
from tasks.environment import TaskEnvironment, scripted_expert
from tasks.task import Task, compile_expression

EPISODES = 3
STEPS = 150


@dataclass(frozen=True)
class Agreement:
    """A row of the table."""

    task: str
    steps: int
    float64: float
    float32: float
    thresholds: int
    compiled: float
    success: int
    expert: int

    @property
    def passes(self) -> bool:
        """Whether the derived reward can stand in for the environment's."""
        few = self.thresholds <= 0.01 * self.steps
        return self.float64 <= 1e-6 and self.float32 <= 1e-4 and few and self.compiled <= 1e-6 and self.success == 0


def measure(name: str) -> Agreement:
    """Compare the human reward of one task with its environment."""
    task = get_task(name)
    human = task.human_reward
    assert human is not None
    reward, success = function(human.source, "compute_reward"), function(human.success_source, "success")
    criterion = compile_expression(task.success_expression, ", ".join(task.inputs))
    rows, own, derived, wrong, solved = [], [], [], 0, 0
    for values, env_reward, env_success, last in transitions(task):
        rows.append([values[name] for name in parameters(human.source)])
        own.append(env_reward)
        derived.append(float(reward(values)[0]))
        wrong += not bool(success(values)) == bool(criterion(**values)) == env_success
        solved += last
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    compiled = compile_rows(check_source(human.source, task.inputs), [column.shape[1:] for column in columns])
    in_float64 = evaluate(compiled, columns)
    in_float32 = evaluate(compiled, [column.astype(np.float32).astype(np.float64) for column in columns])
    expected, interpreted = np.array(own), np.array(derived)
    off = np.abs(in_float32 - expected) / np.maximum(np.abs(expected), 1.0)
    return Agreement(
        name,
        len(own),
        relative(interpreted, expected),
        float(off[off <= 1e-4].max()),
        int((off > 1e-4).sum()),
        relative(in_float64, interpreted),
        wrong,
        solved,
    )


def transitions(task: Task) -> Iterator[tuple[dict[str, Any], float, bool, bool]]:
    """The inputs of a reward function at every step, the environment's reward and success, and whether the expert's
    episode has just been solved for the first time."""
    environment = TaskEnvironment(task)
    expert = scripted_expert(task)
    assert expert is not None
    for episode in range(2 * EPISODES):
        draw = np.random.default_rng(episode)
        environment.reset(episode)
        is_random, solved = episode < EPISODES, False
        for _ in range(STEPS):
            step = environment.step(draw.uniform(-1, 1, task.action_size) if is_random else expert(environment.obs))
            yield environment.values(), step.env_reward, step.success, step.success and not (solved or is_random)
            solved |= step.success
    environment.close()


def function(source: str, name: str) -> Any:
    """The function `name` of `source`, as a function of a mapping that has at least its arguments."""
    namespace = {"np": np, "math": math, **{name: getattr(reward_utils, name) for name in reward_utils.__all__}}
    exec(source, namespace)
    names = parameters(source, name)
    return lambda values: namespace[name](*[values[name] for name in names])


def parameters(source: str, name: str = "compute_reward") -> list[str]:
    """The names of the arguments of a function in `source`."""
    body = ast.parse(source).body
    return next(
        [argument.arg for argument in node.args.args]
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )


def evaluate(compiled: Any, columns: list[np.ndarray]) -> np.ndarray:
    """The rewards of all rows, float64 (n,)."""
    rewards = np.empty(len(columns[0]))
    for column in columns:
        column.setflags(write=False)
    compiled(rewards, *columns)
    return rewards


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative deviation."""
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-12)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    names = parser.parse_args().tasks
    print(
        f"{'task':26}{'steps':>7}{'float64':>10}{'float32':>10}{'on thresholds':>15}{'compiled':>10}{'success':>9}"
        "  expert"
    )
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(measure, names):
            print(
                f"{row.task:26}{row.steps:7}{row.float64:10.1e}{row.float32:10.1e}{row.thresholds:15}"
                f"{row.compiled:10.1e}{row.success:9}  {row.expert}/{EPISODES}  {'pass' if row.passes else 'FAIL'}"
            )


if __name__ == "__main__":
    main()
