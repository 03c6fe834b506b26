"""Good functions in the wrappings that models use: each is found, named, and gives the rewards of the bare function."""

import html
import json

import numpy as np
import pytest

from reward_code import Evaluation, Rejected, RewardWorkers, canonical, extract
from reward_code.check import check_code
from reward_rows import INPUTS, rows

GOOD = """\
def compute_reward(tcp, obj, target, actions):
    reach = np.exp(-5.0 * np.linalg.norm(tcp - obj))
    move = 3.0 * np.exp(-8.0 * np.linalg.norm(obj - target))
    if np.linalg.norm(obj - target) < 0.05 and reach > 0.1:
        move += 5.0
    return reach + move, {"reach": reach, "move": move}
"""
FORMER = GOOD.replace("-5.0", "-2.0").replace("+= 5.0", "+= 1.0")
HEAD, BODY = GOOD.split("\n", 1)
FRAGMENT = "distance = np.linalg.norm(tcp - obj)\nmove = np.exp(-distance)\n"
ASKS_FOR_HELP = GOOD.replace("np.linalg.norm", "far").replace("5.0 *", "STEEP *")
HELP = "STEEP = 2.5 * 2\n\ndef far(x):\n    return np.linalg.norm(x)\n"
FOREIGN = ("import torch", "import torch.nn as nn", "from scipy.spatial import distance", "import os, sys")


def fenced(*codes: str, language: str = "python") -> str:
    return "\n\nThen:\n\n".join(f"```{language}\n{code}```" for code in codes)


def replaced(**changes: str) -> str:
    """GOOD with other characters in all places where they mean the same."""
    return GOOD.translate({ord(plain): other for plain, other in changes.items()})


def prompted(code: str, first: str = ">>> ", rest: str = "... ") -> str:
    return "\n".join(f"{rest if number else first}{line}" for number, line in enumerate(code.splitlines())) + "\n"


def numbered(code: str, form: str) -> str:
    return "".join(form.format(number) + f"{line}\n" for number, line in enumerate(code.splitlines(), 1))


def diff(old: str, new: str) -> str:
    lines = [*(f"-{line}" for line in old.splitlines()), *(f"+{line}" for line in new.splitlines())]
    return "--- a/reward.py\n+++ b/reward.py\n@@ -1,6 +1,6 @@\n" + "\n".join(lines) + "\n"


# What the wrapping is called in the log ("" where it changes nothing), and the answer.
WRAPPED = {
    # JSON
    "JSON": ("a JSON value", json.dumps({"thoughts": "Reach {then} move.", "reward_code": GOOD})),
    "JSON with other keys": (
        "a JSON value",
        json.dumps({"name": "r", "answer": {"python": GOOD, "score": [1, 2]}}, indent=2),
    ),
    "JSON in a fence": ("a JSON value", f"Here:\n```json\n{json.dumps({'code': GOOD})}\n```\nDone."),
    "JSON between prose": ("a JSON value", f"My answer (as {{asked}}):\n{json.dumps({'code': GOOD})}\nIt's dense."),
    "a list of one": ("a JSON value", json.dumps([{"code": GOOD}])),
    "a list of lines": ("a JSON value", json.dumps({"code": GOOD.splitlines()})),
    "the same twice": ("a JSON value", json.dumps([{"code": GOOD}, {"code": "# again\n" + GOOD}])),
    "a fence in JSON": ("a JSON value", json.dumps({"code": fenced(GOOD)})),
    "JSON in JSON": ("a JSON value", json.dumps({"content": json.dumps({"code": GOOD})})),
    "JSON with line ends as they are": ("a JSON value", json.dumps({"code": GOOD}).replace("\\n", "\n")),
    "JSON that is a string": ("a JSON value", json.dumps(GOOD)),
    "a dict of Python": ("a JSON value", repr({"code": GOOD, "sure": True})),
    "a string of Python": ("a JSON value", f"code = '''\n{GOOD}'''\n"),
    "a trailing comma": ("a JSON value", json.dumps({"code": GOOD})[:-1] + ",}"),
    "JSON with the former function": ("a JSON value", json.dumps({"former": FORMER, "new": GOOD})),
    # thinking
    **{
        f"a draft before {end}": ("", f"{start}\n{fenced(FORMER.replace('-5.0', '-9.0'))}\n{end}\n{GOOD}")
        for start, end in (
            ("<think>", "</think>"),
            ("[THINK]", "[/THINK]"),
            ("◁think▷", "◁/think▷"),
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
            ("<details>", "</details>"),
        )
    },
    # pages
    "HTML": ("a page", f'<pre><code class="language-python">{html.escape(GOOD)}</code></pre>'),
    "HTML in paragraphs": ("a page", f"<p>Here it is:</p>\n<pre>\n{html.escape(GOOD)}</pre>\n<p>Done &amp; dusted</p>"),
    "a whole page": (
        "a page",
        f"<!DOCTYPE html>\n<html><body><p>So:</p><code>{html.escape(GOOD)}</code></body></html>",
    ),
    "highlighted": (
        "a page",
        f"<pre>{html.escape(GOOD)}</pre>".replace("def", '<span class="k">def</span>').replace("if ", "<b>if</b> "),
    ),
    "line breaks of HTML": ("a page", html.escape(GOOD).replace("    ", "&nbsp;" * 4).replace("\n", "<br>")),
    "entities in a fence": ("a page", fenced(html.escape(GOOD))),
    "code tags alone": ("a page", f"<code>{GOOD}</code>"),
    "CDATA": ("a page", f"<answer><code><![CDATA[{GOOD}]]></code></answer>"),
    "XML over lines": ("", f"<answer>\n<reward>\n{GOOD}</reward>\n</answer>"),
    # Markdown
    "Markdown in Markdown": ("Markdown", f"````markdown\nHere it is.\n\n{fenced(GOOD)}\n````"),
    "Markdown in Markdown, one fence": ("", f"```markdown\nHere it is.\n\n{fenced(GOOD)}\n```"),
    "prose in the fence": ("", f"```\nThe function is this:\n\n{GOOD}\nIt's dense.\n```"),
    "a fence in a docstring": (
        "",
        fenced(f'{HEAD}\n    """For example:\n    ```\n    compute_reward(a, b)\n    ```\n    """\n{BODY}'),
    ),
    "a fence in a module's docstring": ("", fenced(f'"""Use:\n```python\ncompute_reward(a, b)\n```\n"""\n{GOOD}')),
    "a fence in a string": ("", fenced(GOOD.replace("    reach =", "    text = '''\n```\n'''\n    reach =", 1))),
    "code on the line of the fence": ("", f"```python {GOOD}```"),
    "no space after the fence": ("", f"```{GOOD}```"),
    "single backticks": ("between backticks", f"So: `{GOOD}`"),
    "escapes of Markdown": ("", GOOD.replace("_", "\\_").replace("*", "\\*")),
    "a special token": ("special tokens", f"<|python_tag|>{GOOD}<|eom_id|>"),
    # prompts
    "prompts": ("prompt marks", fenced(prompted(GOOD))),
    "prompts without a fence": (
        "prompt marks",
        f"So:\n{prompted(GOOD)}\n>>> compute_reward(a, b, c, d)\n(0.1, {{}})\n",
    ),
    "a prompt at the first line alone": ("prompt marks", fenced(f">>> {GOOD}")),
    "IPython": ("prompt marks", fenced(prompted(GOOD, "In [1]: ", "   ...: "))),
    "quotation marks": ("prompt marks", f"Here:\n\n{prompted(GOOD, '> ', '> ')}"),
    "line numbers": ("line numbers", fenced(numbered(GOOD, "{:3} | "))),
    "line numbers alone": ("line numbers", fenced(numbered(GOOD, "{} "))),
    # characters
    "commas": ("full-width", fenced(GOOD.replace("tcp, obj", "tcp，obj"))),
    "parentheses and colons": ("full-width", fenced(replaced(**{"(": "（", ")": "）", ":": "："}))),
    "operators": ("full-width", fenced(replaced(**{"+": "＋", "-": "－", "*": "＊", "=": "＝", "<": "＜"}))),
    "quotes and braces": ("full-width", fenced(replaced(**{'"': "＂", "{": "｛", "}": "｝", ".": "．"}))),
    "digits": ("full-width", fenced(replaced(**{"5": "５", "0": "０", ".": "。", ",": "、"}))),
    "full-width characters without a fence": ("full-width", f"好的：\n\n{replaced(**{',': '，', ':': '：'})}"),
    "a minus beside an apostrophe": (
        "typographic",
        fenced(
            GOOD.replace("tcp - obj", "tcp − obj").replace(
                "    reach =", "    note = 'the object’s “side”'\n    reach =", 1
            )
        ),
    ),
    "marks of direction": ("", fenced(GOOD.replace("tcp", "\u200etcp\u202c"))),
    "line ends of a mainframe": ("", GOOD.replace("\n", "\u0085")),
    "escaped line ends": ("escaped", GOOD.replace("\n", "\\n")),
    "escaped line ends in quotes": ("escaped", '"' + GOOD.replace("\n", "\\n") + '"'),
    "escaped line ends in a fence": ("escaped", fenced(GOOD.replace("\n", "\\n").replace('"', '\\"') + "\n")),
    # what is unused
    "self": ("parameter self", fenced(GOOD.replace("reward(tcp", "reward(self, tcp"))),
    "cls": ("parameter cls", fenced(GOOD.replace("reward(tcp", "reward(cls, tcp"))),
    "further keywords": ("parameter kwargs", fenced(GOOD.replace("actions)", "actions, **kwargs)"))),
    "a class": (
        "a class Reward",
        fenced(
            "class Reward:\n"
            + "".join(f"    {line}\n" for line in GOOD.replace("reward(tcp", "reward(self, tcp").splitlines())
        ),
    ),
    "a static method": (
        "a class Reward",
        fenced("class Reward:\n    @staticmethod\n" + "".join(f"    {line}\n" for line in GOOD.splitlines())),
    ),
    **{f"unused {foreign}": (foreign, fenced(f"{foreign}\nimport numpy as np\n\n{GOOD}")) for foreign in FOREIGN},
    "an unused import in the function": ("import torch", fenced(f"{HEAD}\n    import torch\n{BODY}")),
    "an import for an annotation": (
        "import torch",
        fenced(f"import torch\n{GOOD.replace('tcp,', 'tcp: torch.Tensor,', 1)}"),
    ),
    "an example in the same fence": (
        "",
        fenced(f"{GOOD}\ntcp = np.random.rand(3)\nr, _ = compute_reward(tcp, tcp, tcp, tcp)\nprint('%.3f' % r)\n"),
    ),
    # NumPy 1
    "np.Inf": ("np.inf for np.Inf", fenced(GOOD.replace("> 0.1", "> 0.1 and move < np.Inf"))),
    "np.NINF and np.float_": ("-np.inf", fenced(GOOD.replace("> 0.1", "> np.float_(0.1) and move > np.NINF"))),
    "np.math": ("math for np.math", fenced(GOOD.replace("np.exp(-5", "np.math.exp(-5"))),
    "np.product and np.alltrue": (
        "np.all for np.alltrue",
        fenced(GOOD.replace("> 0.1", "> 0.1 and np.alltrue(obj < np.product([2, 3])) and np.sometrue(obj > -6)")),
    ),
    "an old name that is imported": (
        "np.inf for np.Inf",
        fenced(f"from numpy import Inf\n{GOOD.replace('> 0.1', '> 0.1 and move < Inf')}"),
    ),
    "np.asfarray": ("np.asarray", fenced(GOOD.replace("(tcp - obj)", "(np.asfarray([*(tcp - obj)]))"))),
    "arrays' ptp": ("np.ptp", fenced(GOOD.replace("> 0.1", "> 0.1 and obj.ptp() < np.infty"))),
    # one element
    "(1,)": ("one element", fenced(GOOD.replace("return reach + move", "return np.array([reach + move])"))),
    "(1, 1)": ("one element", fenced(GOOD.replace("return reach + move", "return np.array([[reach + move]])"))),
    "()": ("one element", fenced(GOOD.replace("return reach + move", "return np.array(reach + move)"))),
    "a test of it": (
        "",
        fenced(
            f"import random\nimport numpy as np\n\nrandom.seed(0)\nnp.random.seed(0)\nCASES = 3\n{GOOD}\n"
            "def main():\n    for _ in range(CASES):\n        tcp = np.random.rand(3)\n"
            "        print(compute_reward(tcp, tcp, tcp, tcp))\n\nif __name__ == '__main__':\n    main()\n"
        ),
    ),
    "a class of tests": (
        "",
        fenced(
            "import unittest\n"
            f"{GOOD}\nclass Test(unittest.TestCase):\n    def test_it(self):\n        while True:\n            pass\n"
        ),
    ),
    "a logger": ("", fenced(f"import logging\nlogger = logging.getLogger(__name__)\n{GOOD}")),
    "weights that are asserted": ("", fenced(f"W = {{'a': 0.5, 'b': 0.5}}\nassert sum(W.values()) == 1.0\n{GOOD}")),
    "a default by name": (
        "",
        fenced(f"K = 10.0 / 2\ndef far(x, k=K, most=np.inf):\n    return min(np.exp(-k * x), most)\n{GOOD}").replace(
            "np.exp(-5.0 * np.linalg.norm(tcp - obj))", "far(np.linalg.norm(tcp - obj))"
        ),
    ),
    "NumPy 2": ("np.arctan2 for np.atan2", fenced(GOOD.replace("> 0.1", "> np.atan2(0.1, 1.0)"))),
    # several fences
    "a fragment before": ("", fenced(FRAGMENT, GOOD)),
    "a fragment behind": ("", fenced(GOOD, FRAGMENT)),
    "two versions": ("", fenced(FORMER, GOOD)),
    "a usage example": ("", fenced(GOOD, "tcp = np.zeros(3)\nreward, parts = compute_reward(tcp, tcp, tcp, tcp)\n")),
    "pseudo-code before": ("", fenced("def compute_reward(...):\n    reward = closeness to the goal\n", GOOD)),
    "pseudo-code behind": ("", fenced(GOOD, "compute_reward(state):\n    reward <- closeness\n")),
    "a signature before": ("", fenced(f"{HEAD}\n    ...\n", GOOD)),
    "a signature behind": ("incomplete", fenced(GOOD, f"{HEAD}\n    pass\n")),
    "an abridged version behind": ("incomplete", fenced(GOOD, f"{HEAD}\n    ...\n    return reach + move\n")),
    "a version that lacks names behind": ("incomplete", fenced(GOOD, f"{HEAD}\n    return reach + move\n")),
    "a diff behind": ("", fenced(GOOD) + "\n" + fenced(diff(FORMER, GOOD).split("\n", 6)[-1], language="diff")),
    "a diff before": ("", fenced(diff(FORMER, GOOD), language="diff") + "\n" + fenced(GOOD)),
    "nothing but a diff": ("new side of a diff", fenced(diff(FORMER, GOOD), language="diff")),
    "helpers before": ("another block", fenced(HELP, ASKS_FOR_HELP)),
    "helpers behind": ("another block", fenced(ASKS_FOR_HELP, HELP)),
    "helpers beside a fragment": ("another block", fenced(FRAGMENT + HELP + "tcp = np.zeros(3)\n", ASKS_FOR_HELP)),
    "helpers of a former version": ("another block", fenced(HELP + FORMER, ASKS_FOR_HELP)),
    "helpers before, example behind": (
        "another block",
        fenced(HELP, ASKS_FOR_HELP, "far = 3.0\nprint(compute_reward(far, far, far, far))\n"),
    ),
    # the former function
    "the former function behind it": ("already known", f"{fenced(GOOD)}\nThe former function was:\n{fenced(FORMER)}"),
    "the former function in the same fence": ("already known", fenced(f"{GOOD}\n# the former one:\n{FORMER}")),
    "the former function in a fence behind JSON": (
        "already known",
        f"{json.dumps({'code': GOOD})}\nThe former function was:\n{fenced(FORMER)}",
    ),
    "the former function without fences": ("already known", f"{GOOD}\nThe former function was:\n\n{FORMER}"),
    "the former function with imports": ("already known", fenced(GOOD, f"import numpy as np\n{FORMER}")),
}

# Where there is more than one meaning, or something is used that is not there.
REFUSED = {
    "two functions in JSON": ("no-code", json.dumps([{"code": GOOD}, {"code": GOOD.replace("-5.0", "-4.0")}])),
    "a used self": ("attribute", fenced(GOOD.replace("reward(tcp", "reward(self, tcp").replace("5.0", "self.weight"))),
    "used keywords": ("signature", fenced(GOOD.replace("actions)", "actions, **kw)").replace("0.05", "kw['x']"))),
    "a used import": ("import", fenced(f"import torch\n{GOOD.replace('np.exp(-5', 'torch.exp(-5')}")),
    "a used name of an import": (
        "import",
        fenced(f"from scipy.special import expit\n{GOOD.replace('0.05', 'expit(0)')}"),
    ),
    "an import that is read once": ("import", fenced(f"import os\n{GOOD.replace('0.05', 'len([os])')}")),
    "nothing but a fragment": ("no-code", fenced(FRAGMENT)),
    "nothing but an abridged function": ("name", fenced(f"{HEAD}\n    ...\n    return reach + move\n")),
    "statements over variables": ("name", fenced("reach = np.sum(tcp)\n", f"{HEAD}\n    return reach\n")),
    "a name that NumPy has no longer": ("attribute", fenced(GOOD.replace("> 0.1", "> np.asscalar(0.1)"))),
    "code that runs beside it": ("construct", fenced(f"open('x')\n{GOOD}")),
}


@pytest.fixture(scope="module")
def workers():
    with RewardWorkers(INPUTS, count=2) as workers:
        yield workers


@pytest.fixture(scope="module")
def verdicts(workers: RewardWorkers):
    known = {canonical(FORMER)}
    answers = [answer for _, answer in WRAPPED.values()]
    return dict(zip(WRAPPED, workers.check(answers, rows(100), known), strict=True))


@pytest.fixture(scope="module")
def bare(workers: RewardWorkers):
    return workers.evaluate([GOOD], rows(200, seed=1), components=True)[0]


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_function_is_the_bare_one(name: str, verdicts, bare: Evaluation, workers: RewardWorkers):
    verdict = verdicts[name]
    assert verdict.accepted, verdict.reason
    assert verdict.compiled, verdict.note
    assert WRAPPED[name][0] in "; ".join(verdict.unwrapped)
    assert verdict.unwrapped or not WRAPPED[name][0]
    compiled = workers.evaluate([verdict.source], rows(200, seed=1))[0]
    interpreted = workers.evaluate([verdict.source], rows(200, seed=1), components=True)[0]
    assert isinstance(compiled, Evaluation)
    assert isinstance(interpreted, Evaluation)
    np.testing.assert_allclose(compiled.rewards, bare.rewards, rtol=1e-6)
    np.testing.assert_array_equal(interpreted.rewards, bare.rewards)
    np.testing.assert_array_equal(interpreted.components["reach"], bare.components["reach"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_two_meanings_is_refused(name: str):
    kind, answer = REFUSED[name]
    with pytest.raises(Rejected) as rejected:
        check_code(extract(answer), INPUTS)
    assert rejected.value.kind == kind, rejected.value.reason


def test_plain_answer_is_not_unwrapped():
    assert check_code(extract(fenced(f"import numpy as np\n\n{GOOD}")), INPUTS).unwrapped == ()


def test_of_known_functions_the_last_is_told():
    assert extract(fenced(FORMER, GOOD), {canonical(FORMER), canonical(GOOD)}).source == GOOD


def test_canonical_form_is_that_of_copies_alone():
    copy = f"import numpy\n\n\n# a copy\n{GOOD.replace('np.', 'numpy.')}print(1)\n"
    assert canonical(copy) == canonical(GOOD) != canonical(FORMER)
