"""The form of a model's code that is checked, run and compiled: no imports, no prints, one name for each thing.

What no reward depends on is dropped from the syntax tree: print statements, a main part, tests and examples of the
function, settings of libraries, names for types, module metadata, and definitions, imports and parameters that nothing
uses. Names for modules and for what NumPy 2 has renamed are replaced by ours. Readers still see the source as it was
written.
"""

import ast

from reward_code.names import BUILTINS, IN_WORDS, MODULE_NAMES
from reward_code.syntax import Rejected, bindings, dotted, globals_read, names_read, parse, unparse

# Modules that a reward function may import, with the name under which they are available anyway.
_IMPORTS = {
    "numpy": "np",
    "numpy.linalg": "np.linalg",
    "math": "math",
    "reward_utils": "reward_utils",
    "metaworld.utils.reward_utils": "reward_utils",
    "metaworld.envs.reward_utils": "reward_utils",
    "metaworld.envs.mujoco.utils.reward_utils": "reward_utils",
}
_IMPORTS_FOR_ANNOTATIONS = ("__future__", "typing", "typing_extensions", "collections.abc", "numpy.typing")

# Names that NumPy 2.0 (and 1.24, for those of Python's own types) has removed, and what its release notes say instead;
# and those that it has added, which Numba does not know.
_RENAMED = {
    **{f"np.a{name}": f"np.arc{name}" for name in ("cos", "cosh", "sin", "sinh", "tan", "tan2", "tanh")},
    **{"np.concat": "np.concatenate", "np.pow": "np.power"},
    **dict.fromkeys(("np.Inf", "np.Infinity", "np.infty", "np.PINF"), "np.inf"),
    **{"np.NINF": "-np.inf", "np.NaN": "np.nan", "np.NAN": "np.nan", "np.PZERO": "0.0", "np.NZERO": "-0.0"},
    **{"np.float_": "np.float64", "np.float": "np.float64", "np.int": "np.int64", "np.bool8": "np.bool_"},
    **{"np.math": "math", "np.linalg.linalg": "np.linalg"},
    **{"np.product": "np.prod", "np.cumproduct": "np.cumprod", "np.alltrue": "np.all", "np.sometrue": "np.any"},
    **{"np.in1d": "np.isin", "np.trapz": "np.trapezoid", "np.row_stack": "np.vstack", "np.round_": "np.round"},
}

TYPE_NODES = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.BinOp, ast.BitOr, ast.Load),
)


def normal_form(tree: ast.Module) -> list[str]:
    """Bring `tree` into its normal form, in place.

    Returns:
        What was unwrapped, apart from habits that change nothing: one phrase for each.

    Raises:
        Rejected: it uses a module that it may not import, or a module's name is also assigned.
    """
    _Needed(tree).visit(tree)
    form = _NormalForm(tree)
    form.visit(tree)
    return list(dict.fromkeys(form.notes))


def canonical(source: str | ast.Module) -> str:
    """Return the normal form of `source` without comments and layout: the same for all copies of a function."""
    try:
        tree = parse(source) if isinstance(source, str) else parse(unparse(source))
        normal_form(tree)
        return unparse(tree)
    except Rejected:
        return source if isinstance(source, str) else unparse(source)


class _Needed(ast.NodeTransformer):
    """Drops print statements and what a module says about itself."""

    def __init__(self, tree: ast.Module) -> None:
        self._needless = set(map(id, _about_itself(tree)))

    def visit(self, node: ast.AST) -> ast.AST | None:
        """Return `node` without what is not needed; None for nothing."""
        if id(node) in self._needless or _is_print(node):
            return None
        return _with_a_body(super().visit(node))


class _NormalForm(ast.NodeTransformer):
    """Gives everything that is imported our names. Raises Rejected."""

    def __init__(self, tree: ast.Module) -> None:
        self.notes: list[str] = []
        self._own = {name for name, _ in bindings(tree)}
        self._meanings = {} if "numpy" in self._own else {"numpy": "np"}  # of names: a dotted name of ours
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        types = {"np.ndarray", "numpy.ndarray", "object", "str"}.union(*map(_imported_for_annotations, imports))
        tree.body = [statement for statement in tree.body if not _names_a_type(statement, types)]
        used = set(names_read(tree))
        for statement in imports:
            self._read_import(statement, used)

    def visit(self, node: ast.AST) -> ast.AST | None:
        """Return what stands for `node`; None for nothing."""
        return None if isinstance(node, (ast.Import, ast.ImportFrom)) else _with_a_body(super().visit(node))

    def visit_FunctionDef(self, function: ast.FunctionDef) -> ast.AST:
        """Drop the parameters of ``compute_reward`` that it cannot be given and does not use."""
        if function.name == "compute_reward":
            arguments = function.args
            used = set(names_read(*function.body))
            unusable = [argument for argument in arguments.args[:1] if argument.arg in ("self", "cls")]
            for argument in [*unusable, *filter(None, (arguments.vararg, arguments.kwarg))]:
                if argument.arg not in used:
                    self.notes.append(f"an unused parameter {argument.arg}")
                    if argument in arguments.args:
                        arguments.args.remove(argument)
                    elif argument is arguments.vararg:
                        arguments.vararg = None
                    else:
                        arguments.kwarg = None
        return self.generic_visit(function)

    def visit_Name(self, name: ast.Name) -> ast.AST:
        """Replace a name for a module, or for a part of one, by ours."""
        meaning = self._meanings.get(name.id)
        if meaning is None:
            return name
        if name.id in self._own:
            raise Rejected("name", f"`{name.id}` is imported and also assigned; choose another name")
        return self._renamed(_expression(meaning, name))

    def visit_Attribute(self, attribute: ast.Attribute) -> ast.AST:
        """Replace a name that NumPy 2 has renamed by the new one."""
        self.generic_visit(attribute)
        return self._renamed(attribute)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        """Replace what NumPy 2 has removed, ``x.ptp()`` and ``np.asfarray(x)``, as it recommends."""
        self.generic_visit(call)
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr == "ptp" and dotted(function) != "np.ptp":
            self.notes.append("np.ptp for a method that NumPy 2 has removed")
            return ast.copy_location(
                ast.Call(_expression("np.ptp", function), [function.value, *call.args], call.keywords), call
            )
        if dotted(function) == "np.asfarray" and len(call.args) == 1 and not call.keywords:
            self.notes.append("np.asarray for np.asfarray, a name of NumPy 1")
            call.func = _expression("np.asarray", function)
            call.keywords = [ast.keyword("dtype", _expression("float", function))]
        return call

    def _renamed(self, node: ast.expr) -> ast.expr:
        old = dotted(node)
        new = _RENAMED.get(old or "")
        if new is None or "np" in self._own:
            return node
        self.notes.append(f"{new} for {old}")
        return _expression(new, node)

    def _read_import(self, statement: ast.Import | ast.ImportFrom, used: set[str]) -> None:
        """Note what the names that `statement` binds mean. Raises Rejected for a module that may not be used."""
        foreign = []
        for alias in statement.names:
            bound = alias.asname or alias.name
            if isinstance(statement, ast.Import):
                known = alias.name in _IMPORTS or alias.name in _IMPORTS_FOR_ANNOTATIONS
                meaning = _IMPORTS.get(alias.name)
                if not alias.asname and "." in alias.name:  # binds only the first part, which has a meaning anyway
                    bound, meaning = alias.name.split(".")[0], None
            else:
                known, meaning = self._meaning_in(statement, alias.name)
            if not known:
                foreign.append(bound)
            elif meaning is not None and alias.name != "*" and bound != meaning:
                self._meanings[bound] = meaning
        if used.intersection(foreign):
            refused = f"`{ast.unparse(statement)[:80]}` is not allowed; {IN_WORDS} are there without any import"
            raise Rejected("import", refused)
        if foreign:
            self.notes.append(f"the unused `{ast.unparse(statement)[:80]}`")

    def _meaning_in(self, statement: ast.ImportFrom, name: str) -> tuple[bool, str | None]:
        """Return whether `name` may be imported from this module, and how we write it."""
        module = "" if statement.level else statement.module or ""
        if module in _IMPORTS_FOR_ANNOTATIONS:
            return True, None
        if f"{module}.{name}" in _IMPORTS:
            return True, _IMPORTS[f"{module}.{name}"]
        if module not in _IMPORTS:
            return False, None
        if name == "*" and _IMPORTS[module] != "reward_utils":
            everything = MODULE_NAMES[_IMPORTS[module]] - BUILTINS - self._own
            self._meanings.update({name: f"{_IMPORTS[module]}.{name}" for name in everything})
        return True, f"{_IMPORTS[module]}.{name}"


def _with_a_body(node: ast.AST) -> ast.AST:
    if not isinstance(node, ast.Module) and getattr(node, "body", None) == []:
        node.body = [ast.Pass()]  # type: ignore[attr-defined]
    return node


def _names_a_type(statement: ast.stmt, types: set[str]) -> bool:
    """Return whether this only gives a name to a type that has one of the names `types` in it."""
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
        return False
    parts = list(ast.walk(statement.value))
    return all(isinstance(part, TYPE_NODES) for part in parts) and any(dotted(part) in types for part in parts)


def _expression(text: str, node: ast.AST) -> ast.expr:
    """Return the expression `text` in the place of `node`."""
    expression = ast.parse(text, mode="eval").body
    for part in ast.walk(expression):
        if isinstance(part, ast.expr):
            ast.copy_location(part, node)
    return expression


def _imported_for_annotations(statement: ast.Import | ast.ImportFrom) -> set[str]:
    of_module = isinstance(statement, ast.ImportFrom) and statement.module in _IMPORTS_FOR_ANNOTATIONS
    return {
        alias.asname or alias.name
        for alias in statement.names
        if of_module or (isinstance(statement, ast.Import) and alias.name in _IMPORTS_FOR_ANNOTATIONS)
    }


def _is_print(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _about_itself(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements outside the functions that no reward depends on.

    They are a main part, module metadata (``__all__``), prints, prose, assertions, settings of libraries, examples that
    call the function, functions and classes that it does not call, and constants that only all of these read.
    """
    kinds = (_is_main_part, _is_said_of_module, _is_prose, _is_setting, _is_example)
    needless = [statement for statement in tree.body if any(is_kind(statement) for is_kind in kinds)]
    needed = _needed_by_the_reward(tree)
    if needed:
        needless += [one for one in tree.body if _only_defines(one) and needed.isdisjoint(_bound(one))]
    shown = set(names_read(*needless))
    for one in reversed(tree.body):
        constant = isinstance(one, (ast.Assign, ast.AnnAssign)) and one not in needless
        if constant and not shown.isdisjoint(_bound(one)) and needed.isdisjoint(_bound(one)):
            needless.append(one)
            shown.update(names_read(one))
    return [
        one for one in needless if not isinstance(one, (ast.Assign, ast.AnnAssign)) or needed.isdisjoint(_bound(one))
    ]


def _needed_by_the_reward(tree: ast.Module) -> set[str]:
    """Return the names outside the functions that ``compute_reward`` needs, itself included; none if there is none."""
    needed, waiting = set[str](), {"compute_reward"} & {name for one in tree.body for name in _bound(one)}
    while waiting:
        needed |= waiting
        waiting = {name for one in tree.body if not waiting.isdisjoint(_bound(one)) for name in _needs(one)} - needed
    return needed


def _needs(statement: ast.stmt) -> set[str]:
    try:
        return set(globals_read(statement))
    except Rejected:  # as the check will say better
        return set(names_read(statement))


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a definition binds outside the functions."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    constant = isinstance(statement, (ast.Assign, ast.AnnAssign))
    return {name for name, _ in bindings(statement)} if constant else set()


def _only_defines(statement: ast.stmt) -> bool:
    """Return whether this is a function or a class of functions, which do nothing unless they are called."""
    if isinstance(statement, ast.FunctionDef):
        defaults = [default for default in (*statement.args.defaults, *statement.args.kw_defaults) if default]
        return not statement.decorator_list and all(isinstance(default, ast.Constant) for default in defaults)
    if isinstance(statement, ast.ClassDef):
        plain = not statement.decorator_list and not statement.keywords
        return plain and all(_is_prose(part) or _only_defines(part) for part in statement.body)
    return isinstance(statement, ast.Pass)


_SETTINGS = (
    *("np.random.seed", "numpy.random.seed", "random.seed", "np.set_printoptions", "numpy.set_printoptions"),
    *("np.seterr", "numpy.seterr", "warnings.filterwarnings", "warnings.simplefilter", "logging.basicConfig"),
    *("logging.getLogger", "TypeVar", "typing.TypeVar"),
)


def _is_setting(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
    return isinstance(statement, ast.Assert) or (isinstance(call, ast.Call) and dotted(call.func) in _SETTINGS)


def _is_main_part(statement: ast.stmt) -> bool:
    test = statement.test if isinstance(statement, ast.If) and not statement.orelse else None
    return dotted(test.left if isinstance(test, ast.Compare) else test) in ("__name__", "TYPE_CHECKING")


def _is_said_of_module(statement: ast.stmt) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return any(dotted(target) in ("__all__", "__author__", "__version__") for target in targets)


def _is_prose(statement: ast.stmt) -> bool:
    """Return whether this is a print, or prose that happens to be Python: it calls nothing and has no effect."""
    does = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    words = isinstance(statement, ast.Expr) and not any(isinstance(part, does) for part in ast.walk(statement))
    return words or _is_print(statement)


def _is_example(statement: ast.stmt) -> bool:
    plain = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Expr, ast.Assert, ast.For))
    return plain and "compute_reward" in names_read(statement)
