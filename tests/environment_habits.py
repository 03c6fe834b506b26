"""A task file: habits of environments that people write, each in the smallest environment that shows it.

A point on a line has to reach 0.5; an action of 1 moves it by 0.05.
"""

import collections
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Point(gym.Env):
    """Follows every rule; `taken` counts the steps of all such environments in a process."""

    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    taken: ClassVar[dict[Any, int]] = collections.Counter()

    def __init__(self, render_mode=None):
        self.position, self.steps, self.last = 0.0, 0, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps, self.last = float(self.np_random.uniform(-0.2, 0.2)), 0, 0.0
        return self.look(), {}

    def look(self):
        return np.array([self.position, 0.5], np.float32)

    def step(self, action):
        self.steps += 1
        Point.taken[type(self)] += 1
        self.last = float(action[0])
        self.position = float(np.clip(self.position + 0.05 * self.last, -1, 1))
        return self.look(), -abs(self.position - 0.5), False, False, {}


class Strict(Point):
    """Wants an element of its own action space: type, shape and bounds."""

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return super().step(action)


class StrictWide(Strict):
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)


class StrictNarrow(Strict):
    action_space = spaces.Box(np.float32(-0.1), np.float32(0.3), (1,), np.float32)


class StrictDouble(Strict):
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)


class StrictFixed(Strict):
    """Its second joint is locked, its third stands at the edge of a range that begins at zero."""

    action_space = spaces.Box(
        np.array([-1, 0.7, 0], np.float32), np.array([1, 0.7, 1e-3], np.float32), dtype=np.float32
    )


class InPlace(Point):
    def step(self, action):
        action *= 0.5
        return super().step(action)


class Truncates(Point):
    """Ends by itself after 20 steps, and refuses further ones."""

    over = True

    def reset(self, **options):
        self.over = False
        return super().reset(**options)

    def step(self, action):
        if self.over:
            raise ValueError("reset me")
        obs, reward, terminated, _, info = super().step(action)
        self.over = self.steps >= 20
        return obs, reward, terminated, self.over, info


class Terminates(Truncates):
    def step(self, action):
        obs, reward, _, over, info = super().step(action)
        return obs, reward, over, False, info


class ClosesNoWindow(Point):
    """Closes a window that was never opened."""

    viewer = None

    def close(self):
        self.viewer.close()


class ShowsNothing(Point):
    observation_space = spaces.Box(-1.0, 1.0, (0,), np.float32)

    def look(self):
        return np.zeros(0, np.float32)


class TakesNoRenderMode(Point):
    def __init__(self):
        super().__init__()


class Lists(Point):
    def look(self):
        return [self.position, 0.5]


class OneBuffer(Point):
    """Shows the same array again and again, and changes it."""

    buffer = None

    def look(self):
        if self.buffer is None:
            self.buffer = np.zeros(2, np.float32)
        self.buffer[:] = super().look()
        return self.buffer


class Dictionary(Point):
    observation_space = spaces.Dict(
        goal=spaces.Box(-1, 1, (1,)), arm=spaces.Tuple((spaces.Box(-1, 1, (1, 1)), spaces.Discrete(2)))
    )

    def look(self):
        return {"goal": [0.5], "arm": ([[self.position]], 1)}


class RewardOf(Point):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, self.wrapped(reward), *rest

    def wrapped(self, reward) -> Any:
        return np.float32(reward)


class ArrayReward(RewardOf):
    def wrapped(self, reward):
        return np.array([[reward]])


class NoReward(RewardOf):
    def wrapped(self, reward):
        return None


class TwoRewards(RewardOf):
    def wrapped(self, reward):
        return np.array([reward, 1.0])


class NaNReward(RewardOf):
    def wrapped(self, reward):
        return np.nan


class ClaimsFailure(Point):
    """Reports something else than the task asks for."""

    def step(self, action):
        return *super().step(action)[:4], {"success": 0.0}


class StartsSolved(Point):
    def reset(self, **options):
        super().reset(**options)
        self.position = 0.5
        return self.look(), {}


class IgnoresSeed(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None)


class OldReset(Point):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldResetOfLists(Lists):
    """Two numbers, which could be taken for an observation and an info."""

    def reset(self, *, seed=None, options=None):
        return tuple(super().reset(seed=seed)[0])


class OldResetWithoutSeed(Point):
    def reset(self):
        return super().reset()[0]


class OldStep(Point):
    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class SwappedFlags(Point):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, info, truncated


class OtherShape(Point):
    def look(self):
        return super().look()[:1]


class NaNFromTheStart(Point):
    def look(self):
        return np.array([np.nan, 0.5], np.float32)


class Image(Point):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class GreyImageInside(Point):
    observation_space = spaces.Dict(camera=spaces.Box(0, 255, (8, 8), np.uint8), arm=spaces.Box(-1, 1, (2,)))


class Text(Point):
    observation_space = spaces.Text(5)


class Discrete(Point):
    action_space = spaces.Discrete(3)


class Integers(Point):
    action_space = spaces.Box(0, 10, (1,), dtype=np.int64)


class Unbounded(Point):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class NotGymnasium:
    """Looks like an environment, and is of another library."""

    action_space, observation_space = Point.action_space, Point.observation_space

    def __init__(self, render_mode=None):
        pass


class StopsAtOnce(Point):
    def step(self, action):
        raise RuntimeError("no connection\nto the robot")


class BrokenLater(Point):
    """Passes the first look, and breaks in every episode."""

    def step(self, action):
        if self.steps == 30:
            raise RuntimeError("lost contact")
        return super().step(action)


class BadOnce(Point):
    """Something bad at the 170th step of a process; what was not made anew since then stays bad."""

    broken = False

    def step(self, action):
        result = super().step(action)
        self.broken = self.broken or Point.taken[type(self)] == 170
        return self.bad(*result) if self.broken else result


class NaNOnce(BadOnce):
    def bad(self, obs, *rest):
        return obs * np.nan, *rest


class HugeOnce(BadOnce):
    def bad(self, obs, *rest):
        return obs + np.float32(1e30), *rest


class NaNRewardOnce(BadOnce):
    def bad(self, obs, reward, *rest):
        return obs, np.nan, *rest


class NaNVariableOnce(BadOnce):
    def bad(self, *result):
        self.position = np.nan
        return np.zeros(2, np.float32), *result[1:]


class RaisesOnce(BadOnce):
    def bad(self, *result):
        raise RuntimeError("physics state is invalid")

    def close(self):
        if self.broken:
            raise RuntimeError("cannot be closed either")


def _entry(make):
    return {
        "description": "Move the point to the goal.",
        "success": "The point is within 0.05 of 0.5.",
        "success_expression": "abs(position - 0.5) <= 0.05",
        "make": make,
        "variables": {
            "position": {"read": "env.position", "meaning": "where the point is", "role": "object"},
            "last": {"read": "env.last", "meaning": "the action as the environment got it", "unit": "1"},
        },
    }


TASKS = {name: _entry(kind) for name, kind in list(globals().items()) if isinstance(kind, type)}
TASKS["TimeLimit"] = _entry(lambda render_mode: gym.wrappers.TimeLimit(Point(), 20))
_without_success = _entry(Point)
del _without_success["success"], _without_success["success_expression"]
TASKS["WithoutSuccess"] = _without_success
