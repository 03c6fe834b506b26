"""A reward function that was proposed, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

from search.protocol import Message

SURPLUS = "surplus"  # the kind of a candidate that was not needed


@dataclass
class RewardFunction:
    """A reward function that was proposed, accepted or not; a row of population.json.

    `messages` is the conversation that `response` answered; both are kept while it may go on, and llm.jsonl has what a
    model wrote either way. `idea` sums the answer up in one sentence. `kind` is "" for an accepted function, else a
    short word for why it was rejected, and `reason` the line that explains it. `fitted` is empty unless the function is
    its parent with fitted numbers; then it has the number of held-out "episodes", and the share of their pairs that was
    ranked right "before" and "after". `figures` are what stored episodes say about it (see `search.scoring.Figures`),
    with its "score" and its "novelty", and `choice` is why it was taken or not; both are empty where nothing was stored
    or the first valid ones are taken.

    The loop fills the other fields: `order`, the share of solved episodes that it ranked above every unsolved one when
    it was accepted (None while that is unknown); `slot`; `replaced`, the id of the function that held the slot before;
    `scale` and `shift`, and the mean and standard deviation of its rewards over the buffer before both (None for the
    first population, which is not rescaled); and what evaluations found: `scores`, by search round, with the agent's
    `rank`; `components`, the (mean, min, max) of each part of the reward over all steps of the last one; and
    `evaluations`, the `round`, `success_rate` and `nearest_distance` of each, by the env steps at which it was made.
    """

    id: int
    round: int
    parents: list[int]
    source: str
    response: str
    messages: list[Message]
    idea: str = ""
    accepted: bool = False
    kind: str = ""
    reason: str = ""
    compiled: bool = False
    fitted: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    choice: str = ""
    order: float | None = None
    slot: int | None = None
    replaced: int | None = None
    scale: float = 1.0
    shift: float = 0.0
    raw_mean: float | None = None
    raw_std: float | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    components: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Any] = field(default_factory=dict)

    def reject(self, kind: str, reason: str) -> None:
        """Mark it as rejected."""
        self.accepted, self.kind, self.reason = False, kind, reason
