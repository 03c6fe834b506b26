"""From text to checked source, and the helpers that reward functions may call."""

import ast
import itertools
import string
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metaworld.utils import reward_utils as metaworld_reward_utils

import reward_utils
from errors import UsageError
from good_answers import ANSWERS
from reward_code import Evaluation, Rejected, RewardWorkers, check_source, extract
from reward_code.__main__ import _columns_of
from reward_code.check import check_code
from reward_code.names import BUILTINS, MODULE_NAMES
from reward_code.simplify import simplified
from reward_rows import INPUTS, rows

BODY = "def compute_reward(obs, obj):\n    return {}\n"


def checked(text: str) -> str | Rejected:
    try:
        return check_code(extract(text), INPUTS).source
    except Rejected as rejected:
        return rejected


def reason(text: str) -> tuple[str, str]:
    outcome = checked(text)
    assert isinstance(outcome, Rejected)
    return outcome.kind, outcome.reason


# ---------------------------------------------------------------------------------------------------------------------
# Extraction


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "no-code", "empty"),
        ("I cannot help with that.", "no-code", "no function named compute_reward"),
        ("```python\ndef reward(obs):\n    return 1\n```", "no-code", "it defines reward"),
        ("```python\ndef compute_reward(obs):\n    return (1 +\n```", "syntax", "line 2"),
        ("def compute_reward(obs):\n    return 1 +", "syntax", "invalid syntax"),
        ("x" * 500_000, "no-code", "500000 characters"),
        (BODY.format("1.0 + " * 6000 + "1.0"), "syntax", "characters"),
        ('{"code": "def compute_reward(obs):\\n    return {"a": 1}"}', "no-code", "no Python"),
        ("def compute_reward(obs):\n    return self.weight * obs[0]\n", "attribute", "there is no self"),
        ("def far(x, w=[1.0]):\n    return x\n" + BODY.format("far(obs[0])"), "construct", "a default must be"),
    ],
)
def test_what_holds_no_reward_is_told_so(text: str, kind: str, words: str):
    found_kind, found = reason(text)
    assert found_kind == kind
    assert words in found


def test_last_block_that_is_python_wins_over_an_unfinished_one():
    good, cut = BODY.format("1.0"), BODY.format("2.0 * (")
    assert extract(f"```python\n{good}```\nbetter:\n```python\n{cut}").source == good


@pytest.mark.parametrize(
    "line",
    [
        "```" + "a" * 300_000 + "`",
        "```" + " " * 300_000 + "`",
        "> " * 150_000 + "`",
        "</think" + " " * 300_000,
        "a:" * 150_000,
    ],
    ids=lambda line: line[:8],
)
def test_a_long_line_takes_no_time(line: str):
    started = time.process_time()
    assert extract(f"{line}\n{BODY.format('1.0')}").source == BODY.format("1.0")
    assert time.process_time() - started < 2.0


def test_code_is_never_cut_off_inside_a_function():
    text = "def compute_reward(obs):\n    x = 1.0\n    It's here that prose begins\n    return x\n"
    assert reason(text)[0] == "syntax"


def test_helper_of_another_block_is_added_only_when_it_is_needed():
    helper = "def helper(x):\n    return x\n"
    other = "def other(x):\n    return x\n"
    text = f"```\n{helper}```\n```\n{other}```\n```python\n{BODY.format('helper(1.0)')}```"
    source = extract(text).source
    assert "def helper" in source
    assert "def other" not in source


def test_what_runs_has_no_imports_and_the_source_stays_as_it_was_written():
    source = "import numpy as np\n\nA = 1  # the weight\n\n\n" + BODY.format("A * np.sum(obs)")
    assert extract(source).source == source
    assert check_source(source, INPUTS) == "A = 1\n\n" + BODY.format("A * np.sum(obs)")


@pytest.mark.parametrize("style", ANSWERS)
def test_checking_a_checked_source_changes_nothing(style: str):
    source = check_code(extract(ANSWERS[style]), INPUTS).source
    assert check_source(source, INPUTS) == source
    assert extract(source).source == source


# ---------------------------------------------------------------------------------------------------------------------
# The check


def test_unknown_variable_gets_the_nearest_and_the_list():
    kind, words = reason("def compute_reward(tcp_centre):\n    return 1.0\n")
    assert kind == "signature"
    assert "did you mean tcp_center" in words
    assert words.endswith("left_pad, right_pad, gripper_opening")
    assert "actions" not in words.split("the variables are")[1]  # each place once, under its first name


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("np.random.normal()", "must be the same for the same inputs"),
        ("np.square_root(obs)", "did you mean"),
        ("tolerence(obs[0])", "did you mean tolerance"),
        ("obs.__len__()", "underscore"),
        ("[x for x in obs if (yield x)]", "generator"),
        ("sorted(map(abs, (x for x in obs)))", "use a list"),
        ("max(*(x for x in obs))", "use a list"),
        ("np.exp(**{'x': 1.0})", "name the arguments"),
        ("10 ** 9 * obs[0]", "integer this large"),
        ("obs[0] ** 1000", "exponent"),
    ],
)
def test_reason_says_what_to_do_instead(code: str, words: str):
    assert words in reason(BODY.format(code))[1]


@pytest.mark.parametrize(
    "code",
    [
        "from math import *\ndef compute_reward(obs):\n    dist = sqrt(abs(obs[0]))\n    return dist * pi\n",
        "def reach(x):\n    place = x\n    return place\ndef place(x):\n    reach = x\n    return reach\n"
        "def compute_reward(obs):\n    return reach(place(obs[0]))\n",
        "def compute_reward(obs):\n    sum = 0.0\n    for x in obs:\n        sum += x\n    return sum\n",
        "def tolerance(x, width=0.1):\n    return max(0.0, 1 - x / width)\n"
        "def compute_reward(obs):\n    return tolerance(obs[0])\n",
        "def compute_reward(obs, obj: 'np.ndarray' = None) -> 'tuple[float, dict]':\n    return obs[..., 0], {}\n",
        "def compute_reward(obs):\n    if (x := obs[0]) > 0:\n        return x\n    raise ValueError('never below')\n",
    ],
)
def test_harmless_habit_passes(code: str):
    assert isinstance(checked(code), str), checked(code)


def test_module_names_are_where_they_are_said_to_be():
    modules = {"np": np, "np.linalg": np.linalg, "reward_utils": reward_utils}
    newer = {"np": {"trapezoid", "row_stack", "bool"}, "np.linalg": {"matrix_norm", "vector_norm", "cross"}}
    for module, names in MODULE_NAMES.items():
        if module in modules:
            assert not {name for name in names if not hasattr(modules[module], name)} - newer.get(module, set())


def test_nothing_dangerous_is_among_the_names():
    banned = {"getattr", "setattr", "eval", "exec", "open", "type", "object", "vars", "globals", "iter", "next", "str"}
    assert not BUILTINS & banned
    banned = {
        "random",
        "load",
        "save",
        "lib",
        "ctypeslib",
        "empty",
        "frombuffer",
        "copyto",
        "put",
        "vectorize",
        "seterr",
    }
    assert not MODULE_NAMES["np"] & banned


# ---------------------------------------------------------------------------------------------------------------------
# Fuzzing: no text crashes the extraction or the check, and what they accept stays within its bounds

_PIECES = [
    *(
        "def compute_reward(obs, obj):\n",
        "def compute_reward(obs",
        "    return ",
        "    x = ",
        "\n",
        "    ",
        "\t",
        "```",
    ),
    *("```python\n", "<think>", "</think>", "np.", "np.linalg.norm(obj)", "math.exp(", ")", "(", "[", "]", "{", "}"),
    *("obs[0]", "obj", "x", "1.0", "10**9", "lambda y: ", "for i in range(3):\n", "if ", "else ", ":\n", " + ", " ** "),
    *(
        "import os\n",
        "import numpy as np\n",
        "from math import exp as e\n",
        "print(x)\n",
        "__class__",
        ".",
        "f'{x:.2f}'",
    ),
    *("'", '"', '"""', "#", "\\", "“", "–", "\u200b", "\x00", "\x0c", "\r\n", "\ud800", "ⅷ", "while True:\n", "yield "),
    *("global np\n", "class A:\n", "@", "async ", "await ", "match x:\n", "case ", ":=", "*", "**", "/", ", ", " = "),
    *("tolerance(", "sum(", "W = {'a': 1.0}\n", "W['a']", "return x, {'x': x}\n", "del x\n", "assert x\n", "-> ", "~"),
]
_CODE = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)
_TEXT = st.one_of(st.text(max_size=300), _CODE, st.tuples(_CODE, st.text(max_size=80), _CODE).map("".join))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_TEXT)
def test_no_text_crashes_extraction_or_check(text: str):
    outcome = checked(text)
    if isinstance(outcome, Rejected):
        assert outcome.kind
        assert "\n" not in outcome.reason
    else:
        assert check_source(outcome, INPUTS) == outcome


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from([*ANSWERS.values()]), st.data())
def test_no_damage_to_an_answer_crashes_extraction_or_check(text: str, data: st.DataObject):
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(start + data.draw(st.integers(0, 30)), len(text))
        text = text[:start] + data.draw(st.sampled_from(["", *_PIECES])) + text[stop:]
    checked(text)


_NUMBERS = st.sampled_from(["0", "1", "2.0", "0.5", "obs[0]", "obj[1]", "x", "math.pi", "-3"])
_EXPRESSIONS = st.recursive(
    _NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " - ", " * ", " / ", " ** ", " % ", " // "]), inner).map(
            lambda parts: f"({parts[0]}{parts[1]}{parts[2]})"
        ),
        st.tuples(
            st.sampled_from(["np.exp", "np.tanh", "abs", "math.sqrt", "math.log", "np.clip", "np.square", "math.cosh"]),
            inner,
        ).map(lambda parts: f"{parts[0]}({parts[1]}{', 0, 1' if parts[0] == 'np.clip' else ''})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} < {parts[2]} else x)"),
        st.tuples(inner, inner).map(lambda parts: f"max({parts[0]}, {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"sum([{parts[0]}, {parts[1]}])"),
    ),
    max_leaves=12,
)


def test_random_functions_are_proved_or_rejected_and_compiled_unchanged():
    """Random formulas: each is rejected with a reason, or gives finite rewards that compilation leaves alone."""
    formulas = []

    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(_EXPRESSIONS)
    def collect(formula: str) -> None:
        formulas.append(formula)

    collect()
    code = [f"def compute_reward(obs, obj):\n    x = obs[2] * 2.0\n    return {formula}\n" for formula in formulas]
    with RewardWorkers(INPUTS, count=2) as workers:
        accepted = [verdict for verdict in workers.check(code, rows(50)) if verdict.accepted]
        assert len(accepted) > 5
        sources = [verdict.source for verdict in accepted]
        fresh = rows(300, seed=1)
        for compiled, interpreted in zip(
            workers.evaluate(sources, fresh), workers.evaluate(sources, fresh, components=True), strict=True
        ):
            if isinstance(interpreted, Evaluation):
                assert isinstance(compiled, Evaluation)
                np.testing.assert_allclose(compiled.rewards, interpreted.rewards, rtol=1e-6, atol=1e-7)
            else:
                assert compiled == interpreted  # the same failure, at the same row, in the same state


# ---------------------------------------------------------------------------------------------------------------------
# Simplification


def test_components_leave_nothing_behind():
    tree = ast.parse(
        "def compute_reward(obs):\n"
        "    d = abs(obs[0])\n"
        "    parts = {'d': d}\n"
        "    parts['e'] = np.exp(d)\n"
        "    seen = []\n"
        "    for x in obs:\n"
        "        seen.append(x)\n"
        "    parts.update({'seen': seen})\n"
        "    return -d, parts\n"
    )
    kept = [node for node in simplified(tree).body[0].body if not isinstance(node, ast.Pass)]
    assert [ast.unparse(node) for node in kept] == ["d = __abs(obs[0])", "return -d"]


def test_what_may_change_the_reward_by_another_name_stays():
    for change in (
        "v = d\n    v *= 9.0",
        "v = d[:2]\n    v[0] = 9.0",
        "for v in (d, obj):\n        v += 1.0",
        "obj -= d",
    ):
        tree = ast.parse(f"def compute_reward(obs, obj):\n    d = obs[:3] - obj\n    {change}\n    return -np.max(d)\n")
        kept = ast.unparse(simplified(tree))
        assert change.split()[-3] in kept


def test_weights_stand_where_they_are_read_unless_a_function_has_its_own():
    code = "W: dict = {'a': 2.5, 'b': 1.5}\ndef compute_reward(obs):\n    return W['a'] * obs[0] + sum(W.values())"
    assert "2.5 * obs[0] + __sum(W.values())" in ast.unparse(simplified(ast.parse(code)))
    own = code.replace("    return", "    W = {'a': obs[1]}\n    return")
    assert "W['a'] * obs[0]" in ast.unparse(simplified(ast.parse(own)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "note"),
    [
        # True + True is True for NumPy's booleans, and 2 for Python's, which comparing a number gives.
        ("near = np.linalg.norm(obj) < 9\n    return 5.0 * (near + (np.max(obj) < 9)) - obj[0]", "sum of booleans"),
        ("near = gripper_opening < 9\n    near += gripper_opening < 8\n    return near - obj[0]", "sum of booleans"),
        ("if obj[0] > -9:\n        stage = 1.0\n    return stage - obj[1]", "uninitialized variable stage"),
        ("if obj[0] > 0:\n        stage = 1.0\n    else:\n        stage = 2.0\n    return stage - obj[1]", ""),
        ("d = np.abs(obj)\n    if obj[0] > 0:\n        v = d\n        v *= 100.0\n    return -np.max(d)", ""),
        ("both = (obj[0] < 0) * (obj[1] < 0)\n    return both - obj[0]", ""),
    ],
)
def test_what_numba_would_take_for_something_else_stays_interpreted(code: str, note: str):
    source = f"def compute_reward(obj, gripper_opening):\n    {code}\n"
    with RewardWorkers(INPUTS) as workers:
        [verdict] = workers.check([source], rows(60))
        assert verdict.accepted, verdict.reason
        assert note in verdict.note
        assert verdict.compiled is not bool(note)
        fast, plain = (
            workers.evaluate([source], rows(200, seed=1), compiled=compiled)[0] for compiled in (True, False)
        )
    assert isinstance(fast, Evaluation)
    assert isinstance(plain, Evaluation)
    np.testing.assert_allclose(fast.rewards, plain.rewards, rtol=1e-6)


def test_a_list_outside_the_functions_is_a_list_that_nothing_can_change():
    reads = "np.sum(obj[AXES]) + np.outer(obj, obj)[AXES].size + len(AXES + [2]) + (AXES == [0, 1]) + AXES.copy().pop()"
    changes = ("AXES[0] = 1.0", "del AXES[0]", "AXES.append(1)", "AXES.sort()", "[a.append for a in [AXES]][0](1)")
    with RewardWorkers(INPUTS) as workers:
        answers = [f"AXES = [0, 1]\ndef compute_reward(obj):\n    return {reads}\n"]
        answers += [f"AXES = [0, 1]\ndef compute_reward(obj):\n    {change}\n    return obj[0]\n" for change in changes]
        answers += ["A = [0.0]\ndef compute_reward(obj):\n    [list.append][0](A, 1.0)\n    return len(A) * obj[0]\n"]
        first, *others = workers.check(answers, rows(20))
        assert first.accepted, first.reason
        [found] = workers.evaluate([first.source], rows(20), components=True)
    assert isinstance(found, Evaluation)
    obj = np.stack([rows(20)["variables"][:, i] for i in _places("obj")], 1).astype(np.float64)
    np.testing.assert_allclose(found.rewards, obj[:, :2].sum(1) + 6 + 3 + 1 + 1, rtol=1e-5)
    assert [verdict.kind for verdict in others] == [*["mutation"] * 5, "attribute"]


def _places(name: str) -> range:
    return range(INPUTS[name].start, INPUTS[name].stop)


# ---------------------------------------------------------------------------------------------------------------------
# The helpers

_X = [-2.0, -0.3, -0.05, 0.0, 0.01, 0.05, 0.1, 0.35, 1.0, 7.0, 1e200, float("inf")]
_BOUNDS = [(0.0, 0.0), (0.0, 0.05), (-0.1, 0.1), (0.05, float("inf")), (float("-inf"), 0.0), (1, 2)]
_MARGINS = [0.0, 0.1, 0.5, 3]


@pytest.mark.parametrize("sigmoid", reward_utils.SIGMOIDS)
def test_tolerance_equals_that_of_metaworld(sigmoid):
    values = (0.0, 0.1, 0.5) if sigmoid in ("cosine", "linear", "quadratic") else (0.1, 0.5, 0.999)
    for x, bounds, margin, value in itertools.product(_X, _BOUNDS, _MARGINS, values):
        with np.errstate(all="ignore"):
            expected = metaworld_reward_utils.tolerance(x, bounds, margin, sigmoid, value)
        ours = reward_utils.tolerance(x, bounds, margin, sigmoid, value)
        assert type(ours) is float
        assert ours == pytest.approx(expected, rel=1e-12, abs=1e-15), (x, bounds, margin, value)


def test_tolerance_of_an_array_is_that_of_its_elements():
    x = np.array([_X, _X[::-1]])
    with np.errstate(all="ignore"):
        expected = metaworld_reward_utils.tolerance(x, (0.0, 0.05), 0.3, "long_tail")
    np.testing.assert_allclose(reward_utils.tolerance(x, (0.0, 0.05), 0.3, "long_tail"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bounds": (1.0, 0.0)},
        {"margin": -0.1},
        {"margin": 1.0, "sigmoid": "round"},
        {"margin": 1.0, "sigmoid": "round", "x": 0.0},
        {"margin": 1.0, "value_at_margin": 0.0},
        {"margin": 1.0, "value_at_margin": 1.0, "sigmoid": "linear"},
        {"margin": 1.0, "value_at_margin": 1.5, "x": 0.0},
    ],
)
def test_tolerance_refuses_what_metaworld_refuses(arguments: dict):
    for tolerance in (reward_utils.tolerance, metaworld_reward_utils.tolerance):
        with pytest.raises(ValueError, match=r".+"):
            tolerance(**{"x": 2.0, **arguments})


def test_hamacher_product_equals_that_of_metaworld():
    for a, b in itertools.product([0.0, 1e-9, 0.3, 0.999, 1.0], repeat=2):
        assert reward_utils.hamacher_product(a, b) == metaworld_reward_utils.hamacher_product(a, b)
    for a, b in ((-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)):
        for product in (reward_utils.hamacher_product, metaworld_reward_utils.hamacher_product):
            with pytest.raises(ValueError, match=r".+"):
                product(a, b)


def test_inverse_and_box_equal_those_of_metaworld():
    for x, margin in itertools.product((-0.2, 0.0, 0.03, 0.2), (0.0, 0.4)):
        expected = metaworld_reward_utils.inverse_tolerance(x, (0.0, 0.1), margin, "linear")
        assert reward_utils.inverse_tolerance(x, (0.0, 0.1), margin, "linear") == pytest.approx(expected, rel=1e-12)
    random = np.random.default_rng(0)
    zero, one = np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 0.0])
    for point in random.uniform(-0.5, 2.0, (200, 3)):
        expected = metaworld_reward_utils.rect_prism_tolerance(point, zero, one)
        assert reward_utils.rect_prism_tolerance(point, zero, one) == pytest.approx(expected, rel=1e-12)


def test_helpers_give_the_same_compiled():
    """All shapes of tolerance, with bounds and margins that come from the row, and the other helpers."""
    code = [
        f"""def compute_reward(obj, target, gripper_opening):
    shaped = tolerance(obj[0], bounds=(target[0] - 0.2, target[0] + 0.1), margin=gripper_opening, sigmoid="{sigmoid}")
    near = tolerance(obj[1], (0, 0.05), 0.2, "{sigmoid}", value_at_margin=0.3)
    edge = inverse_tolerance(obj[2], (0.0, 0.1)) + rect_prism_tolerance(obj, np.zeros(3), target + 1.0)
    return 2.0 * hamacher_product(shaped, near) + shaped + edge
"""
        for sigmoid in reward_utils.SIGMOIDS
    ]
    with RewardWorkers(INPUTS, count=2) as workers:
        verdicts = workers.check(code, rows(100))
        assert [verdict.note for verdict in verdicts] == [""] * len(code)
        fresh = rows(1000, seed=1)
        for verdict in verdicts:
            compiled = workers.evaluate([verdict.source], fresh)[0]
            interpreted = workers.evaluate([verdict.source], fresh, components=True)[0]
            assert isinstance(compiled, Evaluation)
            assert isinstance(interpreted, Evaluation)
            np.testing.assert_allclose(compiled.rewards, interpreted.rewards, rtol=1e-6, atol=1e-7)


def test_alphabet_of_names():
    """Names are plain words, so that no list hides a character that looks like another."""
    plain = set(string.ascii_letters + string.digits + "_")
    assert all(set(name) <= plain for names in (*MODULE_NAMES.values(), BUILTINS) for name in names)


# ---------------------------------------------------------------------------------------------------------------------
# States to try


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1.0], "a state is a JSON object"),
        ({"objj": [1.0, 2.0, 3.0]}, "did you mean obj"),
        ({"obj": [1.0]}, r"obj must have the shape \(3,\)"),
        ({"obj": [10**400, 0, 0]}, r"obj must have the shape \(3,\)"),
        ({"gripper_opening": "wide"}, r"gripper_opening must have the shape \(\)"),
    ],
)
def test_a_state_that_is_none_is_named(state, words: str):
    with pytest.raises(UsageError, match=words):
        _columns_of(SimpleNamespace(name="slide", inputs=INPUTS), state, rows(1))


def test_a_state_takes_the_place_of_a_row():
    columns = _columns_of(
        SimpleNamespace(name="slide", inputs=INPUTS), {"obj": [1, 2, 3], "gripper_opening": 4}, rows(2)
    )
    expected = {name: column[:1].copy() for name, column in rows(2).items()}
    expected["variables"][0, 3:6], expected["variables"][0, 21] = (1, 2, 3), 4
    for name, column in expected.items():
        np.testing.assert_array_equal(columns[name], column)
