"""The `builtin` model: a search over small reward programs that needs no language model, no key and no network.

A program is a sum of terms. A term turns a distance that should become small into a reward, by a shape, a weight and
a width. Which terms there are follows from the task's variables, their roles and its success criterion. The program's
text *is* its genome: `read_genome` takes the terms back out of the source, so that mutation and crossover need
nothing but the parents' sources.
"""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from errors import UsageError
from llm import Parent, Reply, Request, Usage
from task_specs import Task

Genome = dict[str, "Gene"]


@dataclass(frozen=True)
class Shape:
    """How a distance becomes a reward: code in the names of a term, and the widths that suit a robot's table (m)."""

    code: str
    narrow: float
    wide: float
    words: str


# Every shape is worth its weight at distance zero. The widths keep a slope at the half metre from which most arms
# start: what vanishes there teaches nothing.
SHAPES = {
    "exp": Shape("{t}_weight * np.exp(-{t}_distance / {t}_width)", 0.1, 0.6, "exponential"),
    "tanh": Shape("{t}_weight * (1.0 - np.tanh({t}_distance / {t}_width))", 0.15, 0.7, "tanh"),
    "long_tail": Shape("{t}_weight / (1.0 + ({t}_distance / {t}_width) ** 2)", 0.06, 0.4, "long-tailed"),
    "gaussian": Shape("{t}_weight * np.exp(-({t}_distance / {t}_width) ** 2)", 0.2, 0.6, "Gaussian"),
    "linear": Shape("{t}_weight * (1.0 - {t}_distance / {t}_width)", 0.3, 1.0, "linear"),
}
BONUS = Shape("{t}_weight if {t}_reached else 0.0", 1.0, 1.0, "a bonus")
_SHAPE_OF = {
    ast.unparse(ast.parse(shape.code.format(t="term"))): name for name, shape in {**SHAPES, "bonus": BONUS}.items()
}


@dataclass(frozen=True)
class Term:
    """One thing that a reward may ask for: a distance as an expression over variables, zero when it is fulfilled."""

    name: str
    distance: str
    words: str
    chance: float  # of being in a program that is composed afresh
    weights: tuple[float, float]
    unit: float = 1.0  # the distance that counts as much as a metre between gripper and object
    shapes: tuple[str, ...] = tuple(SHAPES)


@dataclass(frozen=True)
class Gene:
    """A term as one program has it."""

    shape: str
    weight: float
    width: float


class ProgramSearch:
    """Composes reward programs for a task; on request it mutates and crosses parents by how they did.

    The texts have the form of a model's answer: a short explanation and a block of Python. All randomness comes from
    `seed`, and a search restored with `load_state_dict` goes on as the first one would have.
    """

    name = "builtin"

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self.usage = Usage()  # stays at nothing: it is free
        self.terms = {term.name: term for term in task_terms(task)}
        self._random = np.random.default_rng([seed, 0x5EA7C4])
        self._composed = 0

    def ask(self, request: Request) -> Reply:
        """As many texts as are wanted: offspring of the request's parents, or without any, programs made afresh."""
        genomes = [(parent, read_genome(parent.source)) for parent in request.parents]
        known = [(parent, genome) for parent, genome in genomes if genome]
        texts, parents = [], []
        for _ in range(request.count):
            genome, ids, origin = self._breed(known) if known else self._compose()
            texts.append(self._write(genome, origin))
            parents.append(ids)
        return Reply(texts, parents)

    def state_dict(self) -> dict[str, Any]:
        """All that the next answer depends on, fit for JSON."""
        return {"random": self._random.bit_generator.state, "composed": self._composed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._random.bit_generator.state = state["random"]
        self._composed = state["composed"]

    def _compose(self) -> tuple[Genome, list[int], str]:
        self._composed += 1
        if self._composed == 1:  # the plainest program that can work is always tried
            plain = {name: Gene("linear", 1.0, 1.0) for name in self.terms if name in {"reach", "move"}}
            return plain, [], "The plainest shaping"
        chosen = [term for term in self.terms.values() if self._random.random() < term.chance]
        return {term.name: self._draw(term) for term in chosen}, [], "A new combination"

    def _breed(self, parents: Sequence[tuple[Parent, Genome]]) -> tuple[Genome, list[int], str]:
        if self._random.random() < 0.1:
            return self._compose()
        # The floor keeps parents without a success in the race, all with the same chance when nobody has one yet.
        odds = np.array([0.1 + parent.score for parent, _ in parents])
        picks = self._random.choice(len(parents), size=min(2, len(parents)), replace=False, p=odds / odds.sum())
        chosen = [parents[pick] for pick in picks]
        if len(chosen) == 2 and self._random.random() < 0.5:
            (first, one), (second, other) = chosen
            child, ids, origin = self._cross(one, other), [first.id, second.id], "A cross"
        else:
            child, ids, origin = dict(chosen[0][1]), [chosen[0][0].id], "A variation"
        return self._mutate(child, chosen[0][0]), ids, origin

    def _cross(self, one: Genome, other: Genome) -> Genome:
        child: Genome = {}
        for name in self.terms:
            genes = [genome[name] for genome in (one, other) if name in genome]
            if len(genes) == 2 or (genes and self._random.random() < 0.5):
                child[name] = genes[self._random.integers(len(genes))]
        return child or dict(one)

    def _mutate(self, genome: Genome, parent: Parent) -> Genome:
        step = 0.15 + 0.6 * (1.0 - parent.score)  # what works well is changed little
        child: Genome = {}
        for name, gene in genome.items():
            term = self.terms.get(name)
            if term is None or (self._random.random() < 0.1 and len(genome) > 1 and term.chance < 1.0):
                continue
            gene = self._respond(gene, parent.components.get(name))
            if self._random.random() < 0.2:
                gene = replace(gene, shape=str(self._random.choice(term.shapes)))
            weight, width = np.exp(self._random.normal(0.0, step, size=2))
            child[name] = _fitted(term, Gene(gene.shape, gene.weight * weight, gene.width * width))
        missing = [term for term in self.terms.values() if term.name not in child]
        if missing and (self._random.random() < 0.3 or not child):
            term = missing[self._random.integers(len(missing))]
            child[term.name] = self._draw(term)
        return child

    def _respond(self, gene: Gene, seen: tuple[float, float, float] | None) -> Gene:
        """The gene after a look at what its component did: one that hardly moved gave the agent nothing to follow."""
        if seen is None or gene.shape == "bonus":
            return gene
        mean, low, high = seen
        if high - low > 0.05 * gene.weight:
            return gene
        if mean < 0.5 * gene.weight:  # far away all the time: let it be felt from farther off
            return replace(gene, width=gene.width * 2.0)
        return replace(gene, weight=gene.weight * 0.5)  # fulfilled all the time: others matter more

    def _draw(self, term: Term) -> Gene:
        name = str(self._random.choice(term.shapes))
        shape = SHAPES.get(name, BONUS)
        weight, width = (
            math.exp(self._random.uniform(math.log(low), math.log(high)))
            for low, high in (term.weights, (shape.narrow, shape.wide))
        )
        return _fitted(term, Gene(name, weight, width * term.unit))

    def _write(self, genome: Genome, origin: str) -> str:
        parts = [
            f"- `{name}` rewards {self.terms[name].words}, {SHAPES.get(gene.shape, BONUS).words}, up to {gene.weight:g}"
            for name, gene in genome.items()
        ]
        code = write_program(self.task, self.terms, genome)
        return f"{origin} of {len(genome)} terms:\n\n" + "\n".join(parts) + f"\n\n```python\n{code}```\n"


def write_program(task: Task, terms: Mapping[str, Term], genome: Genome) -> str:
    """The source of a genome's reward function, under the contract of reward functions."""
    lines = []
    for name, gene in genome.items():
        shape = SHAPES.get(gene.shape, BONUS)
        lines.append(f"{name}_weight = {gene.weight!r}")
        if gene.shape == "bonus":
            lines.append(f"{name}_reached = {terms[name].distance}")
        else:
            lines.append(f"{name}_width = {gene.width!r}")
            lines.append(f"{name}_distance = {terms[name].distance}")
        lines.append(f"{name} = {shape.code.format(t=name)}")
    lines.append(f"reward = {' + '.join(genome)}")
    lines.append("return reward, {" + ", ".join(f'"{name}": {name}' for name in genome) + "}")
    body = "\n".join(lines)
    used = _names(body)
    arguments = [argument for argument in task.inputs if argument in used]
    return f"def compute_reward({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in lines)


def read_genome(source: str) -> Genome | None:
    """The genome that `write_program` wrote out as `source`; None for any other program."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    assigned: dict[str, ast.expr] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            assigned[node.targets[0].id] = node.value
    genome = {}
    for name, value in assigned.items():
        shape = _SHAPE_OF.get(re.sub(rf"\b{name}_", "term_", ast.unparse(value)))
        numbers = [_constant(assigned.get(f"{name}_{part}")) for part in ("weight", "width")]
        if shape is not None and numbers[0] is not None:
            genome[name] = Gene(shape, numbers[0], numbers[1] or 1.0)
    return genome or None


def task_terms(task: Task) -> list[Term]:
    """The terms that a task's variables, their roles and its success criterion give.

    Raises UsageError for a task that says neither where anything is nor when it is solved.
    """
    roles: dict[str, list[str]] = {}
    for variable in task.variables:
        roles.setdefault(variable.role, []).append(variable.name)
    gripper, thing, goal, start = (
        next(iter(roles.get(role, [])), None) for role in ("gripper", "object", "goal", "object_start")
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
    reach = _between(gripper, thing) if thing in _names(move) or gripper not in _names(move) else None

    terms = [Term("move", move, "the way that is left until success", 1.0, (1.0, 6.0))]
    if reach:
        terms.insert(0, Term("reach", reach, "the gripper's nearness to the object", 0.9, (0.5, 4.0)))
        terms.append(Term("stay", f"{reach} + {move}", "both at once: at the object, and it in place", 0.2, (0.5, 4.0)))
    if place and place != move:
        terms.append(Term("place", place, "the object's nearness to the target in space", 0.25, (0.5, 4.0)))
    if reach and goal:
        behind = f"np.linalg.norm({thing} + 0.3 * ({thing} - {goal}) - {gripper})"
        terms.append(Term("behind", behind, "the gripper behind the object, seen from the target", 0.15, (0.3, 2.0)))
    if reach and len(pads := roles.get("pad", [])) == 2:
        apart = " + ".join(f"abs({pad}[1] - {thing}[1])" for pad in pads)
        terms.append(Term("align", f"{reach} + {apart}", "both finger pads close on the object", 0.15, (0.3, 2.0)))
    if reach and (opening := roles.get("opening")):
        grasp = f"{reach} + 0.1 * {opening[0]}"
        terms.append(Term("grasp", grasp, "closed fingers at the object", 0.15, (0.3, 2.0)))
    if reach and start:
        lift = f"{reach} + max(0.0, {start}[2] + 0.1 - {thing}[2])"
        terms.append(Term("lift", lift, "the object held ten centimetres up", 0.1, (0.3, 2.0)))
    effort = Term("effort", "np.linalg.norm(action)", "small actions", 0.25, (0.02, 0.3), unit=3.0)
    terms.append(effort)
    if measure:
        solved = f"({task.success_expression})"
        terms.append(Term("success", solved, "success itself", 0.5, (1.0, 8.0), shapes=("bonus",)))
    return terms


def success_measure(expression: str) -> str | None:
    """How far a state is from success, as code: zero exactly when, or shortly after, `expression` holds.

    ``norm(obj - target) <= 0.05`` gives the norm itself, which goes on falling inside the threshold; other comparisons
    give what is missing; ``and`` adds, ``or`` takes the least. None for what compares no numbers.
    """
    try:
        return _missing(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        return None


def _missing(node: ast.expr) -> str | None:
    if isinstance(node, ast.BoolOp):
        found = [_missing(value) for value in node.values]
        known = [part for part in found if part is not None]
        if len(known) < len(found):
            return None
        return " + ".join(known) if isinstance(node.op, ast.And) else f"min({', '.join(known)})"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"float", "bool"} and len(node.args) == 1:
        return _missing(node.args[0])
    if not isinstance(node, ast.Compare):
        return None
    parts, left = [], node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        small, large = (left, right) if isinstance(operator, (ast.Lt, ast.LtE)) else (right, left)
        if not isinstance(operator, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            return None
        is_distance = isinstance(small, ast.Call) and ast.unparse(small.func) in {"abs", "np.abs", "np.linalg.norm"}
        if is_distance and not _names(ast.unparse(large)):
            parts.append(ast.unparse(small))
        else:
            parts.append(f"max(0.0, {ast.unparse(small)} - ({ast.unparse(large)}))")
        left = right
    return " + ".join(parts)


def _between(one: str | None, other: str | None) -> str | None:
    return f"np.linalg.norm({one} - {other})" if one and other else None


def _constant(node: ast.expr | None) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, (int, float)) else None


def _names(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def _fitted(term: Term, gene: Gene) -> Gene:
    """The gene within sane bounds, its numbers as short as a person would write them."""
    shape = SHAPES.get(gene.shape, BONUS)
    weight = min(max(gene.weight, term.weights[0] / 3), term.weights[1] * 2)
    width = min(max(gene.width, shape.narrow * term.unit / 2), shape.wide * term.unit * 2)
    return Gene(gene.shape, float(f"{weight:.3g}"), float(f"{width:.3g}"))
