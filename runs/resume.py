"""What a run has to save so that it can continue as if nothing had happened."""

from collections.abc import Mapping
from typing import Any, Protocol

from errors import WARNING, UsageError
from replay_buffer import ReplayBuffer
from runs.checkpoint import CheckpointStore, RowStream
from runs.log import RunLog
from tasks.task import Input


class Part(Protocol):
    """A part of a run with a state of its own."""

    def state_dict(self) -> Any:
        """Return everything needed to continue, as nested dicts and lists of plain values, arrays and tensors."""

    def load_state_dict(self, state: Any) -> None:
        """Continue from what :meth:`state_dict` returned."""


class Checkpoints:
    """Saves and restores a run.

    Args:
        log: the run's directory, which holds the checkpoints.
        buffer: the replay buffer, whose rows are written once, as they come.
        inputs: where in a row each input of a reward function is.
        parts: the other parts of the run by name.
    """

    def __init__(
        self, log: RunLog, buffer: ReplayBuffer, inputs: Mapping[str, Input], parts: Mapping[str, Part]
    ) -> None:
        self._store = CheckpointStore(log.directory / "checkpoint", log.say)
        self._log = log
        self._buffer = buffer
        self._layout = {
            name: [place.column, place.start, place.stop, list(place.shape)] for name, place in inputs.items()
        }
        self._parts = dict(parts)

    def save(self, loop: Mapping[str, Any]) -> None:
        """Write a checkpoint; `loop` is the state of the loop itself, and has the id of each slot's function."""
        state = {
            "loop": loop,
            "layout": self._layout,
            "log": self._log.state_dict(),
            "buffer": {**self._buffer.state_dict(), "rows": {}},
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
        }
        self._store.save(state, self._rows(state), self._buffer.added)

    def restore(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Continue from the newest intact checkpoint.

        Returns:
            The state of the loop, None if there is no checkpoint and the run starts over; and the exchanges with the
            model that came after the checkpoint.

        Raises:
            UsageError: the task has changed since the run began.
        """
        state = self._store.load(self._rows)
        if state is None:
            paid_for = self._log.load_state_dict({"sizes": {}, "wall_time": 0.0}, 0)
            again = "the run begins again, with the model's answers that it has"
            self._log.say(f"{WARNING}there is no whole checkpoint; {again}")
            return None, paid_for
        paid_for = self._log.load_state_dict(state["log"], state["loop"]["env_steps"])
        self._buffer.load_state_dict(state["buffer"])
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        return state["loop"], paid_for

    def _rows(self, state: Mapping[str, Any]) -> dict[str, RowStream]:
        """Return the buffer's columns as they are stored; a reward column has its function's id as version."""
        before, now = state["layout"], self._layout
        if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
            raise UsageError(
                f"the task's {', '.join(changed)} changed since the run began, so what it stored cannot be read any "
                "more; undo that, or begin a new run"
            )
        columns = self._buffer.columns
        fixed = [column for name, column in sorted(columns.items()) if name != "rewards"]
        cleared = str(state["buffer"]["generation"])
        functions = {int(slot): function for slot, function in state["loop"]["slots"].items()}
        rewards = {
            f"rewards{agent}": RowStream(f"{cleared}.{functions.get(agent, 'human')}", [columns["rewards"][:, agent]])
            for agent in range(self._buffer.agents)
        }
        return {"transitions": RowStream(cleared, fixed), **rewards}
