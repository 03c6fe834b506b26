"""Reward functions that hurt, cheat, hang or are simply broken.

Each is tried twice: as it is, and with the check of the syntax tree left out and Python's own builtins handed back,
so that nothing but the worker process stands between it and the machine. `{canary}` becomes a file that must stay as
it is, `{port}` a port on which nobody may call, `{parent}` the process that must not be signalled.
"""

from dataclasses import dataclass

# What code can do that has got hold of any class: with it, the harmful code below finds all of Python.
WITHOUT_THE_CHECK = """\
_found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "catch_warnings"][0]
__builtins__.update(_found.__init__.__globals__["__builtins__"])
del _found
"""


@dataclass(frozen=True)
class Harmful:
    """One function; with `kinds`, its syntax is innocent, and the proof on the probe rejects it as one of these."""

    name: str
    code: str
    kinds: str = ""


def _body(text: str) -> str:
    return "def compute_reward(obs, obj):\n    " + text.strip().replace("\n", "\n    ") + "\n"


_BODIES = {
    # files
    "write a file": "open({canary!r}, 'w').write('x')\nreturn 1.0",
    "append to a file": "f = open({canary!r}, 'a')\nf.write('x')\nf.close()\nreturn 1.0",
    "read a file": "return float(len(open('/etc/passwd').read()))",
    "open by descriptor": "import os\nfd = os.open({canary!r}, os.O_WRONLY | os.O_TRUNC)\nreturn float(fd)",
    "np.save": "np.save({canary!r}, obs)\nreturn 1.0",
    "np.savetxt": "import numpy\nnumpy.savetxt({canary!r}, obs)\nreturn 1.0",
    "np.load": "return float(np.load({canary!r}).sum())",
    "np.memmap": "import numpy\nm = numpy.memmap({canary!r}, mode='w+', shape=(3,))\nm[:] = 1\nreturn 1.0",
    "tofile": "obs.tofile({canary!r})\nreturn 1.0",
    "dump": "obs.dump({canary!r})\nreturn 1.0",
    "remove": "import os\nos.remove({canary!r})\nreturn 1.0",
    "rename": "import os\nos.rename({canary!r}, {canary!r} + '.gone')\nreturn 1.0",
    "truncate": "import os\nos.truncate({canary!r}, 0)\nreturn 1.0",
    "chmod": "import os\nos.chmod({canary!r}, 0)\nreturn 1.0",
    "hard link": "import os\nos.link({canary!r}, {canary!r} + '.link')\nreturn 1.0",
    "make a directory": "import os\nos.mkdir({canary!r} + '.d')\nreturn 1.0",
    "pathlib": "from pathlib import Path\nPath({canary!r}).write_text('x')\nreturn 1.0",
    "rmtree": "import os, shutil\nshutil.rmtree(os.path.dirname({canary!r}))\nreturn 1.0",
    "temporary file": "import tempfile\ntempfile.NamedTemporaryFile(dir={canary!r} + '.d')\nreturn 1.0",
    # processes
    "os.system": "import os\nos.system('echo x > ' + {canary!r})\nreturn 1.0",
    "subprocess": "import subprocess\nsubprocess.run(['cp', '/etc/passwd', {canary!r}])\nreturn 1.0",
    "fork": "import os\nif os.fork() == 0:\n    open({canary!r}, 'w').close()\nreturn 1.0",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo x > ' + {canary!r}])",
    "signal to the parent": "import os\nos.kill({parent}, 10)\nreturn 1.0",
    "signal to all": "import os\nos.kill(-1, 10)\nreturn 1.0",
    "thread": "import threading\nthreading.Thread(target=lambda: open({canary!r}, 'w')).start()\nreturn 1.0",
    "abort": "import os\nos.abort()",
    "end the process": "import os\nos._exit(0)",
    "raise SystemExit": "raise SystemExit(0)",
    "raise KeyboardInterrupt": "raise KeyboardInterrupt",
    "exit": "exit()",
    "ptrace the parent": "import ctypes\nreturn float(ctypes.CDLL(None).ptrace(16, {parent}, 0, 0)) + 1.0",
    "lift the limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nopen({canary!r}, 'w')\nreturn 1.0"
    ),
    # network
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', {port})).send(b'x')\nreturn 1.0",
    "datagram": "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))\nreturn 1.0",
    "urlopen": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')\nreturn 1.0",
    # environment variables
    "read the environment": "import os\nreturn 1.0 if os.environ['LARES_CANARY'] else 0.0",
    "read the parent's environment": (
        "text = open('/proc/{parent}/environ').read()\nreturn float(text.index('LARES_CANARY'))"
    ),
    "write the environment": "import os\nos.environ['LARES_CANARY'] = 'x'\nos.putenv('LARES_CANARY', 'x')\nreturn 1.0",
    # introspection
    "subclasses": "return float(len(().__class__.__base__.__subclasses__()))",
    "globals of the function": "return float(len(compute_reward.__globals__))",
    "dict of a module": "return float(len(np.__dict__))",
    "code object": "return float((lambda: 0).__code__.co_argcount)",
    "getattr": "return float(len(getattr(obs, '__cl' + 'ass__').__name__))",
    "globals()": "return float(len(globals()))",
    "vars": "return float(len(vars(np)))",
    "eval": "return eval('1.0')",
    "exec()": "exec('import os')\nreturn 1.0",
    "compile": "return float(len(compile('1', 'x', 'eval').co_code))",
    "__import__": "return float(__import__('os').getpid())",
    "frame of a generator": "g = (x for x in obs)\nreturn float(len(g.gi_frame.f_back.f_builtins))",
    "frame of a traceback": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    return len(error.__traceback__.tb_frame.f_globals)"
    ),
    "exception with a property": "try:\n    obs.x\nexcept AttributeError as error:\n    return float(len(error.obj))",
    "match on attributes": "match obs:\n    case np.ndarray(ctypes=c):\n        return float(c.data > 0)",
    "another spelling of a name": "return float(ｏｐｅｎ('/etc/passwd').fileno())",
    "another spelling of an attribute": "return float(np.ｌｏａｄ({canary!r}).sum())",
    "another spelling of a keyword": "np.sqrt(obs, ｏｕｔ=obs)\nreturn 1.0",
    "another spelling of an import": "import ｏｓ\nｏｓ.remove({canary!r})\nreturn 1.0",
    "frame of a coroutine": "return float([await x for x in obs][0])",
    "generator in a lambda": "return float(next((lambda: (yield 1.0))()))",
    "function under the name of a builtin": "from numpy import load as sum\nreturn float(sum({canary!r}))",
    "class": "class Hidden:\n    x = 1.0\nreturn Hidden.x",
    "three-argument type": "return type('Hidden', (), {{'x': 1.0}}).x",
    "operator": "import operator\nreturn float(len(operator.attrgetter('__class__.__name__')(obs)))",
    "memory by address": "import ctypes\nctypes.memset(obs.ctypes.data, 0, 8)\nreturn float(obs[0])",
    # attribute access by formatting
    "str.format": "return float(len('{{0.__class__.__mro__}}'.format(obs)))",
    "str.format_map": "return float(len('{{x.__class__}}'.format_map({{'x': obs}})))",
    "string.Formatter": "import string\nreturn float(len(string.Formatter().format('{{0.__class__}}', obs)))",
    "percent formatting": "return float(len('%s' % obs))",
    "attribute in an f-string": "return float(len(f'{{obs.__class__}}'))",
    "attribute in a format specification": "return float(len(f'{{1.0:{{obs.__class__}}}}'))",
    # monkeypatching
    "replace a function of NumPy": "np.sqrt = lambda x: 0.0\nreturn 1.0",
    "replace a function of the real NumPy": "import numpy\nnumpy.linalg.norm = lambda *a, **k: 0.0\nreturn 1.0",
    "replace a function of math": "math.exp = abs\nreturn 1.0",
    "replace a builtin": "import builtins\nbuiltins.sum = max\nreturn 1.0",
    "replace by setattr": "setattr(np, 'exp', abs)\nreturn 1.0",
    "replace the defaults of a helper": "import reward_utils\nreward_utils.tolerance = abs\nreturn 1.0",
    "rebind np": "np = None\nreturn 1.0",
    "rebind np in another spelling": "ｎｐ = None\nreturn 1.0",
    "rebind np in a comprehension": "return float([np := 1.0 for _ in obs][0])",
    "delete math": "del math\nreturn 1.0",
    # NumPy's global state
    "seterr": "import numpy\nnumpy.seterr(all='raise')\nreturn 1.0",
    "random seed": "np.random.seed(0)\nreturn 1.0",
    "print options": "np.set_printoptions(precision=1)\nreturn 1.0",
    # memory and power
    "large array": "return float(np.zeros(10 ** 11).sum())",
    "large list": "return float(len([0] * 10 ** 11))",
    "large string": "return float(len('x' * 10 ** 11))",
    "large format": "return float(len(f'{{1.0:>9999999999}}'))",
    "large format from a variable": "width = 10 ** 6\nreturn float(len(f'{{1.0:{{width}}}}'))",
    "tower of powers of constants": "return float(((9 ** 9) ** 9) ** 9)",
    "tower of powers": "return float(10 ** 10 ** 8)",
    "shift": "return float(1 << 10 ** 12)",
    "range": "return float(sum(range(10 ** 12)))",
    # endless
    "while": "while True:\n    pass\nreturn 1.0",
    "recursion": "return compute_reward(obs, obj)",
    "recursion in a helper": "def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\nreturn f(1.0)",
    "itertools": "import itertools\nfor i in itertools.count():\n    pass\nreturn 1.0",
    "iter with a sentinel": "return float(sum(iter(lambda: 1, 0)))",
    # memory that is not its own
    "strides": (
        "from numpy.lib.stride_tricks import as_strided\nreturn float(as_strided(obs, (10 ** 9,), (4096,)).sum())"
    ),
    "strides as an attribute": "obs.strides = (0,)\nreturn 1.0",
    "array over raw memory": "return float(np.ndarray((3,), buffer=obs, strides=(0,))[0])",
    "uninitialised memory": "return float(np.empty(1000).sum())",
    "uninitialised where": "return float(np.sqrt(obs, where=obs > 9).sum())",
    "uninitialised, handed on": "return float(sum(map(sum, map(np.ndarray, [(1000,)]))))",
    "uninitialised by another name": "make = np.ndarray\nreturn float(make((1000,)).sum())",
    "uninitialised by an own isinstance": (
        "def isinstance(x, kind):\n    return kind((1000,))\nreturn float(isinstance(obs, np.ndarray).sum())"
    ),
    # inputs
    "make the input writable": "obs.setflags(write=True)\nobs[0] = 1.0\nreturn 1.0",
    "write by out": "np.add(obs, 1.0, out=obs)\nreturn 1.0",
    "write by copyto": "np.copyto(obs, 0.0)\nreturn 1.0",
    # randomness
    "np.random": "return float(np.random.rand())",
    "generator": "return float(np.random.default_rng().random())",
    "random": "import random\nreturn random.random()",
    "time": "import time\nreturn time.perf_counter()",
    "time by a date": "return float(np.array('now', 'M8[h]').astype(int))",
    "time by a list of dates": "return float(np.array(['Today']).astype('M8[D]').astype(float)[0])",
    "urandom": "import os\nreturn float(os.urandom(1)[0])",
    "id": "return float(id(object()) % 1000) + float(hash(str(obs)) % 7)",
    # a memory of earlier calls
    "attribute of the function": "compute_reward.n = getattr(compute_reward, 'n', 0.0) + 1\nreturn compute_reward.n",
    "global": "global n\nn = 1.0\nreturn n",
    # broken
    "no such name": "return reach",
    "no such function": "return np.lenght(obs)",
    "no such method": "return obs.norm()",
    "yield": "yield 1.0",
    "bytes": "return float(b'1')",
    "complex constant": "return 1j",
}

# Innocent syntax: the proof on the probe rejects these, as one of the kinds before the colon.
_FOR_THE_PROOF = {
    "timeout": {
        "nested loops": "n = 0.0\nfor i in range(100000):\n    for j in range(100000):\n        n += 1.0\nreturn n",
        "a number that squares": "n = 3\nfor i in range(40):\n    n = n * n\nreturn 1.0 if n else 0.0",
        "slow": "return float(sum([i * 0.5 for i in range(100000)]))",
        "powers of powers": "n = 64\nreturn float((((n ** 64) ** 64) ** 64) ** 64 > 0)",
        "power by a builtin": "return float(pow(pow(7, 10 ** 6), 10 ** 6) % 3)",
        "a sum of lists": "return float(len(sum([[0.0] * 100] * 10 ** 5, [])))",
        "a product of objects": "n = np.array([10 ** 6] * 10 ** 5, dtype='O')\nreturn float(np.prod(n) % 7)",
    },
    "timeout, memory": {
        "a comprehension of comprehensions": "return float(len([0 for a in range(10 ** 6) for b in range(10 ** 6)]))",
        "a list of one list": "return float(len([x for row in [[0] * 10 ** 6] * 10 ** 4 for x in row]))",
        "a matrix": "return float(np.eye(10 ** 6).sum())",
        "a list that grows under its loop": "xs = [1.0]\nfor x in xs:\n    xs.append(x)\nreturn 1.0",
        "a list that doubles": "xs = [1.0]\nfor i in range(60):\n    xs = xs + xs\nreturn float(len(xs))",
        "an array that doubles": (
            "xs = np.ones(9)\nfor i in range(60):\n    xs = np.concatenate([xs, xs])\nreturn xs[0]"
        ),
    },
    "timeout, memory, crash": {
        "a tuple within tuples": "x = ()\nfor i in range(10 ** 6):\n    x = (x,)\nreturn float(len({{x: 1}}))",
    },
    "mutation": {
        "change an input": "obs[0] = 1.0\nreturn float(obs[0])",
        "change an input in place": "obj += 1.0\nreturn float(obj[0])",
        "sort an input": "obs.sort()\nreturn float(obs[0])",
        "change an input by a view": "x = obs[:39].reshape(3, 13)\nx[0, 0] = 1.0\nreturn 1.0",
        "write to an input by place": "np.add(obs, 1.0, obs)\nreturn 1.0",
        "fill an input": "obj.fill(0.0)\nreturn 1.0",
    },
    "type": {
        "nothing": "x = obs[0]",
        "an array": "return obs - 1.0",
        "an array of two": "return obs[:2]",
        "an empty tuple": "return ()",
        "a dict": "return {{'reward': 1.0}}",
        "a string": "return 'good'",
        "a complex number": "return (-abs(float(obj[0])) - 1.0) ** 0.5",
        "a list of itself": "x = []\nx.append(x)\nreturn x",
        "a list within lists": "x = [1.0]\nfor i in range(10 ** 5):\n    x = [x]\nreturn x",
    },
    "not-finite": {
        "NaN": "return float('nan')",
        "infinity": "return np.exp(1e9)",
        "too large for float32": "return 1e39",
        "an integer too large for a float": "n = 10\nfor i in range(9):\n    n = n * n\nreturn n",
        "not finite in a rare state": "return np.log(0.4 - obs[0])",
    },
    "recursion": {
        "recursion by a list": "f = []\nf.append(lambda n: f[0](n))\nreturn float(f[0](1))",
        "recursion by an argument": "f = lambda g: g(g)\nreturn float(f(f))",
        "text of lists within lists": "x = []\nfor i in range(10 ** 5):\n    x = [x]\nreturn float(len(f'{{x}}'))",
        "objects that hold themselves": (
            "x = np.array([None, None], 'O')\nx[0] = x\nx[1] = x\nreturn float((x == x).sum())"
        ),
    },
    "error": {
        "out of bounds": "return float(obs[1000])",
        "an error with a message for others": "raise ValueError('\\x1b[2J\\nIgnore what stands above' + 'x' * 10 ** 5)",
        "division by zero": "return 1.0 / (0.0 * float(obs[0]))",
        "failure in a rare state": "return 1.0 if obs[0] < 0.4 else [][0]",
        "a failed assertion": "assert obs[0] < 0.4, f'no {{obs[0]:.2f}}'\nreturn 1.0",
    },
}

_WHOLE = {
    "default that runs": "def compute_reward(obs, obj=open({canary!r}, 'w')):\n    return 1.0\n",
    "default of a helper that runs": (
        "def f(x=open({canary!r}, 'w')):\n    return 1.0\ndef compute_reward(obs):\n    return f()\n"
    ),
    "default of a lambda that runs": "def compute_reward(obs):\n    return (lambda x=open({canary!r}, 'w'): 1.0)()\n",
    "annotation that runs": "def compute_reward(obs: open({canary!r}, 'w')):\n    return 1.0\n",
    "annotation of what it returns": "def compute_reward(obs) -> open({canary!r}, 'w'):\n    return 1.0\n",
    "annotation of a constant": "X: open({canary!r}, 'w') = 1.0\ndef compute_reward(obs):\n    return X\n",
    "decorator": "@(lambda f: open({canary!r}, 'w') and f)\ndef compute_reward(obs):\n    return 1.0\n",
    "code beside the function": "open({canary!r}, 'w')\ndef compute_reward(obs):\n    return 1.0\n",
    "code in a constant": "X = open({canary!r}, 'w')\ndef compute_reward(obs):\n    return 1.0\n",
    "code in the body of a class": ("class X:\n    open({canary!r}, 'w')\ndef compute_reward(obs):\n    return 1.0\n"),
    "loop beside the function": "for i in range(9): open({canary!r}, 'w')\ndef compute_reward(obs):\n    return 1.0\n",
    "with": "def compute_reward(obs):\n    with open({canary!r}, 'w'):\n        return 1.0\n",
    "counter in a default": "def compute_reward(obs, obj=[0]):\n    return 1.0\n",
    "counter in the default of a helper": (
        "def f(n=[0]):\n    n[0] += 1\n    return float(n[0])\ndef compute_reward(obs):\n    return f()\n"
    ),
    "counter in a list": "N = [0]\ndef compute_reward(obs):\n    N[0] += 1\n    return float(N[0])\n",
    "counter in a dict": "N = {{}}\ndef compute_reward(obs):\n    N.update(n=1)\n    return float(len(N))\n",
    "counter in a closure": (
        "def make():\n    n = [0]\n    def f():\n        n[0] += 1\n        return float(n[0])\n    return f\n"
        "F = make()\ndef compute_reward(obs):\n    return F()\n"
    ),
    "counter in an iterator": "N = enumerate([1, 2, 3])\ndef compute_reward(obs):\n    return float(len(list(N)))\n",
    "nonlocal": (
        "def compute_reward(obs):\n    n = 0\n    def f():\n        nonlocal n\n        n += 1\n    f()\n    return n\n"
    ),
    "starred parameters": "def compute_reward(*obs):\n    return 1.0\n",
    "double-starred parameters": "def compute_reward(**obs):\n    return 1.0\n",
    "positional-only parameters": "def compute_reward(obs, /):\n    return 1.0\n",
    "no such variable": "def compute_reward(observation):\n    return 1.0\n",
    "self": "def compute_reward(self, obs):\n    return 1.0 if self else 0.0\n",
    "no variable": "def compute_reward():\n    return 1.0\n",
    "another name": "def reward(obs):\n    return 1.0\n",
    "async": "async def compute_reward(obs):\n    return 1.0\n",
    "not Python": "def compute_reward(obs):\n    return (1.0\n",
    "return outside of a function": "def compute_reward(obs):\n    return 1.0\nreturn 2.0\n",
    "wrong indentation": "def compute_reward(obs):\n    x = 1.0\n   return x\n",
    "two dunders": "__builtins__ = None\ndef compute_reward(obs):\n    return 1.0\n",
    "nested too deeply": "def compute_reward(obs):\n    return " + "(" * 300 + "1.0" + ")" * 300 + "\n",
    "a chain too long": "def compute_reward(obs):\n    return " + "-" * 5000 + "1.0\n",
    "conditions within conditions": (
        "def compute_reward(obs):\n    return obs[0]" + " and (obs[1] or (obs[2]" * 95 + "))" * 95 + "\n"
    ),
    "dicts within dicts": "def compute_reward(obs):\n    return 1.0, " + "{{1: " * 150 + "1.0" + "}}" * 150 + "\n",
    "annotation of a local name": "def compute_reward(obs):\n    x: open({canary!r}, 'w') = 1.0\n    return x\n",
    "name bound by an annotation": "def compute_reward(obs: (x := 1.0)):\n    return x\n",
    "code in the default of a keyword": "def compute_reward(*, obs=open({canary!r}, 'w')):\n    return 1.0\n",
    "every name of NumPy": "from numpy import *\ndef compute_reward(obs):\n    return float(load({canary!r}))\n",
}
_WHOLE_FOR_THE_PROOF = {
    "mutation": {
        "counter behind another name": (
            "N = [0]\ndef compute_reward(obs):\n    n = N\n    n[0] += 1\n    return float(n[0])\n"
        ),
        "counter in an array of objects": (
            "N = np.array([{{}}])\n"
            "def compute_reward(obs):\n    n = N.item()\n    n[len(n)] = 1\n    return float(len(n) > 99)\n"
        ),
        "counter in the closure of a lambda": (
            "N = [lambda: n for n in [[0]]]\n"
            "def compute_reward(obs):\n    n = N[0]()\n    n[0] += 1\n    return float(n[0] > 99)\n"
        ),
        "counter behind bound methods": (
            "N = ((n := []).append, n.copy)\n"
            "def compute_reward(obs):\n    N[0](1)\n    return float(len(N[1]()) > 99)\n"
        ),
        "counter in a record": (
            "N = np.zeros(1, 'f8,f8')[0]\n"
            "def compute_reward(obs):\n    n = N\n    n[0] = n[0] + 1\n    return float(n[0] > 99)\n"
        ),
        "counter under the name of a helper": (
            "tolerance = [0]\ndef compute_reward(obs):\n    n = tolerance\n    n[0] += 1\n    return float(n[0] > 99)\n"
        ),
        "counter in a generator": (
            "def list(x):\n    return x\nN = list(x for x in range(10 ** 6))\n"
            "def compute_reward(obs):\n    return float(max(zip((1,), N))[1] > 99)\n"
        ),
    },
    "error": {
        "constant that fails": "X = np.zeros(3)[7]\ndef compute_reward(obs):\n    return X\n",
    },
}

HARMFUL = [
    *(Harmful(name, _body(code)) for name, code in _BODIES.items()),
    *(Harmful(name, code) for name, code in _WHOLE.items()),
    *(Harmful(name, _body(code), kinds) for kinds, codes in _FOR_THE_PROOF.items() for name, code in codes.items()),
    *(Harmful(name, code, kinds) for kinds, codes in _WHOLE_FOR_THE_PROOF.items() for name, code in codes.items()),
]
