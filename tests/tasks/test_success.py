"""The distance from success that a criterion measures."""

import numpy as np
import pytest

from tasks.success import compared_quantities, success_measure


@pytest.mark.parametrize(
    ("expression", "solved", "near", "far"),
    [
        ("abs(x) <= 0.05", {"x": 0.0}, {"x": -0.1}, {"x": 0.3}),
        ("0.05 >= abs(x)", {"x": 0.0}, {"x": -0.1}, {"x": 0.3}),
        ("np.linalg.norm(v) < 0.1", {"v": np.zeros(3)}, {"v": np.full(3, 0.2)}, {"v": np.full(3, 0.4)}),
        ("x > y", {"x": 1.0, "y": 0.5}, {"x": 0.4, "y": 0.5}, {"x": 0.1, "y": 0.5}),
        ("0.1 < x <= 0.2", {"x": 0.15}, {"x": 0.3}, {"x": -0.5}),
        ("abs(x) <= 0.1 and y > 0.3", {"x": 0.0, "y": 0.4}, {"x": 0.0, "y": 0.2}, {"x": 0.3, "y": 0.2}),
        ("x > 1 or y > 1", {"x": 1.5, "y": 0.0}, {"x": 0.8, "y": 0.0}, {"x": 0.5, "y": 0.6}),
        ("float(abs(x - 1) <= np.pi / 24)", {"x": 1.0}, {"x": 1.3}, {"x": 2.0}),
        ("abs(x) <= 0.1\nand y > 0.3", {"x": 0.0, "y": 0.4}, {"x": 0.0, "y": 0.2}, {"x": 0.3, "y": 0.2}),
        ("abs(x) <= y", {"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.2}, {"x": 0.6, "y": 0.2}),
    ],
)
def test_the_measure_of_success_falls_on_the_way_to_it(expression, solved, near, far):
    measure = success_measure(expression)
    values = [eval(measure, {"np": np}, variables) for variables in (solved, near, far)]
    assert values[0] == pytest.approx(0.0)
    assert 0 < values[1] < values[2]
    truths = [eval(f"({expression})", {"np": np}, variables) for variables in (solved, near, far)]
    assert truths == [True, False, False]


@pytest.mark.parametrize("expression", ["", "solved", "x == 1", "x in y", "not (x < 1)", "x <", "x < 1 and solved"])
def test_what_compares_no_numbers_has_no_measure(expression):
    assert success_measure(expression) is None


@pytest.mark.parametrize(
    ("expression", "compared"),
    [
        ("abs(x) <= 0.1 and y > z", ["abs(x)", "y", "z"]),
        ("np.linalg.norm(x - y) < 0.1 * 2", ["np.linalg.norm(x - y)"]),
        ("all(abs(value - y) < 0.1 for value in x)", []),
        ("abs(x) <= 0.1\nand True", ["abs(x)"]),
        ("bool(x)", []),
        ("", []),
    ],
)
def test_what_a_criterion_compares(expression, compared):
    assert compared_quantities(expression, {"x", "y", "z"}) == compared
