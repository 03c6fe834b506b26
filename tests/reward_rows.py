"""A task's variables and some rows of them, for tests that need no simulator."""

import numpy as np

from tasks.task import Input

_VECTORS = ("tcp_center", "obj", "target", "init_tcp", "obj_init_pos", "left_pad", "right_pad")
_ALIASES = {"actions": "action", "tcp": "tcp_center", "_target_pos": "target"}

INPUTS = {
    "obs": Input("next_obs", 0, 39, (39,)),
    "action": Input("action", 0, 4, (4,)),
    **{name: Input("variables", 3 * index, 3 * index + 3, (3,)) for index, name in enumerate(_VECTORS)},
    "gripper_opening": Input("variables", 21, 22, ()),
}
INPUTS |= {alias: INPUTS[name] for alias, name in _ALIASES.items()}

WIDTHS = {"next_obs": 39, "action": 4, "variables": 22}


def rows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of the size that MetaWorld has them: positions within a metre, actions in [-1, 1]."""
    random = np.random.default_rng(seed)
    columns = {name: random.uniform(-0.5, 0.5, (count, width)) for name, width in WIDTHS.items()}
    columns["action"] *= 2
    columns["variables"][:, 21] = random.uniform(0, 1, count)
    near = columns["variables"][: count // 2]  # in half of the rows all things are close together
    near[:, 3:21] = np.tile(near[:, :3], 6) + random.normal(0, 0.02, (len(near), 18))
    return {name: column.astype(np.float32) for name, column in columns.items()}
