"""A search round as a short block of lines: the ranking, who keeps its reward function, what was proposed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arguments import Arguments
from search.reward_function import SURPLUS, RewardFunction
from search.rounds import RewardSearch


@dataclass(frozen=True)
class Standing:
    """Where an agent stands when a search round begins.

    Attributes:
        agent: its number.
        function: id of its reward function, None for the human-designed one.
        now: success rate in the last evaluation, None for an agent that is out.
        best_so_far: its highest success rate in any evaluation since it got that function.
        elite: whether it is among those that keep their function.
    """

    agent: int
    function: int | None
    now: float | None
    best_so_far: float
    elite: bool


def round_block(
    args: Arguments,
    search: RewardSearch,
    round: int,
    standings: Sequence[Standing] = (),
    functions: Mapping[int, RewardFunction] | None = None,
) -> str:
    """Return the lines of a finished search round.

    Args:
        args: the flags.
        search: what was proposed, and what it cost.
        round: the number of the round; 0 for the first population.
        standings: the agents before the round, best first.
        functions: the reward function in each slot after it.
    """
    proposed = [function for function in search.functions if function.round == round]
    lines = [f"search round {round}: {_candidates(proposed)}"]
    lines += [_standing(rank, standing, functions or {}) for rank, standing in enumerate(standings, 1)]
    cost = search.cost(args.price_in, args.price_out)
    if cost["tokens_in"]:
        money = f", cost {cost['cost']:.2f}" if cost["cost"] else ""
        lines.append(f"  {_tokens(cost['rounds'][-1])} in this round; {_tokens(cost)} so far{money}")
    return "\n".join(lines)


def _candidates(proposed: Sequence[RewardFunction]) -> str:
    rejected = Counter(function.kind for function in proposed if function.kind not in {"", SURPLUS})
    reasons = ", ".join(f"{number} {kind}" for kind, number in rejected.most_common())
    surplus = sum(function.kind == SURPLUS for function in proposed)
    parts = [
        f"{len(proposed)} candidates",
        f"{sum(function.accepted for function in proposed)} accepted",
        f"{rejected.total()} rejected" + (f" ({reasons})" if reasons else ""),
        *([f"{surplus} not needed"] if surplus else []),
    ]
    return ", ".join(parts)


def _standing(rank: int, standing: Standing, functions: Mapping[int, RewardFunction]) -> str:
    name = "human agent" if standing.function is None else f"agent {standing.agent}"
    if standing.now is None:
        place, success = "-.", "out"
    else:
        place = f"{rank}."
        success = f"success now {standing.now:4.0%}, best so far {standing.best_so_far:4.0%}"
    return f"  {place:>3} {name:<11}  {success:<34}  {_outcome(standing, functions)}"


def _outcome(standing: Standing, functions: Mapping[int, RewardFunction]) -> str:
    if standing.function is None:
        return "elite, with the human-designed reward" if standing.elite else "keeps the human-designed reward"
    function = functions[standing.agent]
    if function.id != standing.function:
        parents = f", written from {' and '.join(map(str, function.parents))}" if function.parents else ""
        return f"function {standing.function} replaced by {function.id}{parents}"
    return f"elite, with function {function.id}" if standing.elite else f"keeps function {function.id}: no new one came"


def _tokens(usage: Mapping[str, int]) -> str:
    return f"{usage['tokens_in']:,} tokens in and {usage['tokens_out']:,} out"
