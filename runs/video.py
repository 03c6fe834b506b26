"""Videos of recorded episodes, rendered by replaying them: the same start, the same actions."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from errors import UsageError, nearest
from task_specs import Task
from tasks.environment import TaskEnvironment
from tasks.episode import Episode

SUFFIXES = (".mp4", ".gif")
DEFAULT_CAMERA = "corner2"

_SUCCESS = (40, 200, 90)
_PENDING = (235, 235, 235)
_DARK = (20, 20, 20)
_BORDER, _CAPTION = 8, 26  # pixels
_HELD = 10  # frames for which the last picture of an episode is held
_FRAMES_PER_SECOND = 30


def check_video(path: Path) -> None:
    """Raise UsageError unless `path` is the name of a video that can be written."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} is not a video that can be written; its name must end with {' or '.join(SUFFIXES)}")


def film(
    task: Task,
    episodes: Sequence[tuple[int, Episode]],
    out: Path,
    *,
    camera: str | None = None,
    hide_goal: bool = False,
    action_repeat: int = 1,
) -> None:
    """Render episodes one after another into a video.

    From the first solved decision on, the picture has a green border and says so.

    Args:
        task: their task.
        episodes: each with the seed that it started from.
        out: an .mp4 or .gif file.
        camera: name of one of the model's cameras; None: MetaWorld's corner2 if there is one, else the viewer's own.
        hide_goal, action_repeat: as when they were collected.

    Raises:
        UsageError: there is no such camera, or nothing to render with.
    """
    import imageio.v2 as imageio  # takes half a second, and only a video needs it

    environment = TaskEnvironment(task, hide_goal=hide_goal, action_repeat=action_repeat, render_mode="rgb_array")
    try:
        shots = (_frames(environment, number, *episode, camera) for number, episode in enumerate(episodes, 1))
        frames = itertools.chain.from_iterable(shots)
        first = next(frames)  # before the file is opened: a failure to render leaves no file
        looped: dict[str, Any] = {"loop": 0} if out.suffix == ".gif" else {}
        writer: Any = imageio.get_writer(out, fps=_FRAMES_PER_SECOND, **looped)
        with writer:
            for frame in itertools.chain([first], frames):
                writer.append_data(frame)
    finally:
        environment.close()


def _frames(
    environment: TaskEnvironment, number: int, seed: int, episode: Episode, camera: str | None
) -> Iterator[np.ndarray]:
    environment.reset(seed)
    upside_down = _choose_camera(environment, camera)
    solved_at = None
    last = len(episode.success) - 1
    for decision, action in enumerate(episode.transitions["action"]):
        if environment.step(action).success and solved_at is None:
            solved_at = (decision + 1) * environment.action_repeat
        picture = environment.render()
        steps = (decision + 1) * environment.action_repeat
        frame = _marked(picture[::-1, ::-1] if upside_down else picture, number, steps, solved_at)
        yield from [frame] * (_HELD if decision == last else 1)


def _choose_camera(environment: TaskEnvironment, camera: str | None) -> bool:
    """Select `camera`; return whether its pictures are upside down, as from most of MetaWorld's cameras."""
    simulation = environment.env.unwrapped
    renderer = getattr(simulation, "mujoco_renderer", None)
    if renderer is None:
        if camera:
            raise UsageError(f"--camera {camera}: the pictures of {environment.task.name} come from one place only")
        return False
    names = [simulation.model.camera(index).name for index in range(simulation.model.ncam)]
    wanted = camera or (DEFAULT_CAMERA if DEFAULT_CAMERA in names else None)
    if wanted is None:
        return False
    if wanted not in names:
        there = ", ".join(names) or "none"
        raise UsageError(f"--camera {wanted}: there is no such camera{nearest(wanted, names)}; there are: {there}")
    renderer.camera_id = names.index(wanted)
    up = simulation.data.cam_xmat[renderer.camera_id].reshape(3, 3)[:, 1]
    return bool(up[2] < 0)


def _marked(picture: np.ndarray, number: int, steps: int, solved_at: int | None) -> np.ndarray:
    """Return the picture with a line of text, and a green border once the episode is solved."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image)
    text = f"episode {number}, step {steps}" + ("" if solved_at is None else f": solved at step {solved_at}")
    colour = _PENDING if solved_at is None else _SUCCESS
    if solved_at is not None:
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=_SUCCESS, width=_BORDER)
    draw.rectangle((0, 0, image.width, _CAPTION), fill=_DARK)
    draw.text((_BORDER + 4, _CAPTION // 2), text, fill=colour, font=ImageFont.load_default(14), anchor="lm")
    return np.asarray(image)
