"""Whether a source is a reward function at all: its syntax tree is checked against a list of what is allowed.

What is not listed is not allowed, and nothing is executed to find out. This is the first of two walls; the second
is the sandbox of the process that runs what gets through (`reward_code.worker`).
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from errors import nearest
from reward_code.names import BUILTINS, MODULE_NAMES, words
from reward_code.normal_form import TYPE_NODES, normal_form
from reward_code.syntax import Code, Rejected, bindings, dotted, parse, unparse
from reward_code.whole import check_depth, check_whole

# Methods and attributes of arrays, lists, dicts and sets.
_CHANGING = words("add append clear discard extend fill insert pop remove reverse setdefault sort update")
_ATTRIBUTES = _CHANGING | words("""
    T all any argmax argmin argsort astype ceil clip copy count cumprod cumsum diagonal dot dtype flatten floor get
    index is_integer item items keys max mean min ndim nonzero prod ptp ravel real repeat reshape round shape size
    squeeze std sum take tolist trace transpose union values var
    """)

# A keyword that hands out uninitialised memory, or writes where it should not.
_KEYWORDS_NOT_ALLOWED = words("casting like order out signature strides subok where")

_TAKES_A_GENERATOR = ("all", "any", "list", "max", "min", "set", "sorted", "sum", "tuple")
_TAKES_A_GENERATOR_IN_MATH = ("fsum", "prod")
_CALLED_BY_CONSTANTS = BUILTINS - {"enumerate", "filter", "map", "reversed", "zip"}  # iterators keep a state
_MEANING_OF_ITS_OWN = ("np", "numpy", "math", "reward_utils", "compute_reward", "isinstance")

_LARGEST_INTEGER = 10**6
_LARGEST_EXPONENT = 64
_FORMAT_SPEC = re.compile(r"[-+ <>=^0,_]*\d{0,2}(\.\d{1,2})?[a-zA-Z%]?")

_NODES = (
    # statements
    *(ast.Module, ast.FunctionDef, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.If, ast.Expr),
    *(ast.Assert, ast.Raise, ast.Pass, ast.Break, ast.Continue, ast.Delete),
    # expressions
    *(ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp),
    *(ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Call, ast.JoinedStr, ast.FormattedValue),
    *(ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice),
    # parts
    *(ast.arguments, ast.arg, ast.keyword, ast.comprehension, ast.Load, ast.Store, ast.Del),
    # operators
    *(ast.And, ast.Or, ast.Add, ast.Sub, ast.Mult, ast.MatMult, ast.Div, ast.Mod, ast.Pow, ast.FloorDiv, ast.BitOr),
    *(ast.BitAnd, ast.BitXor, ast.Invert, ast.Not, ast.UAdd, ast.USub, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt),
    *(ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
)
_REFUSALS = {
    "While": "a while loop is not allowed; use for over a range",
    "Try": "try is not allowed; test for the case instead",
    "TryStar": "try is not allowed; test for the case instead",
    "With": "with is not allowed",
    "Match": "match is not allowed; use if and elif",
    "ClassDef": "a class is not allowed; use functions",
    "Global": "global is not allowed; a reward depends on its arguments alone",
    "Nonlocal": "nonlocal is not allowed; a reward depends on its arguments alone",
    "Yield": "a generator function is not allowed; return the reward",
    "YieldFrom": "a generator function is not allowed; return the reward",
    "LShift": "<< is not allowed; use a product",
    "RShift": ">> is not allowed; use a quotient",
}


def check_code(code: Code, inputs: Mapping[str, Any]) -> Code:
    """Return the normal form of `code`, which is what may be run.

    Args:
        code: what a model wrote.
        inputs: the argument names that it may have; a value says where the argument lies in a row, and aliases share
            one place.

    Raises:
        Rejected: says what is wrong, and what would be right.
    """
    try:
        notes = normal_form(code.tree)
        source = unparse(code.tree)
        tree = parse(source)  # what is checked is the very text that runs
        check_depth(tree)
        _Checker(source).visit(tree)
        check_whole(tree, inputs)
    except (RecursionError, MemoryError):
        raise Rejected("syntax", "the code is nested too deeply") from None
    return Code(source, tree, tuple(dict.fromkeys([*code.unwrapped, *notes])))


def check_source(source: str, inputs: Mapping[str, Any]) -> str:
    """Return the normal form of `source`. Raises Rejected, like :func:`check_code`."""
    return check_code(Code(source, parse(source)), inputs).source


class _Checker(ast.NodeVisitor):
    """Raises Rejected at the first node that is not allowed where it stands."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._local: list[frozenset[str]] = []  # the names bound in each function around the current node
        self._plain: frozenset[str] = frozenset()  # the constants outside the functions that a default may be

    def visit(self, node: ast.AST) -> None:
        """Check one node and all below it."""
        if not isinstance(node, _NODES):
            name = type(node).__name__
            self._reject("construct", node, _REFUSALS.get(name, f"{name} is not allowed"))
        super().visit(node)

    def _reject(self, kind: str, node: ast.AST, reason: str) -> None:
        code = ast.get_source_segment(self._source, node) if hasattr(node, "lineno") else None
        first_line = (code or "").strip().split("\n")[0][:60]
        raise Rejected(kind, f"`{first_line}`: {reason}" if first_line else reason)

    def visit_Module(self, module: ast.Module) -> None:
        assigned = [node for node in module.body if isinstance(node, ast.Assign) and len(node.targets) == 1]
        often = Counter(name for name, _ in bindings(module))
        self._plain = frozenset(
            target.id
            for target, value in ((node.targets[0], node.value) for node in assigned)
            if isinstance(target, ast.Name) and often[target.id] == 1 and _is_plain(value)
        )
        for statement in module.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                self._check_constant(statement)
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            elif isinstance(statement, _NODES) and not isinstance(statement, (ast.FunctionDef, ast.Pass)):
                self._reject("construct", statement, "outside functions only constants are allowed")
            self.visit(statement)

    def _check_constant(self, statement: ast.Assign | ast.AnnAssign) -> None:
        in_lambdas = {
            id(inner) for node in ast.walk(statement) if isinstance(node, ast.Lambda) for inner in ast.walk(node.body)
        }
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and id(node) not in in_lambdas:
                function = node.func
                method = isinstance(function, ast.Attribute) and function.attr in _ATTRIBUTES - _CHANGING
                allowed = method or self._module_of(function) or dotted(function) in _CALLED_BY_CONSTANTS
                if not allowed:
                    self._reject("construct", node, "a constant outside the functions may not be computed by this call")
            elif isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
                self._reject("construct", node, "only a name can be a constant")

    def visit_FunctionDef(self, function: ast.FunctionDef) -> None:
        if function.decorator_list:
            self._reject("construct", function.decorator_list[0], "a decorator is not allowed")
        if getattr(function, "type_params", None):
            self._reject("construct", function, "type parameters are not allowed")
        self._check_binding(function, function.name)
        if function.returns is not None:
            self._check_annotation(function.returns)
        self._visit_callable(function, function.args, function.body)

    def visit_Lambda(self, function: ast.Lambda) -> None:
        self._visit_callable(function, function.args, [function.body])

    def _visit_callable(self, function: ast.AST, arguments: ast.arguments, body: list[Any]) -> None:
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            self._reject("signature", function, "parameters with *, ** or / are not allowed; name each one")
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)
                if not _is_plain(default, self._plain):
                    self._reject("construct", default, "a default must be a number, a string, or a tuple of these")
        for argument in [*arguments.args, *arguments.kwonlyargs]:
            self._check_binding(argument, argument.arg)
            if argument.annotation is not None:
                self._check_annotation(argument.annotation)
        self._local.append(frozenset(name for name, _ in bindings(function)))
        for statement in body:
            self.visit(statement)
        self._local.pop()

    def _check_annotation(self, annotation: ast.expr) -> None:
        """Annotations are never evaluated, but only what looks like a type is allowed there."""
        for node in ast.walk(annotation):
            if not isinstance(node, TYPE_NODES) or "__" in getattr(node, "attr", getattr(node, "id", "")):
                self._reject("construct", annotation, "an annotation must be a type")

    def visit_AnnAssign(self, statement: ast.AnnAssign) -> None:
        self._check_annotation(statement.annotation)
        self.visit(statement.target)
        if statement.value is not None:
            self.visit(statement.value)

    def visit_Name(self, name: ast.Name) -> None:
        if not isinstance(name.ctx, ast.Load):
            self._check_binding(name, name.id)

    def _check_binding(self, node: ast.AST, name: str) -> None:
        if name.startswith("__"):
            self._reject("name", node, "a name may not begin with two underscores")
        if name in _MEANING_OF_ITS_OWN and not (name == "compute_reward" and isinstance(node, ast.FunctionDef)):
            self._reject("name", node, f"`{name}` has a meaning of its own; choose another name")

    def visit_Attribute(self, attribute: ast.Attribute) -> None:
        name = attribute.attr
        if not isinstance(attribute.ctx, ast.Load):
            self._reject("attribute", attribute, "attributes cannot be assigned")
        if name.startswith("_"):
            self._reject("attribute", attribute, "an attribute that begins with an underscore is not allowed")
        module = dotted(attribute.value)
        if module in MODULE_NAMES:
            if name not in MODULE_NAMES[module]:
                self._reject("attribute", attribute, _refusal_in_module(module, name))
            if name == "ndarray":  # as a value it could be called, and it returns uninitialised memory
                self._reject("attribute", attribute, "np.ndarray takes raw memory; use np.array or np.zeros")
            return
        self.visit(attribute.value)
        owner = attribute.value.id if isinstance(attribute.value, ast.Name) else ""
        if name not in _ATTRIBUTES and owner in ("self", "cls", "env"):
            self._reject("attribute", attribute, f"there is no {owner}; a reward depends on its arguments alone")
        if owner in BUILTINS and not any(owner in names for names in self._local):
            self._reject("attribute", attribute, f"methods of {owner} itself are not allowed; call them on a value")
        if name not in _ATTRIBUTES:
            self._reject("attribute", attribute, f"the attribute .{name} is not allowed in a reward function")

    def visit_Subscript(self, subscript: ast.Subscript) -> None:
        if not isinstance(subscript.ctx, ast.Load):
            self._check_change(subscript, subscript.value)
        self.generic_visit(subscript)

    def _check_change(self, node: ast.AST, changed: ast.expr) -> None:
        while isinstance(changed, (ast.Subscript, ast.Attribute)):
            changed = changed.value
        if isinstance(changed, ast.Name) and not any(changed.id in names for names in self._local):
            self._reject("mutation", node, f"`{changed.id}` is a constant of all calls and cannot be changed")

    def visit_Call(self, call: ast.Call) -> None:
        function = call.func
        module = self._module_of(function)
        if isinstance(function, ast.Attribute) and module is None and function.attr in _CHANGING:
            self._check_change(call, function.value)
        self.visit(function)
        generator_welcome = (isinstance(function, ast.Name) and function.id in _TAKES_A_GENERATOR) or (
            module == "math" and isinstance(function, ast.Attribute) and function.attr in _TAKES_A_GENERATOR_IN_MATH
        )
        for argument in call.args:
            if isinstance(argument, ast.GeneratorExp) and generator_welcome:
                self.generic_visit(argument)
            elif isinstance(function, ast.Name) and function.id == "isinstance":
                for kind in argument.elts if isinstance(argument, ast.Tuple) else [argument]:
                    if dotted(kind) != "np.ndarray":
                        self.visit(kind)
            else:
                self.visit(argument)
        for keyword in call.keywords:
            if keyword.arg is None:
                self._reject("construct", call, "** in a call is not allowed; name the arguments")
            if keyword.arg in _KEYWORDS_NOT_ALLOWED:
                self._reject("construct", call, f"the keyword {keyword.arg}= is not allowed")
            self.visit(keyword.value)

    def visit_GeneratorExp(self, generator: ast.GeneratorExp) -> None:
        takers = ", ".join(_TAKES_A_GENERATOR)
        self._reject("construct", generator, f"a generator may only be handed straight to {takers}; use a list")

    def visit_Dict(self, dictionary: ast.Dict) -> None:
        for key in dictionary.keys:
            if key is not None:  # None stands for {**other}
                self.visit(key)
        for value in dictionary.values:
            self.visit(value)

    def visit_comprehension(self, comprehension: ast.comprehension) -> None:
        if comprehension.is_async:
            self._reject("construct", comprehension.target, "async is not allowed")
        self.generic_visit(comprehension)

    def visit_Constant(self, constant: ast.Constant) -> None:
        value = constant.value
        if isinstance(value, (bytes, complex)):
            self._reject("construct", constant, f"a {type(value).__name__} constant is not allowed")
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            self._reject("construct", constant, "an integer this large is not allowed; write a float, as 1e7")

    def visit_BinOp(self, operation: ast.BinOp) -> None:
        left = operation.left
        formats = isinstance(left, ast.JoinedStr) or (isinstance(left, ast.Constant) and isinstance(left.value, str))
        if formats and isinstance(operation.op, ast.Mod):
            self._reject("construct", operation, "% formatting is not allowed; use an f-string")
        if isinstance(operation.op, ast.Pow):
            exponent = _integer(operation.right)
            if exponent is not None and abs(exponent) > _LARGEST_EXPONENT:
                self._reject("construct", operation, f"an exponent above {_LARGEST_EXPONENT} is not allowed")
        value = _integer(operation)
        if value is not None and abs(value) > _LARGEST_INTEGER:
            self._reject("construct", operation, "an integer this large is not allowed; use floats")
        self.generic_visit(operation)

    def visit_FormattedValue(self, field: ast.FormattedValue) -> None:
        self.visit(field.value)
        if field.format_spec is not None:
            parts = getattr(field.format_spec, "values", [])
            texts = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
            if len(texts) != len(parts) or not _FORMAT_SPEC.fullmatch("".join(texts)):
                self._reject("construct", field.value, "only a plain format such as :.3f is allowed")

    @staticmethod
    def _module_of(function: ast.expr) -> str | None:
        module = dotted(function.value) if isinstance(function, ast.Attribute) else None
        return module if module in MODULE_NAMES else None


def _refusal_in_module(module: str, name: str) -> str:
    if module == "np" and name == "random":
        return "a reward must be the same for the same inputs; np.random is not there"
    if module == "np" and name.startswith("empty"):
        return "its memory is not initialised; use np.zeros"
    return f"{module}.{name} is not allowed in a reward function{nearest(name, MODULE_NAMES[module])}"


def _is_plain(node: ast.expr, constants: frozenset[str] = frozenset()) -> bool:
    """Return whether this is made of literals, and of `constants`, which are, so that no call can change it."""
    if isinstance(node, ast.Tuple):
        return all(_is_plain(element, constants) for element in node.elts)
    if isinstance(node, ast.UnaryOp):
        return _is_plain(node.operand, constants)
    if isinstance(node, ast.BinOp):
        return _is_plain(node.left, constants) and _is_plain(node.right, constants)
    return isinstance(node, ast.Constant) or dotted(node) in {*_NUMBERS, *constants}


_NUMBERS = ("np.inf", "np.pi", "np.e", "math.inf", "math.pi", "math.e")


def _integer(node: ast.expr) -> int | None:
    """The value of an expression of integer constants, capped where it is too large anyway; None for any other."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        return _integer(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _INTEGER_ARITHMETIC:
        left, right = _integer(node.left), _integer(node.right)
        if left is not None and right is not None:
            bound = 10 * _LARGEST_INTEGER
            left, right = min(abs(left), bound), min(abs(right), bound)
            return min(_INTEGER_ARITHMETIC[type(node.op)](left, right), bound)
    return None


_INTEGER_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left + right,
    ast.Mult: lambda left, right: left * right,
    ast.Pow: lambda left, right: left ** min(right, 25) if left > 1 else left,
}
