"""What the model is told of the last round: how the best function did, and what was rejected."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arguments import Setting
from reward_code import Failure, RewardWorkers
from search.prompting import Prompts
from search.protocol import Message
from search.reward_function import SURPLUS, RewardFunction
from task_specs import Task
from tasks.episode import Rule, Score

_REMEMBERED = 6  # messages of a conversation that go to the model beside the first two: the last three exchanges
_SHOWN_REASONS = 8


@dataclass(frozen=True)
class AgentReport:
    """What evaluation episodes showed of one agent.

    Returns are means over episodes of the sum over steps; `components` maps the name of a part of its reward to that
    part's (mean, min, max) over all steps, `metrics` a measure of the task to its mean at episode end. `distance` tells
    how far the episodes stayed from success by the task's criterion: (at the nearest moment, at the end), means over
    episodes. `order` is the share of all solved episodes so far that the function ranks above every unsolved one, None
    while there are not both kinds. `env_return`, the return under the environment's own reward, is told to the model
    with init only.
    """

    success_rate: float
    env_return: float
    own_return: float
    distance: tuple[float, float]
    components: Mapping[str, tuple[float, float, float]]
    metrics: Mapping[str, float]
    order: float | None = None


def report_on(score: Score, source: str | None, workers: RewardWorkers, order: float | None = None) -> AgentReport:
    """Return what `score`'s episodes show of the agent that learned from `source` (None: the environment's reward)."""
    own_return, components = score.env_return, {}
    if source is not None:
        columns = score.columns("next_obs", "action", "variables")
        [evaluation] = workers.evaluate([source], columns, components=True)
        if isinstance(evaluation, Failure):
            own_return = np.nan
        else:
            own_return = float(evaluation.rewards.sum(dtype=np.float64)) / len(score.episodes)
            components = {
                name: (float(values.mean()), float(values.min()), float(values.max()))
                for name, values in evaluation.components.items()
            }
    return AgentReport(
        success_rate=score.success_rate,
        env_return=score.env_return,
        own_return=own_return,
        distance=(score.nearest_distance, score.final_distance),
        components=components,
        metrics=score.metrics,
        order=order,
    )


class Feedback:
    """Writes the conversations of search rounds.

    Args:
        setting: the directory of prompts; "with_init" tells the human reward and its return, "from_scratch" nothing of
            it.
        rule: when an episode counts as solved.
        human_feedback: a file whose text, if any, is added at each round.
        prompts: a directory with prompts in place of ours.
        log: takes one line for the user.
        examples: functions that solved other tasks, which the opening shows.

    Raises:
        UsageError: a prompt has a field that nothing fills, or with init the task has no human reward.
    """

    def __init__(
        self,
        task: Task,
        setting: Setting,
        episode_length: int,
        rule: Rule,
        human_feedback: str | None,
        prompts: str | None,
        log: Callable[[str], None],
        examples: Sequence[str] = (),
    ) -> None:
        self._setting = setting
        self._prompts = Prompts(setting, prompts)
        self._human_feedback = human_feedback
        self._log = log
        shown = self._prompts.fill("examples", {"functions": "\n\n".join(examples)}) if examples else ""
        self.opening = with_appendix(self._prompts.opening(task, episode_length, rule), shown)

    def conversation(
        self, round: int, best: RewardFunction | None, report: AgentReport, rejected: Sequence[RewardFunction]
    ) -> list[Message]:
        """Return the messages of a search round: the best function's conversation, and what came of it.

        Args:
            round: the round that begins.
            best: the best function, None for the human reward.
            report: how its agent did.
            rejected: the last round's rejected candidates.
        """
        fields = {
            "success_rate": f"{report.success_rate:.0%}",
            "nearest_distance": _number(report.distance[0]),
            "final_distance": _number(report.distance[1]),
            "metrics": _table({name: (value,) for name, value in report.metrics.items()}),
            "rejected": self.rejections(rejected),
            "human_feedback": self._read_human_feedback(round),
        }
        if self._setting == "with_init":
            fields["env_return"] = _number(report.env_return)
        if best is None:
            return with_appendix(self.opening, "\n" + self._prompts.fill("human_best", fields))
        fields["own_return"] = _number(report.own_return)
        fields["components"] = _table(report.components, ("mean", "min", "max"))
        fields["order"] = "" if report.order is None else self._prompts.fill("order", {"share": f"{report.order:.0%}"})
        return [
            *best.messages[:2],
            *best.messages[2:][-_REMEMBERED:],
            {"role": "assistant", "content": best.response},
            {"role": "user", "content": self._prompts.fill("feedback", fields)},
        ]

    def rejections(self, rejected: Sequence[RewardFunction]) -> str:
        """Return why candidates were rejected, most frequent reasons first; empty without any."""
        reasons = Counter(f"{function.kind}: {function.reason}" for function in rejected if function.kind != SURPLUS)
        if not reasons:
            return ""
        lines = [
            f"- {reason}" + (f" ({times} times)" if times > 1 else "")
            for reason, times in reasons.most_common(_SHOWN_REASONS)
        ]
        return self._prompts.fill("rejected", {"reasons": "\n".join(lines)})

    def _read_human_feedback(self, round: int) -> str:
        if self._human_feedback is None:
            return ""
        try:
            text = Path(self._human_feedback).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self._log(f"search round {round}: {self._human_feedback} cannot be read: {error}")
            return ""
        if not text:
            return ""
        self._log(f"search round {round}: {len(text)} characters of human feedback from {self._human_feedback}")
        return self._prompts.fill("human_feedback", {"text": text})


def with_appendix(messages: list[Message], text: str) -> list[Message]:
    """The conversation with `text` at the end of its last message: two messages of one side in a row trip servers."""
    if not text:
        return messages
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"].rstrip("\n") + "\n" + text}]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _table(rows: Mapping[str, Sequence[float]], heads: Sequence[str] = ()) -> str:
    if not rows:
        return "- (none)"
    labels = [f"{head} " for head in heads] or [""]
    return "\n".join(
        f"- {name}: " + ", ".join(f"{label}{_number(value)}" for label, value in zip(labels, values, strict=True))
        for name, values in rows.items()
    )
