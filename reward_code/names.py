"""What a reward function may use besides its arguments: the names that the check allows and its namespace has."""

import builtins
import math
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

import reward_utils


def words(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


# What a reward function may use of each module. Nothing in NumPy that touches files, memory layout, global state or
# randomness, or that returns uninitialised memory (np.empty).
MODULE_NAMES: dict[str, frozenset[str]] = {
    "np": words("""
        abs absolute add all allclose amax amin any append arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh
        argmax argmin argsort argwhere around array array_equal asanyarray asarray atleast_1d atleast_2d average bool
        bool_ broadcast_to cbrt ceil clip column_stack concatenate copy copysign cos cosh count_nonzero cross cumprod
        cumsum deg2rad degrees diag diff divide dot double e einsum equal euler_gamma exp exp2 expand_dims expm1 eye
        fabs flip float32 float64 float_power floating floor floor_divide fmax fmin fmod full full_like greater
        greater_equal heaviside hstack hypot identity inf inner int32 int64 int_ integer interp isclose isfinite isin
        isinf isnan isscalar less less_equal linalg linspace log log10 log1p log2 logaddexp logical_and logical_not
        logical_or logical_xor matmul max maximum mean median min minimum mod multiply nan nan_to_num nanmax nanmean
        nanmin nansum ndarray ndim negative newaxis nonzero not_equal number ones ones_like outer percentile pi
        piecewise polyval power prod ptp quantile rad2deg radians ravel reciprocal remainder repeat reshape rint roll
        round searchsorted select shape sign signbit sin sinc single sinh size sort sqrt square squeeze stack std
        subtract sum take tan tanh tile trace transpose trapezoid tri tril triu true_divide trunc unique unwrap vander
        var vdot vstack where zeros zeros_like
        """),
    "np.linalg": words("cond cross det eigvalsh inv lstsq matrix_norm norm pinv solve vector_norm"),
    "math": words("""
        acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs
        floor fmod fsum gamma hypot inf isclose isfinite isinf isnan lgamma log log10 log1p log2 nan pi pow prod
        radians sin sinh sqrt sumprod tan tanh tau trunc
        """),
    "reward_utils": frozenset(reward_utils.__all__),
}

BUILTINS = words("""
    abs all any bool dict divmod enumerate filter float frozenset int isinstance len list map max min pow range reversed
    round set slice sorted sum tuple zip
    ArithmeticError AssertionError Exception RuntimeError TypeError ValueError ZeroDivisionError
    """)

MOST_COMPONENTS = 64  # of a reward that are kept; further ones are left out

IN_WORDS = "np, math, the functions of reward_utils and simple builtins"


def namespace(instead: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})) -> dict[str, Any]:
    """A fresh namespace with all these names, in which code can overwrite nothing that others use.

    Args:
        instead: for each module of :data:`MODULE_NAMES`, what to put in the place of some of its names.
    """
    linalg = _view(np.linalg, "np.linalg", instead)
    return {
        "__builtins__": {"__import__": _import, **{name: getattr(builtins, name) for name in BUILTINS}},
        "np": _view(np, "np", {**instead, "np": {**instead.get("np", {}), "linalg": linalg}}),
        "math": _view(math, "math", instead),
        "reward_utils": _view(reward_utils, "reward_utils", instead),
        **{name: getattr(reward_utils, name) for name in reward_utils.__all__},
    }


def _import(name: str, *_: Any) -> types.ModuleType:
    """A part of NumPy that is loaded already.

    NumPy's methods, its errors and its printing are partly written in Python; NumPy imports them when they are first
    needed, through the builtins of its caller.
    """
    if name.split(".")[0] == "numpy" and name in sys.modules:
        return sys.modules[name]
    raise ImportError(f"no module {name} for a reward function")


def _view(module: types.ModuleType, name: str, instead: Mapping[str, Mapping[str, Any]]) -> types.ModuleType:
    view = types.ModuleType(name)
    there = {attribute: getattr(module, attribute) for attribute in MODULE_NAMES[name] if hasattr(module, attribute)}
    vars(view).update({**there, **instead.get(name, {})})
    return view
