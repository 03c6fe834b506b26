"""Reading, tidying and printing functions that a program has rewritten, so that they look handwritten.

Python's own syntax tree drops comments and blank lines. Here both are statements of the tree: a comment is a string
that begins with ``#``, a blank line an empty string. So they move, and vanish, with the code that they belong to.
"""

import ast
import copy
import io
import itertools
import re
import textwrap
import tokenize
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

LINE_LENGTH = 100
_HEADING = "#:"  # a comment over several statements, which stays when the next one is removed


def parse(source: str) -> ast.Module:
    """Return the syntax tree of `source` with comments and blank lines; commented-out code is left out."""
    lines = source.splitlines()
    for row, indent, text in reversed(list(_remarks(source))):
        lines.insert(row, indent + repr(text))
    return ast.parse("\n".join(lines))


def _remark(statement: ast.stmt) -> str | None:
    """Return the text of a comment, "" for a blank line, None if the statement is neither."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        text = statement.value.value
        return text if isinstance(text, str) and (not text or text.startswith("#")) else None
    return None


def _remarks(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield, for each comment and blank line, the row of the statement after it, its indentation, and the text."""
    pending: list[str] = []
    statement: tuple[int, str] | None = None
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        if token.type == tokenize.COMMENT:
            if depth == 0:
                pending.append(token.string)
        elif token.type == tokenize.NL:
            if not token.line.strip():
                pending.append("")
        elif token.type == tokenize.NEWLINE:
            assert statement is not None
            row, indent = statement
            yield from ((row, indent, text) for text in _cleaned(pending))
            pending, statement = [], None
        elif statement is None and token.type not in (tokenize.INDENT, tokenize.DEDENT):
            statement = (token.start[0] - 1, " " * token.start[1])
            if token.string in ("else", "elif"):
                pending = []  # nothing can precede these


def _cleaned(remarks: Iterable[str]) -> Iterator[str]:
    for is_comment, group in itertools.groupby(remarks, key=bool):
        text = textwrap.dedent("\n".join(remark[1:] for remark in group))
        heading = re.fullmatch(r"MARK:\s*(.*?)-*", text)
        if not is_comment:
            yield ""
        elif heading:
            yield f"{_HEADING} {heading[1]}"
        elif not _is_code(text) and not text.startswith("type:"):
            yield from (f"# {line}".rstrip() for line in text.splitlines())


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def tidy(body: list[ast.stmt], constants: Collection[str]) -> tuple[list[ast.stmt], set[str]]:
    """Return `body` without what is redundant in it, and the names that it reads before it assigns them.

    Redundant are branches that are never taken, aliases of one of the `constants` (names that are never assigned),
    values that the next statement replaces by a function of themselves, and assignments that nothing reads.
    """
    before = ""
    while before != (before := ast.dump(ast.Module(body, []))):
        body = _Fold().statements(body)
        body = _without_aliases(body, constants)
        body = _merged(body)
        body, read = _without_dead(body, set())
    return body, read


def stored_names(body: Iterable[ast.AST]) -> Counter[str]:
    """Return how often each name is assigned, or its value is changed in place."""
    stores: Counter[str] = Counter()
    for node in itertools.chain.from_iterable(map(ast.walk, body)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            stores[node.id] += 1
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            stores[ast.unparse(node.value)] += 1
    return stores


def loaded_names(*nodes: ast.AST) -> Counter[str]:
    """Return how often each name is read."""
    walked = itertools.chain.from_iterable(map(ast.walk, nodes))
    return Counter(node.id for node in walked if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


class Substitute(ast.NodeTransformer):
    """Replaces names that are read by expressions."""

    def __init__(self, expressions: Mapping[str, ast.expr]) -> None:
        self.expressions = expressions

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: D102
        found = self.expressions.get(node.id) if isinstance(node.ctx, ast.Load) else None
        return node if found is None else copy.deepcopy(found)


class _Fold(ast.NodeTransformer):
    """Resolves branches whose condition is a constant."""

    def statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return self.visit(ast.Module(body, [])).body

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)
        kept = [value for value in node.values if not _is_constant(value, not decides)]
        if not kept or any(_is_constant(value, decides) for value in kept):
            return ast.Constant(decides if kept else not decides)
        return kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)

    def visit_If(self, node: ast.If) -> ast.If | list[ast.stmt]:
        self.generic_visit(node)
        for decision, branch in ((True, node.body), (False, node.orelse)):
            if _is_constant(node.test, decision):
                return branch
        return node


def _is_constant(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _without_aliases(body: list[ast.stmt], constants: Collection[str]) -> list[ast.stmt]:
    stores = stored_names(body)
    assigned = [pair for statement in body if (pair := _alias(statement)) and pair[1] in constants]
    aliases = {name: value for name, value in assigned if assigned.count((name, value)) == stores[name]}
    kept: list[ast.stmt] = []
    for statement in body:
        pair = _alias(statement)
        if pair is None or aliases.get(pair[0]) != pair[1]:
            kept.append(statement)
        else:
            while kept and _remark(kept[-1]) and not _is_heading(kept[-1]):
                kept.pop()
    substitute = Substitute({name: ast.Name(value, ast.Load()) for name, value in aliases.items()})
    return [substitute.visit(statement) for statement in kept]


def _alias(statement: ast.stmt) -> tuple[str, str] | None:
    """``(x, y)`` for ``x = y`` and ``x = y.copy()``."""
    match = re.fullmatch(r"(\w+) = ([a-z_]\w*)(\.copy\(\))?", ast.unparse(statement))
    return (match[1], match[2]) if match else None


def _merged(body: list[ast.stmt]) -> list[ast.stmt]:
    """``x = a`` followed by ``x = f(x)`` becomes ``x = f(a)``, and followed by ``return x`` it becomes ``return a``."""
    kept: list[ast.stmt] = []
    for statement in body:
        before = kept[-1] if kept else None
        if isinstance(before, ast.Assign) and isinstance(target := before.targets[0], ast.Name):
            again = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == target.id
            is_all = isinstance(before.value, ast.Name) or ast.unparse(statement) == f"return {target.id}"
            if (again or (isinstance(statement, ast.Return) and is_all)) and loaded_names(statement)[target.id] == 1:
                kept[-1] = Substitute({target.id: before.value}).visit(statement)
                continue
        kept.append(statement)
    return kept


def _without_dead(body: list[ast.stmt], needed: set[str]) -> tuple[list[ast.stmt], set[str]]:
    """Return the statements that matter if the names in `needed` are read after them, and the names read before."""
    kept: list[ast.stmt] = []
    matters = False  # whether the statement after a remark does
    for statement in reversed(body):
        if _remark(statement) is not None:
            if matters or (kept and _is_heading(statement)):
                kept.append(statement)
            continue
        loaded, stored = set(loaded_names(statement)), set(stored_names([statement]))
        if isinstance(statement, ast.Return):
            matters, needed = True, loaded
        elif isinstance(statement, ast.If):
            statement.body, in_body = _without_dead(statement.body, needed)
            statement.orelse, in_orelse = _without_dead(statement.orelse, needed)
            matters = bool(statement.body or statement.orelse)
            if not statement.body:
                statement.test = ast.UnaryOp(ast.Not(), statement.test)
                statement.body, statement.orelse = statement.orelse, []
            if matters:
                needed = in_body | in_orelse | set(loaded_names(statement.test))
        else:
            matters = bool(stored & needed)
            if matters:
                changed = isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Subscript)
                needed = (needed - stored if changed else needed) | loaded
        if matters:
            kept.append(statement)
    return _without_odd_blanks(kept[::-1]), needed


def _without_odd_blanks(body: list[ast.stmt]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in body:
        if not _is_blank(statement) or (kept and not _is_blank(kept[-1]) and not _is_heading(kept[-1])):
            kept.append(statement)
    return kept


def _is_blank(statement: ast.stmt) -> bool:
    return _remark(statement) == ""


def _is_heading(statement: ast.stmt) -> bool:
    return (_remark(statement) or "").startswith(_HEADING)


def to_source(functions: Iterable[ast.FunctionDef]) -> str:
    """Return the functions as text, with lines of at most about `LINE_LENGTH` characters."""
    return "\n\n\n".join("\n".join(_printed([function], "")) for function in functions) + "\n"


def _printed(body: list[ast.stmt], indent: str) -> Iterator[str]:
    for statement in body:
        remark = _remark(statement)
        if remark is not None:
            yield (indent + remark.replace(_HEADING, "#")).rstrip()
        elif isinstance(statement, ast.FunctionDef):
            yield from _wrapped(f"{indent}def {statement.name}({ast.unparse(statement.args)}):")
            yield from _printed(statement.body, indent + "    ")
        elif isinstance(statement, ast.If):
            yield from _wrapped(f"{indent}if {ast.unparse(statement.test)}:")
            yield from _printed(statement.body, indent + "    ")
            if statement.orelse:
                yield f"{indent}else:"
                yield from _printed(statement.orelse, indent + "    ")
        else:
            line = ast.unparse(statement).replace("'", '"')
            line = re.sub(r"^\(([\w, ]+)\) = ", r"\1 = ", line)  # how Python 3.10 prints an unpacking
            if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Tuple):
                line = re.sub(r"^return \((.*)\)$", r"return \1", line)
            yield from _wrapped(indent + line)


def _wrapped(line: str) -> Iterator[str]:
    """Yield `line`; if it is too long, broken where its longest bracket allows it, or between its terms."""
    if len(line) <= LINE_LENGTH:
        yield line
        return
    indent = " " * (len(line) - len(line.lstrip()))
    brackets = [bracket for bracket in _brackets(line) if len(bracket) > 2]
    terms = re.fullmatch(r"\s*(if |return |\w+ = )(.* (?:and|\+) .*?)(:?)", line)
    if terms and (" and " in line or not brackets):
        yield f"{indent}{terms[1]}("
        yield re.sub(r" (and|\+) ", rf"\n{indent}    \1 ", f"{indent}    {terms[2]}")
        yield f"{indent}){terms[3]}"
    elif brackets:
        breaks = max(brackets, key=lambda bracket: bracket[-1] - bracket[0])
        yield line[: breaks[0] + 1]
        for start, end in itertools.pairwise(breaks):
            comma = "," if line[end] == "," or (line[end] in ")]}" and line[start] != " ") else ""
            yield from _wrapped(f"{indent}    {line[start + 1 : end].strip()}{comma}")
        yield from _wrapped(indent + line[breaks[-1] :])
    else:
        yield line


def _brackets(line: str) -> Iterator[list[int]]:
    """Yield for each bracket in `line` where it opens, where its commas and comprehensions are, and where it closes."""
    opened: list[list[int]] = []
    for position, character in enumerate(line):
        if character in "([{":
            opened.append([position])
        elif opened and (character == "," or line.startswith(" for ", position)):
            opened[-1].append(position)
        elif character in ")]}":
            yield [*opened.pop(), position]
