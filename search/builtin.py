"""The `builtin` model: a search over small reward programs that needs no language model, no key and no network.

A first program follows a strategy: a way to approach the object, what the fingers do there, and what has to move. Later
ones are mutations and crossovers of the parents, guided by what their terms did.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search.programs import (
    DISTANCE_SHAPES,
    NEAR,
    SHAPES,
    START_SHAPES,
    Gene,
    Genome,
    Range,
    Term,
    read_genome,
    write_program,
)
from search.protocol import LanguageModel, Parent, Reply, Request, Usage
from search.terms import APPROACH, HOLD, MOVE, task_terms
from task_specs import Task

# Share of new programs whose later stages are gated by an earlier one. What has not moved yet earns the same wherever
# the hand is, so a gate is seldom needed; and with one, a hand that drags an object and slips is paid for neither.
_STAGED = 0.3
_PRECISE = 0.5  # share of approaches with a logarithmic shape, since a hold takes centimetre precision
_STEADY = {"move"}  # no mutation drops it


class ProgramSearch(LanguageModel):
    """Composes reward programs for a task; given parents, it mutates and crosses them by how they did.

    The texts have the form of a model's answer: a short explanation and a block of Python. All randomness comes from
    `seed`, and a search restored with `load_state_dict` continues as the original would have. With `human_reward`, the
    source of a reward function, programs may use that function as one more term.
    """

    name = "builtin"

    def __init__(self, task: Task, seed: int, human_reward: str | None = None) -> None:
        self.task = task
        self.usage = Usage()  # stays at zero: it is free
        self._human_reward = human_reward
        self._random = np.random.default_rng([seed, 0x5EA7C4])
        self._composed = 0
        self._approaches: list[str] = []  # not yet used in this cycle through all of them

    @functools.cached_property
    def terms(self) -> dict[str, Term]:
        """The terms of its programs, by name. Raises UsageError for a task that gives nothing to go by."""
        return {term.name: term for term in task_terms(self.task, self._human_reward)}

    def ask(self, request: Request) -> Reply:
        """Return as many texts as are wanted: offspring of the request's parents or, without any, new programs."""
        genomes = [(parent, read_genome(parent.source)) for parent in request.parents]
        known = [(parent, _answered(genome, parent)) for parent, genome in genomes if genome]
        texts, parents = [], []
        for _ in range(request.count):
            genome, ids, origin = self._breed(known) if known else self._compose()
            texts.append(self._write(genome, origin))
            parents.append(ids)
        return Reply(texts, parents)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next answer depends on, JSON-serializable."""
        return {
            "random": self._random.bit_generator.state,
            "composed": self._composed,
            "approaches": list(self._approaches),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._random.bit_generator.state = state["random"]
        self._composed, self._approaches = state["composed"], list(state["approaches"])

    # --- from nothing -----------------------------------------------------------------------------------------------

    def _compose(self) -> tuple[Genome, list[int], str]:
        self._composed += 1
        if self._composed == 1:  # the plainest program that can work is always tried
            numbers = {"weight": 5.0, "width": 0.5}
            plain = {name: Gene("linear", numbers) for name in self.terms if name in {"reach", "move"}}
            return plain, [], "The plainest shaping"
        names = {"move", *(name for name, term in self.terms.items() if self._chance(term.chance))}
        if approach := self._next_approach():
            names.add(approach)
            # An open hand hooks, closed fingers carry, and with neither the hand pushes, which it cannot from above.
            odds = [0.0, 0.7, 0.3] if approach == "above" else [1 / 3, 1 / 3, 1 / 3]
            fingers = str(self._random.choice(["", "opened", "hold"], p=odds))
            names |= {fingers} & self.terms.keys()
            if fingers == "hold" and self._chance(0.6):
                names |= {"lift"} & self.terms.keys()
        staged = self._chance(_STAGED)
        genome: Genome = {}
        for name, term in self.terms.items():  # in the order of stages
            if name in names:
                gate = self._gate(genome, term) if staged or term.stage == HOLD else ""
                genome[name] = self._draw(term, gate)
        return genome, [], "A new combination"

    def _next_approach(self) -> str:
        """Return a way to approach the object, each once before any repeats; "" where there is nothing to reach."""
        if not self._approaches:
            self._approaches = [str(name) for name in self._random.permutation(self._at_stage(APPROACH))]
        return self._approaches.pop() if self._approaches else ""

    def _draw(self, term: Term, after: str) -> Gene:
        shapes = _fit_for(term, after)
        by_start = [name for name in shapes if name in START_SHAPES]
        shape = str(self._random.choice(by_start if by_start and self._chance(0.5) else shapes))
        if term.stage == APPROACH and self._chance(_PRECISE):
            shape = "log"
        ranges = term.ranges(shape, bool(after))
        return Gene(shape, {name: self._number(bounds) for name, bounds in ranges.items()}, after)

    def _number(self, bounds: Range) -> float:
        if bounds.low < 0:
            return _short(self._random.uniform(bounds.low, bounds.high))
        return _short(math.exp(self._random.uniform(math.log(bounds.low), math.log(bounds.high))))

    def _gate(self, genome: Genome, term: Term) -> str:
        """Return the last earlier stage of the genome, whose distance can open the term's gate; "" if there is none."""
        earlier = [
            name
            for name, gene in genome.items()
            if self.terms[name].stage < term.stage <= MOVE and gene.shape in DISTANCE_SHAPES
        ]
        # Nothing waits for a lift: an object to be carried is on its way before it is fully lifted.
        return next((name for name in reversed(earlier) if self.terms[name].stage in (APPROACH, HOLD)), "")

    # --- from parents -----------------------------------------------------------------------------------------------

    def _breed(self, parents: Sequence[tuple[Parent, Genome]]) -> tuple[Genome, list[int], str]:
        if self._chance(0.1):
            return self._compose()
        # The floor keeps parents without a success in the race, all with equal odds as long as none has one.
        odds = np.array([0.1 + parent.score for parent, _ in parents])
        picks = self._random.choice(len(parents), size=min(2, len(parents)), replace=False, p=odds / odds.sum())
        chosen = [parents[pick] for pick in picks]
        if len(chosen) == 2 and self._chance(0.5):
            (first, one), (second, other) = chosen
            child, ids, origin = self._cross(one, other), [first.id, second.id], "A cross"
        else:
            child, ids, origin = dict(chosen[0][1]), [chosen[0][0].id], "A variation"
        return self._mutate(child, chosen[0][0].score), ids, origin

    def _cross(self, one: Genome, other: Genome) -> Genome:
        """Return a child of two genomes: a shared term comes from either, any other is kept with probability 0.5."""
        child: Genome = {}
        for name in self.terms:
            genes = [genome[name] for genome in (one, other) if name in genome]
            if len(genes) == 2 or (genes and self._chance(0.5)):
                child[name] = genes[self._random.integers(len(genes))]
        return child or dict(one)

    def _mutate(self, genome: Genome, score: float) -> Genome:
        step = 0.15 + 0.6 * (1.0 - score)  # what works well is changed little
        kept = {
            name: gene
            for name, gene in genome.items()
            if name in self.terms and (name in _STEADY or not self._chance(0.1))
        }
        approaches = [name for name in kept if self.terms[name].stage == APPROACH]
        others = [name for name in self._at_stage(APPROACH) if name not in kept]
        if approaches and others and self._chance(0.25 * (1.0 - score)):  # another way to approach the object
            del kept[approaches[0]]
            kept[others[self._random.integers(len(others))]] = Gene("", {})
        missing = [name for name in self.terms if name not in kept and self.terms[name].stage != APPROACH]
        if missing and (not kept or self._chance(0.3)):
            kept[missing[self._random.integers(len(missing))]] = Gene("", {})
        child: Genome = {}
        for name, term in self.terms.items():
            if name in kept:
                child[name] = self._varied(term, kept[name], child, step)
        return child

    def _varied(self, term: Term, gene: Gene, earlier: Genome, step: float) -> Gene:
        """Return the gene with changed numbers, sometimes with another shape or gate; draw one that has no shape."""
        after = gene.after if gene.after in earlier and earlier[gene.after].shape in DISTANCE_SHAPES else ""
        if not gene.shape or (gene.after and not after) or self._chance(0.1):
            after = self._gate(earlier, term) if not after else ""
        if not gene.shape:
            return self._draw(term, after)
        shapes = _fit_for(term, after)
        shape = gene.shape if gene.shape in shapes and not self._chance(0.2) else str(self._random.choice(shapes))
        numbers = {}
        for name, bounds in term.ranges(shape, bool(after)).items():
            value = gene.numbers.get(name, self._number(bounds))
            if bounds.low < 0:
                value += self._random.normal(0.0, step * 0.25 * (bounds.high - bounds.low))
            else:
                value *= math.exp(self._random.normal(0.0, step))
            numbers[name] = _within(bounds, value)
        return Gene(shape, numbers, after)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _chance(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def _at_stage(self, stage: int) -> list[str]:
        return [name for name, term in self.terms.items() if term.stage == stage]

    def _write(self, genome: Genome, origin: str) -> str:
        parts = [
            f"- `{name}` rewards {self.terms[name].words}, {SHAPES[gene.shape].words}, "
            f"with the weight {gene.numbers['weight']:g}" + (f", once `{gene.after}` is near" if gene.after else "")
            for name, gene in genome.items()
        ]
        code = write_program(self.task, self.terms, genome)
        return f"{origin} of {len(genome)} terms:\n\n" + "\n".join(parts) + f"\n\n```python\n{code}```\n"


def _fit_for(term: Term, after: str) -> list[str]:
    return [name for name in term.shapes if not (after and SHAPES[name].may_be_negative)]


def _answered(genome: Genome, parent: Parent) -> Genome:
    """Return the genome adapted to what its terms did: one that hardly changed gave the agent nothing to follow."""
    answered = dict(genome)
    for name, gene in genome.items():
        if gene.shape not in DISTANCE_SHAPES or name not in parent.components:
            continue
        mean, low, high = parent.components[name]
        weight = gene.numbers["weight"]
        if high - low > 0.05 * weight:
            continue
        if mean >= 0.5 * weight:  # satisfied all the time: others matter more
            changed = {"weight": weight * 0.5}
        elif gene.after and gene.numbers["near"] < NEAR.high:  # its gate stays shut: let it open from farther off
            changed = {"near": gene.numbers["near"] * 2.0}
        elif "width" in gene.numbers:  # far away all the time: let it be felt from farther off
            changed = {"width": gene.numbers["width"] * 2.0}
        else:  # it has not changed at all: let it count more
            changed = {"weight": weight * 1.5}
        answered[name] = replace(gene, numbers={**gene.numbers, **changed})
    return answered


def _within(bounds: Range, value: float) -> float:
    """Return the number within sane bounds, as short as a person would write it."""
    low, high = (2 * bounds.low, 2 * bounds.high) if bounds.low < 0 else (bounds.low / 2, 2 * bounds.high)
    return _short(min(max(value, low), high))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
