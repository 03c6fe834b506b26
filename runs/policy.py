"""A policy that a run has saved: its file, and its export as a program of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from errors import UsageError
from models import ACTIVATIONS
from runs.reading import Run

_GOAL = 3  # numbers at the end of a MetaWorld observation


@dataclass(frozen=True)
class SavedPolicy:
    """An actor's file; `agent` and `round` are None where the run has not recorded whose it is."""

    path: Path
    agent: int | None
    round: int | None

    def state(self) -> dict[str, Tensor]:
        """Return its state dict, on the CPU; UsageError if the file is damaged."""
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception:  # the unpickler fails in many ways on what is no policy
            raise UsageError(f"{self.path} is damaged; choose another policy with --round and --agent") from None


def saved_policy(run: Run, agent: int | None = None, round: int | None = None) -> SavedPolicy:
    """Return the policy that the run chose, or that of an agent or a search round.

    Args:
        run: the run.
        agent: whose policy; None: with a round, that of the agent that did best at its end.
        round: the search round at whose end the policy was saved; None: with an agent, the last one.

    Raises:
        UsageError: the run has saved no such policy.
    """
    if agent is None and round is None:
        chosen, path = run.summary, run.directory / "best_actor_net.pth"
        if not path.exists():
            raise UsageError(f"{run.directory} holds no policy yet; it appears at the run's first evaluation")
        return SavedPolicy(path, chosen.get("chosen_agent"), chosen.get("chosen_round"))
    saved = _saved(run)
    if agent is None:
        best = [row["best"]["agent"] for row in run.evaluations if row.get("round") == round and row.get("best")]
        agent = int(best[-1]) if best else None
    elif round is None:
        round = max((number for number, owner in saved if owner == agent), default=None)
    if (round, agent) in saved:
        return SavedPolicy(saved[round, agent], agent, round)  # type: ignore[index]
    there = ", ".join(f"{number}/{owner}" for number, owner in sorted(saved)) or "none"
    wanted = f"agent {'?' if agent is None else agent} of round {'?' if round is None else round}"
    raise UsageError(f"{run.directory} has no policy of {wanted}; saved as round/agent: {there}")


def _saved(run: Run) -> dict[tuple[int, int], Path]:
    """Return the actors saved at search rounds by (round, agent)."""
    found = {}
    for path in run.directory.glob("Iter_*_Actor_*.pth"):
        _, round, _, agent = path.stem.split("_")
        if round.isdigit() and agent.isdigit():
            found[int(round), int(agent)] = path
    return found


class ExportedPolicy(nn.Module):
    """A policy as TorchScript: from observations (..., O) to actions (..., A) in [-1, 1], needing only torch.

    Attributes:
        task: name of its task.
        action_repeat: env steps for which each of its actions was meant.
        episode_length: env steps in an episode of the run.
    """

    seen: Tensor  # 1 for each number of an observation that the policy may see, else 0

    def __init__(self, state: dict[str, Tensor], flags: dict[str, Any], task: str, hidden: Sequence[int]) -> None:
        super().__init__()
        weights = [value for name, value in state.items() if name.endswith("weight")]
        layers: list[nn.Module] = []
        activation = ACTIVATIONS[flags.get("activation", "relu")].module
        for weight in weights:
            layers += [nn.Linear(weight.shape[1], weight.shape[0]), activation()]
        self.layers = nn.Sequential(*layers[:-1])
        self.layers.load_state_dict(state)
        seen = torch.ones(weights[0].shape[1])
        seen[list(hidden)] = 0.0
        self.register_buffer("seen", seen)
        self.log_std_min: float = flags["log_std_min"]
        self.log_std_max: float = flags["log_std_max"]
        self.task: str = task
        self.action_repeat: int = flags["action_repeat"]
        self.episode_length: int = flags["episode_length"]

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Return deterministic actions, or with ``deterministic=False`` a sample."""
        mean, log_std = self.layers(obs.to(self.seen.dtype) * self.seen).chunk(2, -1)
        if deterministic:
            return torch.tanh(mean)
        std = log_std.clamp(self.log_std_min, self.log_std_max).exp()
        return torch.tanh(mean + std * torch.randn_like(mean))


def export(run: Run, policy: SavedPolicy, out: Path) -> None:
    """Write a policy as a file that ``torch.jit.load`` reads.

    A policy that learned with a hidden goal sees zeros in its place, whatever the observation has there. Raises
    UsageError when the file cannot be written.
    """
    state = policy.state()
    size = next(iter(state.values())).shape[1]
    hidden = range(size - _GOAL, size) if run.flags["hide_goal"] else ()
    program = torch.jit.script(ExportedPolicy(state, run.flags, run.task, hidden).requires_grad_(False).eval())
    try:
        program.save(str(out))
    except RuntimeError:
        raise UsageError(f"{out} cannot be written; give a file in a directory that is there") from None
