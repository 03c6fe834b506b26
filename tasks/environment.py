"""One environment of a task: what it shows of itself after a step, and the expert that can solve it."""

import ast
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from errors import UsageError
from tasks.task import Task, compile_expression, is_metaworld, make_environment, settle, show_goal

Columns = dict[str, np.ndarray]

PROBE_RANDOM_STEPS = 100
PROBE_EXPERT_STEPS = 500
PROBE_STEPS_AFTER_SUCCESS = 20


class Step(NamedTuple):
    """What a step brought: the new observation, float32 ``(obs_size,)``, and how the environment judges it."""

    obs: np.ndarray
    env_reward: float
    terminated: bool
    success: bool


class TaskEnvironment:
    """An environment whose episodes depend on their seed and the actions alone, and whose variables can be read.

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
        self.env: Any = make_environment(task.make, render_mode)
        self._is_metaworld = is_metaworld(self.env)
        self._goal_hidden = hide_goal and self._is_metaworld
        if self._goal_hidden:
            show_goal(self.env.unwrapped, False)
        self._read_at_step: list[tuple[slice, Callable[..., Any]]] = []
        self._read_at_reset: list[tuple[slice, Callable[..., Any]]] = []
        for variable in task.variables:
            place = task.inputs[variable.name]
            reads = self._read_at_reset if variable.at_reset else self._read_at_step
            reads.append((slice(place.start, place.stop), compile_expression(variable.read, "env, obs")))
        self._initial = np.zeros(task.variable_width)
        self._is_success = compile_expression(task.success_expression, ", ".join(task.inputs))
        self._criterion = _compared_quantities(task)
        self.obs = np.zeros(task.obs_size)  # the last observation as the environment gave it
        self._action = np.zeros(task.action_size, dtype=np.float32)

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of that seed; returns its first observation, float32 ``(obs_size,)``."""
        if self._is_metaworld:
            self.env.unwrapped.seed(seed)  # MetaWorld ignores the seed of `reset`
        self.obs, _ = self.env.reset(seed=seed)
        env = self.env.unwrapped
        settle(env)
        for place, read in self._read_at_reset:
            self._initial[place] = read(env, self.obs)
        return self.obs.astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        """Take `action` ``(action_size,)``, `action_repeat` times or until the episode is over."""
        self._action = action = np.asarray(action, dtype=np.float32).astype(np.float64)
        total, success, terminated = 0.0, False, False
        for _ in range(self.action_repeat):
            self.obs, reward, terminated, _, info = self.env.step(action)
            total += float(reward)
            success |= bool(info["success"]) if "success" in info else bool(self._is_success(**self.values()))
            if terminated:
                break
        return Step(self.obs.astype(np.float32), total, bool(terminated), success)

    def read_variables(self, out: np.ndarray) -> None:
        """Write the task's variables ``(V,)``, as they are after the step, into `out`."""
        out[:] = self._initial
        env, obs = self.env.unwrapped, self.obs
        for place, read in self._read_at_step:
            out[place] = read(env, obs)

    def metrics(self) -> dict[str, float]:
        """Physical quantities of the task after the last step: distances in metres, and what success is judged by."""
        values = self.values()
        found = {}
        pairs = [("gripper", "object"), ("object", "goal"), ("object_start", "object")]
        if all(variable.role != "object" for variable in self.task.variables):
            pairs = [("gripper", "goal")]
        for start, end in pairs:
            for first in self.task.variables:
                for second in self.task.variables:
                    if (first.role, second.role) == (start, end) and first.shape == second.shape:
                        distance = np.linalg.norm(values[second.name] - values[first.name])
                        found[f"distance from {first.name} to {second.name}"] = float(distance)
        return found | {name: float(quantity(**values)) for name, quantity in self._criterion.items()}

    def values(self) -> dict[str, Any]:
        """Every input of a reward function by its name, float64, as it is after the last step."""
        row = np.empty(self.task.variable_width)
        self.read_variables(row)
        columns: Columns = {"variables": row, "next_obs": self.obs, "action": self._action}
        return {
            name: columns[place.column][place.start : place.stop].reshape(place.shape)
            for name, place in self.task.inputs.items()
        }

    def obs_with_goal(self) -> np.ndarray:
        """The last observation, float64 ``(obs_size,)``, with the goal even if it is hidden: what an expert needs."""
        if not self._goal_hidden:
            return self.obs
        return np.concatenate([self.obs[:-3], self.env.unwrapped._get_pos_goal()])

    def close(self) -> None:
        """Free the simulator."""
        self.env.close()

    def render(self) -> np.ndarray:
        """A picture, uint8 ``(height, width, 3)``; needs `render_mode` "rgb_array".

        Raises:
            UsageError: there is nothing to draw with.
        """
        try:
            return self.env.render()
        except Exception as error:
            raise UsageError(
                f"pictures cannot be drawn ({type(error).__name__}: {error}); expected MUJOCO_GL=egl with a GPU's "
                "driver or libegl1, or MUJOCO_GL=osmesa with libosmesa6 installed"
            ) from error


def scripted_expert(task: Task) -> Callable[[np.ndarray], np.ndarray] | None:
    """MetaWorld's scripted policy for the task, from an observation that shows the goal to an action, if there is one.

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
    """A small, fixed set of transitions on which new reward code proves itself.

    One episode of 100 random steps, and one of the scripted expert that ends 20 steps after its success. A task without
    an expert has the random steps alone.

    Returns:
        float32 columns ``next_obs (n, obs_size)``, ``action (n, action_size)`` and ``variables (n, V)``.
    """
    environment = TaskEnvironment(task, hide_goal=hide_goal, action_repeat=action_repeat)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def take(action: np.ndarray) -> Step:
        variables = np.empty(task.variable_width, dtype=np.float32)
        step = environment.step(action)
        environment.read_variables(variables)
        rows.append((step.obs, action, variables))
        return step

    draw = np.random.default_rng(seed)
    low, high = environment.env.action_space.low, environment.env.action_space.high
    environment.reset(seed)
    for _ in range(PROBE_RANDOM_STEPS):
        if take(draw.uniform(low, high).astype(np.float32)).terminated:
            environment.reset(seed)
    expert = scripted_expert(task)
    if expert is not None:
        environment.reset(seed + 1)
        left = PROBE_EXPERT_STEPS
        while left > 0:
            success = take(expert(environment.obs_with_goal())).success
            left = min(left - 1, PROBE_STEPS_AFTER_SUCCESS) if success else left - 1
    environment.close()
    next_obs, action, variables = (np.stack(column) for column in zip(*rows, strict=True))
    return {"next_obs": next_obs, "action": action, "variables": variables}


def _compared_quantities(task: Task) -> dict[str, Callable[..., Any]]:
    """The sides of the comparisons in the success criterion that depend on a variable, by their source."""
    quantities = {}
    for node in ast.walk(ast.parse(task.success_expression.strip(), mode="eval")):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                names = {name.id for name in ast.walk(side) if isinstance(name, ast.Name)}
                if names & task.inputs.keys():
                    source = ast.unparse(side)
                    quantities[source] = compile_expression(source, ", ".join(task.inputs))
    return quantities
