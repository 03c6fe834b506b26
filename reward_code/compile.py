"""Reward functions as machine code: a loop over rows, compiled by Numba.

Numba supports a part of Python and of NumPy. What can be rewritten is first brought into that part (see
`reward_code.simplify`); functions of NumPy that Numba has for arrays only, or only through SciPy, are added here.

Nothing here guarantees that the compiled form is right: its user compares it with the interpreted one.
"""

import ast
import math
import operator
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types as kinds
from numba.core import config, ir
from numba.extending import overload, register_jitable

import reward_utils
from reward_code import names
from reward_code.simplify import simplified
from reward_code.syntax import ANNOTATIONS_STAY_TEXT

# Bounds are checked, and a division by zero raises, as in Python; nothing is reordered. What only machine code calls
# needs no wrapper for Python, and nothing needs one for C; the wrappers are a tenth of the compilation time.
_OPTIONS: dict[str, Any] = {
    **{"nopython": True, "boundscheck": True, "error_model": "python", "fastmath": False},
    "no_cfunc_wrapper": True,
}
# Where no statement on the way has set a variable, Numba lets it be zero; this makes it say so.
config.ALWAYS_WARN_UNINIT_VAR = 1  # type: ignore[attr-defined]
_CALLED_BY_MACHINE_CODE: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True}


def compile_rows(source: str, shapes: Sequence[tuple[int, ...]]) -> Callable[..., None]:
    """The checked `source` as a loop over rows.

    Args:
        source: code that defines ``compute_reward``.
        shapes: for each of its parameters () or (n,).

    Returns:
        A function of ``(rewards, *arguments)``, which fills `rewards` (rows,) float64 from read-only float64 arrays
        (rows,) or (rows, n). A row for which the function raises gets NaN.

    Raises:
        Exception: of many kinds, when Numba cannot compile it.
    """
    namespace = names.namespace({"np": _NUMPY, "np.linalg": {"norm": _norm}, "math": _MATH})
    namespace.update(_BUILTINS)
    tree = simplified(ast.parse(source))
    exec(compile(tree, "<reward>", "exec", ANNOTATIONS_STAY_TEXT, dont_inherit=True), namespace)
    for name, value in namespace.items():
        if isinstance(value, types.FunctionType) and value.__globals__ is namespace:
            namespace[name] = numba.jit(**_CALLED_BY_MACHINE_CODE)(value)
    arguments = [f"a{index}" for index in range(len(shapes))]
    call = ", ".join(f"{argument}[row]" for argument in arguments)
    loop = f"""
def rows(rewards, {", ".join(arguments)}):
    for row in range(rewards.shape[0]):
        try:
            rewards[row] = __number(compute_reward({call}))
        except Exception:
            rewards[row] = np.nan
"""
    exec(loop, namespace)
    rows = numba.jit(**_OPTIONS)(namespace["rows"])
    inputs = [kinds.Array(kinds.float64, 1 + len(shape), "C", readonly=True) for shape in shapes]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", '[^\n]*uninitialized variable[^\n]*\\s+File "<reward>"')
        rows.compile((kinds.Array(kinds.float64, 1, "C"), *inputs))
    for function in namespace.values():
        _refuse_sums_of_booleans(function)
    return rows


def _refuse_sums_of_booleans(function: Any) -> None:
    """Raise TypeError where booleans are added or negated: True + True is 2 in Python and Numba, and True in NumPy."""
    for annotation in [compiled.type_annotation for compiled in getattr(function, "overloads", {}).values()]:
        for part in annotation.calltypes:
            computes = isinstance(part, ir.Expr) and part.op in ("binop", "inplace_binop", "unary")
            kinds_of = [annotation.typemap[operand.name] for operand in part.list_vars()] if computes else []
            if computes and part.fn in _OF_NUMBERS and all(isinstance(kind, kinds.Boolean) for kind in kinds_of):
                raise TypeError("a sum of booleans may be a boolean or a number")


_OF_NUMBERS = (operator.add, operator.iadd, operator.sub, operator.isub, operator.neg, operator.pos)


def warm_up() -> None:
    """Have Numba load what it loads with the first compilation; after that it opens no more files."""
    compile_rows("def compute_reward(x):\n    return 2.0 * x\n", [()])


# ---------------------------------------------------------------------------------------------------------------------
# What Numba does not support, or does differently from Python

# A stand-in is what a name in the code means here. An overload implements it for Numba: given the types of the
# arguments, it returns a function to compile, or None for "not for these"; the reward then stays interpreted.


def _stand_ins(*functions: Callable[..., Any]) -> list[Callable[..., Any]]:
    def stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **keywords: function(*arguments, **keywords)  # interpreted, when used in a constant

    return [stand_in(function) for function in functions]


_number, _float, _abs, _any, _all, _total = _stand_ins(float, float, abs, any, all, sum)
_sum, _mean, _max, _min, _prod = _stand_ins(np.sum, np.mean, np.max, np.min, np.prod)
_array, _clip, _cross, _dot, _norm = _stand_ins(np.array, np.clip, np.cross, np.dot, np.linalg.norm)
_dist, _fsum, _isclose = _stand_ins(math.dist, math.fsum, math.isclose)


def _is_sequence(kind: kinds.Type) -> bool:
    return isinstance(kind, (kinds.List, kinds.UniTuple))


def _is_vector(kind: kinds.Type) -> bool:
    return isinstance(kind, kinds.Array) and kind.ndim == 1


def _is_number(kind: kinds.Type) -> bool:
    return isinstance(kind, (kinds.Number, kinds.Boolean))


@overload(_number, strict=False)
def _compile_number(x: Any) -> Any:
    if isinstance(x, kinds.BaseTuple) and len(x) > 0:
        return lambda x: _number(x[0])
    if isinstance(x, kinds.Array) and x.ndim > 0:
        return lambda x: _float(x.item())  # which raises for more than one element
    return _compile_float(x)


@overload(_float, strict=False)
def _compile_float(x: Any) -> Any:
    if isinstance(x, kinds.StringLiteral):
        value = float(x.literal_value)
        return lambda x: value
    if isinstance(x, kinds.Boolean):
        return lambda x: 1.0 if x else 0.0
    if isinstance(x, kinds.Array) and x.ndim == 0:
        return lambda x: _float(x[()])
    return (lambda x: np.float64(x)) if _is_number(x) else None


@overload(_abs, strict=False)
def _compile_abs(x: Any) -> Any:
    return (lambda x: np.abs(x)) if isinstance(x, kinds.Array) else (lambda x: abs(x))


@overload(_any, strict=False)
def _compile_any(values: Any) -> Any:
    def any_of(values: Any) -> bool:
        for value in values:  # noqa: SIM110 (Numba has no generators)
            if value:
                return True
        return False

    return any_of


@overload(_all, strict=False)
def _compile_all(values: Any) -> Any:
    def all_of(values: Any) -> bool:
        for value in values:  # noqa: SIM110
            if not value:
                return False
        return True

    return all_of


@overload(_total, strict=False)
def _compile_total(values: Any, start: Any = 0) -> Any:
    def total_of(values: Any, start: Any = 0) -> Any:
        total = start
        for value in values:
            total += value
        return total

    return total_of


def _also_for_sequences(function: Callable[..., Any], stand_in: Callable[..., Any]) -> None:
    """Give Numba a `function` of one array for lists, tuples and single numbers as well, as in NumPy."""

    @overload(stand_in, strict=False)
    def compile_it(values: Any) -> Any:
        if _is_number(values):
            return lambda values: values
        if _is_sequence(values):
            return lambda values: function(np.array(values))
        return (lambda values: function(values)) if isinstance(values, kinds.Array) else None


for _function, _name in ((np.sum, _sum), (np.mean, _mean), (np.max, _max), (np.min, _min), (np.prod, _prod)):
    _also_for_sequences(_function, _name)


@overload(_array, strict=False)
def _compile_array(values: Any, dtype: Any = None) -> Any:
    if dtype is None or isinstance(dtype, (kinds.Omitted, kinds.NoneType)):
        if isinstance(values, kinds.Array):
            return lambda values, dtype=None: values.copy()
        return lambda values, dtype=None: np.array(values)
    if isinstance(values, kinds.Array):
        return lambda values, dtype=None: values.astype(dtype)
    return lambda values, dtype=None: np.array(values, dtype=dtype)


@overload(_clip, strict=False)
def _compile_clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    if not _is_number(a):
        return lambda a, a_min=None, a_max=None: np.clip(a, a_min, a_max)
    if not (_is_number(a_min) and _is_number(a_max)):
        return None

    def clip(a: Any, a_min: Any = None, a_max: Any = None) -> float:
        raised = a_min if a < a_min else a
        return np.float64(a_max if raised > a_max else raised)

    return clip


@overload(_dot, strict=False)
def _compile_dot(a: Any, b: Any) -> Any:
    def dot(a: Any, b: Any) -> float:
        if a.shape[0] != b.shape[0]:
            raise ValueError("shapes not aligned")
        total = 0.0
        for index in range(a.shape[0]):
            total += a[index] * b[index]
        return total

    return dot if _is_vector(a) and _is_vector(b) else None


@overload(_norm, strict=False)
def _compile_norm(x: Any, ord: Any = None) -> Any:
    if not _is_vector(x):
        return None
    if ord is None or isinstance(ord, (kinds.Omitted, kinds.NoneType)):

        def norm(x: Any, ord: Any = None) -> float:
            total = 0.0
            for value in x:
                total += value * value
            return math.sqrt(total)

        return norm

    def norm_of_order(x: Any, ord: Any = None) -> float:
        total, largest = 0.0, 0.0
        for value in x:
            total += abs(value) if ord == 1 else value * value
            largest = max(largest, abs(value))
        if ord == 1:
            return total
        if ord == 2:
            return math.sqrt(total)
        if ord == np.inf:
            return largest
        raise ValueError("order of a norm")

    return norm_of_order


@overload(_cross, strict=False)
def _compile_cross(a: Any, b: Any) -> Any:
    def cross(a: Any, b: Any) -> Any:
        if a.shape[0] != 3 or b.shape[0] != 3:
            raise ValueError("not in three dimensions")
        return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])

    return cross if _is_vector(a) and _is_vector(b) else None


@overload(reward_utils.tolerance, strict=False, prefer_literal=True)
def _compile_tolerance(
    x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", value_at_margin: Any = 0.1
) -> Any:
    of_number = _tolerance_of_number(x, sigmoid)

    def tolerance(
        x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "gaussian", value_at_margin: Any = 0.1
    ) -> float:
        return of_number(float(x), float(bounds[0]), float(bounds[1]), float(margin), float(value_at_margin))

    return of_number and tolerance


@overload(reward_utils.inverse_tolerance, strict=False, prefer_literal=True)
def _compile_inverse_tolerance(x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "reciprocal") -> Any:
    of_number = _tolerance_of_number(x, sigmoid)

    def inverse(x: Any, bounds: Any = (0.0, 0.0), margin: Any = 0.0, sigmoid: Any = "reciprocal") -> float:
        return 1.0 - of_number(float(x), float(bounds[0]), float(bounds[1]), float(margin), 0.0)

    return of_number and inverse


def _tolerance_of_number(x: Any, sigmoid: Any) -> Any:
    """The tolerance for a number and a sigmoid that is named in the code; None for anything else."""
    name = getattr(sigmoid, "literal_value", getattr(sigmoid, "value", sigmoid))
    return _TOLERANCES.get(name) if _is_number(x) and isinstance(name, str) else None


_TOLERANCES = {
    sigmoid: register_jitable(reward_utils.scalar_tolerance(sigmoid, register_jitable(shape)))
    for sigmoid, shape in reward_utils.SIGMOIDS.items()
}


@overload(_dist, strict=False)
def _compile_dist(p: Any, q: Any) -> Any:
    def dist(p: Any, q: Any) -> float:
        if len(p) != len(q):
            raise ValueError("points in different dimensions")
        total = 0.0
        for index in range(len(p)):
            total += (p[index] - q[index]) ** 2
        return math.sqrt(total)

    return dist


@overload(_fsum, strict=False)
def _compile_fsum(values: Any) -> Any:
    return lambda values: np.sum(np.array(values))


@overload(_isclose, strict=False)
def _compile_isclose(a: Any, b: Any, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> Any:
    def isclose(a: Any, b: Any, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> bool:
        return a == b or abs(a - b) <= max(rel_tol * max(abs(a), abs(b)), abs_tol)

    return isclose


def _guarded(function: Callable[[float], float]) -> Callable[[float], float]:
    """A function of ``math`` that raises where Python's does, instead of returning NaN or infinity."""

    @numba.jit(**_OPTIONS)
    def guarded(x: float) -> float:
        y = function(x)
        if not math.isfinite(y) and math.isfinite(x):
            raise ValueError("math domain or range error")
        return y

    return guarded


def _guarded_of_two(function: Callable[[float, float], float]) -> Callable[[float, float], float]:
    @numba.jit(**_OPTIONS)
    def guarded(x: float, y: float) -> float:
        z = function(x, y)
        if not math.isfinite(z) and math.isfinite(x) and math.isfinite(y):
            raise ValueError("math domain or range error")
        return z

    return guarded


_BUILTINS: dict[str, Any] = {
    "__number": _number,
    "__float": _float,
    "__abs": _abs,
    "__any": _any,
    "__all": _all,
    "__sum": _total,
}
_NUMPY: dict[str, Any] = {
    **dict.fromkeys(("array", "asarray", "copy"), _array),
    **dict.fromkeys(("max", "amax"), _max),
    **dict.fromkeys(("min", "amin"), _min),
    **dict.fromkeys(("dot", "inner", "vdot", "matmul"), _dot),
    **{"clip": _clip, "cross": _cross, "mean": _mean, "prod": _prod, "sum": _sum},
}
_MATH: dict[str, Any] = {
    **{"dist": _dist, "fsum": _fsum, "isclose": _isclose, "prod": _prod},
    **{name: _guarded_of_two(getattr(math, name)) for name in ("fmod", "pow")},
    **{
        name: _guarded(getattr(math, name))
        for name in (
            *("acos", "acosh", "asin", "atanh", "cosh", "exp", "expm1", "gamma", "lgamma", "log", "log10", "log1p"),
            *("log2", "sinh", "sqrt"),
        )
        if hasattr(math, name)
    },
}
register_jitable(reward_utils.hamacher_product)
register_jitable(reward_utils.rect_prism_tolerance)
