"""One environment of a task: what it shows after a step, and the expert that can solve it."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from errors import FAILURES, RunError, UsageError, one_line
from tasks.simulator import LARGEST, begin_episode, close, flatten, is_metaworld, make_environment, show_goal
from tasks.success import success_measure
from tasks.task import Task, compile_expression

Columns = dict[str, np.ndarray]

PROBE_STARTS = 5
PROBE_RANDOM_STEPS = 100
PROBE_EXPERT_STEPS = 500
PROBE_STEPS_AFTER_SUCCESS = 20
PROBE_TRIES = 3
START_EPISODES = 5


class EnvironmentFailed(Exception):
    """An environment raised an exception, or gave values that no sound simulation gives; the episode is lost."""


class Step(NamedTuple):
    """The result of a step: the new observation, float32 ``(obs_size,)``, and how the environment judges it.

    An episode that has terminated or was truncated is over; only the former is a terminal state. `distance` is how far
    the state is from success, by the task's own criterion: 0 if it is solved; NaN where the criterion is not defined.
    """

    obs: np.ndarray
    env_reward: float
    terminated: bool
    truncated: bool
    success: bool
    distance: float

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated


class TaskEnvironment:
    """An environment whose episodes depend only on their seed and the actions, and whose variables can be read.

    Args:
        task: the task.
        hide_goal: show zeros in place of a MetaWorld task's goal.
        action_repeat: inner steps per step; their rewards are summed, and success at any of them counts.
        render_mode: Gymnasium's.
    """

    def __init__(
        self, task: Task, *, hide_goal: bool = False, action_repeat: int = 1, render_mode: str | None = None
    ) -> None:
        self.task = task
        self.action_repeat = action_repeat
        with _failures():
            self.env: Any = make_environment(task.make, render_mode)
        self._goal_hidden = hide_goal and is_metaworld(self.env)
        if self._goal_hidden:
            show_goal(self.env.unwrapped, False)
        self._read_at_step: list[tuple[slice, Callable[..., Any]]] = []
        self._read_at_reset: list[tuple[slice, Callable[..., Any]]] = []
        for variable in task.variables:
            place = task.inputs[variable.name]
            reads = self._read_at_reset if variable.at_reset else self._read_at_step
            reads.append((slice(place.start, place.stop), compile_expression(variable.read, "env, obs")))
        self.obs = np.zeros(task.obs_size)  # the last observation as the environment gave it
        self._action = np.zeros(task.action_size, dtype=np.float32)
        self._row = np.zeros(task.variable_width)  # the variables as they are after the last step
        columns: Columns = {"variables": self._row, "next_obs": self.obs, "action": self._action}
        self._inputs = {
            name: columns[place.column][place.start : place.stop].reshape(place.shape)
            for name, place in task.inputs.items()
        }  # views of the three
        names = ", ".join(task.inputs)
        criterion = task.success_expression or "False"
        self._is_success = compile_expression(criterion, names)
        self._distance = compile_expression(success_measure(criterion) or "1.0", names)

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode with that seed; return its first observation, float32 ``(obs_size,)``.

        Raises:
            EnvironmentFailed: the episode cannot begin.
        """
        with _failures():
            obs, _ = begin_episode(self.env, seed)
            self._action[:] = 0
            self._take_in(obs, [*self._read_at_reset, *self._read_at_step])
            _check_values("an observation", self.obs)  # variables may have no value before the first step
        return self.obs.astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        """Take `action` ``(action_size,)``, `action_repeat` times or until the episode is over.

        Raises:
            EnvironmentFailed: the episode cannot continue.
        """
        self._action[:] = np.clip(action, -1, 1)
        _check_values("an action", self._action)
        total, success, terminated, truncated = 0.0, False, False, False
        with _failures():
            for _ in range(self.action_repeat):
                # An environment may modify the action that it gets.
                obs, reward, terminated, truncated, _ = self.env.step(self._action.copy())
                self._take_in(obs, self._read_at_step)
                _check_values("an observation", self.obs)
                _check_values("variables", self._row)
                total += float(np.asarray(reward).item())
                success |= self.is_solved()
                if terminated or truncated:
                    break
            if not math.isfinite(total):
                raise EnvironmentFailed(f"a reward of {total}")
            distance = 0.0 if success else float(self._distance(**self._inputs))
        return Step(self.obs.astype(np.float32), total, bool(terminated), bool(truncated), success, distance)

    def _take_in(self, obs: Any, reads: list[tuple[slice, Callable[..., Any]]]) -> None:
        self.obs[:] = flatten(self.env.observation_space, obs)
        for place, read in reads:
            self._row[place] = read(self.env.unwrapped, self.obs)

    def read_variables(self, out: np.ndarray) -> None:
        """Write the task's variables ``(V,)``, as they are after the step, into `out`."""
        out[:] = self._row

    def is_solved(self) -> bool:
        """Return whether the task's success criterion holds in the current state."""
        return bool(self._is_success(**self._inputs))

    def values(self) -> dict[str, Any]:
        """Return every input of a reward function by its name, as it is after the last step."""
        return {name: value.copy() for name, value in self._inputs.items()}

    def obs_with_goal(self) -> np.ndarray:
        """Return the last observation, float64 ``(obs_size,)``, with the goal even if hidden, as an expert needs it."""
        if not self._goal_hidden:
            return self.obs
        return np.concatenate([self.obs[:-3], self.env.unwrapped._get_pos_goal()])

    def close(self) -> None:
        """Free the simulator."""
        close(self.env)

    def render(self) -> np.ndarray:
        """Return a picture, uint8 ``(height, width, 3)``; needs `render_mode` "rgb_array".

        Raises:
            UsageError: there is nothing to render with.
        """
        try:
            return self.env.render()
        except FAILURES as error:
            raise UsageError(
                f"pictures cannot be drawn ({type(error).__name__}: {error}); expected MUJOCO_GL=egl with a GPU's "
                "driver or libegl1, or MUJOCO_GL=osmesa with libosmesa6 installed"
            ) from error


def scripted_expert(task: Task) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return MetaWorld's scripted policy for the task, from an observation with the goal to an action, if there is one.

    Source: `metaworld.policies`; actions are clipped to the action space, as MetaWorld's own evaluation does.
    """
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    for name, environment_class in ALL_V3_ENVIRONMENTS.items():
        if environment_class is task.environment_class:
            policy_class: Any = ENV_POLICY_MAP[name]
            policy = policy_class()
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")  # its actions are clipped below
            return lambda obs: np.clip(policy.get_action(obs), -1.0, 1.0).astype(np.float32)
    return None


def record_probe(task: Task, seed: int, hide_goal: bool = False, action_repeat: int = 1) -> Columns:
    """Return a small, fixed set of transitions on which new reward code is tried out.

    These are the first step of each of five episodes, with a zero action; 100 random steps; and one episode of the
    scripted expert that ends 20 steps after its success. A task without an expert lacks the last.

    Returns:
        float32 columns ``next_obs (n, obs_size)``, ``action (n, action_size)`` and ``variables (n, V)``.

    Raises:
        RunError: the environment fails every time.
    """
    for number in range(PROBE_TRIES):
        environment = TaskEnvironment(task, hide_goal=hide_goal, action_repeat=action_repeat)
        try:
            return _recorded(environment, seed + 2 * number)
        except EnvironmentFailed as error:
            failure = error
        finally:
            environment.close()
    raise RunError(f"task {task.name!r}: its environment fails whenever it is tried: {failure}")


def _recorded(environment: TaskEnvironment, seed: int) -> Columns:
    task = environment.task
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def take(action: np.ndarray) -> Step:
        variables = np.empty(task.variable_width, dtype=np.float32)
        step = environment.step(action)
        environment.read_variables(variables)
        rows.append((step.obs, action, variables))
        return step

    for start in range(PROBE_STARTS):
        environment.reset(seed + start)
        take(np.zeros(task.action_size, np.float32))
    draw = np.random.default_rng(seed)
    environment.reset(seed)
    for _ in range(PROBE_RANDOM_STEPS):
        if take(draw.uniform(-1, 1, task.action_size).astype(np.float32)).over:
            environment.reset(seed)
    expert = scripted_expert(task)
    if expert is not None:
        environment.reset(seed + 1)
        left = PROBE_EXPERT_STEPS
        while left > 0:
            step = take(expert(environment.obs_with_goal()))
            left = min(left - 1, PROBE_STEPS_AFTER_SUCCESS) if step.success else left - 1
            if step.over:
                break
    next_obs, action, variables = (np.stack(column) for column in zip(*rows, strict=True))
    return {"next_obs": next_obs, "action": action, "variables": variables}


def start_remarks(task: Task) -> list[str]:
    """Return what the user should know about how the task's episodes begin, one line each; usually nothing."""
    environment = TaskEnvironment(task)
    try:
        starts, solved = [], 0
        for seed in range(START_EPISODES):
            starts.append(environment.reset(seed))
            # The observation of a reset can lag behind the state: on window-close it shows the window closed.
            solved += environment.is_solved() and environment.step(np.zeros(task.action_size)).success
        again = environment.reset(0)
    except EnvironmentFailed:
        return []  # whoever collects episodes will say so
    finally:
        environment.close()
    remarks = []
    if solved:
        remarks.append(f"success holds at reset in {solved} of {len(starts)} episodes, before anything is done")
    if not np.array_equal(starts[0], again):
        remarks.append("its environment starts differently from the same seed, so no run can be reproduced")
    return [f"task {task.name}: {remark}" for remark in remarks]


def _check_values(what: str, values: np.ndarray) -> None:
    sound = np.abs(values) <= LARGEST
    if not sound.all():
        raise EnvironmentFailed(f"{what} with the value {values[~sound][0]:g}")


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn whatever an environment raises into EnvironmentFailed, in one line."""
    try:
        yield
    except (EnvironmentFailed, UsageError):
        raise
    except FAILURES as error:
        raise EnvironmentFailed(one_line(error)) from error
