"""Which fields of configuration classes are read: attributes of values that the text shows to be of the class.

A value's classes are known from annotations (of parameters, fields, attributes, properties, functions), from `self`,
from constructors and `dataclasses.replace`, and from names and attributes that were assigned such a value. Names are
followed within a function, attributes through the whole package, and a class stands for those derived from it. A
class's own `__post_init__` only checks, so that what is read there alone counts as unread. `getattr(value, name)` reads
every field that the same file names in quotes.
"""

import ast
import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


class FieldReads:
    """Fields that are read in some files.

    Args:
        classes: dataclasses, by their names.
        files: to look through.

    Attributes:
        read: (class name, field name).
    """

    def __init__(self, classes: dict[str, type], files: Iterable[Path]):
        self.fields = {name: {field.name for field in dataclasses.fields(cls)} for name, cls in classes.items()}
        self.kinds: dict[str, set[str]] = defaultdict(set)  # class, or one it is derived from -> classes
        for name, cls in classes.items():
            for base in cls.__mro__[:-1]:
                self.kinds[base.__name__].add(name)
        self.attributes: dict[tuple[str, str], set[str]] = defaultdict(set)  # (class, attribute or method) -> classes
        self.returned: dict[str, set[str]] = defaultdict(set)  # the same, of whatever class, and functions
        self.read: set[tuple[str, str]] = set()
        trees = [ast.parse(path.read_text()) for path in files]
        for tree in trees:
            for node in ast.walk(tree):
                self._declared("", node)
                if isinstance(node, ast.ClassDef):
                    for child in ast.walk(node):
                        self._declared(node.name, child)
        strings = lambda tree: {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        texts = [{text for text in strings(tree) if isinstance(text, str)} for tree in trees]
        for _ in range(3):  # attributes of attributes
            for tree, named in zip(trees, texts, strict=True):
                _Scope(self, named, {}, None).visit(tree)

    def _declared(self, owner: str, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef):
            self.learn(owner, node.name, self._named(node.returns))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name | ast.Attribute):
            self.learn(owner, _last(node.target), self._named(node.annotation))

    def learn(self, owner: str | None, name: str, classes: set[str]) -> None:
        """What an attribute of a class, or a function (of no class), gives."""
        self.returned[name] |= classes
        for kind in {owner} | self.kinds[owner or ""]:
            self.attributes[kind or "", name] |= classes

    def _named(self, annotation: ast.AST | None) -> set[str]:
        """Classes that an annotation names, in quotes or not."""
        if annotation is None:
            return set()
        text = ast.unparse(annotation).replace("'", " ").replace('"', " ")
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
        return set().union(*(self.kinds[word] for word in words if word in self.kinds))


class _Scope(ast.NodeVisitor):
    """One function, or a module: the classes of its names."""

    def __init__(self, reads: FieldReads, texts: set[str], names: dict[str, set[str]], owner: str | None):
        self.reads, self.texts, self.names, self.owner = reads, texts, dict(names), owner

    def visit_ClassDef(self, node):
        for child in node.body:
            _Scope(self.reads, self.texts, self.names, node.name).visit(child)

    def visit_FunctionDef(self, node):
        if node.name == "__post_init__" and self.owner in self.reads.kinds:
            return
        inner = _Scope(self.reads, self.texts, self.names, self.owner)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            inner.names[argument.arg] = self.reads._named(argument.annotation)
        if self.owner in self.reads.kinds and "self" in inner.names:
            inner.names["self"] = self.reads.kinds[self.owner]
        for child in node.body:
            inner.visit(child)

    def visit_Lambda(self, node):
        self.generic_visit(node)

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_For(self, node):
        self._assign(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node):
        self._assign(node.target, node.iter)
        self.generic_visit(node)

    def _comprehension(self, node):
        for generator in node.generators:  # they name what the element speaks of
            self.visit(generator)
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def visit_NamedExpr(self, node):
        self.generic_visit(node)
        self._assign(node.target, node.value)

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load):
            self._count(self.classes(node.value), {node.attr})
        self.generic_visit(node)

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            self._count(self.classes(node.args[0]), self.texts)
        self.generic_visit(node)

    def _count(self, classes: set[str], names: set[str]) -> None:
        for name in classes:
            self.reads.read |= {(name, field) for field in self.reads.fields[name] & names}

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) else [value] * len(target.elts)
            for one, other in zip(target.elts, values, strict=False):
                self._assign(one, other)
        elif isinstance(target, ast.Name):
            self.names[target.id] = self.names.get(target.id, set()) | self.classes(value)
        elif isinstance(target, ast.Attribute):
            owner = self.owner if _last(target.value) == "self" else None
            self.reads.learn(owner, target.attr, self.classes(value))

    def classes(self, node: ast.expr) -> set[str]:
        """Those that a value may be of; of a collection, those of its elements."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, set())
        if isinstance(node, ast.Attribute):
            owners = self.classes(node.value)
            if isinstance(node.value, ast.Name) and node.value.id == "self" and self.owner:
                owners = owners | {self.owner}
            known = [self.reads.attributes[owner, node.attr] for owner in owners]
            return set().union(*known) if any(known) else self.reads.returned[node.attr]
        if isinstance(node, ast.Call):
            name = _last(node.func)
            if name == "getattr" and node.args:
                pairs = [(owner, field) for owner in self.classes(node.args[0]) for field in self.reads.fields[owner]]
                return set().union(*(self.reads.attributes[pair] for pair in pairs))
            if name in self.reads.fields:
                return {name}
            if isinstance(node.func, ast.Attribute) and name.startswith("from_"):
                return self.reads.fields.keys() & {_last(node.func.value)} or self.reads.returned[name]
            of_arguments = set().union(*map(self.classes, node.args))
            known = self.reads.returned[name] if name else set()
            return known | of_arguments if name in _SAME else known
        if isinstance(node, ast.Subscript | ast.Starred | ast.Await):
            return self.classes(node.value)
        if isinstance(node, ast.IfExp):
            return self.classes(node.body) | self.classes(node.orelse)
        if isinstance(node, ast.BoolOp):
            return set().union(*map(self.classes, node.values))
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return set().union(*map(self.classes, node.elts))
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            return self.classes(node.elt)
        return set()


_SAME = {"replace", "zip", "enumerate", "sorted", "reversed", "list", "tuple", "set", "iter", "next", "min", "max"}
"""Functions whose results are, or hold, their arguments."""


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
