"""What the episodes of an evaluation have in common, and what tells the solved ones from the unsolved ones.

This module only computes figures; `words` puts them into words.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from task_specs import Task
from tasks.episode import Episode, Score
from tasks.measures import Measures
from tasks.simulator import is_metaworld_class

PARTS = 10  # of an episode
NEAR = 0.05  # m from an object within which a hand counts as being at work on it
_AS_NEAR = 1e-3  # in the success criterion's unit; moments this close to the nearest one count as equally near
_CHANCE = 0.05  # significance level for start variables that tell solved episodes apart
_SAME = 0.98  # correlation above which two start variables say the same
_VARIES = 1e-4  # the spread above which a variable counts as varying
_ROLES_OF_STARTS = ("object_start", "object", "goal", "other")

Parts = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where `what` was, seen from `to`: mean and standard deviation over episodes, (d,) each."""

    what: str
    to: str
    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class Push:
    """How the hand moved while it was at work on an object.

    `along` is the mean of the action's first three numbers along the unit vector from `what` to `to`, over all
    decisions that began with the hand within `NEAR` of `what`, which `episodes` had.
    """

    what: str
    to: str
    along: float
    episodes: int


@dataclass(frozen=True)
class Side:
    """The solved episodes of an evaluation, or the others.

    `parts` maps each part of the reward to its mean over all steps, `ends` each measure to its mean at episode end;
    `nearest` and `last` say where things were at the moment nearest to success (among equals, the one at which the
    first of the task's ways is shortest) and at the end.
    """

    count: int
    parts: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)
    nearest: Sequence[Place] = ()
    last: Sequence[Place] = ()
    push: Push | None = None


@dataclass(frozen=True)
class Split:
    """A start variable that tells solved episodes apart: (solved, all) where it is above `threshold`, and where not."""

    variable: str
    threshold: float
    above: tuple[int, int]
    below: tuple[int, int]


@dataclass(frozen=True)
class Study:
    """What an evaluation showed.

    `nearest` has the least distance from success of each episode (E,), sorted. `part_courses` and `measure_courses` map
    parts of the reward and measures to their means in each tenth of an episode, ((PARTS,) over all episodes, (PARTS,)
    in the best one).
    """

    solved: Side
    unsolved: Side
    any_step: int
    last_step: int
    nearest: np.ndarray
    splits: Sequence[Split]
    part_courses: Mapping[str, tuple[np.ndarray, np.ndarray]]
    measure_courses: Mapping[str, tuple[np.ndarray, np.ndarray]]


def study(task: Task, score: Score, parts: Parts) -> Study:
    """Return what the episodes of a score show; `parts` has each part of the reward in all their rows, in order."""
    episodes = score.episodes
    measures = Measures(task)
    columns = score.columns("obs", "next_obs", "action", "variables")
    edges = np.cumsum([0, *(len(episode.success) for episode in episodes)])
    rows = [slice(*pair) for pair in itertools.pairwise(edges)]
    solved = np.array([episode.solved(score.rule) for episode in episodes])
    found = measures.course(columns)
    places = measures.differences(columns)
    moves_a_hand = is_metaworld_class(task.environment_class) and measures.ways
    pushes = _pushes(task, measures, episodes) if moves_a_hand else []

    def nearest_moment(number: int) -> int:
        distance = episodes[number].distance
        equal = np.flatnonzero(distance <= distance.min() + _AS_NEAR)
        if not measures.ways:
            return int(equal[0])
        # While nothing has moved, what counts is how close the hand had come.
        first = np.linalg.norm(places[measures.ways[0]][rows[number]], axis=1)
        return int(equal[first[equal].argmin()])

    def side(members: np.ndarray) -> Side:
        if not len(members):
            return Side(0)
        lasts = np.array([rows[number].stop - 1 for number in members])
        nearest = np.array([rows[number].start + nearest_moment(number) for number in members])
        return Side(
            len(members),
            {name: float(np.concatenate([values[rows[n]] for n in members]).mean()) for name, values in parts.items()},
            {name: float(values[lasts].mean()) for name, values in found.items()},
            _where(places, nearest),
            _where(places, lasts),
            _push(measures.ways[-1], [pushes[number] for number in members]) if pushes else None,
        )

    came = [episode.distance.min() + episode.distance[-1] for episode in episodes]
    best = min(range(len(episodes)), key=lambda number: (not solved[number], came[number]))
    return Study(
        solved=side(np.flatnonzero(solved)),
        unsolved=side(np.flatnonzero(~solved)),
        any_step=sum(episode.solved("any") for episode in episodes),
        last_step=sum(episode.solved("last") for episode in episodes),
        nearest=np.sort([episode.distance.min() for episode in episodes]),
        splits=_splits(_starts(task, episodes), solved),
        part_courses={name: _course(values, rows, best) for name, values in parts.items()},
        measure_courses={name: _course(values, rows, best) for name, values in found.items()},
    )


def in_parts(values: np.ndarray) -> np.ndarray:
    """Return the mean of each tenth of an episode's values (T,); fewer than ten values are partly repeated."""
    starts = np.arange(PARTS) * len(values) // PARTS
    stops = np.maximum(np.arange(1, PARTS + 1) * len(values) // PARTS, starts + 1)
    return np.array([values[start:stop].mean(dtype=np.float64) for start, stop in zip(starts, stops, strict=True)])


def _course(values: np.ndarray, rows: Sequence[slice], best: int) -> tuple[np.ndarray, np.ndarray]:
    courses = np.stack([in_parts(values[part]) for part in rows])
    return courses.mean(0), courses[best]


def _where(places: Mapping[tuple[str, str], np.ndarray], rows: np.ndarray) -> list[Place]:
    return [Place(*pair, values[rows].mean(0), values[rows].std(0)) for pair, values in places.items()]


def _pushes(task: Task, measures: Measures, episodes: Sequence[Episode]) -> list[np.ndarray]:
    """For each episode the components of the actions along the last way, where the hand was at work on its object."""
    hand = next(variable.name for variable in task.variables if variable.role == "gripper")
    what, to = measures.ways[-1]
    pushes = []
    for episode in episodes:
        where = {name: measures.column(name, episode.transitions)[:-1] for name in (what, to, hand)}
        way = where[to] - where[what]
        length = np.linalg.norm(way, axis=1)
        moved = episode.transitions["action"][1:, : way.shape[1]].astype(np.float64)  # the action taken from there
        at_work = (np.linalg.norm(where[hand] - where[what], axis=1) <= NEAR) & (length > 0)
        pushes.append((moved * way).sum(1)[at_work] / length[at_work])
    return pushes


def _push(way: tuple[str, str], pushes: Sequence[np.ndarray]) -> Push | None:
    present = [values for values in pushes if len(values)]
    return Push(*way, float(np.concatenate(present).mean()), len(present)) if present else None


def _starts(task: Task, episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """The numbers (E,) in which the episodes' starts differ, by name; of those that say the same, only the first.

    They are read after the first decision, which changes neither the recorded starts nor what stays in place.
    """
    found: dict[str, np.ndarray] = {}
    order = sorted(
        (variable for variable in task.variables if variable.role in _ROLES_OF_STARTS),
        key=lambda variable: _ROLES_OF_STARTS.index(variable.role),
    )
    for variable in order:
        place = task.inputs[variable.name]
        values = [episode.transitions[place.column][:, place.start : place.stop] for episode in episodes]
        if variable.role == "other" and any(np.ptp(rows, axis=0).max() > _VARIES for rows in values):
            continue  # it moves, so it may reflect what was done
        first = np.array([rows[0] for rows in values], np.float64)
        for number in range(first.shape[1]):
            start = first[:, number]
            if start.std() > _VARIES and not any(_correlation(start, other) > _SAME for other in found.values()):
                found[f"{variable.name}[{number}]" if variable.shape else variable.name] = start
    return found


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return abs(float(np.corrcoef(one, other)[0, 1]))


def _splits(starts: Mapping[str, np.ndarray], solved: np.ndarray) -> list[Split]:
    """The start variables that tell solved episodes apart beyond chance, clearest first, at most two.

    Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other", 1947;
    the significance level is divided by the number of variables that are tried (Bonferroni).
    """
    if solved.all() or not solved.any():
        return []
    from scipy import stats  # a third of a second to load

    found = []
    for name, values in starts.items():
        chance = float(stats.mannwhitneyu(values[solved], values[~solved]).pvalue)
        if chance <= _CHANCE / len(starts):
            found.append((chance, _split(name, values, solved)))
    return [split for _, split in sorted(found, key=lambda pair: pair[0])[:2]]


def _split(name: str, values: np.ndarray, solved: np.ndarray) -> Split:
    """Split at the value at which the shares of solved episodes above and below differ most (by chi-square)."""
    distinct = np.unique(values)

    def split(threshold: float) -> Split:
        above = values > threshold
        counts = [(int(solved[part].sum()), int(part.sum())) for part in (above, ~above)]
        return Split(name, float(threshold), counts[0], counts[1])

    def difference(split: Split) -> float:
        (high, many), (low, few) = split.above, split.below
        return abs(high / many - low / few) * (many * few) ** 0.5

    return max((split(threshold) for threshold in (distinct[1:] + distinct[:-1]) / 2), key=difference)
