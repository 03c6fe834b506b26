"""What to report about a task's states: where its things are relative to each other, and what decides success."""

import ast
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.success import compared_quantities
from tasks.task import Task, compile_expression
from tasks.tidy_source import loaded_names

_WAYS = (("gripper", "object"), ("object", "goal"))  # roles: what has to come to what
_WAYS_WITHOUT_OBJECT = (("gripper", "goal"),)


class Measures:
    """Computes a task's measures from the columns of its states.

    Attributes:
        ways: (what has to come, to what), names of variables, in the order in which it happens.
    """

    def __init__(self, task: Task) -> None:
        self._inputs = task.inputs
        has_object = any(variable.role == "object" for variable in task.variables)
        self.ways = _pairs(task, _WAYS if has_object else _WAYS_WITHOUT_OBJECT)
        self._judged = {}  # a side of a comparison in the criterion, as code: the inputs that it reads, and a function
        for source in compared_quantities(task.success_expression, task.inputs.keys()):
            names = [name for name in task.inputs if name in loaded_names(ast.parse(source))]
            self._judged[source] = names, compile_expression(source, ", ".join(names))

    def course(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what is left of each way, and the numbers that the criterion compares, in each row, (n,) float64 each.

        What is not finite in some row is left out, and so are duplicates.

        Args:
            columns: the columns that hold the inputs (see `task.Input`), n rows each.
        """
        found = {
            f"distance from {first} to {second}": np.linalg.norm(difference, axis=1)
            for (first, second), difference in self.differences(columns).items()
        }
        for source, (names, quantity) in self._judged.items():
            rows = zip(*(self.column(name, columns) for name in names), strict=True)
            values = [np.asarray(quantity(*row)) for row in rows]
            if all(value.size == 1 and np.isfinite(value).all() for value in values):
                series = np.array([value.item() for value in values], np.float64)
                if not any(np.allclose(series, other) for other in found.values()):
                    found[source] = series
        return found

    def differences(self, columns: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
        """Return, for each way, the position of what has to come relative to where it has to come, (n, d) float64."""
        found = {}
        for first, second in self.ways:
            difference = self.column(first, columns) - self.column(second, columns)
            found[first, second] = difference.reshape(len(difference), -1)
        return found

    def column(self, name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return an input's values in all rows, (n, *shape) float64."""
        place = self._inputs[name]
        values = columns[place.column][:, place.start : place.stop].astype(np.float64)
        return values.reshape(len(values), *place.shape)


def _pairs(task: Task, roles: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the names of all pairs of variables with such roles and equal shapes."""
    return [
        (first.name, second.name)
        for pair in roles
        for first, second in itertools.product(task.variables, repeat=2)
        if (first.role, second.role) == pair and first.shape == second.shape
    ]
