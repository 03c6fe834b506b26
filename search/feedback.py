"""What the model is told about the last round: how the best function did, and what was rejected."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arguments import Setting
from errors import WARNING
from reward_code import Evaluation, Failure, RewardWorkers
from search import memory, population_view, words
from search.prompting import Prompts, with_appendix
from search.protocol import Message
from search.reward_function import SURPLUS, RewardFunction
from search.study import study
from search.tokens import count_tokens, tokens_of
from task_specs import Task
from tasks.environment import Columns
from tasks.episode import Rule, Score

_SHOWN_REASONS = 5
_LONGEST_REASON = 120  # characters


@dataclass(frozen=True)
class AgentReport:
    """What evaluation episodes showed about one agent.

    Returns are means over episodes of the sum over steps; `components` maps the name of a part of its reward to that
    part's (mean, min, max) over all steps. `distance` tells how far the episodes stayed from success by the task's
    criterion: (at the nearest moment, at the end), means over episodes. `order` is the share of all solved episodes so
    far that the function ranks above every unsolved one, None until there are both kinds. `env_return`, the return
    under the environment's own reward, is shown to the model with init only. `score` holds the episodes themselves,
    `evaluation` the rewards and their parts at all their steps, None for the environment's reward and for a function
    that failed there.
    """

    success_rate: float
    env_return: float
    own_return: float
    distance: tuple[float, float]
    components: Mapping[str, tuple[float, float, float]]
    order: float | None = None
    score: Score | None = None
    evaluation: Evaluation | None = None


def report_on(score: Score, source: str | None, workers: RewardWorkers, order: float | None = None) -> AgentReport:
    """Return what `score`'s episodes show of the agent that learned from `source` (None: the environment's reward)."""
    own_return, components, evaluation = score.env_return, {}, None
    if source is not None:
        columns = score.columns("next_obs", "action", "variables")
        [found] = workers.evaluate([source], columns, components=True)
        if isinstance(found, Failure):
            own_return = np.nan
        else:
            evaluation = found
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
        order=order,
        score=score,
        evaluation=evaluation,
    )


class Feedback:
    """Writes the conversations of search rounds.

    Args:
        setting: the directory of prompts; "with_init" shows the human reward and its return, "from_scratch" neither.
        episode_length, action_repeat, rule, starts, examples: see `search.prompting.Prompts.opening`.
        context: tokens that a conversation may have, not counting the answer.
        human_feedback: a file whose text, if any, is added in each round.
        prompts: a directory of prompts to use instead of ours.
        log: takes one line for the user.

    Raises:
        UsageError: a prompt has a field that nothing fills, or with init the task has no human reward.
    """

    def __init__(
        self,
        task: Task,
        setting: Setting,
        episode_length: int,
        action_repeat: int,
        rule: Rule,
        starts: Columns,
        context: int,
        human_feedback: str | None,
        prompts: str | None,
        log: Callable[[str], None],
        examples: Sequence[str] = (),
    ) -> None:
        self._task = task
        self._setting = setting
        self._prompts = Prompts(setting, prompts)
        self._context = context
        self._human_feedback = human_feedback
        self._log = log
        self.opening = self._prompts.opening(task, episode_length, action_repeat, rule, starts, examples)

    def conversation(
        self, round: int, best: RewardFunction | None, report: AgentReport, functions: Sequence[RewardFunction]
    ) -> list[Message]:
        """Return the messages of a search round: the best function's conversation, and what came of it.

        Args:
            round: the round that begins.
            best: the best function, None for the human reward.
            report: how its agent did.
            functions: all that were ever proposed.
        """
        fields = {
            "success_rate": f"{report.success_rate:.0%}",
            "nearest_distance": words.number(report.distance[0]),
            "final_distance": words.number(report.distance[1]),
            "course": self._course(report, best),
            "population": self._population(best, functions),
            "rejected": self.rejections([f for f in functions if f.round == round - 1 and f.reason and not f.fitted]),
            "human_feedback": self._read_human_feedback(round),
        }
        if self._setting == "with_init":
            fields["env_return"] = words.number(report.env_return)
        if best is None:
            return with_appendix(self.opening, "\n" + self._prompts.fill("human_best", fields))
        fields["own_return"] = words.number(report.own_return)
        fields["components"] = words.components(report.components, report.evaluation)
        fields["order"] = "" if report.order is None else self._prompts.fill("order", {"share": f"{report.order:.0%}"})
        beginning, line = best.messages[:2], memory.ancestry(best, functions)
        taken = tokens_of(beginning) + count_tokens(memory.summary(line[:-1]))
        feedback = self._prompts.fill("feedback", fields)
        answered = [*best.messages[2:], {"role": "assistant", "content": best.response}]
        turns = memory.turns_within([*answered, {"role": "user", "content": feedback}], self._context - taken)
        if forgotten := line[: -len(turns) // 2]:
            earlier = self._prompts.fill("earlier", {"functions": memory.summary(forgotten)})
            turns[-1] = {"role": "user", "content": earlier + feedback}
        return [*beginning, *turns]

    def _course(self, report: AgentReport, best: RewardFunction | None) -> str:
        """Return what the episodes themselves show; "" when they are not available."""
        if report.score is None:
            return ""
        found = study(self._task, report.score, report.evaluation.components if report.evaluation else {})
        history = words.history(best.evaluations) if best else ""
        fields = {
            "solved": words.solved_counts(found),
            "nearness": words.nearness(found),
            "history": history and f"{history}\n",
            **{
                name: text and f"\n{text}\n"
                for name, text in (("sides", words.sides(found)), ("whereabouts", words.whereabouts(found, self._task)))
            },
            "course": words.course(found),
        }
        return self._prompts.fill("course", fields)

    def _population(self, best: RewardFunction | None, functions: Sequence[RewardFunction]) -> str:
        """Return what the model is told about all functions, with the full source of the second best."""
        others = [function for function in population_view.standing(functions) if function is not best]
        if not others:
            return ""
        past = population_view.gone(functions)
        fields = {
            "alive": population_view.population(functions),
            "gone": past and self._prompts.fill("gone", {"functions": past}),
            "second": f"#{others[0].id}",
            "source": others[0].source.strip(),
        }
        return self._prompts.fill("population", fields)

    def rejections(self, rejected: Sequence[RewardFunction]) -> str:
        """Return why candidates were rejected, most frequent reasons first; empty if none were."""
        reasons = Counter(
            f"{function.kind}: {function.reason[:_LONGEST_REASON]}" for function in rejected if function.kind != SURPLUS
        )
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
            self._log(f"{WARNING}search round {round}: {self._human_feedback} cannot be read: {error}")
            return ""
        if not text:
            return ""
        self._log(f"search round {round}: {len(text)} characters of human feedback from {self._human_feedback}")
        return self._prompts.fill("human_feedback", {"text": text})
