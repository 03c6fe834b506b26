"""The built-in program search: that it composes sensible programs, and that they evolve."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from errors import UsageError
from reward_code import extract
from search.builtin import ProgramSearch
from search.programs import DISTANCE_SHAPES, NEAR, SHAPES, Gene, read_genome
from search.programs import write_program as write
from search.protocol import Parent, Request
from search.terms import APPROACH, success_axes, task_terms
from search_doubles import call, make_task, random_state, variable
from task_specs import get_task
from tasks.environment import TaskEnvironment, scripted_expert

TASK = make_task()
TERMS = {term.name: term for term in task_terms(TASK)}


def gene(shape, weight, width=None, after="", **numbers):
    return Gene(shape, {"weight": weight, **({"width": width} if width else {}), **numbers}, after)


def sources(search, count, parents=()):
    reply = search.ask(Request([], count, 0.0, parents=tuple(parents)))
    return [extract(text).source for text in reply.texts], reply.parents


def genomes(search, count, parents=()):
    return [read_genome(source) for source in sources(search, count, parents)[0]]


def parent(id, genome, score, components=None):
    return Parent(id, write(TASK, TERMS, genome), score, components or {})


def state(gripper, thing, goal=(0.0, 0.0, 0.0)):
    values = random_state(np.random.default_rng(0))
    names = {"tcp_center": gripper, "obj": thing, "target": goal}
    return {**values, **{name: np.array(value, float) for name, value in names.items()}, "action": np.zeros(4)}


# --- programs --------------------------------------------------------------------------------------------------------


def test_the_source_is_the_genome():
    search = ProgramSearch(TASK, 3)
    for source in sources(search, 50)[0]:
        genome = read_genome(source)
        assert genome
        assert write(TASK, TERMS, genome) == source
        with_other_names = f"import numpy as np\n\n\n{source}\n# done"
        assert read_genome(with_other_names) == genome


@pytest.mark.parametrize(
    "source",
    [
        "",
        "not python",
        "def compute_reward(obj):\n    return obj[0], {}",
        "def compute_reward(obj):\n    move_weight = obj\n    move = move_weight * move_value\n    return move",
        "def other(obj):\n    m_weight = 1.0\n    m_value = 2.0\n    m = m_weight * m_value\n    return m",
        "def compute_reward(obj):\n    a, b = 1.0, 2.0\n    a.b = c[0] = 3.0\n    return a",
        "x" * 10_000 + "(" * 500,
    ],
)
def test_other_programs_have_no_genome(source):
    assert read_genome(source) is None


@pytest.mark.parametrize(
    ("name", "shape"), [(t.name, shape) for t in TERMS.values() for shape in t.shapes if shape in DISTANCE_SHAPES]
)
def test_every_shape_of_every_term_rises_towards_its_goal(name, shape):
    term = TERMS[name]
    numbers = {"weight": 2.0, "width": 0.4, **dict.fromkeys(term.numbers, 0.0), "height": 0.1}
    source = write(TASK, TERMS, {name: Gene(shape, {k: numbers[k] for k in term.ranges(shape, False)})})
    there = state((0, 0, 0), (0, 0, 0))
    there |= {"left_pad": np.zeros(3), "right_pad": np.zeros(3), "gripper_opening": 1.0}
    there |= {"obj_init_pos": np.array([0.3, 0, -0.2])}
    far = {
        **there,
        "tcp_center": np.array([0.2, 0.1, 0.1]),
        "obj": np.array([0.1, 0.1, -0.15]),
        "gripper_opening": 0.0,
        "action": np.ones(4),
    }
    assert call(source, there)[0] == pytest.approx(2.0)
    assert call(source, far)[0] < 1.98
    assert call(source, far)[1][name] == call(source, far)[0]


def test_most_of_a_first_population_prefers_the_way_to_success():
    """Nearer to the object, then nearer to success along the axis that counts, then solved: each is worth more."""
    stages = [
        state((0.5, 0.0, 0.2), (0.3, 0.0, 0.0)),
        state((0.31, 0.0, 0.0), (0.3, 0.0, 0.0)),
        state((0.16, 0.0, 0.0), (0.15, 0.0, 0.0)),
        state((0.02, 0.0, 0.0), (0.01, 0.0, 0.0)),
    ]
    right = 0
    for source in sources(ProgramSearch(TASK, 0), 200)[0]:
        values = [call(source, stage)[0] for stage in stages]
        right += all(lower < higher for lower, higher in pairwise(values))
    assert right >= 170


def test_rewards_are_of_the_order_of_one_to_ten():
    rng = np.random.default_rng(1)
    made = sources(ProgramSearch(TASK, 1), 100)[0]
    values = np.array([[call(source, random_state(rng))[0] for _ in range(20)] for source in made])
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 40
    assert 1 < np.median(np.abs(values).max(axis=1)) < 15


def test_a_first_population_is_diverse():
    made = genomes(ProgramSearch(TASK, 5), 40)
    assert len({tuple(genome) for genome in made}) > 15
    assert Counter(gene.shape for genome in made for gene in genome.values()).keys() == SHAPES.keys() - {"as_it_is"}
    assert len({gene.numbers["weight"] for genome in made for gene in genome.values()}) > 50


def test_the_plainest_program_is_tried_first_and_once():
    plain = {"reach": gene("linear", 5.0, 0.5), "move": gene("linear", 5.0, 0.5)}
    search = ProgramSearch(TASK, 5)
    made = genomes(search, 10) + genomes(search, 10)
    assert made[0] == plain
    assert plain not in made[1:]


def test_programs_come_to_the_object_in_every_way_and_gate_what_is_due_later():
    made = genomes(ProgramSearch(TASK, 5), 80)[1:]
    approaches = Counter(name for genome in made for name in genome if TERMS[name].stage == APPROACH)
    assert set(approaches) == {"reach", "aim", "above", "behind"}
    assert sum(approaches.values()) == len(made)
    assert max(approaches.values()) - min(approaches.values()) <= 1  # each has its turn
    assert all(genome.keys() & {"opened", "hold"} for genome in made if "above" in genome)
    gated = [(genome, name, gene) for genome in made for name, gene in genome.items() if gene.after]
    assert sum(name == "move" for _, name, _ in gated) > 15
    for genome, name, gene in gated:
        assert TERMS[gene.after].stage < TERMS[name].stage
        assert list(genome).index(gene.after) < list(genome).index(name)
        assert not SHAPES[gene.shape].may_be_negative


def test_a_gate_lets_a_term_count_only_where_the_earlier_one_is_near():
    after_reach = {"reach": gene("exp", 1.0, 0.2), "move": gene("exp", 5.0, 0.2, after="reach", near=0.1)}
    source = write(TASK, TERMS, after_reach)
    at, away = (call(source, state((x, 0, 0), (0, 0, 0)))[1]["move"] for x in (0.0, 0.3))
    assert at == pytest.approx(5.0)
    assert away == pytest.approx(5.0 * np.exp(-9))


def test_the_funnels_lead_over_and_behind_an_object_and_not_through_it():
    above = write(TASK, TERMS, {"above": gene("exp", 1.0, 0.2, x=0.0, y=0.0, z=0.0, clear=0.1)})
    behind = write(TASK, TERMS, {"behind": gene("exp", 1.0, 0.2, gap=0.02, clear=0.1)})
    there = state((0, 0, 0), (0, 0, 0), (0.3, 0, 0)) | {"obj_init_pos": np.zeros(3)}  # the target lies along x

    def value(source, hand):
        return call(source, there | {"tcp_center": np.array(hand)})[0]

    down = [value(above, hand) for hand in ((0.3, 0, 0), (0.3, 0, 0.1), (0, 0, 0.1), (0, 0, 0))]
    assert all(lower < higher for lower, higher in pairwise(down))
    around = [value(behind, hand) for hand in ((0.1, 0, 0), (0.1, 0.1, 0), (0, 0.1, 0), (-0.1, 0.1, 0), (-0.02, 0, 0))]
    assert all(lower < higher for lower, higher in pairwise(around))


def test_the_first_of_ten_steps_is_a_third_of_the_way_under_the_root():
    source = write(TASK, TERMS, {"move": gene("root", 3.0)})
    began = {"obj_init_pos": np.array([0.2, 0, 0])}
    values = [call(source, state((0, 0, 0), (x, 0, 0)) | began)[0] for x in (0.25, 0.2, 0.18, 0.0)]
    assert values == pytest.approx([0, 0, 3 * 0.1**0.5, 3])


@pytest.mark.parametrize(
    ("measure", "axes"),
    [
        ("abs(obj[0] - target[0])", (0,)),
        ("np.linalg.norm((obj - target)[:2])", (0, 1)),
        ("np.linalg.norm(obj - target)", (0, 1, 2)),
        ("max(0.0, target[-1] - obj[-1])", (2,)),
        ("max(0.0, 0.09 - nail_depth)", (0, 1, 2)),
    ],
)
def test_the_far_side_is_seen_along_the_axes_that_count(measure, axes):
    assert success_axes(measure, "obj") == axes


# --- search ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_texts():
    one, two, other = (sources(ProgramSearch(TASK, seed), 20)[0] for seed in (1, 1, 2))
    assert one == two
    assert one[1:] != other[1:]


def test_a_restored_search_goes_on_as_the_first_would_have():
    first = ProgramSearch(TASK, 1)
    sources(first, 5)
    second = ProgramSearch(TASK, 999)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    parents = [parent(0, genomes(ProgramSearch(TASK, 7), 2)[1], 0.5)]
    assert sources(first, 10, parents) == sources(second, 10, parents)
    assert sources(first, 10) == sources(second, 10)


def test_offspring_carry_their_parents_genes_and_ids():
    one = {"reach": gene("exp", 1.0, 0.2), "move": gene("tanh", 2.0, 0.3), "success": gene("bonus", 5.0, 1.0)}
    two = {"move": gene("linear", 3.0, 0.5), "effort": gene("gaussian", 0.1, 1.5)}
    search = ProgramSearch(TASK, 2)
    made, ids = sources(search, 200, [parent(11, one, 0.4), parent(22, two, 0.4)])
    kinds = Counter(tuple(sorted(parents)) for parents in ids)
    assert set(kinds) == {(), (11,), (22,), (11, 22)}
    assert kinds[(11, 22)] > 50
    assert kinds[()] < 40
    for source, parents in zip(made, ids, strict=True):
        genome = read_genome(source)
        heritage = {name for id, known in ((11, one), (22, two)) if id in parents for name in known}
        assert not parents or len(set(genome) - heritage) <= 2  # a new term, and another way to come to the object
        if set(parents) == {11, 22}:
            assert "move" in genome
    both = [read_genome(source) for source, parents in zip(made, ids, strict=True) if len(parents) == 2]
    assert any({"success", "effort"} <= set(genome) for genome in both)  # a cross has what neither parent has


def test_better_parents_have_more_children_and_smaller_changes():
    genome = {"reach": gene("exp", 3.0, 0.2), "move": gene("exp", 5.0, 0.2)}
    search = ProgramSearch(TASK, 2)
    _, ids = sources(search, 300, [parent(1, genome, 0.9), parent(2, genome, 0.0), parent(3, genome, 0.0)])
    counts = Counter(parents[0] for parents in ids if parents)
    assert counts[1] > 3 * counts[2]

    def spread(score):
        made, ids = sources(ProgramSearch(TASK, 4), 200, [parent(1, genome, score)])
        children = [read_genome(source) for source, parents in zip(made, ids, strict=True) if parents]
        return np.std([np.log(child["move"].numbers["weight"]) for child in children])

    assert spread(0.0) > 2 * spread(1.0)


def test_feedback_on_the_terms_is_answered():
    genome = {"reach": gene("exp", 4.0, 0.1), "move": gene("exp", 4.0, 0.1)}

    def typical(components, name, part):
        parents = [parent(1, genome, 1.0, components)]
        made = genomes(ProgramSearch(TASK, 6), 150, parents)
        return np.median([g[name].numbers[part] for g in made if name in g and part in g[name].numbers])

    never_felt = {"reach": (0.001, 0.0, 0.002), "move": (1.0, 0.0, 4.0)}
    always_fulfilled = {"reach": (3.99, 3.95, 4.0), "move": (1.0, 0.0, 4.0)}
    assert typical(never_felt, "reach", "width") == pytest.approx(0.2, rel=0.25)
    assert typical(always_fulfilled, "reach", "weight") == pytest.approx(2.0, rel=0.25)
    for components in (never_felt, always_fulfilled):
        assert typical(components, "move", "width") == pytest.approx(0.1, rel=0.25)
        assert typical(components, "move", "weight") == pytest.approx(4.0, rel=0.25)


def test_a_gate_that_stays_shut_opens_from_farther_off_and_what_never_moves_counts_more():
    genome = {"reach": gene("exp", 4.0, 0.2), "move": gene("root", 4.0, after="reach", near=0.06)}

    def typical(part, after):
        parents = [parent(1, {**genome, "move": after}, 1.0, {"move": (0.0, 0.0, 0.0)})]
        made = [g["move"] for g in genomes(ProgramSearch(TASK, 6), 150, parents) if "move" in g]
        return np.median([g.numbers[part] for g in made if g.shape == "root" and part in g.numbers])

    assert typical("near", genome["move"]) == pytest.approx(0.12, rel=0.25)
    assert typical("weight", gene("root", 4.0)) == pytest.approx(6.0, rel=0.25)
    assert NEAR.low < 0.06 < NEAR.high


def test_generations_of_mutation_stay_within_sane_bounds():
    search = ProgramSearch(TASK, 8)
    parents = [parent(0, genome, 0.0) for genome in genomes(search, 3)]
    for _ in range(40):
        made, _ = sources(search, 4, parents)
        parents = [Parent(i, source, 0.0, {"move": (0.0, 0.0, 0.0)}) for i, source in enumerate(made)]
        for source in made:
            for name, gene in read_genome(source).items():
                for number, bounds in TERMS[name].ranges(gene.shape, bool(gene.after)).items():
                    low = 2.01 * bounds.low if bounds.low < 0 else bounds.low / 2.01
                    assert low <= gene.numbers[number] <= 2.01 * bounds.high
                assert gene.numbers.keys() == TERMS[name].ranges(gene.shape, bool(gene.after)).keys()
                assert not gene.after or gene.after in read_genome(source)


def test_programs_of_another_origin_are_no_parents():
    foreign = Parent(9, "def compute_reward(obj):\n    return obj[0]", 1.0)
    _, ids = sources(ProgramSearch(TASK, 1), 10, [foreign])
    assert ids == [[]] * 10


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_of_the_gripper_alone_has_nothing_to_reach_first():
    task = make_task(success_expression="np.linalg.norm(tcp_center - target) <= 0.05")
    assert {term.name for term in task_terms(task)} == {"move", "effort", "success"}


def test_a_task_without_a_measure_falls_back_on_where_things_are():
    task = make_task(success_expression="bool(obs[0])")
    terms = {term.name: term for term in task_terms(task)}
    assert terms["move"].measure == "np.linalg.norm(obj - target)"
    assert "success" not in terms


def test_a_task_that_says_nothing_is_refused_only_when_it_is_asked_for():
    task = make_task(success_expression="", variables=(variable("heat", (), "other"),))
    search = ProgramSearch(task, 1)
    with pytest.raises(UsageError, match="success_expression"):
        sources(search, 1)


def test_programs_may_build_on_a_human_reward():
    human = (
        "LOW = 0.25\n\n\ndef half(x):\n    return x / 2\n\n\ndef compute_reward(obj, action):\n"
        "    if obj[0] > 9:\n        return LOW, {}\n    return half(obj[0]), {'a': 1.0}"
    )
    made, _ = sources(ProgramSearch(TASK, 1, human), 60)
    built = [source for source in made if "human" in read_genome(source)]
    assert 15 < len(built) < 55
    values = state((0, 0, 0), (0.8, 0, 0))
    for source in built:
        reward, components = call(source, values)
        assert components["human"] == pytest.approx(read_genome(source)["human"].numbers["weight"] * 0.4)
        assert reward == pytest.approx(sum(components.values()))
    assert not any("human" in read_genome(source) for source in sources(ProgramSearch(TASK, 1), 60)[0])


def test_the_last_centimetre_counts_as_much_as_ten_under_the_logarithm():
    source = write(TASK, TERMS, {"reach": gene("log", 3.0, 0.01)})
    at = {x: call(source, state((x, 0, 0), (0, 0, 0)))[0] for x in (0.0, 0.01, 0.03, 0.07, 1.0, 2.0)}
    assert at[0.0] == 3.0
    assert at[1.0] == at[2.0] == 0.0
    steps = at[0.0] - at[0.01], at[0.01] - at[0.03], at[0.03] - at[0.07]  # each doubles the distance and the width
    np.testing.assert_allclose(steps, 3.0 * np.log(2) / np.log(101))


# --- what an expert does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["drawer-open", "door-open"])
def test_rewards_rise_along_an_experts_course_and_end_above_the_object_not_moved(name):
    """For most programs, on real episodes: an expert's, and one of a hand that comes to the object and stays there."""
    task = get_task(name)
    environment = TaskEnvironment(task)
    expert = scripted_expert(task)

    def episode(act, steps):
        environment.reset(0)
        states = []
        for _ in range(steps):
            success = environment.step(act()).success
            states.append(environment.values())
            if success:
                break
        return states

    def to_the_object():
        values = environment.values()
        return np.array([*np.clip(10 * (values["obj"] - values["tcp_center"]), -1, 1), 0.0])

    solved = episode(lambda: expert(environment.obs), 250)
    stuck = episode(to_the_object, 100)
    environment.close()
    rises, ends = [], []
    for source in sources(ProgramSearch(task, 0), 30)[0]:
        rewards = [call(source, values)[0] for values in solved]
        rises.append(stats.spearmanr(np.arange(len(rewards)), rewards)[0])
        ends.append(rewards[-1] - np.median([call(source, values)[0] for values in stuck[50:]]))
    assert np.median(rises) > 0.7
    assert np.quantile(rises, 0.1) > 0.2
    assert np.mean(np.array(ends) > 0.3) > 0.8
