"""``python -m reward_code check FILE --task TASK``: checks the code in a file as a run checks an answer."""

import sys
from pathlib import Path

if __name__ == "__main__":  # our own packages come first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from workers.packages import require_packages

    require_packages()

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from errors import RunError, UsageError, nearest
from reward_code import Failure, RewardWorkers

Columns = Mapping[str, np.ndarray]


def _columns_of(task: Any, state: Any, columns: Columns) -> dict[str, np.ndarray]:
    """One row for `state`; what it does not name is as in the first row of `columns`."""
    if not isinstance(state, dict):
        raise UsageError("a state is a JSON object: the name of each variable with a number or a list of numbers")
    row = {name: column[:1].copy() for name, column in columns.items()}
    for name, value in state.items():
        place = task.inputs.get(name)
        if place is None:
            raise UsageError(
                f"the state names {name}, which is not a variable of {task.name}{nearest(name, task.inputs)}"
            )
        try:
            row[place.column][0, place.start : place.stop] = np.asarray(value, np.float32).reshape(place.shape).ravel()
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"in the state, {name} must have the shape {place.shape}") from None
    return row


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Check reward functions as a run does.")
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check", help="the whole check on one file: syntax tree, proof on a probe, compilation")
    check.add_argument("file", type=Path, help="Python code, or an answer of a language model that has some in it")
    check.add_argument("--task", required=True, help="the task whose variables the function reads")
    check.add_argument("--task_file", help="a file with tasks of your own")
    check.add_argument("--state", type=Path, help="JSON file with a state to try: what a failure has left in a run")
    options = parser.parse_args()
    try:
        return _check_file(options.file, options.task, options.task_file, options.state)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    except RunError as error:
        print(error, file=sys.stderr)
        return 1


def _check_file(file: Path, task_name: str, task_file: str | None, state_file: Path | None) -> int:
    from task_specs import get_task
    from tasks.environment import record_probe  # only this command needs the simulator

    task = get_task(task_name, task_file)
    text = file.read_text(encoding="utf-8", errors="replace")
    probe = record_probe(task, seed=0)
    row = None
    if state_file is not None:
        try:
            row = _columns_of(task, json.loads(state_file.read_text()), probe)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{state_file} is not JSON: {error}") from None
    with RewardWorkers(task.inputs) as workers:
        verdict = workers.check([text], probe)[0]
        if workers.missing_containment:
            print(f"note: on this machine {workers.missing_containment}")
        if not verdict.accepted:
            print(f"rejected ({verdict.kind}): {verdict.reason}")
            return 1
        for wrapping in verdict.unwrapped:
            print(f"note: unwrapped {wrapping}")
        form = "runs as machine code" if verdict.compiled else f"runs interpreted: {verdict.note}"
        print(f"accepted; {form}")
        print(f"reward on the {len(probe['action'])} rows of the probe: {verdict.probe_mean:g} ± {verdict.probe_std:g}")
        if row is not None:
            result = workers.evaluate([verdict.source], row, components=True)[0]
            if isinstance(result, Failure):
                print(f"in the state of {state_file}: fails ({result.kind}): {result.reason}")
                return 1
            parts = "".join(f", {name} {values[0]:g}" for name, values in result.components.items())
            print(f"in the state of {state_file}: reward {result.rewards[0]:g}{parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
