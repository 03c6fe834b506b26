"""The Gymnasium environment behind a task, adapted so that all have actions in [-1, 1] and vector observations."""

import contextlib
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from errors import FAILURES, UsageError
from tasks.names import without_version

# MetaWorld and Gymnasium are slow to import, and not everyone who needs a task makes its environment.

LARGEST = 1e10
"""A larger value, in an observation or a variable, comes from a simulation that has become unstable.

Source: MuJoCo's own limit on positions, velocities and accelerations, `mjMAXVAL`.
"""

METAWORLD_STEP = 0.01
"""How far (m) an action of 1 moves MetaWorld's hand along an axis in an env step, where nothing is in its way.

Source: `action_scale` of `metaworld.sawyer_xyz_env.SawyerXYZEnv`, which no task changes.
"""


def make_environment(make: str | Callable[..., Any], render_mode: str | None = None) -> Any:
    """Return a fresh Gymnasium environment with actions in [-1, 1], and without the time limit of its id.

    Args:
        make: see ``make`` in `task_specs`.
        render_mode: Gymnasium's.

    Seeding a MetaWorld environment determines its goals, and its observations show them.

    Raises:
        UsageError: it is not a Gymnasium environment, or its actions or observations are not arrays of numbers.
    """
    import gymnasium

    metaworld_class = None if callable(make) else _metaworld_class(make)
    if callable(make):
        environment: Any = _call(make, render_mode)
    elif metaworld_class is None:
        environment = gymnasium.make(make, render_mode=render_mode, max_episode_steps=-1, disable_env_checker=True)
    else:
        environment = metaworld_class(render_mode=render_mode)
        environment.max_path_length = math.inf  # the run decides how long an episode lasts
        environment.seeded_rand_vec = True
        environment._freeze_rand_vec = False
        environment._set_task_called = True
        show_goal(environment, True)
    if not isinstance(environment, gymnasium.Env):
        kind = type(environment)
        raise UsageError(f"found a {kind.__module__}.{kind.__qualname__}, expected a gymnasium.Env")
    _check_observations(environment.observation_space)
    return _with_unit_actions(environment)


def begin_episode(environment: Any, seed: int) -> Any:
    """Reset the environment to the episode with that seed; return what its ``reset`` does."""
    if is_metaworld(environment):
        environment.unwrapped.seed(seed)  # MetaWorld ignores the seed of `reset`
    result = environment.reset(seed=seed)
    _settle(environment.unwrapped)
    return result


def close(environment: Any) -> None:
    """Free an environment. Whatever it raises then, as some do without a window, is ignored."""
    with contextlib.suppress(Exception):
        environment.close()


def flatten(space: Any, obs: Any) -> np.ndarray:
    """Return an observation from `space` as a vector of numbers, float64 ``(obs_size,)``.

    Raises:
        ValueError: it has another shape than `space`.
    """
    import gymnasium

    if not isinstance(space, gymnasium.spaces.Box):
        return np.asarray(gymnasium.spaces.flatten(space, obs), dtype=np.float64)
    flat = np.asarray(obs, dtype=np.float64)
    if flat.shape != space.shape:
        raise ValueError(f"an observation of the shape {flat.shape}, where observation_space says {space.shape}")
    return flat.reshape(-1)


def _call(make: Callable[..., Any], render_mode: str | None) -> Any:
    try:
        inspect.signature(make).bind(render_mode=render_mode)
    except (TypeError, ValueError):
        if render_mode is None:  # nobody needs pictures
            return make()
        raise UsageError(f"{make!r} takes no render_mode, so that its environment cannot be drawn") from None
    return make(render_mode=render_mode)


def _check_observations(space: Any) -> None:
    """Raise UsageError for spaces whose elements are not numbers, or are images."""
    from gymnasium import spaces

    inner = getattr(space, "spaces", ())
    for part in inner.values() if isinstance(inner, dict) else inner:
        _check_observations(part)
    if not isinstance(space, spaces.Space) or not space.is_np_flattenable or isinstance(space, spaces.Text):
        raise UsageError(f"its observation_space is {space}, expected a Box, or a Dict or Tuple of them")
    if isinstance(space, spaces.Box) and (len(space.shape) > 2 or (len(space.shape) == 2 and space.dtype == np.uint8)):
        raise UsageError(f"its observation_space holds images ({space}), expected numbers that describe the state")


def _with_unit_actions(environment: Any) -> Any:
    from gymnasium import spaces, wrappers

    space = environment.action_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise UsageError(f"its action_space is {space}, expected a Box of one dimension, of floating-point numbers")
    if not (np.abs([space.low, space.high]) <= LARGEST).all():
        raise UsageError(
            f"its action_space is {space}, expected finite bounds, since actions are rescaled to them "
            "(gymnasium.wrappers.TransformAction gives an environment others)"
        )
    if space.dtype == np.float32 and np.all(space.low == -1) and np.all(space.high == 1):
        return environment

    def as_declared(action: np.ndarray) -> np.ndarray:
        return np.clip(action, space.low, space.high).astype(space.dtype)

    # RescaleAction needs low < high in every dimension; where they are equal, its output is clipped to that value.
    fixed = space.low == space.high
    room = spaces.Box(np.where(fixed, -1, space.low), np.where(fixed, 1, space.high), dtype=space.dtype.type)
    declared = wrappers.TransformAction(environment, as_declared, room)
    one = space.dtype.type(1)
    return wrappers.RescaleAction(declared, -one, one)


def show_goal(environment: Any, visible: bool) -> None:
    """Make a MetaWorld environment's observations contain the goal, or zeros in its place."""
    environment._partially_observable = not visible
    environment.__dict__.pop("sawyer_observation_space", None)  # its bounds are cached, and clip the goal


def is_metaworld(environment: Any) -> bool:
    """Return whether `environment` is one of MetaWorld's."""
    return is_metaworld_class(type(environment.unwrapped))


def _settle(environment: Any) -> None:
    """Bring the positions that MuJoCo derives from the joints up to date.

    Some MetaWorld tasks move things at the end of a reset, and leave these positions stale. This changes nothing that
    the next step reads.
    """
    if hasattr(environment, "model") and hasattr(environment, "data"):
        import mujoco

        mujoco.mj_kinematics(environment.model, environment.data)


def is_metaworld_class(environment_class: type) -> bool:
    """Return whether it is the class of one of MetaWorld's environments."""
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    return issubclass(environment_class, SawyerXYZEnv)


def _metaworld_class(name: str) -> Callable[..., Any] | None:
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except FAILURES as error:  # MuJoCo fails in many ways when the rendering library that it is told to use is missing
        backend = os.environ.get("MUJOCO_GL")
        advice = f"; MUJOCO_GL is {backend!r}, unset it or install what it names" if backend else ""
        raise UsageError(f"MetaWorld cannot be imported ({type(error).__name__}: {error}){advice}") from error
    return ALL_V3_ENVIRONMENTS.get(without_version(name) + "-v3")
