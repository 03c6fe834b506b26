"""The `builtin` model: a search over small reward programs that needs no language model, no key and no network.

A program is a sum of terms. A term turns a distance that should become small into a reward, by a shape, a weight and
a width. Which terms there are follows from the task's variables, their roles and its success criterion. The program's
text *is* its genome: `read_genome` takes the terms back out of the source, so that mutation and crossover need
nothing but the parents' sources.
"""

import ast
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from errors import UsageError
from search.protocol import LanguageModel, Parent, Reply, Request, Usage
from task_specs import Task
from tasks.success import success_measure

Genome = dict[str, "Gene"]


@dataclass(frozen=True)
class Shape:
    """How what a term measures becomes a reward: code in the term's names, and the widths that suit a table (m)."""

    code: str
    words: str
    narrow: float = 1.0
    wide: float = 1.0
    measure: str = "distance"


# What is shaped from a distance is worth its weight at zero. The widths keep a slope at the half metre from which most
# arms start: what vanishes there teaches nothing. Weights make up for entropy, to which SAC at first gives the weight
# one: under half a unit of reward for the whole way, agents were seen to stay random for 15,000 env steps.
DISTANCE_SHAPES = {
    "exp": Shape("{t}_weight * np.exp(-{t}_distance / {t}_width)", "exponential", 0.1, 0.6),
    "tanh": Shape("{t}_weight * (1.0 - np.tanh({t}_distance / {t}_width))", "tanh", 0.15, 0.7),
    "long_tail": Shape("{t}_weight / (1.0 + ({t}_distance / {t}_width) ** 2)", "long-tailed", 0.06, 0.4),
    "gaussian": Shape("{t}_weight * np.exp(-({t}_distance / {t}_width) ** 2)", "Gaussian", 0.2, 0.6),
    "linear": Shape("{t}_weight * (1.0 - {t}_distance / {t}_width)", "linear", 0.3, 1.0),
}
SHAPES = {
    **DISTANCE_SHAPES,
    "bonus": Shape("{t}_weight if {t}_reached else 0.0", "a bonus", measure="reached"),
    "as_it_is": Shape("{t}_weight * {t}_value", "as it is", measure="value"),
}
_SHAPE_OF = {ast.unparse(ast.parse(shape.code.format(t="term"))): name for name, shape in SHAPES.items()}


@dataclass(frozen=True)
class Term:
    """One thing that a reward may ask for, by an expression over variables: a distance that is zero in the end."""

    name: str
    measure: str
    words: str
    chance: float  # of being in a program that is composed afresh
    weights: tuple[float, float]
    unit: float = 1.0  # the distance that counts as much as a metre between gripper and object
    shapes: tuple[str, ...] = tuple(DISTANCE_SHAPES)
    helpers: str = ""  # functions that the expression calls


@dataclass(frozen=True)
class Gene:
    """A term as one program has it."""

    shape: str
    weight: float
    width: float


class ProgramSearch(LanguageModel):
    """Composes reward programs for a task; on request it mutates and crosses parents by how they did.

    The texts have the form of a model's answer: a short explanation and a block of Python. All randomness comes from
    `seed`, and a search restored with `load_state_dict` goes on as the first one would have. With `human_reward`, the
    source of a reward function, programs may build on that function as one more term.
    """

    name = "builtin"

    def __init__(self, task: Task, seed: int, human_reward: str | None = None) -> None:
        self.task = task
        self.usage = Usage()  # stays at nothing: it is free
        self._human_reward = human_reward
        self._random = np.random.default_rng([seed, 0x5EA7C4])
        self._composed = 0

    @functools.cached_property
    def terms(self) -> dict[str, Term]:
        """What its programs are made of, by name. Raises UsageError for a task that gives nothing to go by."""
        return {term.name: term for term in task_terms(self.task, self._human_reward)}

    def ask(self, request: Request) -> Reply:
        """As many texts as are wanted: offspring of the request's parents, or without any, programs made afresh."""
        genomes = [(parent, read_genome(parent.source)) for parent in request.parents]
        known = [(parent, _answered(genome, parent)) for parent, genome in genomes if genome]
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
            plain = {name: Gene("linear", 5.0, 0.5) for name in self.terms if name in {"reach", "move"}}
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
        return self._mutate(child, chosen[0][0].score), ids, origin

    def _cross(self, one: Genome, other: Genome) -> Genome:
        child: Genome = {}
        for name in self.terms:
            genes = [genome[name] for genome in (one, other) if name in genome]
            if len(genes) == 2 or (genes and self._random.random() < 0.5):
                child[name] = genes[self._random.integers(len(genes))]
        return child or dict(one)

    def _mutate(self, genome: Genome, score: float) -> Genome:
        step = 0.15 + 0.6 * (1.0 - score)  # what works well is changed little
        child: Genome = {}
        for name, gene in genome.items():
            term = self.terms.get(name)
            if term is None or (self._random.random() < 0.1 and term.chance < 1.0):
                continue
            if self._random.random() < 0.2:
                gene = replace(gene, shape=str(self._random.choice(term.shapes)))
            weight, width = np.exp(self._random.normal(0.0, step, size=2))
            child[name] = _fitted(term, Gene(gene.shape, gene.weight * weight, gene.width * width))
        missing = [term for term in self.terms.values() if term.name not in child]
        if missing and (not child or self._random.random() < 0.3):
            term = missing[self._random.integers(len(missing))]
            child[term.name] = self._draw(term)
        return child

    def _draw(self, term: Term) -> Gene:
        name = str(self._random.choice(term.shapes))
        shape = SHAPES[name]
        weight, width = (
            math.exp(self._random.uniform(math.log(low), math.log(high)))
            for low, high in (term.weights, (shape.narrow, shape.wide))
        )
        return _fitted(term, Gene(name, weight, width * term.unit))

    def _write(self, genome: Genome, origin: str) -> str:
        parts = [
            f"- `{name}` rewards {self.terms[name].words}, {SHAPES[gene.shape].words}, with the weight {gene.weight:g}"
            for name, gene in genome.items()
        ]
        code = write_program(self.task, self.terms, genome)
        return f"{origin} of {len(genome)} terms:\n\n" + "\n".join(parts) + f"\n\n```python\n{code}```\n"


def write_program(task: Task, terms: Mapping[str, Term], genome: Genome) -> str:
    """The source of a genome's reward function, under the contract of reward functions."""
    lines = []
    for name, gene in genome.items():
        shape = SHAPES[gene.shape]
        lines.append(f"{name}_weight = {gene.weight!r}")
        if gene.shape in DISTANCE_SHAPES:
            lines.append(f"{name}_width = {gene.width!r}")
        lines.append(f"{name}_{shape.measure} = {terms[name].measure}")
        lines.append(f"{name} = {shape.code.format(t=name)}")
    lines.append(f"reward = {' + '.join(genome)}")
    lines.append("return reward, {" + ", ".join(f'"{name}": {name}' for name in genome) + "}")
    body = "\n".join(lines)
    used = _names(body)
    arguments = [argument for argument in task.inputs if argument in used]
    helpers = "".join(f"{terms[name].helpers}\n\n\n" for name in genome if terms[name].helpers)
    return f"{helpers}def compute_reward({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in lines)


def read_genome(source: str) -> Genome | None:
    """The genome that `write_program` wrote out as `source`; None for any other program."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    function = _function(tree)
    assigned = {
        ast.unparse(node.targets[0]): node.value
        for node in (function.body if function else [])
        if isinstance(node, ast.Assign) and len(node.targets) == 1
    }
    genome = {}
    for name, value in assigned.items():
        shape = _SHAPE_OF.get(re.sub(rf"\b{name}_", "term_", ast.unparse(value)))
        numbers = [_constant(assigned.get(f"{name}_{part}")) for part in ("weight", "width")]
        if shape is not None and numbers[0] is not None:
            genome[name] = Gene(shape, numbers[0], numbers[1] or 1.0)
    return genome or None


def task_terms(task: Task, human_reward: str | None = None) -> list[Term]:
    """The terms that a task's variables, their roles, its success criterion and perhaps its human reward give.

    Raises UsageError for a task that says neither where anything is nor when it is solved.
    """
    roles: dict[str, list[str]] = {}
    for variable in task.variables:
        if variable.shape == (() if variable.role == "opening" else (3,)):
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

    terms = [Term("move", move, "the way that is left until success", 1.0, (3.0, 10.0))]
    if reach:
        terms.insert(0, Term("reach", reach, "the gripper's nearness to the object", 0.9, (2.0, 6.0)))
        terms.append(Term("stay", f"{reach} + {move}", "both at once: at the object, and it in place", 0.2, (2.0, 6.0)))
    if place and place != move and (reach or not measure):
        terms.append(Term("place", place, "the object's nearness to the target in space", 0.25, (2.0, 6.0)))
    if reach and goal:
        behind = f"np.linalg.norm({thing} + 0.3 * ({thing} - {goal}) - {gripper})"
        terms.append(Term("behind", behind, "the gripper behind the object, seen from the target", 0.25, (1.0, 4.0)))
    if reach and len(pads := roles.get("pad", [])) == 2:
        apart = " + ".join(f"abs({pad}[1] - {thing}[1])" for pad in pads)
        terms.append(Term("align", f"{reach} + {apart}", "both finger pads close on the object", 0.15, (0.5, 3.0)))
    if reach and (opening := roles.get("opening")):
        grasp = f"{reach} + 0.1 * {opening[0]}"
        terms.append(Term("grasp", grasp, "closed fingers at the object", 0.15, (0.5, 3.0)))
    if reach and start:
        lift = f"{reach} + max(0.0, {start}[2] + 0.1 - {thing}[2])"
        terms.append(Term("lift", lift, "the object held ten centimetres up", 0.1, (0.5, 3.0)))
    terms.append(Term("effort", "np.linalg.norm(action)", "small actions", 0.25, (0.05, 0.5), unit=3.0))
    if measure:
        solved = f"({task.success_expression})"
        terms.append(Term("success", solved, "success itself", 0.5, (2.0, 10.0), shapes=("bonus",)))
    if human_reward is not None:
        helpers, call = _as_helper(human_reward)
        words = "what the human-designed reward rewards"
        terms.append(Term("human", call, words, 0.6, (0.3, 1.0), shapes=("as_it_is",), helpers=helpers))
    return terms


def _as_helper(source: str) -> tuple[str, str]:
    """A reward function's source as that of a function `human_reward` that returns the reward alone, and its call."""
    tree = ast.parse(source)
    function = _function(tree)
    assert function is not None
    function.name = "human_reward"
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, (ast.Tuple, ast.List)):
            node.value = node.value.elts[0]
    arguments = ", ".join(argument.arg for argument in function.args.args)
    return ast.unparse(tree), f"human_reward({arguments})"


def _function(tree: ast.Module) -> ast.FunctionDef | None:
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "compute_reward")
    return next(found, None)


def _between(one: str | None, other: str | None) -> str | None:
    return f"np.linalg.norm({one} - {other})" if one and other else None


def _answered(genome: Genome, parent: Parent) -> Genome:
    """The genome after a look at what its terms did: one that hardly moved gave the agent nothing to follow."""
    answered = dict(genome)
    for name, gene in genome.items():
        if gene.shape in DISTANCE_SHAPES and name in parent.components:
            mean, low, high = parent.components[name]
            if high - low > 0.05 * gene.weight:
                continue
            if mean < 0.5 * gene.weight:  # far away all the time: let it be felt from farther off
                answered[name] = replace(gene, width=gene.width * 2.0)
            else:  # fulfilled all the time: others matter more
                answered[name] = replace(gene, weight=gene.weight * 0.5)
    return answered


def _constant(node: ast.expr | None) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, (int, float)) else None


def _names(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def _fitted(term: Term, gene: Gene) -> Gene:
    """The gene within sane bounds, its numbers as short as a person would write them."""
    shape = SHAPES[gene.shape]
    weight = min(max(gene.weight, term.weights[0] / 3), term.weights[1] * 2)
    width = min(max(gene.width, shape.narrow * term.unit / 2), shape.wide * term.unit * 2)
    return Gene(gene.shape, float(f"{weight:.3g}"), float(f"{width:.3g}"))
