"""The search for reward functions: prompt a model, check what it wrote, and hand out what can be used.

A search round starts from a conversation. The model is prompted for twice as many functions as are wanted, at most
`attempts` times and within `deadline` seconds, and is told why candidates were rejected. Slots for which a round finds
nothing keep their functions.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from arguments import Setting
from errors import WARNING, RunError, plain_line
from reward_code import Failure, Rejected, RewardWorkers, Verdict, canonical, extract
from search import population_view
from search.builtin import ProgramSearch
from search.choice import Chooser, known_functions
from search.feedback import AgentReport, Feedback
from search.fitting import Fitting
from search.prompting import with_appendix
from search.protocol import (
    BudgetSpent,
    LanguageModel,
    Message,
    Parent,
    Recorded,
    Reply,
    Request,
    ServiceAway,
    Usage,
)
from search.reward_function import SURPLUS, RewardFunction
from search.scoring import Experience
from task_specs import Task
from tasks.environment import PROBE_STARTS
from tasks.episode import Rule


class RewardSearch:
    """Searches for reward functions for `task`; all that were ever proposed are in `functions`, `functions[i].id == i`.

    Args:
        model: writes them.
        builtin: fills up the first population when the model wrote too few.
        workers: check candidates, on `probe`.
        setting: the directory of prompts; "with_init" shows the human reward and its return, "from_scratch" neither.
        attempts: most requests in a round, each for twice the open slots.
        deadline: most seconds that a round waits for the model.
        episode_length, action_repeat, rule, context, human_feedback, prompts, examples: see `search.feedback.Feedback`.
        scored: whether candidates are chosen by what stored episodes say about them; else the first valid ones are
            taken.
        fit_numbers: whether functions that stay are also tried with fitted numbers.
        log: takes one line for the user.
        record: takes one row of llm.jsonl, JSON-serializable.
        reject: rejects a candidate that failed on a stored transition.
        stop: says whether the run is to stop, which also ends the wait for a model.

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
        action_repeat: int = 1,
        rule: Rule = "any",
        attempts: int = 4,
        deadline: float = 600.0,
        context: int = 16_000,
        human_feedback: str | None = None,
        prompts: str | None = None,
        examples: Sequence[str] = (),
        scored: bool = True,
        fit_numbers: bool = False,
        log: Callable[[str], None] = print,
        record: Callable[[dict[str, Any]], None] = lambda row: None,
        reject: Callable[[RewardFunction, Failure], object] = lambda function, failure: function.reject(
            failure.kind, failure.reason
        ),
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.task = task
        self.human_source = task.human_reward.source if setting == "with_init" and task.human_reward else ""
        self.model = Recorded(model, record, {"task": task.name, "setting": setting})
        self.builtin = builtin
        self.workers = workers
        self.probe = probe
        self.attempts = attempts
        self.deadline = deadline
        self.scored = scored
        self.fit_numbers = fit_numbers
        self.log = log
        self.reject = reject
        self.stop = stop
        self.functions: list[RewardFunction] = []
        self.round_usage: list[Usage] = []  # of each round
        self._trouble = ""
        starts = {name: column[:PROBE_STARTS] for name, column in probe.items()}
        self.feedback = Feedback(
            task, setting, episode_length, action_repeat, rule, starts, context, human_feedback, prompts, log, examples
        )

    @property
    def rejected(self) -> dict[str, int]:
        """How many functions were rejected so far, at once or later, by kind."""
        return dict(Counter(f.kind for f in self.functions if f.kind not in {"", SURPLUS}))

    def cost(self, price_in: float, price_out: float) -> dict[str, Any]:
        """Return what the model has cost: calls, tokens, and money at prices per million tokens; and by round."""
        usage = self.model.usage
        money = (usage.tokens_in * price_in + usage.tokens_out * price_out) / 1e6
        return {**asdict(usage), "cost": money, "rounds": [asdict(spent) for spent in self.round_usage]}

    def initial(self, count: int) -> list[RewardFunction]:
        """Return the first population: exactly `count` functions; `builtin` fills what the model leaves open.

        Raises RunError when the model cannot be reached or none of its functions is valid.
        """
        before = replace(self.model.usage)
        # Nothing is stored yet. The probe has the trajectory of a scripted expert, and choosing by that would show the
        # search from scratch how the task is solved; so the first valid functions are taken.
        functions = list(self._search(self.model, 0, self.feedback.opening, (), count, ()))
        self.round_usage.append(self.model.usage - before)
        if not functions:
            raise RunError(f"no reward function from {self.model.name}: {self._trouble}")
        if len(functions) < count:
            gave = f"{self.model.name} gave {len(functions)} of {count} reward functions"
            self.log(f"{WARNING}{gave}; builtin writes the others")
            functions += self._search(self.builtin, 0, self.feedback.opening, (), count - len(functions), functions)
        if len(functions) < count:
            raise RunError(f"only {len(functions)} of {count} reward functions are valid: {self._trouble}")
        return functions

    def improve(
        self,
        round: int,
        best: RewardFunction | None,
        report: AgentReport,
        elites: Sequence[tuple[RewardFunction, AgentReport]],
        count: int,
        experience: Experience | None = None,
    ) -> Iterator[RewardFunction]:
        """Yield checked functions written from what the last ones led to, until `count` are taken or no more come.

        A function counts as taken unless its `reject` is called before the next one is drawn. `best` is the best
        function (None for the human reward), and `report` says how its agent did. `elites` stay in the population:
        they are the parents of recombined functions, and no candidate may repeat them. `experience` is what candidates
        are chosen by.
        """
        parents = [
            Parent(function.id, function.source, seen.success_rate, seen.components) for function, seen in elites
        ]
        messages = self.feedback.conversation(round, best, report, self.functions)
        staying = [function for function, _ in elites]
        before, taken = replace(self.model.usage), 0
        shown = [best.id] if best else []
        for function in self._search(self.model, round, messages, parents, count, staying, shown, experience):
            yield function
            taken += function.accepted
        self.round_usage.append(self.model.usage - before)
        if taken < count:
            self.log(f"{WARNING}search round {round}: {count - taken} of {count} open slots keep their old function")

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next round depends on, JSON-serializable."""
        return {
            "functions": [asdict(function) for function in self.functions],
            "model": self.model.state_dict(),
            "rounds": [asdict(spent) for spent in self.round_usage],
            "builtin": self.builtin.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.functions = [RewardFunction(**row) for row in state["functions"]]
        self.model.load_state_dict(state["model"])
        self.round_usage = [Usage(**spent) for spent in state["rounds"]]
        self.builtin.load_state_dict(state["builtin"])

    def _search(
        self,
        model: LanguageModel,
        round: int,
        messages: list[Message],
        parents: Sequence[Parent],
        count: int,
        staying: Sequence[RewardFunction],
        shown: Sequence[int] = (),
        experience: Experience | None = None,
    ) -> Iterator[RewardFunction]:
        """Yield one round's functions as :meth:`improve` does; `_trouble` then says why there are no more.

        `shown` are the ids of the functions in the conversation; they are the parents of all that comes of it, unless
        the model says which ones it used.
        """
        fitted = self._fitted(round, staying, experience) if self.fit_numbers and experience is not None else []
        deadline = time.monotonic() + self.deadline
        taken: list[RewardFunction] = []
        failed: list[RewardFunction] = []
        self._trouble = "nothing came in time"
        for _ in range(self.attempts):
            still_open = count - len(taken)
            if not still_open or time.monotonic() >= deadline or self.stop():
                break
            prompt = with_appendix(messages, self.feedback.rejections(failed))
            self.log(f"search round {round}: requests {2 * still_open} reward functions from {model.name}")
            try:
                reply = model.ask(Request(prompt, 2 * still_open, deadline, round, tuple(parents), self.stop, self.log))
            except (ServiceAway, BudgetSpent) as error:
                self._trouble = str(error)
                self.log(f"{WARNING}search round {round}: {self._trouble}")
                break
            deadline += reply.held
            for note in dict.fromkeys(reply.notes):
                self.log(f"{WARNING}search round {round}: {note}")
            if not reply.texts:
                self._trouble = next(iter(reply.notes), f"{model.name} gave no answer")
            candidates = self._candidates(round, reply, prompt, shown)
            yield from self._checked([*candidates, *fitted], taken, staying, count, experience)
            fitted = []
            model.told([("accepted", "") if f.accepted else (f.kind, f.reason) for f in candidates])
            failed += [function for function in candidates if function.kind not in {"", SURPLUS}]
        if fitted:  # the model could not be reached
            yield from self._checked(fitted, taken, staying, count, experience)
        if failed and not taken:
            kinds = Counter(function.kind for function in failed)
            listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            self._trouble = f"every candidate was rejected ({listed}), the first for this reason: {failed[0].reason}"
            self.log(f"{WARNING}search round {round}: {self._trouble}")

    def _candidates(
        self, round: int, reply: Reply, messages: list[Message], shown: Sequence[int]
    ) -> list[RewardFunction]:
        parents = reply.parents or [list(shown) for _ in reply.texts]
        candidates = []
        for place, text in enumerate(reply.texts):
            function = RewardFunction(
                len(self.functions), round, parents[place], "", text, messages, idea=population_view.idea_of(text)
            )
            if place in reply.cut_off:
                function.reject("cut-off", "the answer ended at the token limit (--max_answer_tokens)")
            if place in reply.refused:
                function.reject("refusal", f"the model declined: {plain_line(text)[:300]}")
            self.functions.append(function)
            candidates.append(function)
        return candidates

    def _fitted(self, round: int, functions: Sequence[RewardFunction], experience: Experience) -> list[RewardFunction]:
        """Return functions with their numbers fitted, as candidates, where that gains anything."""
        found = []
        with contextlib.closing(Fitting(self.task.inputs, experience)) as fitting:
            for function in functions:
                fit = None if self.stop() else fitting.fit(function.source)
                if fit is None:
                    continue
                fate = f"function {function.id} with fitted numbers: {fit.gain}"
                text = f"This is {fate}.\n\n```python\n{fit.source}```\n"
                candidate = RewardFunction(len(self.functions), round, [function.id], "", text, function.messages)
                candidate.idea = f"{function.idea.rstrip('.')}, with fitted numbers"
                candidate.fitted = {"episodes": fit.episodes, "before": fit.before, "after": fit.after}
                self.log(f"search round {round}: function {candidate.id} is {fate}")
                self.functions.append(candidate)
                found.append(candidate)
        return found

    def _checked(
        self,
        candidates: list[RewardFunction],
        taken: list[RewardFunction],
        staying: Sequence[RewardFunction],
        count: int,
        experience: Experience | None,
    ) -> Iterator[RewardFunction]:
        """Yield valid candidates until `taken` holds `count`; every other one gets a kind and a reason."""
        beside = [*staying, *taken]
        known = {canonical(source) for source in (self.human_source, *(function.source for function in beside))}

        def wanted() -> int:
            return count - len(taken)

        if self.scored and experience is not None:
            offered = self._best_first(candidates, known, wanted, beside, experience)
        else:
            offered = self._as_they_came(candidates, known, wanted)
        for function in offered:
            yield function
            if function.accepted:  # the caller may have rejected it
                taken.append(function)
        for function in candidates:
            if not function.accepted:  # nobody will continue that conversation
                function.response, function.messages = "", []

    def _as_they_came(
        self, candidates: list[RewardFunction], known: set[str], wanted: Callable[[], int]
    ) -> Iterator[RewardFunction]:
        waiting = candidates
        while waiting and (size := wanted()):
            # Checking means compiling, so no more are checked at a time than are wanted.
            batch, waiting = waiting[:size], waiting[size:]
            self._check(batch, known)
            yield from (function for function in batch if function.accepted)
        for function in waiting:
            function.reject(SURPLUS, "the population was full already")
            with contextlib.suppress(Rejected):
                function.source = extract(function.response).source

    def _best_first(
        self,
        candidates: list[RewardFunction],
        known: set[str],
        wanted: Callable[[], int],
        beside: Sequence[RewardFunction],
        experience: Experience,
    ) -> Iterator[RewardFunction]:
        self._check(candidates, known)
        valid = [function for function in candidates if function.accepted]
        if valid:
            others = known_functions(self.functions, beside, self.human_source)
            yield from Chooser(self.workers, self.probe, experience, others, self.reject).best_first(valid, wanted)

    def _check(self, candidates: Sequence[RewardFunction], known: set[str]) -> None:
        verdicts = self.workers.check([function.response for function in candidates], self.probe, known)
        for function, verdict in zip(candidates, verdicts, strict=True):
            self._enter_verdict(function, verdict, known)

    def _enter_verdict(self, function: RewardFunction, verdict: Verdict, known: set[str]) -> None:
        function.source, function.compiled = verdict.source, verdict.compiled
        if not verdict.accepted:
            cut_off = f"{function.reason}: " if function.kind else ""
            function.reject(function.kind or verdict.kind, cut_off + verdict.reason)
            return
        if canonical(verdict.source) in known:
            function.reject("duplicate", "it is the same as a function that is in the population")
            return
        known.add(canonical(verdict.source))
        function.accepted, function.kind, function.reason = True, "", ""
        if verdict.unwrapped:
            self.log(f"function {function.id}: {'; '.join(verdict.unwrapped)}")
        if verdict.note:
            self.log(f"function {function.id} stays interpreted, which is slow: {verdict.note}")
