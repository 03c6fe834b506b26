"""Shaping functions that reward functions may call, with the semantics of MetaWorld's ``reward_utils``.

The shapes are those of dm_control's ``rewards`` module (Tassa et al., "dm_control: Software and Tasks for Continuous
Control", 2020), which MetaWorld adopted and extended. All arithmetic is on one number at a time in plain Python, so
that the same code runs interpreted and compiled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from errors import nearest

__all__ = ["hamacher_product", "inverse_tolerance", "rect_prism_tolerance", "tolerance"]


def gaussian(x: float, value_at_1: float) -> float:
    """A bell curve."""
    return math.exp(math.log(value_at_1) * x * x)


def hyperbolic(x: float, value_at_1: float) -> float:
    """One over a hyperbolic cosine, written so that it cannot overflow."""
    decay = math.exp(-abs(x * math.acosh(1 / value_at_1)))
    return 2 * decay / (1 + decay * decay)


def long_tail(x: float, value_at_1: float) -> float:
    """Falls like the inverse square."""
    return 1 / (x * x * (1 / value_at_1 - 1) + 1)


def reciprocal(x: float, value_at_1: float) -> float:
    """Falls like the inverse."""
    return 1 / (abs(x) * (1 / value_at_1 - 1) + 1)


def cosine(x: float, value_at_1: float) -> float:
    """Half a cosine wave, then 0."""
    scaled = x * math.acos(2 * value_at_1 - 1)
    return (1 + math.cos(scaled)) / 2 if abs(scaled) < math.pi else 0.0


def linear(x: float, value_at_1: float) -> float:
    """A straight line, then 0."""
    scaled = x * (1 - value_at_1)
    return 1 - scaled if abs(scaled) < 1 else 0.0


def quadratic(x: float, value_at_1: float) -> float:
    """A parabola, then 0."""
    scaled = x * x * (1 - value_at_1)
    return 1 - scaled if scaled < 1 else 0.0


def tanh_squared(x: float, value_at_1: float) -> float:
    """One minus a squared hyperbolic tangent."""
    value = math.tanh(x * math.atanh(math.sqrt(1 - value_at_1)))
    return 1 - value * value


Shape = Callable[[float, float], float]
ScalarTolerance = Callable[[float, float, float, float, float], float]

SIGMOIDS: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (gaussian, hyperbolic, long_tail, reciprocal, cosine, linear, quadratic, tanh_squared)
}
_REACH_ZERO = ("cosine", "linear", "quadratic")


def scalar_tolerance(sigmoid: str, shape: Shape) -> ScalarTolerance:
    """Return :func:`tolerance` for one number and one `sigmoid`, whose function is `shape`, plain or compiled."""
    reaches_zero = sigmoid in _REACH_ZERO

    def tolerance_of(x: float, lower: float, upper: float, margin: float, value_at_margin: float) -> float:
        if lower > upper:
            raise ValueError("tolerance: the lower bound is above the upper one")
        if margin < 0:
            raise ValueError("tolerance: the margin is negative")
        if margin == 0:
            return 1.0 if lower <= x <= upper else 0.0
        if not (0 < value_at_margin < 1 or (reaches_zero and value_at_margin == 0)):
            raise ValueError("tolerance: value_at_margin must be between 0 and 1")
        if lower <= x <= upper:
            return 1.0
        return shape((lower - x if x < lower else x - upper) / margin, value_at_margin)

    return tolerance_of


_TOLERANCES = {sigmoid: scalar_tolerance(sigmoid, shape) for sigmoid, shape in SIGMOIDS.items()}


def tolerance(
    x: Any,
    bounds: Sequence[float] = (0.0, 0.0),
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """1 where `x` lies within `bounds`, falling to 0 outside of them.

    Args:
        x: a number, or an array of any shape.
        bounds: (lower, upper), both inclusive; either may be infinite, and they may be equal.
        margin: distance from the bounds, in the unit of `x`, at which the value has fallen to `value_at_margin`;
            0 gives 0 everywhere outside.
        sigmoid: the shape of the falloff, a key of :data:`SIGMOIDS`.
        value_at_margin: strictly between 0 and 1; `cosine`, `linear` and `quadratic` allow 0 too.

    Returns:
        A float in [0, 1], or an array of them in the shape of `x`.

    Raises:
        ValueError: crossed bounds, a negative margin, or, when the margin is not 0, an unknown `sigmoid` or a
            `value_at_margin` out of range.
    """
    shaped = _TOLERANCES.get(sigmoid)
    if shaped is None:
        if margin > 0:
            known = nearest(sigmoid, SIGMOIDS)
            raise ValueError(f"tolerance: no sigmoid {sigmoid!r}, only {', '.join(SIGMOIDS)}{known}")
        shaped = _TOLERANCES["gaussian"]
    lower, upper = bounds
    if isinstance(x, np.ndarray):
        values = [shaped(value, lower, upper, margin, value_at_margin) for value in x.ravel().tolist()]
        return np.array(values, dtype=float).reshape(x.shape)
    return shaped(float(x), lower, upper, margin, value_at_margin)


def inverse_tolerance(
    x: Any, bounds: Sequence[float] = (0.0, 0.0), margin: float = 0.0, sigmoid: str = "reciprocal"
) -> Any:
    """0 where `x` lies within `bounds`, rising to 1 outside: one minus :func:`tolerance` with 0 at the margin.

    Raises:
        ValueError: as :func:`tolerance`; so with a margin, only `cosine`, `linear` and `quadratic` work.
    """
    return 1 - tolerance(x, bounds, margin, sigmoid, 0.0)


def rect_prism_tolerance(curr: np.ndarray, zero: np.ndarray, one: np.ndarray) -> float:
    """Inside the box between the corners `zero` and `one`, the product of the three relative coordinates; outside, 1.

    Args:
        curr: the point, (3,).
        zero: the corner at which the value is 0, (3,).
        one: the opposite corner, at which it is 1, (3,).
    """
    product = 1.0
    for axis in range(3):
        lower, upper = min(zero[axis], one[axis]), max(zero[axis], one[axis])
        if not lower <= curr[axis] <= upper:
            return 1.0
        product *= (curr[axis] - zero[axis]) / (one[axis] - zero[axis])
    return product


def hamacher_product(a: float, b: float) -> float:
    """The Hamacher t-norm ``ab / (a + b - ab)``, a soft "and" of two values in [0, 1]; 0 when both are 0.

    Raises:
        ValueError: a value outside of [0, 1].
    """
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        raise ValueError("hamacher_product: both values must lie in [0, 1]")
    denominator = a + b - a * b
    return a * b / denominator if denominator > 0 else 0.0
