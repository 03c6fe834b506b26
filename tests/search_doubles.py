"""A small task and stand-ins for the other rooms, for the tests of the search."""

import ast
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from search.protocol import LanguageModel, Reply, Usage
from task_specs import Input


def variable(name, shape, role, meaning="where it is"):
    return SimpleNamespace(name=name, shape=shape, unit="m", meaning=meaning, role=role, aliases=())


VARIABLES = (
    variable("tcp_center", (3,), "gripper"),
    variable("obj", (3,), "object"),
    variable("target", (3,), "goal"),
    variable("obj_init_pos", (3,), "object_start"),
    variable("left_pad", (3,), "pad"),
    variable("right_pad", (3,), "pad"),
    variable("gripper_opening", (), "opening"),
)
STARTS = np.cumsum([0, *(int(np.prod(v.shape)) for v in VARIABLES)])
WIDTH = int(STARTS[-1])
INPUTS = {
    "obs": Input("next_obs", 0, 39, (39,)),
    "action": Input("action", 0, 4, (4,)),
    **{
        v.name: Input("variables", int(a), int(b), v.shape)
        for v, a, b in zip(VARIABLES, STARTS, STARTS[1:], strict=False)
    },
}
HUMAN_SOURCE = "def compute_reward(obj, target):\n    secret_human_shaping = 1.0\n    return secret_human_shaping\n"


def make_task(**changes):
    fields = {
        "name": "slide",
        "description": "Slide the block to the target.",
        "scene": "",
        "environment_class": object,
        "success": "the block is within 0.05 m of the target along x",
        "success_expression": "abs(obj[0] - target[0]) <= 0.05",
        "variables": VARIABLES,
        "inputs": INPUTS,
        "obs_size": 39,
        "action_size": 4,
        "human_reward": SimpleNamespace(source=HUMAN_SOURCE, success_source="secret_success"),
    }
    return SimpleNamespace(**{**fields, **changes})


class FakeWorkers:
    """Accepts what defines compute_reward and compiles; `calls` holds the sizes of the checks that were asked for."""

    def __init__(self):
        self.calls = []

    def check(self, texts, probe, known=()):
        self.calls.append(len(texts))
        return [self.verdict(text) for text in texts]

    def verdict(self, text):
        code = text.split("```python\n")[-1].split("```")[0] if "```" in text else text
        try:
            tree = ast.parse(code if "def " in code else "")
        except SyntaxError as error:
            return self.rejected("syntax", f"line {error.lineno}: invalid syntax")
        if not any(isinstance(node, ast.FunctionDef) and node.name == "compute_reward" for node in tree.body):
            return self.rejected("no-code", "no function compute_reward")
        return SimpleNamespace(accepted=True, source=code, kind="", reason="", compiled=True, note="", unwrapped=())

    def rejected(self, kind, reason):
        return SimpleNamespace(
            accepted=False, source="", kind=kind, reason=reason, compiled=False, note="", unwrapped=()
        )


@dataclass
class ScriptedModel(LanguageModel):
    """Answers with the next list of texts, or raises the next exception; `requests` holds what it was asked."""

    answers: list
    name: str = "scripted"
    usage: Usage = field(default_factory=Usage)
    requests: list = field(default_factory=list)

    def ask(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        reply = answer if isinstance(answer, Reply) else Reply(list(answer))
        self.usage.add(calls=1, tokens_in=100, tokens_out=10 * len(reply.texts))
        return reply


def random_columns(rng, rows):
    """Transitions in random states, as a probe or a buffer holds them."""
    columns = {
        "next_obs": rng.normal(size=(rows, 39)),
        "action": rng.uniform(-1, 1, (rows, 4)),
        "variables": rng.uniform(-0.5, 0.5, (rows, WIDTH)),
    }
    return {name: column.astype(np.float32) for name, column in columns.items()}


def random_state(rng):
    """One such state, as the arguments of a reward function."""
    columns = random_columns(rng, 1)
    state = {name: columns[at.column][0, at.start : at.stop].astype(float) for name, at in INPUTS.items()}
    return {name: value if INPUTS[name].shape else float(value[0]) for name, value in state.items()}


def call(source, state):
    """What the reward function `source` gives in a state: (reward, components)."""
    scope = {"np": np}
    exec(source, scope)
    function = scope["compute_reward"]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return function(**{name: state[name] for name in names})
