"""Where a run can be watched in a browser: TensorBoard, and Weights & Biases if configured."""

import functools
import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runs import weights_and_biases


class Boards:
    """Both of them, with the same metric names: the part before the slash groups what belongs together.

    Args:
        directory: the run's.
        config: the flags.

    Attributes:
        note: a line for the user, or nothing.
        purge_step: env step from which TensorBoard drops what a run wrote before it was resumed.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self._directory = directory
        self._wandb, self.note = weights_and_biases.begin(directory, config)
        self.purge_step: int | None = None

    @functools.cached_property
    def _tensorboard(self) -> Any:
        # Its writer is slow to import, and only a run that has begun needs it.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._directory / "tensorboard"), purge_step=self.purge_step)

    def evaluation(self, env_steps: int, row: Mapping[str, Any]) -> None:
        """Show the numbers of a row of metrics.jsonl."""
        scalars = grouped(row)
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, env_steps)
        if self._wandb is not None:
            self._wandb.log(scalars, step=env_steps)

    def reward_code(self, slot: int, source: str, round: int) -> None:
        """Show a slot's reward function as of a search round, as text."""
        name = f"reward_code/slot_{slot}"
        indented = "\n".join(f"    {line}" for line in source.splitlines())  # which Markdown shows verbatim
        self._tensorboard.add_text(name, indented, round)
        if self._wandb is not None:
            from wandb import Html

            self._wandb.log({name: Html(f"<pre>{html.escape(source)}</pre>")}, commit=False)

    def close(self) -> None:
        """Write what has not been written yet."""
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def show_video(directory: Path, video: Path, env_steps: int) -> str:
    """Show a video of a finished run's policy in its Weights & Biases run, if there is one.

    TensorBoard, which would need an encoder of its own, does not get it. Return a line for the user, or nothing.
    """
    if not (directory / weights_and_biases.IDENTITY).exists():
        return ""
    place, note = weights_and_biases.begin(directory, {})
    if place is not None:
        from wandb import Video

        place.log({"video": Video(str(video))}, step=env_steps)
        place.finish()
    return note


def grouped(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a row of metrics.jsonl by ``quantity/agent_k``, ``quantity/best`` or ``run/name``.

    How episodes were run and what each search round cost are left out: one never changes, the other is in the totals.
    """
    agents = {f"agent_{agent}": figures for agent, figures in row["agents"].items()} | {"best": row["best"]}
    named = {f"{name}/{agent}": value for agent, figures in agents.items() for name, value in figures.items()}
    named |= {f"llm/{name}": value for name, value in row["llm"].items()}
    named |= {f"run/{name}": value for name, value in row.items()}
    numbers = {name: value for name, value in named.items() if isinstance(value, int | float | np.number)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
