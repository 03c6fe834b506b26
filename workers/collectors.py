"""Episodes: workers that hold an environment each, run policies in NumPy and return whole episodes as arrays.

Run as a script, this file is such a worker. It imports no torch: a worker starts quickly, stays small, and computes on
one thread. Every episode depends only on its own seed, so results cannot depend on the number of workers.
"""

import contextlib
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from errors import FAILURES, RunError
from task_specs import Task, get_task
from tasks.environment import EnvironmentFailed, TaskEnvironment
from tasks.episode import UNIFORM, Episode, Order
from workers.machine import cores
from workers.pool import Answer, Job, Lost, WorkerPool
from workers.process import Arrays, Header, WorkerProcess, serve
from workers.shared_table import SharedTable

_TRIES = 3  # at an episode whose worker is lost
_EPISODE_SECONDS, _STEP_SECONDS = 60.0, 1.0  # time limit of an episode: for its reset, and for each env step

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # those of `models.ACTIVATIONS`
    "relu": lambda values: np.maximum(values, 0),
    "tanh": np.tanh,
    "elu": lambda values: np.where(values > 0, values, np.expm1(np.minimum(values, 0))),
}


@dataclass(frozen=True)
class PolicyShape:
    """What a worker must know about the actors."""

    sizes: tuple[int, ...]
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    activation: str = "relu"

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
        workers: number of processes; 0 means one per core.
        hide_goal, action_repeat: see `tasks.environment.TaskEnvironment`.
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
        hello: Header = {
            "task": task.name,
            "task_file": task.task_file,
            "hide_goal": hide_goal,
            "action_repeat": action_repeat,
            "policy": [list(policy.sizes), policy.log_std_min, policy.log_std_max, policy.activation],
            "weights": self._weights.address,
        }
        self._step_seconds = _STEP_SECONDS * action_repeat
        self._workers = WorkerPool(
            "collector",
            workers or cores(),
            lambda: WorkerProcess("workers.collectors", hello, fds=[self._weights.fd]),
            _raise_error,
        )

    def set_policies(self, weights: np.ndarray) -> None:
        """Give the first n policies the actors' parameters (n, P), laid out as by `models.BatchedMLP.row`."""
        self._weights.columns["weights"][: len(weights)] = weights

    def run(self, orders: Sequence[Order]) -> list[Episode]:
        """Collect the episodes, in the order of `orders`. Raises RunError when the simulator fails or keeps dying."""
        jobs = [Job(vars(order), _EPISODE_SECONDS + order.steps * self._step_seconds) for order in orders]
        waiting, tries, episodes = deque(jobs), Counter[Job](), dict[Job, Episode]()

        def done(_: WorkerProcess, job: Job, outcome: Answer | Lost) -> None:
            if isinstance(outcome, Answer):
                _raise_error(outcome.header)
                episodes[job] = _episode(outcome.header, outcome.arrays)
                return
            tries[job] += 1
            if tries[job] == _TRIES:
                seed = job.header["seed"]
                raise RunError(f"a collector {outcome.how}, {_TRIES} times in one episode (seed {seed})")
            waiting.appendleft(job)

        self._workers.run(lambda _: waiting.popleft() if waiting else None, done)
        return [episodes[job] for job in jobs]

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def _raise_error(header: Header) -> None:
    """Raise RunError for what the environment has raised in a worker."""
    if "error" in header:
        raise RunError(f"the environment failed: {header['error']}")


def _episode(header: Header, arrays: Arrays) -> Episode:
    success, distance = arrays.pop("success"), arrays.pop("distance")
    return Episode(arrays, success, distance, header["failed"])


class _Worker:
    """The worker's side: one environment and the actors that are run in it."""

    def __init__(self, hello: Header) -> None:
        self.task = get_task(hello["task"], hello["task_file"])
        self.hide_goal, self.action_repeat = hello["hide_goal"], hello["action_repeat"]
        self.environment: TaskEnvironment | None = self.make_environment()
        sizes, self.log_std_min, self.log_std_max, activation = hello["policy"]
        self.activate = _ACTIVATIONS[activation]
        weights = SharedTable.attach(*hello["weights"]).columns["weights"]
        self.layers: list[np.ndarray] = []  # weight (policies, in, out) and bias (policies, 1, out) of each layer
        offset = 0
        for inputs, outputs in itertools.pairwise(sizes):
            for rows in (inputs, 1):
                block = weights[:, offset : offset + rows * outputs]
                self.layers.append(block.reshape(len(weights), rows, outputs, copy=False))
                offset += rows * outputs

    def act(self, policy: int, obs: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """Return an action (A,): the policy's mode without a generator, else a sample."""
        if policy == UNIFORM:
            assert generator is not None
            return generator.uniform(-1, 1, self.task.action_size).astype(np.float32)
        hidden = obs
        for layer in range(0, len(self.layers), 2):
            hidden = hidden @ self.layers[layer][policy] + self.layers[layer + 1][policy, 0]
            if layer + 2 < len(self.layers):
                hidden = self.activate(hidden)
        half = len(hidden) // 2
        mean, log_std = hidden[:half], hidden[half:]
        if generator is None:
            return np.tanh(mean)
        log_std = np.clip(log_std, self.log_std_min, self.log_std_max)
        noise = generator.standard_normal(len(mean), np.float32)
        return np.tanh(mean + np.exp(log_std) * noise)

    def episode(self, order: Order) -> tuple[Header, Arrays]:
        """Collect one episode. An error in the environment ends it, and is reported as its ``failed``."""
        task, taken, failed = self.task, 0, ""
        generator = None if order.noise_seed is None else np.random.default_rng(order.noise_seed)
        seen = np.zeros((order.steps + 1, task.obs_size), np.float32)
        columns: Arrays = {"success": np.zeros(order.steps, bool)}
        widths = {"action": task.action_size, "variables": task.variable_width}
        columns |= {name: np.zeros((order.steps, width), np.float32) for name, width in widths.items()}
        columns |= {name: np.zeros(order.steps, np.float32) for name in ("env_reward", "terminal", "distance")}
        try:
            environment = self.environment = self.environment or self.make_environment()
            seen[0] = environment.reset(order.seed)
            over = False
            while not over and taken < order.steps:
                columns["action"][taken] = action = self.act(order.policy, seen[taken], generator)
                step = environment.step(action)
                environment.read_variables(columns["variables"][taken])
                columns["env_reward"][taken] = step.env_reward
                columns["terminal"][taken] = step.terminated
                columns["success"][taken] = step.success
                columns["distance"][taken] = step.distance
                taken += 1
                seen[taken] = step.obs
                over = step.over
        except EnvironmentFailed as error:
            failed = f"after {taken} decisions: {error}"
            self.drop_environment()
        arrays = {"obs": seen[:taken], "next_obs": seen[1 : taken + 1]}
        arrays |= {name: column[:taken] for name, column in columns.items()}
        _fill_undefined(arrays["distance"])
        return {"failed": failed}, arrays

    def make_environment(self) -> TaskEnvironment:
        """Make the environment in which episodes are run."""
        return TaskEnvironment(self.task, hide_goal=self.hide_goal, action_repeat=self.action_repeat)

    def drop_environment(self) -> None:
        """Discard an environment that has failed, so that the next episode begins in a fresh one."""
        if self.environment is not None:
            with contextlib.suppress(Exception):  # it has failed already
                self.environment.close()
            self.environment = None


def _fill_undefined(distance: np.ndarray) -> None:
    """Replace distances where the success criterion is not defined by the episode's largest, or 1 without any."""
    undefined = ~np.isfinite(distance)
    distance[undefined] = 1.0 if undefined.all() else distance[~undefined].max()


def _serve() -> None:
    worker: _Worker | None = None

    def handle(header: dict[str, Any], _: Arrays) -> tuple[Header, Arrays]:
        nonlocal worker
        try:
            if worker is None:
                worker = _Worker(header)
                return {}, {}
            return worker.episode(Order(**header))
        except FAILURES as error:  # whatever the simulator raises is reported to the main process, which handles it
            return {"error": f"{type(error).__name__}: {error}"}, {}

    serve(handle)


if __name__ == "__main__":
    _serve()
