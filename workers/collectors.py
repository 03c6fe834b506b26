"""Episodes: workers that hold an environment each, run policies as NumPy products and return whole episodes as arrays.

As a script this file is such a worker. It imports no torch: a worker starts quickly, stays small, and computes on one
thread. Every episode depends on its own seed alone, so results cannot depend on the number of workers.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from errors import RunError
from task_specs import Task, get_task
from tasks.environment import TaskEnvironment
from workers.machine import cores, public_environment
from workers.process import Arrays, Header, WorkerDied, WorkerProcess, serve, wait_any
from workers.shared_table import SharedTable

UNIFORM = -1
"""The policy that draws every action uniformly."""

_TRIES = 3


@dataclass(frozen=True)
class Order:
    """One episode to be collected."""

    policy: int  # row of the weights, or UNIFORM
    seed: int  # of the environment and of the policy's noise
    steps: int  # decisions, unless the episode terminates before
    deterministic: bool = False


@dataclass(frozen=True)
class Episode:
    """What happened: T decisions.

    Attributes:
        transitions: float32 columns obs (T, O), action (T, A), next_obs (T, O), variables (T, V), and env_reward (T,),
            terminal (T,).
        success: whether the task was solved at each decision, (T,) bool.
        metrics: the task's own quantities after the last one.
    """

    transitions: Arrays
    success: np.ndarray
    metrics: dict[str, float]

    @property
    def env_return(self) -> float:
        """Sum of the environment's rewards."""
        return float(self.transitions["env_reward"].sum(dtype=np.float64))


@dataclass(frozen=True)
class Score:
    """How a policy did in the episodes of one evaluation."""

    episodes: Sequence[Episode]

    @property
    def success_rate(self) -> float:
        """Share of the episodes that were solved at any step."""
        return float(np.mean([episode.success.any() for episode in self.episodes]))

    @property
    def last_step_success_rate(self) -> float:
        """Share of the episodes that were solved at their last step."""
        return float(np.mean([episode.success[-1] for episode in self.episodes]))

    @property
    def env_return(self) -> float:
        """Mean sum of the environment's own rewards."""
        return float(np.mean([episode.env_return for episode in self.episodes]))

    def summary(self) -> dict[str, float]:
        """The three figures by their names."""
        return {name: getattr(self, name) for name in ("success_rate", "last_step_success_rate", "env_return")}

    @property
    def metrics(self) -> dict[str, float]:
        """Means of the task's own quantities at episode end."""
        ends = [episode.metrics for episode in self.episodes]
        return {name: float(np.mean([end[name] for end in ends if name in end])) for name in ends[0]}

    def columns(self, *names: str) -> Arrays:
        """Columns of all the episodes' transitions, one episode after the other."""
        return {name: np.concatenate([episode.transitions[name] for episode in self.episodes]) for name in names}


@dataclass(frozen=True)
class PolicyShape:
    """What a worker must know of the actors."""

    sizes: tuple[int, ...]
    log_std_min: float = -20.0
    log_std_max: float = 2.0

    @property
    def parameters(self) -> int:
        """Weights and biases of one actor."""
        return sum((inputs + 1) * outputs for inputs, outputs in zip(self.sizes[:-1], self.sizes[1:], strict=True))


class Collectors:
    """Environment workers, and the memory through which they get the policies' weights.

    Args:
        task: the task whose episodes are wanted.
        policy: shape of the actors.
        policies: number of actors.
        workers: number of processes; 0 means one a core.
        hide_goal, action_repeat: see `environments.TaskEnvironment`.
    """

    def __init__(
        self,
        task: Task,
        policy: PolicyShape,
        policies: int,
        workers: int = 0,
        hide_goal: bool = False,
        action_repeat: int = 1,
    ) -> None:
        self._weights = SharedTable.create(policies, {"weights": policy.parameters})
        self._hello: Header = {
            "task": task.name,
            "task_file": task.task_file,
            "hide_goal": hide_goal,
            "action_repeat": action_repeat,
            "policy": [list(policy.sizes), policy.log_std_min, policy.log_std_max],
            "weights": [self._weights.fd, policies, self._weights.widths],
        }
        self._workers = [self._start() for _ in range(workers or cores())]
        for worker in self._workers:
            _answer(worker)

    def set_policies(self, weights: np.ndarray) -> None:
        """Hand the actors' parameters (n, P), laid out as `models.Stack.flat` does, to the first n policies."""
        self._weights.columns["weights"][: len(weights)] = weights

    def run(self, orders: Sequence[Order]) -> list[Episode]:
        """Collect the episodes, in the order of `orders`. Raises RunError when the simulator keeps dying."""
        episodes: list[Episode | None] = [None] * len(orders)
        waiting = list(range(len(orders)))[::-1]
        tries = [0] * len(orders)
        at_work: dict[WorkerProcess, int] = {}
        while waiting or at_work:
            for worker in self._workers:
                if waiting and worker not in at_work:
                    at_work[worker] = number = waiting.pop()
                    worker.send(vars(orders[number]))
            for worker in wait_any(list(at_work)):
                number = at_work.pop(worker)
                try:
                    episodes[number] = _episode(*_answer(worker))
                except WorkerDied as death:
                    tries[number] += 1
                    if tries[number] == _TRIES:
                        raise RunError(
                            f"an environment worker {death}, {_TRIES} times in one episode (seed {orders[number].seed})"
                        ) from death
                    waiting.append(number)
                    worker.kill()
                    fresh = self._start()
                    _answer(fresh)
                    self._workers[self._workers.index(worker)] = fresh
        return [episode for episode in episodes if episode is not None]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def _start(self) -> WorkerProcess:
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        environment = public_environment() | one_thread
        worker = WorkerProcess("workers.collectors", environment=environment, fds=[self._weights.fd])
        worker.send(self._hello)
        return worker


def _answer(worker: WorkerProcess) -> tuple[Header, Arrays]:
    header, arrays = worker.receive()
    if "error" in header:
        raise RunError(f"the environment failed: {header['error']}")
    return header, arrays


def _episode(header: Header, arrays: Arrays) -> Episode:
    return Episode(arrays, arrays.pop("success"), header["metrics"])


class _Worker:
    """The worker's side: one environment and the actors that are run in it."""

    def __init__(self, hello: Header) -> None:
        self.task = get_task(hello["task"], hello["task_file"])
        self.environment = TaskEnvironment(
            self.task, hide_goal=hello["hide_goal"], action_repeat=hello["action_repeat"]
        )
        sizes, self.log_std_min, self.log_std_max = hello["policy"]
        weights = SharedTable.attach(*hello["weights"]).columns["weights"]
        self.layers: list[np.ndarray] = []  # weight (policies, in, out) and bias (policies, 1, out) of each layer
        offset = 0
        for inputs, outputs in itertools.pairwise(sizes):
            for rows in (inputs, 1):
                block = weights[:, offset : offset + rows * outputs]
                self.layers.append(block.reshape(len(weights), rows, outputs, copy=False))
                offset += rows * outputs

    def act(self, policy: int, obs: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """The actor's action (A,): its mode without a generator, else a sample."""
        hidden = obs
        for layer in range(0, len(self.layers), 2):
            hidden = hidden @ self.layers[layer][policy] + self.layers[layer + 1][policy, 0]
            if layer + 2 < len(self.layers):
                np.maximum(hidden, 0, out=hidden)
        half = len(hidden) // 2
        mean, log_std = hidden[:half], hidden[half:]
        if generator is None:
            return np.tanh(mean)
        log_std = np.clip(log_std, self.log_std_min, self.log_std_max)
        noise = generator.standard_normal(len(mean), np.float32)
        return np.tanh(mean + np.exp(log_std) * noise)

    def episode(self, order: Order) -> tuple[Header, Arrays]:
        """Collect one episode."""
        task, steps = self.task, order.steps
        generator = np.random.default_rng(order.seed)
        seen = np.zeros((steps + 1, task.obs_size), np.float32)
        action = np.zeros((steps, task.action_size), np.float32)
        variables = np.zeros((steps, task.variable_width), np.float32)
        env_reward = np.zeros(steps, np.float32)
        terminal = np.zeros(steps, np.float32)
        success = np.zeros(steps, bool)
        seen[0] = self.environment.reset(order.seed)
        for t in range(steps):
            if order.policy == UNIFORM:
                action[t] = generator.uniform(-1, 1, task.action_size)
            else:
                action[t] = self.act(order.policy, seen[t], None if order.deterministic else generator)
            step = self.environment.step(action[t])
            self.environment.read_variables(variables[t])
            seen[t + 1], env_reward[t], terminal[t], success[t] = (
                step.obs, step.env_reward, step.terminated, step.success
            )  # fmt: skip
            if step.terminated:
                steps = t + 1
                break
        arrays = {
            "obs": seen[:steps],
            "action": action[:steps],
            "next_obs": seen[1 : steps + 1],
            "variables": variables[:steps],
            "env_reward": env_reward[:steps],
            "terminal": terminal[:steps],
            "success": success[:steps],
        }
        metrics = {name: float(value) for name, value in self.environment.metrics().items()}
        return {"metrics": {name: value for name, value in metrics.items() if math.isfinite(value)}}, arrays


def _serve() -> None:
    worker: _Worker | None = None

    def handle(header: dict[str, Any], _: Arrays) -> tuple[Header, Arrays]:
        nonlocal worker
        try:
            if worker is None:
                worker = _Worker(header)
                return {}, {}
            return worker.episode(Order(**header))
        except Exception as error:  # whatever the simulator raises is told to the main process, which knows what to do
            return {"error": f"{type(error).__name__}: {error}"}, {}

    serve(handle)


if __name__ == "__main__":
    _serve()
