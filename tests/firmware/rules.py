"""What the firmware may use and how deep it may nest, read from its source with `ast`. Nothing is run.

What an XBee 3 has is in firmware/typings and in the lists below; docs/FIRMWARE.md, "What the module does", says where
each entry comes from. A checker yields complaints: sentences that say what is wrong, where, and what to do.
"""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from readers.build import FIRMWARE, HOST_HALF, read_manifest
from readers.provision import KEY_SIZE, WantedReader, render_config

TYPINGS = FIRMWARE / "typings"
FORMAT = re.compile(r"[@<>!]?(?:[0-9]*[bBhHiIlLqQfdsP])*")
"""The codes of MicroPython 1.20, by its own documentation of `struct`; `x` came with 1.21."""
STRUCT = ("calcsize", "pack", "pack_into", "unpack", "unpack_from")

MODULES = {"struct": STRUCT, "sys": ("print_exception", "modules")}
"""Modules of MicroPython that have no typing in firmware/typings (Digi's typehints/common/ustruct.pyi, sys.pyi)."""
BUILTINS = (
    "__import__", "bytearray", "bytes", "getattr", "hasattr", "int", "isinstance", "len", "max", "min", "open", "range",
    "BaseException", "Exception", "KeyboardInterrupt", "MemoryError", "OSError",
)  # fmt: skip
"""Of 1.20's default configuration (its py/modbuiltins.c). Digi lists none of them, and takes none away."""
VALUES = ("args", "from_bytes", "read", "seek", "split", "write")
"""Methods and attributes of values whose type no reading of the source can tell: lists, errors, numbers, files, texts.

Those of pins, the watchdog, a scan and a hash are in the typings.
"""
ADVICE = (
    "if an XBee 3 has it, add it to firmware/typings or to the lists in tests/firmware/rules.py, with its source to "
    "docs/FIRMWARE.md, and to sim/reader/device"
)


class _Running(ast.NodeTransformer):
    """Leaves out what no interpreter runs: annotations, and what stands behind TYPE_CHECKING."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)


def parse(text: str) -> ast.Module:
    tree = ast.parse(text)
    _Running().visit(tree)
    return ast.fix_missing_locations(tree)


def firmware() -> dict[str, ast.Module]:
    """Return module -> its running source: what the manifest lists, of wire.py the reader's half."""
    paths = read_manifest(FIRMWARE).values()
    return {path.stem: parse(path.read_text(encoding="utf-8").split(HOST_HALF)[0]) for path in paths}


@functools.cache
def config_names() -> frozenset[str]:
    tree = parse(render_config(WantedReader(1), bytes(KEY_SIZE)).decode())
    return frozenset(name.id for name in ast.walk(tree) if isinstance(name, ast.Name))


@dataclass
class Typed:
    """A typing of one of the module's own modules: `names` as seen from outside, `keywords` of each function."""

    names: set[str] = field(default_factory=set)
    keywords: dict[str, set[str]] = field(default_factory=dict)


@functools.cache
def typed(module: str) -> Typed | None:
    """Return what firmware/typings says of a module. Names inside a class are `Class.name`."""
    path = TYPINGS / Path(*module.split(".")).with_suffix(".pyi")
    if not path.is_file():
        return None
    found = Typed()

    def look(body: list[ast.stmt], inside: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                name = inside.rstrip(".") if node.name == "__init__" else inside + node.name
                found.names.add(name)
                named = found.keywords.setdefault(name, set())
                named.update(arg.arg for arg in node.args.args + node.args.kwonlyargs)
            elif isinstance(node, ast.ClassDef):
                found.names.add(inside + node.name)
                look(node.body, f"{inside}{node.name}.")
            elif isinstance(node, ast.AnnAssign):
                found.names.add(inside + ast.unparse(node.target))

    look(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


@functools.cache
def _methods() -> frozenset[str]:
    """Return the names of the methods of every class in the typings: pins, the watchdog, a scan, a hash."""
    modules = (".".join(path.relative_to(TYPINGS).with_suffix("").parts) for path in TYPINGS.rglob("*.pyi"))
    names = {name for module in modules if (found := typed(module)) for name in found.names}
    return frozenset(name.rpartition(".")[2] for name in names if "." in name)


# ---- formats ----


def string_constants(trees: dict[str, ast.Module]) -> dict[str, str]:
    """Return "module.NAME" -> text of each string that a module gives a name, once and for all."""
    found: dict[str, str] = {}
    for module, tree in trees.items():
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                found |= {f"{module}.{ast.unparse(target)}": node.value.value for target in node.targets}
    return found


def bad_formats(module: str, tree: ast.Module, constants: dict[str, str]) -> Iterator[str]:
    """Complain about every format of `struct` that MicroPython 1.20 does not read, or that nobody can read here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "struct":
            yield f"{module}:{node.lineno}: import struct as a whole, so that its formats can be checked"
        if not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "struct" and node.attr in STRUCT):
            continue
        call = next((c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.func is node), None)
        at, first = f"{module}:{node.lineno}: struct.{node.attr}", call.args[0] if call and call.args else None
        text = first.value if isinstance(first, ast.Constant) else None
        if isinstance(first, ast.Name | ast.Attribute):
            name = ast.unparse(first)
            text = constants.get(name if "." in name else f"{module}.{name}")
        if not isinstance(text, str):
            yield f"{at}: the format is no literal and no named constant of a module; write it out"
        elif not FORMAT.fullmatch(text):
            yield f"{at}: format {text!r} has a code that MicroPython 1.20 lacks; it has bBhHiIlLqQfdsP and @<>!"


# ---- names ----


@dataclass(frozen=True)
class Use:
    """One thing of the interpreter or of the module that the firmware uses. kind: of, value, builtin, keyword, hidden.

    of: a module (`struct`) or something of one (`machine.Pin.OUT`). value: a method or attribute of a value. keyword:
    `machine.WDT(timeout)`. hidden: a name that only the running program knows.
    """

    line: int
    kind: str
    name: str


def _stored(tree: ast.AST) -> set[str]:
    """Return every name that a source binds itself, anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def imported(tree: ast.AST) -> dict[str, str]:
    """Return name -> "module", or "module.name" for a name from one."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(tree: ast.Module, ours: Iterable[str]) -> Iterator[Use]:
    """Yield what a source uses that is not ours. ours: the names of our own modules."""
    names, own = imported(tree), _stored(tree)

    def named(node: ast.AST) -> str:
        """Return what an expression names: "struct.pack", "machine.Pin.OUT". Empty: some value."""
        if isinstance(node, ast.Name):
            return names.get(node.id, "")
        inside = named(node.value) if isinstance(node, ast.Attribute) else ""
        return f"{inside}.{node.attr}" if isinstance(node, ast.Attribute) and inside else ""

    def is_ours(what: str) -> bool:
        return what.split(".")[0] in ours

    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Use(line, "of", what) for what in imported(node).values() if not is_ours(what))
        elif isinstance(node, ast.Attribute):
            what = named(node)
            if not what or (is_ours(what) and what.count(".") > 1):
                yield Use(line, "value", node.attr)
            elif not is_ours(what):
                yield Use(line, "of", what)
        elif isinstance(node, ast.Name) and node.id not in own and node.id not in names:
            yield Use(line, "builtin", node.id)
        elif isinstance(node, ast.Call):
            text, what = ast.unparse(node.func), named(node.func)
            if text in ("getattr", "hasattr"):
                literal = isinstance(node.args[1], ast.Constant) and named(node.args[0])
                name = f"{named(node.args[0])}.{ast.literal_eval(node.args[1])}" if literal else ast.unparse(node)
                yield Use(line, "of" if literal else "hidden", name)
            if not (what and is_ours(what)) and text not in own:
                yield from (Use(line, "keyword", f"{what or text}({keyword.arg})") for keyword in node.keywords)


def is_known(use: Use) -> bool:
    """Return whether a typing in firmware/typings or a list above has it."""
    if use.kind == "builtin":
        return use.name in BUILTINS
    if use.kind == "value":
        return use.name in VALUES or use.name in _methods()
    target, _, keyword = use.name.rstrip(")").partition("(")
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        module, name = ".".join(parts[:cut]), ".".join(parts[cut:])
        found = typed(module)
        if use.kind == "keyword":
            if found:
                return keyword in found.keywords.get(name, ())
        elif use.kind == "of" and (found or module in MODULES):
            have = config_names() if module == "config" else found.names if found else MODULES[module]
            return not name or name in have
    return False


def unknown(module: str, tree: ast.Module, ours: Iterable[str]) -> Iterator[str]:
    """Complain about each use that is in no typing and in no list."""
    for use in uses(tree, ours):
        if use.kind == "hidden":
            yield f"{module}:{use.line}: only the running program knows what {use.name} is; write the name out"
        elif not is_known(use):
            said = {"builtin": "builtin ", "value": "a value's .", "keyword": "keyword "}.get(use.kind, "")
            yield f"{module}:{use.line}: {said}{use.name} is in no list; {ADVICE}"


# ---- imports ----


def import_order(main: ast.Module, modules: Iterable[str]) -> list[str]:
    """Return the modules of ours in the order in which main.py imports them, outside of its functions."""
    ours = set(modules)
    found: list[str] = []

    def look(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.For) and "__import__" in ast.unparse(child):
                texts = [str(node.value) for node in ast.walk(child.iter) if isinstance(node, ast.Constant)]
                found.extend(" ".join(texts).split())
            look(child)

    look(main)
    return list(dict.fromkeys(name for name in found if name in ours))


def nested_imports(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Complain about an import of ours that would wait inside another one: each costs stack, and there is little."""
    ours = {*trees, "config"} - {"main"}
    loaded: set[str] = set()
    for name in import_order(trees["main"], ours):
        needs = {what.split(".")[0] for what in imported(trees[name]).values()} & ours if name in trees else set()
        for other in sorted(needs - loaded):
            yield f"{name} imports {other}, which main.py has not loaded yet: put {other} before {name} in main.py"
        loaded.add(name)
    for name in sorted(ours - loaded):
        yield f"main.py does not import {name}: it would be loaded inside another import"


# ---- calls ----


class Untraceable(Exception):
    """A call that reading the source cannot follow. The text says which, and what to do."""


class Calls:
    """Which function of ours calls which: `edges`. A frame is a function, a module's body, or a comprehension."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self.trees = trees
        self.functions = {
            f"{module}.{node.name}": node
            for module, tree in trees.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }
        self.edges: dict[str, set[str]] = {}
        self.passed: dict[str, set[str]] = {}  # "module.function(parameter)" or "module.variable" -> functions in it
        for module, tree in trees.items():
            self._find_passed(module, tree)
        for module, tree in trees.items():
            rest = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
            self._frame(module, module, None, rest)
        for name, function in self.functions.items():
            self._frame(name, name.split(".")[0], function, function.body)
        loop = import_order(trees["main"], trees) if "main" in trees else []
        self.edges.setdefault("main", set()).update(loop)

    def _function(self, module: str, node: ast.AST) -> str | None:
        """Return the function of ours that an expression names."""
        names = imported(self.trees[module])
        text = ast.unparse(node)
        first, dot, rest = text.partition(".")
        name = (names.get(first, "") + dot + rest) if first in names else f"{module}.{text}"
        return name if name in self.functions else None

    def _find_passed(self, module: str, tree: ast.Module) -> None:
        names = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (value := self._function(module, node.value)):
                for target in node.targets:
                    text = ast.unparse(target)
                    variable = text if text.split(".")[0] in names else f"{module}.{text}"
                    self.passed.setdefault(variable, set()).add(value)
            if isinstance(node, ast.Call) and (called := self._function(module, node.func)):
                parameters = [arg.arg for arg in self.functions[called].args.args]
                given = [*zip(parameters, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
                for parameter, argument in given:
                    if value := self._function(module, argument):
                        self.passed.setdefault(f"{called}({parameter})", set()).add(value)

    def _frame(self, name: str, module: str, function: ast.FunctionDef | None, body: Iterable[ast.AST]) -> None:
        edges = self.edges.setdefault(name, set())
        waiting: list[ast.AST] = list(body)
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
                if not isinstance(node, ast.ClassDef) or any(isinstance(n, ast.FunctionDef) for n in node.body):
                    raise Untraceable(f"{module}:{node.lineno}: make it a plain function of the module")
                continue
            if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                inner = f"{name}.<comprehension in line {node.lineno}>"
                edges.add(inner)
                self._frame(inner, module, function, ast.iter_child_nodes(node))
                continue
            if isinstance(node, ast.Call):
                edges |= self._called(name, module, function, node)
            waiting.extend(ast.iter_child_nodes(node))

    def _called(self, frame: str, module: str, function: ast.FunctionDef | None, node: ast.Call) -> set[str]:
        """Return what of ours a call may run: nothing if the interpreter or the module has it."""
        if called := self._function(module, node.func):
            return {called} | self.passed.get(called, set())  # another may have been put in its place
        text = ast.unparse(node.func)
        for variable in (f"{frame.split('.<')[0]}({text})", text if "." in text else f"{module}.{text}"):
            if variable in self.passed:
                return self.passed[variable]
        if self._is_foreign(module, function, text):
            return set()
        raise Untraceable(f"{module}:{node.lineno}: nobody can see what {text}() runs; call a function by its name")

    def _is_foreign(self, module: str, function: ast.FunctionDef | None, text: str) -> bool:
        names = imported(self.trees[module])
        first, dot, rest = text.partition(".")
        if dot:
            owner = names.get(first, "")
            return owner not in self.trees or "." in rest or self._is_class(owner, rest)
        got = [
            ast.unparse(n.value)
            for n in ast.walk(function or self.trees[module])
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == text
        ]
        return (
            first in names
            or first in BUILTINS
            or self._is_class(module, first)
            or (bool(got) and all(value.startswith("getattr(") for value in got))
        )

    def _is_class(self, module: str, name: str) -> bool:
        return any(isinstance(node, ast.ClassDef) and node.name == name for node in self.trees[module].body)

    def deepest(self, start: str = "main") -> list[str]:
        """Return the longest chain of frames from `start`. Raises Untraceable for a cycle: no depth is safe then."""
        best: dict[str, list[str]] = {}

        def chain(name: str, above: tuple[str, ...]) -> list[str]:
            if name in above:
                raise Untraceable(f"{' > '.join([*above[above.index(name) :], name])}: recursion; use a loop")
            if name not in best:
                below = [chain(other, (*above, name)) for other in sorted(self.edges.get(name, ()))]
                best[name] = [name, *max(below, key=len, default=[])]
            return best[name]

        return chain(start, ())
