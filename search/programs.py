"""Reward programs of the `builtin` model: a sum of terms, whose text *is* the genome.

A term turns a distance that should become small into a reward, by a shape, a weight and a few more numbers. A term may
come after another one: a gate lets it count only to the extent that the earlier term's distance is small.
`write_program` writes a genome out, and `read_genome` reads it back from the source, so that mutation and crossover
need nothing but the parents' sources.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from task_specs import Task

Genome = dict[str, "Gene"]


@dataclass(frozen=True)
class Range:
    """Bounds between which a program's number is drawn: uniformly if the lower one is negative, else log-uniformly."""

    low: float
    high: float


@dataclass(frozen=True)
class Shape:
    """How a term's measure becomes a reward: code in the term's names, and the widths that suit a tabletop (m)."""

    code: str
    words: str
    width: Range | None = None
    measure: str = "distance"
    may_be_negative: bool = False  # and so cannot be gated: agents would keep the gate closed


# A shaped distance earns the full weight at zero. The widths keep a slope at the half metre from which most arms start:
# what vanishes there teaches nothing. The weights suit an initial temperature of 1 as well (--preset published), where
# with less than half a unit of reward for the whole way agents were seen to act at random for 15,000 env steps.
WIDTH_SHAPES = {
    "exp": Shape("{t}_weight * np.exp(-{t}_distance / {t}_width)", "exponential", Range(0.1, 0.6)),
    "tanh": Shape("{t}_weight * (1.0 - np.tanh({t}_distance / {t}_width))", "tanh", Range(0.15, 0.7)),
    "long_tail": Shape("{t}_weight / (1.0 + ({t}_distance / {t}_width) ** 2)", "long-tailed", Range(0.06, 0.4)),
    "gaussian": Shape("{t}_weight * np.exp(-({t}_distance / {t}_width) ** 2)", "Gaussian", Range(0.2, 0.6)),
    "linear": Shape("{t}_weight * (1.0 - {t}_distance / {t}_width)", "linear", Range(0.3, 1.0), may_be_negative=True),
    # Halving the distance is worth the same from a metre down to the width, so that the last centimetre counts as much
    # as the first decimetre: Levine et al., "End-to-End Training of Deep Visuomotor Policies", JMLR 2016, section 5.2,
    # use such a term for precision. At a metre it is zero.
    "log": Shape(
        "{t}_weight * max(0.0, 1.0 - np.log1p({t}_distance / {t}_width) / np.log1p(1.0 / {t}_width))",
        "logarithmic, so that the last centimetre counts most",
        Range(0.005, 0.03),
    ),
}
# These measure progress relative to the distance at the start. A thing that is hard to move moves by millimetres at
# first, and under the root the first tenth of the way is worth a third of the whole.
START_SHAPES = {
    "progress": Shape(
        "{t}_weight * max(-1.0, 1.0 - {t}_distance / {t}_start)", "as the share of the way done", may_be_negative=True
    ),
    "root": Shape(
        "{t}_weight * np.sqrt(max(0.0, 1.0 - {t}_distance / {t}_start))",
        "as the root of the share of the way done, so that the first millimetres count most",
    ),
}
DISTANCE_SHAPES = WIDTH_SHAPES | START_SHAPES
SHAPES = {
    **DISTANCE_SHAPES,
    "bonus": Shape("{t}_weight if {t}_reached else 0.0", "a bonus", measure="reached"),
    "as_it_is": Shape("{t}_weight * {t}_value", "as it is", measure="value"),
}
NEAR = Range(0.05, 0.25)  # the distance (m) at which a gate is about a third open
_GATED = "{t}_gate * ({code})"
_SHAPE_OF = {
    ast.unparse(ast.parse(code.format(t="term"))): name
    for name, shape in SHAPES.items()
    for code in (shape.code, _GATED.format(t="{t}", code=shape.code))
}


@dataclass(frozen=True)
class Term:
    """One thing that a reward may ask for, as an expression over variables: a distance that is zero in the end.

    Attributes:
        measure: the expression; it may use what `lines` assign, and the term's `numbers` as ``{name}_{number}``.
        words: what it rewards.
        stage: when it is due; a term can be gated by those of earlier stages.
        weights: the range from which its weight is drawn.
        chance: probability of being in a newly composed program, where no strategy decides.
        unit: the distance that counts as much as a metre between gripper and object.
        shapes: the shapes that suit it.
        lines: code that comes before the measure.
        start: the same distance when the episode began, as an expression; None if it cannot be told.
        numbers: numbers that the expression has besides weight and width.
        helpers: functions that the expression calls.
    """

    name: str
    measure: str
    words: str
    stage: int
    weights: Range
    chance: float = 0.0
    unit: float = 1.0
    shapes: tuple[str, ...] = tuple(WIDTH_SHAPES)
    lines: tuple[str, ...] = ()
    start: str | None = None
    numbers: Mapping[str, Range] = field(default_factory=dict)
    helpers: str = ""

    def ranges(self, shape: str, gated: bool) -> dict[str, Range]:
        """Return the range of every number that the term has in a program."""
        width = SHAPES[shape].width
        return {
            "weight": self.weights,
            **({"width": Range(width.low * self.unit, width.high * self.unit)} if width else {}),
            **self.numbers,
            **({"near": NEAR} if gated else {}),
        }


@dataclass(frozen=True)
class Gene:
    """A term as one program has it: its shape, its numbers by name, and the term whose distance opens its gate."""

    shape: str
    numbers: Mapping[str, float]
    after: str = ""


def write_program(task: Task, terms: Mapping[str, Term], genome: Genome) -> str:
    """Return the source of a genome's reward function, under the contract of reward functions."""
    lines = []
    for name, gene in genome.items():
        term, shape = terms[name], SHAPES[gene.shape]
        lines += [f"{name}_{number} = {value!r}" for number, value in gene.numbers.items()]
        lines += term.lines
        lines.append(f"{name}_{shape.measure} = {term.measure}")
        if gene.shape in START_SHAPES:
            lines.append(f"{name}_start = max(0.01, {term.start})")
        code = shape.code.format(t=name)
        if gene.after:
            lines.append(f"{name}_gate = np.exp(-({gene.after}_distance / {name}_near) ** 2)")
            code = _GATED.format(t=name, code=code)
        lines.append(f"{name} = {code}")
    lines.append(f"reward = {' + '.join(genome)}")
    lines.append("return reward, {" + ", ".join(f'"{name}": {name}' for name in genome) + "}")
    used = names_in("\n".join(lines))
    arguments = [argument for argument in task.inputs if argument in used]
    helpers = "".join(f"{terms[name].helpers}\n\n\n" for name in genome if terms[name].helpers)
    return f"{helpers}def compute_reward({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in lines)


def read_genome(source: str) -> Genome | None:
    """Return the genome that `write_program` wrote out as `source`; None for any other program."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    function = reward_function(tree)
    assigned = {
        ast.unparse(node.targets[0]): node.value
        for node in (function.body if function else [])
        if isinstance(node, ast.Assign) and len(node.targets) == 1
    }
    constants = {name: number for name, node in assigned.items() if (number := _constant(node)) is not None}
    genome: Genome = {}
    for name, value in assigned.items():
        shape = _SHAPE_OF.get(re.sub(rf"\b{name}_", "term_", ast.unparse(value)))
        numbers = {
            known.removeprefix(f"{name}_"): number
            for known, number in constants.items()
            if known.startswith(f"{name}_")
        }
        if shape is None or "weight" not in numbers:
            continue
        gate = assigned.get(f"{name}_gate")
        opens = re.findall(r"\b(\w+)_distance\b", ast.unparse(gate)) if gate else []
        genome[name] = Gene(shape, numbers, opens[0] if opens else "")
    return genome or None


def as_helper(source: str) -> tuple[str, str]:
    """Return a reward function's source as a function `human_reward` that returns the reward alone, and its call."""
    tree = ast.parse(source)
    function = reward_function(tree)
    assert function is not None
    function.name = "human_reward"
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, (ast.Tuple, ast.List)):
            node.value = node.value.elts[0]
    arguments = ", ".join(argument.arg for argument in function.args.args)
    return ast.unparse(tree), f"human_reward({arguments})"


def reward_function(tree: ast.Module) -> ast.FunctionDef | None:
    """Return the definition of `compute_reward`."""
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "compute_reward")
    return next(found, None)


def names_in(code: str) -> set[str]:
    """Return all names that the code mentions."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def _constant(node: ast.expr) -> float | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
