"""What reward code defines outside its functions, frozen: no call can leave anything in it for the next."""

import types
from collections.abc import Iterable
from typing import Any

import numpy as np

from reward_code.syntax import Rejected

_STATELESS = (
    *(int, float, complex, str, range, np.number, np.bool_),
    *(types.NoneType, types.EllipsisType, types.GenericAlias, types.UnionType),
)


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError("a list outside the functions does not support item assignment; copy it first")


class _FrozenList(list[Any]):
    """A list that no call can change. A tuple would not do, which means something else as an index."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse


class Constants:
    """What is defined outside the functions, frozen so that no call can leave anything in it for the next.

    Args:
        given: what the code's namespace has at the start; the code may give it other names.
    """

    def __init__(self, given: Iterable[Any]) -> None:
        self._given = {id(value) for value in given}

    def frozen(self, name: str, value: Any) -> Any:
        """The value of the constant `name`, or of a part of it. Raises Rejected for what might keep a state."""
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufcU":
            value.setflags(write=False)
            return value
        if isinstance(value, (list, tuple)):
            return (tuple if isinstance(value, tuple) else _FrozenList)(self.frozen(name, part) for part in value)
        if isinstance(value, (set, frozenset)):
            return frozenset(self.frozen(name, part) for part in value)
        if isinstance(value, dict):
            return types.MappingProxyType({key: self.frozen(name, part) for key, part in value.items()})
        if isinstance(value, slice):
            return slice(*(self.frozen(name, part) for part in (value.start, value.stop, value.step)))
        own = isinstance(value, types.FunctionType) and value.__closure__ is None
        if own or isinstance(value, _STATELESS) or id(value) in self._given:
            return value
        kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        allowed = "numbers, strings and arrays of numbers, and tuples, lists, dicts and sets of these"
        raise Rejected("mutation", f"{name} holds a value of the type {kind}; outside functions there may be {allowed}")
