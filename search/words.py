"""Figures of an evaluation in words, short enough to be sent in every round."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from reward_code import Evaluation
from search.study import NEAR, Place, Push, Side, Split, Study
from task_specs import Task
from tasks.simulator import is_metaworld_class

_COMPARED_PARTS = 3
_TOLD_PARTS, _TOLD_MEASURES, _TOLD_EVALUATIONS = 4, 3, 4
_SATURATED = 0.8  # share of the steps at its top from which a part counts as saturated
_TOP = 0.05  # share of its range within which it counts as at its top
_DEAD = 0.01  # share of the whole reward's range up to which a part counts as dead
_LEAST = 0.005  # m, below which a difference along an axis is not mentioned
_SPREAD = 0.02  # m over episodes, above which a mean along an axis hides something
_METAWORLD_AXES = (
    ("to the left", "to the right"),
    ("towards the robot", "away from the robot"),
    ("below", "above"),
)


def number(value: float) -> str:
    """The number with at most four significant digits."""
    return f"{value:.4g}"


def table(rows: Mapping[str, Sequence[float]], heads: Sequence[str] = ()) -> str:
    """A line for each row, with the head of each column before its number."""
    if not rows:
        return "- (none)"
    labels = [f"{head} " for head in heads] or [""]
    return "\n".join(
        f"- {name}: " + ", ".join(f"{label}{number(value)}" for label, value in zip(labels, values, strict=True))
        for name, values in rows.items()
    )


def components(figures: Mapping[str, tuple[float, float, float]], evaluation: Evaluation | None) -> str:
    """Return a line for each part of a reward: its (mean, min, max), and whether it gives nothing to follow."""
    remarks = still_parts(evaluation) if evaluation else {}
    rounded = {name: [round(value, _places(values)) for value in values] for name, values in figures.items()}
    lines = table(rounded, ("mean", "min", "max")).split("\n")
    return "\n".join(line + remarks.get(name, "") for line, name in zip(lines, figures or [""], strict=True))


def still_parts(evaluation: Evaluation) -> dict[str, str]:
    """Return what is wrong with the parts of a reward that give nothing to follow, by name."""
    remarks = {}
    for name, values in evaluation.components.items():
        spread = float(np.ptp(values))
        if spread <= _DEAD * float(np.ptp(evaluation.rewards)):
            remarks[name] = "; dead: it hardly changes"
            continue
        top = float((values >= values.max() - _TOP * spread).mean())
        if top >= _SATURATED:
            remarks[name] = f"; saturated: at its top in {top:.0%} of the steps"
    return remarks


def history(evaluations: Mapping[str, Mapping[str, float]]) -> str:
    """Return how the evaluations of the last search round went, oldest first; "" for a single one.

    Args:
        evaluations: figures of every evaluation of a function, see `RewardFunction.evaluations`.
    """
    rows = list(evaluations.values())
    rows = [row for row in rows if row["round"] == rows[-1]["round"]]
    if len(rows) < 2:
        return ""
    places = np.unique(np.linspace(0, len(rows) - 1, _TOLD_EVALUATIONS).round().astype(int))
    rates = ", ".join(f"{rows[place]['success_rate']:.0%}" for place in places)
    distances = ", ".join(f"{rows[place]['nearest_distance']:.2g}" for place in places)
    return f"Evaluations since the last round: {rates} solved; missing when nearest {distances}."


def solved_counts(study: Study) -> str:
    """Return how many episodes were solved under either rule."""
    return f"{study.any_step} of {len(study.nearest)} at any step, {study.last_step} at the last step"


def nearness(study: Study) -> str:
    """Return how near to success the episodes came."""
    nearest = study.nearest
    half = nearest[(len(nearest) - 1) // 2]
    return f"{_short(nearest[0])} in the best episode, {_short(half)} in the median, {_short(nearest[-1])} in the worst"


def sides(study: Study) -> str:
    """Return what solved and unsolved episodes did, side by side, and how they began; "" without both kinds."""
    solved, unsolved = study.solved, study.unsolved
    if not (solved.count and unsolved.count):
        return ""
    parts = [(name, value, unsolved.parts[name]) for name, value in solved.parts.items()]
    pairs = sorted(parts, key=_apart)[:_COMPARED_PARTS]
    pairs += [(f"{name} at the end", solved.ends[name], unsolved.ends[name]) for name in _told_measures(study)]
    lines = [f"Means over the {solved.count} solved | the {unsolved.count} unsolved episodes:"]
    lines += [f"- {name}: {_short(one)} | {_short(other)}" for name, one, other in pairs]
    if study.splits:
        lines.append(f"They began differently: {'; '.join(map(_split, study.splits))}.")
    else:
        lines.append("Nothing in how they began tells the two kinds apart.")
    return "\n".join(lines)


def _apart(pair: tuple[str, float, float]) -> float:
    """How near two numbers are, relative to their size."""
    _, one, other = pair
    return -abs(one - other) / (abs(one) + abs(other) + 1e-9)


def whereabouts(study: Study, task: Task) -> str:
    """Return where things were, and how the hand moved, in the unsolved episodes, or in all if all are solved."""
    lines = []
    shown, kind = (study.unsolved, "unsolved") if study.unsolved.count else (study.solved, "solved")
    metaworld = is_metaworld_class(task.environment_class)
    units = {variable.name: variable.unit for variable in task.variables}
    for moment, places in (("nearest to success", shown.nearest), ("at the end", shown.last)):
        if places:
            said = "; ".join(_place(place, metaworld, units[place.what]) for place in places)
            lines.append(f"- {moment}: {said}")
    pushes = [_push(side, name) for side, name in ((study.solved, "solved"), (study.unsolved, "unsolved")) if side.push]
    if pushes:
        push = next(side.push for side in (study.solved, study.unsolved) if side.push)
        lines.append(
            f"- the action, -1 to 1, along the way from {push.what} to {push.to}, with the hand within {NEAR:g} of "
            f"{push.what}: {'; '.join(pushes)}"
        )
    return "\n".join([f"Where things were, means over the {shown.count} {kind} episodes:", *lines]) if lines else ""


def course(study: Study) -> str:
    """Return the course of an episode in ten parts, a line for each part of the reward and each measure."""
    chosen = {name: study.part_courses[name] for name in _telling(study)}
    chosen |= {name: study.measure_courses[name] for name in _told_measures(study)}
    return "\n".join(f"- {name} {_scaled(*courses)}" for name, courses in chosen.items())


def _telling(study: Study) -> list[str]:
    """The parts of the reward that change most in the course of an episode."""
    spreads = {name: float(np.ptp(courses)) for name, courses in study.part_courses.items()}
    widest = sorted(spreads, key=lambda name: -spreads[name])[:_TOLD_PARTS]
    return [name for name, spread in spreads.items() if name in widest and spread > 0]


def _told_measures(study: Study) -> list[str]:
    return list(study.measure_courses)[:_TOLD_MEASURES]


def _scaled(mean: np.ndarray, best: np.ndarray) -> str:
    """Two courses as whole numbers of at most three digits, which take half as much room as fractions."""
    power = _places([*mean, *best])
    said = " | ".join(" ".join(f"{value:.0f}" for value in values * 10.0**power) for values in (mean, best))
    return f"(x {10.0**power:g}): {said}"


def _places(values: Sequence[float]) -> int:
    """How many decimal places give the largest of the numbers three significant digits."""
    largest = max(map(abs, values))
    return 2 - math.floor(math.log10(largest)) if largest else 0


def _place(place: Place, metaworld: bool, unit: str) -> str:
    axes = _METAWORLD_AXES if metaworld else tuple((f"along -{axis}", f"along +{axis}") for axis in "xyz")
    if len(place.mean) > len(axes):
        axes = tuple((f"less at [{place_}]", f"more at [{place_}]") for place_ in range(len(place.mean)))
    said = []
    for mean, spread, (back, forth) in zip(place.mean, place.spread, axes, strict=False):
        if abs(mean) >= _LEAST or spread > _SPREAD:
            varied = f" (spread {spread:.2f})" if spread > max(abs(mean), _SPREAD) else ""
            said.append(f"{abs(mean):.3f} {unit} {forth if mean > 0 else back}{varied}")
    return f"{place.what} from {place.to}: {', '.join(said) or 'nothing worth a word'}"


def _push(side: Side, kind: str) -> str:
    push: Push | None = side.push
    assert push is not None
    return f"{push.along:.2f} in {push.episodes} of the {side.count} {kind}"


def _split(split: Split) -> str:
    (high, many), (low, few) = split.above, split.below
    return f"{high} of {many} solved with {split.variable} above {_short(split.threshold)}, {low} of {few} below"


def _short(value: float) -> str:
    return f"{value:.3g}"
