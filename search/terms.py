"""What the `builtin` model's programs are made of: the terms that a task's variables, roles and criterion give."""

import ast
from collections.abc import Mapping
from dataclasses import replace

from errors import UsageError
from search.programs import START_SHAPES, WIDTH_SHAPES, Range, Term, as_helper, names_in
from task_specs import Task
from tasks.success import success_measure

APPROACH, HOLD, LIFT, MOVE, ALWAYS = range(5)  # stages; what is always due comes after the last

_OBJECT_SHAPES = (*WIDTH_SHAPES, *START_SHAPES)
_CLEARANCE = Range(0.05, 0.2)  # m that a hand keeps from an object until it is in line with it
_OFFSET = Range(-0.04, 0.04)  # m beside an object's own point, at which a finger takes hold of it
_OVER = Range(-0.02, 0.02)  # m beside it, for a hand that comes from above
_DEPTH = Range(-0.04, 0.01)  # m over it: fingers that hook or grasp reach past an object's own point


def task_terms(task: Task, human_reward: str | None = None) -> list[Term]:
    """Return the terms that a task's variables, their roles, its criterion and perhaps its human reward give.

    Raises UsageError for a task that says neither where anything is nor when it is solved.
    """
    roles = _names_by_role(task)
    gripper, thing, goal, start, gripper_start = (
        next(iter(roles.get(role, [])), None) for role in ("gripper", "object", "goal", "object_start", "gripper_start")
    )
    measure = success_measure(task.success_expression)
    place = _between(thing, goal) or _between(gripper, goal)
    move = measure or place
    if move is None:
        raise UsageError(
            f"task {task.name}: the builtin model needs a success_expression that compares numbers, "
            "or variables with the roles object and goal"
        )
    # Where the gripper itself is what has to arrive, there is nothing else to reach first.
    reaches = gripper and thing and (thing in names_in(move) or gripper not in names_in(move))

    terms = []
    if reaches and gripper and thing:
        terms += _approach(gripper, thing, goal, start, success_axes(move, thing))
        terms += _fingers(thing, roles)
        if start:
            lift = f"max(0.0, {start}[2] + lift_height - {thing}[2])"
            held = Term("lift", lift, "the object held up", LIFT, Range(1.0, 5.0), unit=0.3)
            heights = {"height": Range(0.02, 0.15)}
            terms.append(replace(held, shapes=_OBJECT_SHAPES, start="lift_height", numbers=heights))
    way = Term("move", move, "the way that is left until success", MOVE, Range(3.0, 10.0))
    if began := _at_start(move, {thing: start, gripper: gripper_start}, goal):
        way = replace(way, shapes=_OBJECT_SHAPES, start=began)
    terms.append(way)
    if place and place != move and (reaches or not measure):
        words = "the object's nearness to the target in space"
        terms.append(Term("place", place, words, MOVE, Range(2.0, 6.0), 0.15))
    tools = [name for name in roles.get("object", []) if name != thing]
    if reaches and tools:
        words = f"{thing} and {tools[0]} close together"
        terms.append(Term("meet", f"np.linalg.norm({thing} - {tools[0]})", words, MOVE, Range(1.0, 4.0), 0.5))
    effort = "np.linalg.norm(action)"
    soft = tuple(name for name in WIDTH_SHAPES if name != "log")  # with it, an agent would do best not to move at all
    terms.append(Term("effort", effort, "small actions", ALWAYS, Range(0.05, 0.5), 0.2, unit=3.0, shapes=soft))
    if measure:
        solved = f"({task.success_expression})"
        terms.append(Term("success", solved, "success itself", ALWAYS, Range(2.0, 10.0), 0.6, shapes=("bonus",)))
    if human_reward is not None:
        helpers, call = as_helper(human_reward)
        words = "what the human-designed reward rewards"
        terms.append(Term("human", call, words, ALWAYS, Range(0.3, 1.0), 0.6, shapes=("as_it_is",), helpers=helpers))
    return terms


def success_axes(measure: str, thing: str) -> tuple[int, ...]:
    """Return along which axes a success measure looks at the position `thing`: those of its subscripts, or all."""
    axes: set[int] = set()
    seen_whole = thing in names_in(measure)
    for node in ast.walk(ast.parse(measure)):
        if isinstance(node, ast.Subscript) and thing in names_in(ast.unparse(node.value)):
            axes |= set(_chosen(node.slice))
            seen_whole = False
    return (0, 1, 2) if seen_whole or not axes else tuple(sorted(axes))


def _approach(gripper: str, thing: str, goal: str | None, start: str | None, axes: tuple[int, ...]) -> list[Term]:
    """Return the ways to approach the object: straight, to a point beside it, from above, from the far side.

    The last two lead through a funnel: as long as the hand is off the line of approach, it has to stay clear of the
    object, or it would push it away. From the near side it first has to go round.
    """
    weights = Range(2.0, 6.0)
    straight = f"np.linalg.norm({gripper} - {thing})"
    beside = f"np.linalg.norm({gripper} - {thing} - np.array([aim_x, aim_y, aim_z]))"
    over = (
        f"above_side = np.linalg.norm(({gripper} - {thing})[:2] - np.array([above_x, above_y]))",
        f"above_height = {gripper}[2] - {thing}[2] - above_z",
    )
    funnel = "above_side + abs(above_height - min(above_clear, 2.0 * above_side))"
    offsets = dict.fromkeys("xyz", _OFFSET)
    above = {"x": _OVER, "y": _OVER, "z": _DEPTH, "clear": _CLEARANCE}
    terms = [
        Term("reach", straight, "the gripper's nearness to the object", APPROACH, weights),
        Term("aim", beside, "the gripper's nearness to a point beside the object", APPROACH, weights, numbers=offsets),
        Term("above", funnel, "coming to the object from above", APPROACH, weights, lines=over, numbers=above),
    ]
    if goal:
        began = start or thing
        away = [f"{began}[{axis}] - {goal}[{axis}]" if axis in axes else "0.0" for axis in range(3)]
        beyond = (
            f"behind_away = np.array([{', '.join(away)}])",
            "behind_line = behind_away / (np.linalg.norm(behind_away) + 1e-6)",
            f"behind_offset = {gripper} - {thing}",
            "behind_along = np.dot(behind_offset, behind_line)",
            "behind_side = np.linalg.norm(behind_offset - behind_along * behind_line)",
            "behind_round = max(0.0, min(behind_clear - behind_side, behind_gap - behind_along))",
        )
        into = "behind_side + abs(behind_along - behind_gap - min(behind_clear, 2.0 * behind_side))"
        funnel = f"{into} + 4.0 * behind_round"
        words = "coming to the object from the side that the target is not on"
        numbers = {"gap": Range(0.005, 0.05), "clear": _CLEARANCE}
        terms.append(Term("behind", funnel, words, APPROACH, weights, lines=beyond, numbers=numbers))
    return terms


def _fingers(thing: str, roles: Mapping[str, list[str]]) -> list[Term]:
    terms = []
    if opening := roles.get("opening"):
        words = "an open hand"
        terms.append(Term("opened", f"1.0 - {opening[0]}", words, ALWAYS, Range(0.5, 2.0), unit=1.5))
    if len(pads := roles.get("pad", [])) == 2:
        apart = " + ".join(f"np.linalg.norm({pad} - {thing})" for pad in pads)
        words = "both finger pads close on the object"
        terms.append(Term("hold", apart, words, HOLD, Range(1.0, 4.0), unit=0.5))
    return terms


def _names_by_role(task: Task) -> dict[str, list[str]]:
    roles: dict[str, list[str]] = {}
    for variable in task.variables:
        if variable.shape == (() if variable.role == "opening" else (3,)):
            roles.setdefault(variable.role, []).append(variable.name)
    return roles


def _at_start(measure: str, begins: Mapping[str | None, str | None], goal: str | None) -> str | None:
    """Return the measure when the episode began, as code; None if it depends on anything else that changes."""
    tree = ast.parse(measure)
    moving = names_in(measure) - {"np", "abs", "max", "min", "float", "bool", goal}
    if not moving or not all(begins.get(name) for name in moving):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in moving:
            node.id = str(begins[node.id])
    return ast.unparse(tree)


def _chosen(index: ast.expr) -> range | tuple[int, ...]:
    """Return which of three elements a subscript takes."""
    try:
        if isinstance(index, ast.Slice):
            bounds = [part and ast.literal_eval(part) for part in (index.lower, index.upper, index.step)]
            return range(*slice(*bounds).indices(3))
        return (range(3)[ast.literal_eval(index)],)
    except (ValueError, TypeError, IndexError):
        return range(3)


def _between(one: str | None, other: str | None) -> str | None:
    return f"np.linalg.norm({one} - {other})" if one and other else None
