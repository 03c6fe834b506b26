"""Answers that a person would call good code, in the styles in which language models write.

``ANSWERS`` maps a style to a text. Where a text has drafts, the function that counts names a component "final".
"""

_PLAIN = '''
def compute_reward(tcp_center, obj, target, action):
    """Reach the object, then bring it to the target."""
    reach = float(np.linalg.norm(tcp_center - obj))
    place = float(np.linalg.norm(obj - target))
    reach_reward = np.exp(-8.0 * reach)
    place_reward = 1.0 - np.tanh(5.0 * place)
    effort = 0.01 * float(np.sum(np.square(action)))
    reward = reach_reward + 3.0 * place_reward - effort
    if place < 0.05:
        reward += 5.0
    return float(reward), {"reach": reach_reward, "place": place_reward, "effort": -effort, "final": 1.0}
'''

_DRAFT = """
def compute_reward(obs):
    return -1.0  # a first try
"""

ANSWERS: dict[str, str] = {}


def _answer(style: str, text: str) -> None:
    assert style not in ANSWERS
    ANSWERS[style] = text


_answer("one python block", f"Here is the reward function.\n\n```python{_PLAIN}```\n\nIt rewards reaching first.\n")
_answer("no language after the fence", f"```{_PLAIN}```")
_answer("bare code", _PLAIN)
_answer(
    "bare code between prose",
    f"Sure! Here's a reward function for the task:\n{_PLAIN}\nThis doesn't need more terms (I think:\nit's simple).\n",
)
_answer("windows line ends", f"Here you are:\n\n```python{_PLAIN}```\n".replace("\n", "\r\n"))
_answer("tildes", f"~~~ python{_PLAIN}~~~\n")
_answer("upper-case language with a title", f'```Python title="reward.py"{_PLAIN}```')
_answer("never closed", f"The code:\n\n```python{_PLAIN}")
_answer(
    "thinking with a draft",
    f"<think>\nLet me see. First try:\n```python{_DRAFT}```\nNo, the object matters.\n</think>\n\n```python{_PLAIN}```",
)
_answer(
    "thinking whose beginning the server cut off",
    f"Maybe like so:\n```python{_DRAFT}```\nBetter add more.\n</think>\nFinal answer:\n```python{_PLAIN}```",
)
_answer(
    "draft, then the final one", f"Draft:\n```python{_DRAFT}```\nThat is too sparse. Final:\n```python{_PLAIN}```\n"
)
_answer(
    "an example of its use behind it",
    f"```python{_PLAIN}```\nUse it like this:\n```python\nreward, parts = compute_reward(*state)\n```\n",
)
_answer(
    "a block of another language",
    f"```bash\npip install numpy\n```\n```python{_PLAIN}```\n```json\n" + '{"reach": 1.0}\n```\n',
)
_answer(
    "indented in a list",
    "1. The reward:\n\n   ```python" + _PLAIN.replace("\n", "\n   ") + "```\n\n2. Why: it is dense.\n",
)
_answer("quoted", "> ```python" + _PLAIN.replace("\n", "\n> ") + "```\n")
_answer("a longer fence", f"````python{_PLAIN}````\n")
_answer("tabs", f"```python{_PLAIN}```".replace("    ", "\t"))
_answer(
    "tabs and spaces mixed",
    f"```python{_PLAIN}```".replace("    reach_reward", "\treach_reward").replace("    if", "\tif"),
)
_answer(
    "typographic quotes, dashes and spaces",
    f"```python{_PLAIN}```".replace('"reach"', "“reach”")
    .replace(" - ", " – ")
    .replace("-8.0", "−8.0")
    .replace("    reward = ", "    reward\u00a0=\u00a0"),
)
_answer("invisible characters", f"\ufeff```python{_PLAIN}```".replace("tcp_center - obj", "tcp_center\u200b - obj"))
_answer(
    "imports, typing and constants",
    '''```python
from __future__ import annotations

import math
from typing import Any, Dict, Tuple

import numpy as np
import numpy.typing as npt
from reward_utils import hamacher_product, tolerance

REACH_WIDTH: float = 0.3
WEIGHTS: Dict[str, float] = {"reach": 1.0, "lift": 2.0, "place": 3.0}
OFFSET = np.array([0.0, 0.0, 0.02])


def compute_reward(
    tcp_center: npt.NDArray[np.float64],
    obj: np.ndarray,
    target: np.ndarray,
    obj_init_pos: np.ndarray,
    gripper_opening: float,
) -> Tuple[float, Dict[str, float]]:
    """Returns the reward and its parts."""
    parts: Dict[str, float] = {}
    grasp_point: np.ndarray = obj + OFFSET
    distance: float = float(np.linalg.norm(tcp_center - grasp_point))
    parts["reach"] = WEIGHTS["reach"] * tolerance(distance, bounds=(0, 0.02), margin=REACH_WIDTH, sigmoid="long_tail")
    closed = 1.0 - np.clip(gripper_opening, 0.0, 1.0)
    parts["lift"] = WEIGHTS["lift"] * hamacher_product(
        float(parts["reach"]), min(max((obj[2] - obj_init_pos[2]) / 0.1, 0.0), 1.0) * closed
    )
    parts["place"] = WEIGHTS["place"] * math.exp(-math.dist(obj, target) / REACH_WIDTH)
    parts["final"] = 0.0
    total: float = sum(parts.values())
    return total, parts
```''',
)
_answer(
    "imports inside and names of its own for modules",
    """```python
import numpy as numpy_
from math import exp as e_to, sqrt
from numpy.linalg import norm
import numpy

def compute_reward(obj, target, tcp):
    import math as m
    import numpy as np
    print("distance", norm(obj - target))
    d = norm(obj - target) + numpy_.abs(tcp[0]) + numpy.abs(tcp[1])
    return e_to(-d) + 0.1 * sqrt(d) + m.tanh(d), {"final": d}

if __name__ == "__main__":
    print(compute_reward(np.zeros(3), np.ones(3), np.ones(3)))
```""",
)
_answer(
    "helpers in a block of their own",
    """First a helper:

```python
import numpy as np

SHARPNESS = 4.0

def closeness(a, b, sharpness=SHARPNESS_DEFAULT):
    return np.exp(-sharpness * np.linalg.norm(a - b))
```

and then

```python
def compute_reward(tcp_center, obj, target):
    r = closeness(tcp_center, obj) + 2 * closeness(obj, target, sharpness=SHARPNESS)
    return r, {"final": r}
```
""".replace("SHARPNESS_DEFAULT", "4.0"),
)
_answer(
    "helpers, nested functions and lambdas",
    """```python
def smooth(x, width=0.1):
    def inside(y):
        return 1.0 / (1.0 + y * y)
    return inside(x / width)

def compute_reward(tcp_center, obj, target, left_pad, right_pad):
    ramp = lambda x: min(1.0, max(0.0, x))
    grip = ramp(1.0 - abs(left_pad[1] - right_pad[1]) / 0.1)
    reach, place = smooth(np.linalg.norm(tcp_center - obj)), smooth(np.linalg.norm(obj - target), width=0.2)
    return reach + grip * reach + 4 * place
```""",
)
_answer(
    "comprehensions and generators",
    """```python
def compute_reward(action, obj, target, tcp_center):
    weights = [1.0, 2.0, 0.5]
    errors = [abs(o - t) for o, t in zip(obj, target)]
    weighted = sum(w * e for w, e in zip(weights, errors))
    within = all(e < 0.05 for e in errors)
    any_large = any([abs(a) > 0.9 for a in action])
    squares = {i: e ** 2 for i, e in enumerate(errors)}
    return -weighted + (10.0 if within else 0.0) - 0.1 * any_large - max(errors) - squares[0]
```""",
)
_answer(
    "staged with early returns",
    """```python
def compute_reward(tcp_center, obj, target, obj_init_pos, gripper_opening, action):
    to_obj = np.linalg.norm(tcp_center - obj)
    to_target = np.linalg.norm(obj - target)
    lifted = obj[2] - obj_init_pos[2] > 0.02
    if to_target < 0.05:
        return 10.0, {"success": 1.0, "stage": 3}
    elif lifted:
        return 5.0 + 3.0 * (1 - np.tanh(3 * to_target)), {"success": 0.0, "stage": 2}
    elif to_obj < 0.03:
        return 2.0 + (1.0 - gripper_opening), {"success": 0.0, "stage": 1}
    return 1.0 - np.tanh(5 * to_obj), {"success": 0.0, "stage": 0}
```""",
)
_answer(
    "numpy on vectors",
    """```python
def compute_reward(obs, actions, obj, _target_pos, init_tcp):
    hand = obs[0:3]
    diff = np.asarray(obj) - _target_pos
    scale = np.array([1.0, 2.0, 2.0])
    d_xy = np.linalg.norm(diff[:2])
    weighted = np.sqrt(np.sum((diff * scale) ** 2))
    cost = np.dot(actions, actions) + np.mean(np.abs(actions)) + np.max(np.abs(actions[:3]))
    moved = np.clip(np.linalg.norm(hand - init_tcp) / 0.5, 0, 1)
    bonus = np.where(np.all(np.abs(diff) < 0.02), 5.0, 0.0)
    signed = np.sign(diff[0]) * np.minimum(np.abs(diff[0]), 0.1) + np.maximum(0.0, diff[1])
    return bonus + np.exp(-weighted) - 0.05 * cost + 0.1 * moved - d_xy + 0.01 * signed
```""",
)
_answer(
    "reward utilities by module name",
    """```python
import reward_utils

def compute_reward(tcp_center, obj, target):
    reach = reward_utils.tolerance(np.linalg.norm(tcp_center - obj), bounds=(0, 0.05), margin=0.4, sigmoid="gaussian")
    place = reward_utils.tolerance(np.linalg.norm(obj - target), (0.0, 0.05), 0.3, "hyperbolic")
    both = reward_utils.hamacher_product(reach, place)
    components = {"reach": reach, "place": place}
    components.update({"both": both})
    return 10 * both, components
```""",
)
_answer(
    "f-strings, assertions and conditional expressions",
    """```python
def compute_reward(obj, target, tcp_center):
    d = float(np.linalg.norm(obj - target))
    assert d >= 0, f"negative distance {d:.3f}"
    label = "near" if d < 0.1 else "far"
    parts = {f"{label}_distance": d, "reach": -float(np.linalg.norm(tcp_center - obj))}
    return -d + (1.0 if d < 0.05 else 0.5 if d < 0.1 else 0.0), parts
```""",
)
_answer(
    "a list, a truth value and keyword-only parameters",
    """```python
def compute_reward(*, obj, target, gripper_opening):
    solved = np.linalg.norm(obj - target) < 0.05
    return [float(solved) + 0.5 * bool(gripper_opening > 0.5), {"solved": solved}]
```""",
)
_answer(
    "augmented assignments in a loop",
    """```python
TARGETS = ((0, 1.0), (1, 0.5), (2, 0.25))

def compute_reward(obj, target, action):
    reward = 0
    for axis, weight in TARGETS:
        reward -= weight * (obj[axis] - target[axis]) ** 2
    for a in action:
        if a == 0:
            continue
        reward -= 1e-3 * a * a
    for i in range(len(obj)):
        reward += 0.01 * (abs(obj[i]) < 0.1)
    return reward
```""",
)
_answer(
    "only a truth value",
    """```python
def compute_reward(obj, target):
    return np.linalg.norm(obj - target) < 0.05
```""",
)
_answer(
    "vectors as components and unused names",
    """```python
def compute_reward(obs, action, obj, target, tcp_center):
    del obs, action
    direction = (target - obj) / (np.linalg.norm(target - obj) + 1e-8)
    behind = obj - 0.05 * direction
    d = np.linalg.norm(tcp_center - behind)
    alignment = float(np.dot(direction, (obj - tcp_center) / (np.linalg.norm(obj - tcp_center) + 1e-8)))
    up = np.cross(direction, np.array([0.0, 0.0, 1.0]))
    return np.exp(-5 * d) + 0.5 * (alignment + 1) + 0.1 * up[0], {"direction": direction, "alignment": alignment}
```""",
)
_answer(
    "potentials with math",
    """```python
def compute_reward(obj, target, tcp_center, init_tcp):
    d = math.sqrt(sum((a - b) ** 2 for a, b in zip(obj, target)))
    r = math.hypot(tcp_center[0] - obj[0], tcp_center[1] - obj[1])
    start = max(math.sqrt(np.sum((init_tcp - obj) ** 2)), 1e-6)
    return math.log1p(1.0 / (d + 0.1)) - math.atan2(r, 0.5) + math.pow(1.0 - min(1.0, d / start), 2) * math.pi
```""",
)
_answer(
    "methods of arrays",
    """```python
def compute_reward(obj, target, action):
    diff = obj - target
    d = np.sqrt((diff ** 2).sum())
    close = (np.abs(diff) < 0.05).all()
    return -d - 0.01 * (action * action).mean() + 5.0 * close, {"max": np.abs(diff).max(), "std": diff.std()}
```""",
)
_answer(
    "names for types, and facts about a module",
    """```python
from typing import Dict, Tuple

import numpy as np
import numpy.typing as npt

__all__ = ["compute_reward"]
__version__ = "1.0"

Vector = np.ndarray
Array = npt.NDArray[np.float64]
Parts = dict[str, float]
Outcome = Tuple[float, Dict[str, float]]


def compute_reward(obj: Vector, target: Array) -> Outcome:
    parts: Parts = {"final": -float(np.linalg.norm(obj - target))}
    return sum(parts.values()), parts
```""",
)
_answer(
    "helpers in the order in which they are called",
    """The outer one:
```python
def outer(distance):
    return GAIN * inner(distance)
```
which needs
```python
GAIN = 2.0

def inner(distance):
    return 1.0 / (1.0 + distance)
```
so that:
```python
def compute_reward(obj, target):
    return outer(np.linalg.norm(obj - target))
```""",
)
_answer(
    "line separators",
    "```python\ndef compute_reward(obj, target):\u2028    d = np.linalg.norm(obj - target)\u2028    return -d\n```",
)
_answer(
    "headings, a table of constants and a remark on each line",
    """## Reward design

1. **Reach** – bring the gripper to the object
2. **Place** – bring the object to the target ✅

```python {.numberLines}
def compute_reward(obj, target, tcp_center, obj_init_pos, action=None):
    # ---------- hyper-parameters ----------
    W_REACH, W_PLACE, W_DONE = 1.0, 5.0, 10.0
    EPS = 1e-6  # “never zero”
    # ---------- distances, Δ = ‖a − b‖₂ ----------
    Δ_reach = float(np.linalg.norm(tcp_center - obj))
    Δ_goal = float(np.linalg.norm(obj − target))
    Δ_start = float(np.linalg.norm(obj_init_pos - target)) + EPS
    progress = np.clip((Δ_start - Δ_goal) / Δ_start, -1.0, 1.0)
    total = W_REACH * np.exp(-10.0 * Δ_reach) + W_PLACE * progress + W_DONE * float(Δ_goal < 0.05)
    if action is not None:
        total -= 0.01 * float((action ** 2).sum())
    return total, {"reach": -Δ_reach, "final": total}
```

**Why it works:** $r = e^{-10\\,\\Delta}$ is dense …
""",
)
_answer(
    "channels of a reasoning model",
    f"<|channel|>analysis<|message|>First:\n```python{_DRAFT}```\n<|end|><|start|>assistant<|channel|>final<|message|>"
    f"\n```python{_PLAIN}```\n<|return|>",
)
_answer("tags of its own", f"<answer>\n<code>{_PLAIN}</code>\n</answer>\n")
_answer(
    "bare code behind a thinking section",
    f"<think>\nHmm.\n```python{_DRAFT}```\n</think>\n\nFinal:\n{_PLAIN}\nThis rewards closeness.\n",
)
