"""Who came from whom: the life of every reward function that a run ever proposed."""

from dataclasses import dataclass
from typing import Any

from runs.reading import Row, Run

SURPLUS = "surplus"  # the kind of a candidate that was not needed, see `search.reward_function`


@dataclass(frozen=True)
class Life:
    """What became of a reward function.

    Attributes:
        row: its row of population.json.
        ended: the search round that replaced it, None if none did.
        elite: the search rounds at which it was among the `elite_num` best.
        fate: one line that says what became of it, and why.
    """

    row: Row
    ended: int | None
    elite: list[int]
    fate: str

    @property
    def id(self) -> int:
        """Its number."""
        return int(self.row["id"])

    @property
    def round(self) -> int:
        """The search round in which it was proposed."""
        return int(self.row.get("round", 0))

    @property
    def slot(self) -> int | None:
        """The slot that it got, None if it was rejected at once or not needed."""
        return self.row.get("slot")

    @property
    def parents(self) -> list[int]:
        """Ids of the functions that it was written from."""
        return list(self.row.get("parents", []))

    @property
    def success_rate(self) -> float | None:
        """The best success rate of its agent in any round's last evaluation, None if there was none."""
        rates = [scores.get("success_rate") for scores in self.row.get("scores", {}).values()]
        return max((rate for rate in rates if rate is not None), default=None)


def lives(run: Run) -> list[Life]:
    """Return the life of each reward function, in the order of their ids."""
    ended = {row["replaced"]: row for row in run.functions if row.get("replaced") is not None}
    last = max([int(row.get("round", 0)) for row in (*run.functions, *run.evaluations)], default=0)
    return [_life(run, row, ended.get(row["id"]), last) for row in sorted(run.functions, key=lambda row: row["id"])]


def _life(run: Run, row: Row, successor: Row | None, last: int) -> Life:
    if row.get("slot") is None:
        return Life(row, None, [], _rejection(row))
    ended = None if successor is None else int(successor["round"])
    best = int(run.flags.get("elite_num", 0))
    survived = range(int(row["round"]) + 1, (last if ended is None else ended - 1) + 1)
    elite = [round for round in survived if (_rank(row, round) or best + 1) <= best]
    return Life(row, ended, elite, _fate(run, row, successor))


def _rank(row: Row, round: int) -> int | None:
    """Return the rank by which a search round judged it: that of the last evaluation before the round."""
    rank: int | None = row.get("scores", {}).get(str(round - 1), {}).get("rank")
    return rank


def _rejection(row: Row) -> str:
    kind, reason = row.get("kind", ""), row.get("reason") or ""
    if kind == SURPLUS:
        return f"not needed: {row.get('choice', '').removeprefix('not taken: ') or 'the population was full already'}"
    if not kind and not reason:
        return "proposed, and not taken yet"
    return f"rejected ({kind}): {reason}" if kind else f"rejected: {reason}"


def _fate(run: Run, row: Row, successor: Row | None) -> str:
    failed = f"failed later ({row.get('kind')}): {row['reason']}" if row.get("reason") else ""
    chosen = row["id"] == run.summary.get("chosen_function", -1)
    praise = "the policy that the run hands out learned from it" if chosen else ""
    if successor is None:
        place = "" if failed else f"in slot {row['slot']} to the end"
    else:
        round = int(successor["round"])
        rank = _rank(row, round)
        why = f"ranked {rank} at" if rank else _absence(run, int(row["slot"]), round) if not failed else "at"
        place = f"{why} search round {round}, where function {successor['id']} took slot {row['slot']}"
    return "; ".join(part for part in (praise, failed, place) if part)


def _absence(run: Run, agent: int, round: int) -> str:
    """Return why an agent was not ranked at a search round."""
    before = [row for row in run.evaluations if row.get("round") == round - 1]
    reason: Any = before[-1].get("out", {}).get(str(agent)) if before else None
    return f"agent {agent} was out ({reason}) at" if reason else "replaced at"
