"""The search for reward functions: ask a model, check what it wrote, tell it what came of it, ask again.

A search round starts from a conversation and ends with checked programs. The model is asked for twice as many as are
wanted, at most `attempts` times and `deadline` seconds, and hears why candidates were rejected. What a round does not
find stays open: the caller keeps old functions there.
"""

import ast
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from arguments import Setting
from errors import RunError, plain_text
from reward_code import Rejected, RewardWorkers, Verdict, extract
from search.builtin import ProgramSearch
from search.prompting import Prompts
from search.protocol import BudgetSpent, LanguageModel, Message, Parent, Recorded, Reply, Request, ServiceAway, Usage
from task_specs import Task

_REMEMBERED = 6  # messages of a conversation that go to the model beside the first two: the last three exchanges
_SHOWN_REASONS = 8
SURPLUS = "surplus"  # the kind of a candidate that was not needed, and so not looked at


@dataclass
class Program:
    """A reward function that was proposed, accepted or not; a row of population.json.

    `messages` is the conversation that `response` answered; both are kept while it may go on, and for those that are
    not taken stand in llm.jsonl alone. `kind` is "" for an accepted program, else a short word for why it was not
    taken, and `reason` the line that explains it. `order` is the share of solved episodes that it ranks above every
    unsolved one, None while that is unknown. The caller fills `slot`, `scale`, `shift` and `scores`.
    """

    id: int
    round: int
    parents: list[int]
    source: str
    response: str
    messages: list[Message]
    accepted: bool = False
    kind: str = ""
    reason: str = ""
    compiled: bool = False
    order: float | None = None
    slot: int | None = None
    scale: float = 1.0
    shift: float = 0.0
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentReport:
    """What evaluation episodes showed of one agent.

    Returns are means over episodes of the sum over steps; `components` maps the name of a part of its reward to that
    part's (mean, min, max) over all steps, `metrics` a measure of the task to its mean at episode end. `env_return`,
    the return under the environment's own reward, is shown to the model with init only.
    """

    success_rate: float
    env_return: float
    own_return: float
    components: Mapping[str, tuple[float, float, float]]
    metrics: Mapping[str, float]


class RewardSearch:
    """Searches reward functions for `task`; all that it ever proposed is in `programs`, `programs[i].id == i`.

    Args:
        model: who writes them.
        builtin: who fills the first population up when the model wrote too few.
        workers: who checks candidates, on `probe`.
        setting: the directory of prompts; "with_init" shows the human reward and its return, "from_scratch" nothing
            of it.
        episode_length: env steps in an episode, for the prompt.
        attempts: requests in a round at most, each for twice the open slots.
        deadline: seconds that a round waits for the model at most.
        human_feedback: a file whose text, if any, is added to the feedback at each round.
        log: takes one line for the user.
        record: takes one row of llm.jsonl, fit for JSON.
        check_order: gives for a source the share of solved episodes that it ranks above every unsolved one, None
            while that cannot be known.
        order_threshold: candidates below this share are rejected; 0 only logs it.
        stop: says whether the run was asked to stop, so that nobody waits for a model any more.

    Raises:
        UsageError: a prompt has a field that nothing fills, or with init the task has no human reward.
    """

    def __init__(
        self,
        task: Task,
        model: LanguageModel,
        workers: RewardWorkers,
        probe: Mapping[str, np.ndarray],
        *,
        builtin: ProgramSearch,
        setting: Setting,
        episode_length: int = 150,
        attempts: int = 4,
        deadline: float = 600.0,
        human_feedback: str | None = None,
        log: Callable[[str], None] = print,
        record: Callable[[dict[str, Any]], None] = lambda row: None,
        check_order: Callable[[str], float | None] = lambda source: None,
        order_threshold: float = 0.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.task = task
        self.human_source = task.human_reward.source if setting == "with_init" and task.human_reward else ""
        self.model = Recorded(model, record, {"task": task.name, "setting": setting})
        self.builtin = builtin
        self.workers = workers
        self.probe = probe
        self.setting = setting
        self.attempts = attempts
        self.deadline = deadline
        self.human_feedback = human_feedback
        self.log = log
        self.check_order = check_order
        self.order_threshold = order_threshold
        self.stop = stop
        self.programs: list[Program] = []
        self.rejected: Counter[str] = Counter()
        self.round_usage = Usage()
        self._prompts = Prompts(setting)
        self.opening = self._prompts.opening(task, episode_length)

    @property
    def calls(self) -> int:
        """Requests sent to the model so far."""
        return self.model.usage.calls

    @property
    def tokens_in(self) -> int:
        """Tokens sent so far."""
        return self.model.usage.tokens_in

    @property
    def tokens_out(self) -> int:
        """Tokens received so far."""
        return self.model.usage.tokens_out

    def initial(self, count: int) -> list[Program]:
        """The first population: exactly `count` programs; `builtin` fills what the model leaves open.

        Raises RunError when the model cannot be reached or none of its programs is valid.
        """
        before = replace(self.model.usage)
        programs, why = self._search(self.model, 0, self.opening, (), count, ())
        self.round_usage = self.model.usage - before
        if not programs:
            raise RunError(f"no reward function from {self.model.name}: {why}")
        if len(programs) < count:
            self.log(f"{self.model.name} gave {len(programs)} of {count} reward functions; builtin writes the others")
            more, why = self._search(self.builtin, 0, self.opening, (), count - len(programs), programs)
            programs += more
        if len(programs) < count:
            raise RunError(f"only {len(programs)} of {count} reward functions are valid: {why}")
        return programs

    def improve(
        self,
        round: int,
        best: Program | None,
        report: AgentReport,
        elites: Sequence[tuple[Program, AgentReport]],
        count: int,
    ) -> list[Program]:
        """Up to `count` new programs from what the last ones led to; fewer when the model gives no more.

        `best` is the best program, None for the human reward, `report` says how its agent did. `elites` stay in the
        population: they are the parents of recombined programs, and no candidate may repeat them.
        """
        parents = [Parent(program.id, program.source, seen.success_rate, seen.components) for program, seen in elites]
        messages = self._conversation(round, best, report)
        before = replace(self.model.usage)
        programs, _ = self._search(
            self.model, round, messages, parents, count, [program for program, _ in elites], [best.id] if best else []
        )
        self.round_usage = self.model.usage - before
        if len(programs) < count:
            self.log(f"search round {round}: {count - len(programs)} of {count} open slots keep their old function")
        return programs

    def state_dict(self) -> dict[str, Any]:
        """All that the next round depends on, fit for JSON."""
        return {
            "programs": [asdict(program) for program in self.programs],
            "rejected": dict(self.rejected),
            "model": self.model.state_dict(),
            "builtin": self.builtin.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.programs = [Program(**row) for row in state["programs"]]
        self.rejected = Counter(state["rejected"])
        self.model.load_state_dict(state["model"])
        self.builtin.load_state_dict(state["builtin"])

    def _search(
        self,
        model: LanguageModel,
        round: int,
        messages: list[Message],
        parents: Sequence[Parent],
        count: int,
        staying: Sequence[Program],
        shown: Sequence[int] = (),
    ) -> tuple[list[Program], str]:
        """One round: up to `count` accepted programs, and one line on why there are no more.

        `shown` are the ids of the programs in the conversation, the parents of all that comes of it unless the model
        says which it took.
        """
        deadline = time.monotonic() + self.deadline
        accepted: list[Program] = []
        failed: list[Program] = []
        why = "nothing came in time"
        for _ in range(self.attempts):
            still_open = count - len(accepted)
            if not still_open or time.monotonic() >= deadline or self.stop():
                break
            asked = _with_appendix(messages, self._rejections(failed))
            self.log(f"search round {round}: {model.name} is asked for {2 * still_open} reward functions")
            try:
                reply = model.ask(Request(asked, 2 * still_open, deadline, round, tuple(parents), self.stop, self.log))
            except (ServiceAway, BudgetSpent) as error:
                why = str(error)
                self.log(f"search round {round}: {why}")
                break
            for note in dict.fromkeys(reply.notes):
                self.log(f"search round {round}: {note}")
            if not reply.texts:
                why = next(iter(reply.notes), f"{model.name} gave no answer")
            candidates = self._candidates(round, reply, asked, shown)
            self._judge(candidates, accepted, staying, count)
            failed += [program for program in candidates if program.kind not in {"", SURPLUS}]
        self.rejected.update(program.kind for program in failed)
        if failed:
            kinds = Counter(program.kind for program in failed)
            listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            self.log(f"search round {round}: {len(failed)} candidates were rejected ({listed})")
            if not accepted:
                why = f"every candidate was rejected ({listed}), the first one for this: {failed[0].reason}"
                self.log(f"search round {round}: {why}")
        return accepted, why

    def _candidates(self, round: int, reply: Reply, messages: list[Message], shown: Sequence[int]) -> list[Program]:
        parents = reply.parents or [list(shown) for _ in reply.texts]
        candidates = []
        for place, text in enumerate(reply.texts):
            program = Program(len(self.programs), round, parents[place], "", text, messages)
            if place in reply.cut_off:
                program.kind, program.reason = "cut-off", "the answer ended at the token limit (--max_answer_tokens)"
            if place in reply.refused:
                program.kind, program.reason = "refusal", f"the model declined: {plain_text(text, one_line=True)[:300]}"
            self.programs.append(program)
            candidates.append(program)
        return candidates

    def _judge(
        self, candidates: list[Program], accepted: list[Program], staying: Sequence[Program], count: int
    ) -> None:
        """Add good candidates to `accepted` until it holds `count`, and give every other one a kind and a reason."""
        known = {_canonical(source) for source in (self.human_source, *(p.source for p in (*staying, *accepted)))}
        waiting = candidates
        while waiting and len(accepted) < count:
            # Checking means compiling: no more are checked at a time than are wanted.
            size = count - len(accepted)
            batch, waiting = waiting[:size], waiting[size:]
            verdicts = self.workers.check([program.response for program in batch], self.probe)
            for program, verdict in zip(batch, verdicts, strict=True):
                self._settle(program, verdict, known)
                if program.accepted:
                    accepted.append(program)
        for program in waiting:
            program.kind, program.reason = SURPLUS, "the population was full already"
            with contextlib.suppress(Rejected):
                program.source = extract(program.response).source
        for program in candidates:
            if not program.accepted:  # nobody will go on with that conversation
                program.response, program.messages = "", []

    def _settle(self, program: Program, verdict: Verdict, known: set[str]) -> None:
        program.source, program.compiled = verdict.source, verdict.compiled
        if not verdict.accepted:
            cut_off = f"{program.reason}: " if program.kind else ""
            program.kind, program.reason = program.kind or verdict.kind, cut_off + verdict.reason
            return
        if _canonical(verdict.source) in known:
            program.kind, program.reason = "duplicate", "it is the same as a function that is in the population"
            return
        known.add(_canonical(verdict.source))
        program.order = self.check_order(verdict.source)
        if program.order is not None:
            self.log(f"program {program.id} ranks {program.order:.0%} of the solved episodes above every unsolved one")
            if program.order < self.order_threshold:
                program.kind = "order"
                program.reason = (
                    f"only {program.order:.0%} of the solved episodes so far have a higher mean reward than every "
                    f"unsolved one; {self.order_threshold:.0%} are needed"
                )
                return
        program.accepted, program.kind, program.reason = True, "", ""
        if verdict.note:
            self.log(f"program {program.id} stays interpreted, which is slow: {verdict.note}")

    def _conversation(self, round: int, best: Program | None, report: AgentReport) -> list[Message]:
        fields = {
            "success_rate": f"{report.success_rate:.0%}",
            "metrics": _table({name: (value,) for name, value in report.metrics.items()}),
            "rejected": self._rejections([p for p in self.programs if p.round == round - 1 and p.reason]),
            "human_feedback": self._read_human_feedback(round),
        }
        if self.setting == "with_init":
            fields["env_return"] = _number(report.env_return)
        if best is None:
            return _with_appendix(self.opening, "\n" + self._prompts.fill("human_best", fields))
        fields["own_return"] = _number(report.own_return)
        fields["components"] = _table(report.components, ("mean", "min", "max"))
        fields["order"] = "" if best.order is None else self._prompts.fill("order", {"share": f"{best.order:.0%}"})
        return [
            *best.messages[:2],
            *best.messages[2:][-_REMEMBERED:],
            {"role": "assistant", "content": best.response},
            {"role": "user", "content": self._prompts.fill("feedback", fields)},
        ]

    def _rejections(self, failed: Sequence[Program]) -> str:
        reasons = Counter(f"{program.kind}: {program.reason}" for program in failed if program.kind != SURPLUS)
        if not reasons:
            return ""
        lines = [
            f"- {reason}" + (f" ({times} times)" if times > 1 else "")
            for reason, times in reasons.most_common(_SHOWN_REASONS)
        ]
        return self._prompts.fill("rejected", {"reasons": "\n".join(lines)})

    def _read_human_feedback(self, round: int) -> str:
        if self.human_feedback is None:
            return ""
        try:
            text = Path(self.human_feedback).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self.log(f"search round {round}: {self.human_feedback} cannot be read: {error}")
            return ""
        if not text:
            return ""
        self.log(f"search round {round}: {len(text)} characters of human feedback from {self.human_feedback}")
        return self._prompts.fill("human_feedback", {"text": text})


def _with_appendix(messages: list[Message], text: str) -> list[Message]:
    """The conversation with `text` at the end of its last message: two messages of one side in a row trip servers."""
    if not text:
        return messages
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"].rstrip("\n") + "\n" + text}]


def _canonical(source: str) -> str:
    """The source without comments and layout, so that copies are known as such."""
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:
        return source


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
