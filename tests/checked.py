"""An import hook under which every function and dataclass of a package has its annotations checked, shapes too.

It is jaxtyping's own (https://docs.kidger.site/jaxtyping/api/runtime-type-checking/), without what that costs: half of
the time in which a process of the suite gets ready. Its hook makes Python look for the compiled files of *every* module
that is imported meanwhile, NumPy's or Gradio's, by a name of its own, under which there are none; it walks all
expressions of a source to decorate statements; and beartype writes and compiles a checker for functions nobody calls.
Its decorator binds all arguments to their names and checks them twice, before the call and with what it returns, for
the sake of messages. Here beartype checks each once, and sizes are kept where annotations have any.
"""

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, jaxtyped

_beartype = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


def check_annotations(package: str) -> None:
    """Of what is imported of it from now on."""
    assert package not in sys.modules, f"{package} has been imported already"
    sys.meta_path.insert(0, _Finder(package))


def checked(function: Callable) -> Callable:
    """The function with beartype's checks, which are made when it is first called.

    An axis has one size in all arguments and in what is returned.
    """
    annotations = list(getattr(function, "__annotations__", {}).values())
    if not annotations:
        return function
    if inspect.isgeneratorfunction(function):  # beartype would check arguments when the first item is asked for
        return jaxtyped(function, typechecker=_at_first_call)
    return _at_first_call(function, sized=any(map(_has_shapes, annotations)))


def _at_first_call(function: Callable, sized: bool = False) -> Callable:
    checking = None

    @functools.wraps(function)
    def call(*args, **kwargs):
        nonlocal checking
        if checking is None:
            function.__annotations__ = {name: _resolved(x, function) for name, x in function.__annotations__.items()}
            checking = _beartype(function)
        if not sized:
            return checking(*args, **kwargs)
        with jaxtyped("context"):
            return checking(*args, **kwargs)

    return call


def _resolved(annotation: Any, function: Callable) -> Any:
    """What names in quotes stand for; anything, where they are imported for nobody but readers of types."""

    def holder(x: annotation): ...

    try:
        return get_type_hints(holder, function.__globals__, include_extras=True)["x"]
    except Exception:
        return Any


def _has_shapes(annotation: Any) -> bool:
    """Whether an annotation names axes, as far as one can see."""
    if isinstance(annotation, str) or type(annotation).__module__.startswith("jaxtyping"):
        return True
    return any(map(_has_shapes, get_args(annotation) if not isinstance(annotation, list) else annotation))


class _Finder:
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name != self.package and not name.startswith(f"{self.package}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str):
        """Compiled from the source, whatever was compiled before: that is without checks."""
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in _definitions(tree.body):
            decorator = ast.parse("__import__('checked').decorate", mode="eval").body
            for part in ast.walk(decorator):
                if isinstance(part, ast.expr):
                    ast.copy_location(part, node)
            # A dataclass is whole when its decorators are done; a function has its annotations before they are.
            node.decorator_list.insert(0 if isinstance(node, ast.ClassDef) else len(node.decorator_list), decorator)
        return compile(tree, self.path, "exec", dont_inherit=True)


def _definitions(statements: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Of classes and functions, at any depth."""
    for statement in statements:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            yield statement
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _definitions(getattr(statement, block, []))


def decorate(defined):
    """What the loader writes above a definition."""
    if not isinstance(defined, type):
        return checked(defined)
    if dataclasses.is_dataclass(defined) and "__init__" in vars(defined):
        defined.__init__ = checked(defined.__init__)
    return defined
