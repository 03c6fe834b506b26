"""A reward function that was proposed, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

from search.protocol import Message

SURPLUS = "surplus"  # the kind of a candidate that was not needed, and so not looked at


@dataclass
class RewardFunction:
    """A reward function that was proposed, accepted or not; a row of population.json.

    `messages` is the conversation that `response` answered; both are kept while it may go on, and stand in llm.jsonl in
    any case. `idea` is what the answer says of itself in one sentence. `kind` is "" for an accepted function, else a
    short word for why it was rejected, and `reason` the line that explains it. `fitted` is empty but for a function
    that is its parent with fitted numbers; then it tells to how many "episodes", and which share of their pairs was
    ranked right "before" and "after". `figures` are what stored episodes say of it (see `search.scoring.Figures`), with
    its "score" and its "novelty", and `choice` why it was taken or not; both are empty where nothing was stored or the
    first valid ones are taken.

    The loop fills the other fields: `order`, the share of solved episodes that it ranked above every unsolved one when
    it was accepted (None while that is unknown); `slot`; `replaced`, the id of the function that held the slot before;
    `scale` and `shift`, and the mean and standard deviation of its rewards over the buffer before both (None for the
    first population, which is not rescaled); and what evaluations found: `scores`, by search round, with the agent's
    `rank`; `components`, the (mean, min, max) of each part of the reward over all steps of the last one; and
    `evaluations`, by the env steps at which each was made, its `round`, `success_rate` and `nearest_distance`.
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
        """Take it out of the race."""
        self.accepted, self.kind, self.reason = False, kind, reason
