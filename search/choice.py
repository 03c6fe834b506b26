"""Which of a round's valid candidates take the open slots, by what the stored episodes say about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from reward_code import Evaluation, Failure, RewardWorkers
from search.reward_function import SURPLUS, RewardFunction
from search.scoring import Experience, alike, judge

_COPY = 0.999  # above this, in rank and in linear correlation, two functions count as the same
_NOVELTY = 0.5  # weight of novelty, relative to a score between 0 and 1
_COMPARED_ROWS = 1_000
_TRIED = 20  # how many of the latest functions of earlier rounds a candidate is compared with


def order_share(means: np.ndarray, success: np.ndarray) -> float | None:
    """Return the share of the solved episodes whose mean reward beats that of every unsolved one.

    Sun et al., "A Large Language Model-Driven Reward Code Design Framework via Dynamic Feedback" (CARD), 2024.

    Args:
        means: mean reward of each episode (E,).
        success: which episodes are solved (E,), bool.

    Returns:
        A number in [0, 1]; None unless there are episodes of both kinds.
    """
    if success.all() or not success.any():
        return None
    return float((means[success] > means[~success].max()).mean())


@dataclass(frozen=True)
class Known:
    """A function that candidates are compared with: its name, its source, and whether it stays in the population."""

    name: str
    source: str
    stays: bool


def known_functions(
    functions: Sequence[RewardFunction], staying: Sequence[RewardFunction], human_source: str
) -> list[Known]:
    """Return what a candidate is compared with: those that stay, the latest ones that had a slot, the human reward."""
    tried = [function for function in functions if function.slot is not None and function not in staying]
    known = [Known(f"function {function.id}", function.source, True) for function in staying]
    known += [Known(f"function {function.id}, which was tried", function.source, False) for function in tried[-_TRIED:]]
    return known + ([Known("the human reward", human_source, False)] if human_source else [])


class Chooser:
    """Chooses candidates one after the other, the best by score and by novelty relative to those that stay.

    Novelty is 1 minus the largest rank correlation, over stored rows, with any function that stays or was chosen: it is
    0 for a function that ranks states as another does, and at least 1 for one that is uncorrelated with all others. A
    candidate that correlates almost perfectly with a known function, by rank and by value, is rejected as a copy; it
    must do so on the probe as well, which has stages of the task that agents may not have reached yet. A candidate that
    is constant over all stored rows is rejected too.

    Args:
        workers: evaluate reward functions.
        probe: rows used to recognize copies, and for nothing else.
        experience: the stored episodes.
        known: what candidates are compared with.
        reject: rejects a candidate that fails on a stored row.
    """

    def __init__(
        self,
        workers: RewardWorkers,
        probe: Mapping[str, np.ndarray],
        experience: Experience,
        known: Sequence[Known],
        reject: Callable[[RewardFunction, Failure], object],
    ) -> None:
        self._workers = workers
        self._experience = experience
        self._reject = reject
        rows = experience.some_rows(_COMPARED_ROWS)
        self._stored = len(rows)
        self._compared = {
            name: np.concatenate([column[rows], probe[name]]) for name, column in experience.columns.items()
        }
        rewards = self._compare([other.source for other in known])
        self._known = [
            (other, found.rewards)
            for other, found in zip(known, rewards, strict=True)
            if not isinstance(found, Failure)
        ]
        self._rewards: dict[int, np.ndarray] = {}  # of each candidate, by its id, in the compared rows
        self._scores: dict[int, float] = {}

    def best_first(self, candidates: Sequence[RewardFunction], wanted: Callable[[], int]) -> Iterator[RewardFunction]:
        """Yield the best of the valid candidates, then the next, until `wanted` returns 0; record the grounds in each.

        A candidate counts as chosen unless it is rejected before the next one is drawn.
        """
        waiting = self._scored(candidates)
        place = 0
        while waiting and wanted():
            novelty = {function.id: self._novelty(function) for function in waiting}
            best = max(waiting, key=lambda function: self._scores[function.id] + _NOVELTY * novelty[function.id][0])
            waiting.remove(best)
            place += 1
            best.choice = f"taken as number {place} of {len(candidates)}: {self._grounds(best, *novelty[best.id])}"
            yield best
            if best.accepted:
                self._known.append((Known(f"function {best.id}", best.source, True), self._rewards[best.id]))
        for function in waiting:
            function.choice = f"not taken: {self._grounds(function, *self._novelty(function))}"
            function.reject(SURPLUS, "others were chosen")

    def _scored(self, candidates: Sequence[RewardFunction]) -> list[RewardFunction]:
        """Set the figures of each candidate; reject copies, and those that fail or are flat on stored rows."""
        sources = [function.source for function in candidates]
        found = self._workers.evaluate(sources, self._experience.columns)
        waiting: list[RewardFunction] = []
        for function, evaluation, compared in zip(candidates, found, self._compare(sources), strict=True):
            if isinstance(evaluation, Failure):
                self._reject(function, evaluation)
                continue
            if isinstance(compared, Failure):
                self._reject(function, compared)
                continue
            figures = judge(evaluation.rewards, self._experience)
            function.figures = {**asdict(figures), "score": figures.score}
            self._scores[function.id] = figures.score
            self._rewards[function.id] = mine = compared.rewards
            others = [(other.name, rewards) for other, rewards in self._known]
            others += [(f"function {other.id}", self._rewards[other.id]) for other in waiting]
            copied = next((name for name, rewards in others if _is_copy(mine, rewards)), "")
            if copied:
                function.reject("duplicate", f"it ranks and values states just as {copied} does")
            elif not figures.spread:
                function.reject("flat", "its reward is the same in every state that agents have come to so far")
            else:
                waiting.append(function)
        return waiting

    def _compare(self, sources: Sequence[str]) -> list[Evaluation | Failure]:
        """Evaluate functions on the compared rows, interpreted: so few are not worth recompiling dropped ones."""
        return self._workers.evaluate(sources, self._compared, compiled=False)

    def _novelty(self, function: RewardFunction) -> tuple[float, str]:
        """Return how unlike the staying and chosen functions a candidate is, and which of them it is most like."""
        likes = [
            (alike(self._rewards[function.id][: self._stored], rewards[: self._stored]) or 0.0, other.name)
            for other, rewards in self._known
            if other.stays
        ]
        like, name = max(likes, default=(0.0, ""))
        return 1.0 - like, name

    def _grounds(self, function: RewardFunction, novelty: float, nearest: str) -> str:
        function.figures["novelty"] = novelty
        beside = f" beside {nearest}" if nearest else ""
        return f"score {self._scores[function.id]:.2f}, novelty {novelty:.2f}{beside}"


def _is_copy(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether the rewards (n,) of two functions are equal up to scale and shift, which learning undoes."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.ptp(one) == np.ptp(other)
    linear = np.corrcoef(one.astype(float), other.astype(float))[0, 1]
    return bool(linear > _COPY) and (alike(one, other) or 0.0) > _COPY
