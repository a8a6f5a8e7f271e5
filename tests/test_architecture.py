"""The rules of the package's shape: who may import whom, and that nothing is configured in vain."""

import ast
import dataclasses
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import gen1_jax

ROOT = Path(gen1_jax.__file__).parent

LEAVES = {"models", "diffusion", "synthetic", "parallel", "media", "measures"}
MIDDLE = LEAVES | {"data", "pretrained"}
TOP = {"training", "editing", "evaluation", "planning", "exporting"}
MAY_IMPORT = {
    **{leaf: {leaf} for leaf in LEAVES},
    **dict.fromkeys(("data", "pretrained"), MIDDLE),
    **dict.fromkeys(TOP, MIDDLE | TOP),
}
MAY_IMPORT["app"] = set(MAY_IMPORT) | {"app"}
MAY_IMPORT["commands"] = set(MAY_IMPORT) | {"commands"}
ONLY_IN = {
    "orbax": {"training"},
    "gradio": {"app"},
    **{name: {"exporting"} for name in ("torch", "diffusers", "transformers")},
}
SHIPPED_FOR_TORCH = ROOT / "exporting" / "modeling_gen1.py"  # it is copied out, and runs without the rest


def modules():
    return sorted(ROOT.rglob("*.py"))


def imports(path: Path):
    """Names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        yield from imports_of(node)


def imports_of(node: ast.AST):
    """Names of the modules that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import of {node.module}"
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_packages_import_only_what_they_may():
    for path in modules():
        relative = path.relative_to(ROOT)
        if len(relative.parts) == 1:  # cli.py and __init__.py stand above all
            continue
        package = relative.parts[0]
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "gen1_jax" and rest and (ROOT / rest[0]).is_dir():
                assert rest[0] in MAY_IMPORT[package], f"{relative} imports {name}"
            if top in ONLY_IN:
                assert package in ONLY_IN[top], f"{relative} imports {name}"


def test_torch_is_imported_where_it_is_used():
    for path in set(modules()) - {SHIPPED_FOR_TORCH}:
        for node in ast.parse(path.read_text()).body:
            names = {name.split(".")[0] for name in imports_of(node)}
            assert not names & {"torch", "diffusers", "transformers"}, f"{path} imports {names}"


def test_gradio_is_in_one_file():
    users = {path for path in modules() if any(name.split(".")[0] == "gradio" for name in imports(path))}
    assert users == {ROOT / "app" / "page.py"}


def test_files_stay_readable():
    for path in modules():
        longest = 500 if path == SHIPPED_FOR_TORCH else 420  # it has to be one file
        assert len(path.read_text().splitlines()) <= longest, f"{path} is long: look for the missing concept"
        assert path.name != "utils.py"


CONFIGURES = ("Config", "Settings", "Options", "Request", "Recipe", "Limits", "Schedule", "Folders")


def config_classes():
    """Dataclasses that a person fills in, by their names."""
    for info in pkgutil.walk_packages([str(ROOT)], "gen1_jax."):
        if info.name == "gen1_jax.cli":
            continue
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            is_ours = dataclasses.is_dataclass(value) and getattr(value, "__module__", None) == info.name
            if is_ours and isinstance(value, type) and value.__name__.endswith(CONFIGURES):
                yield value


def test_every_field_is_read_somewhere():
    read = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # getattr by name
    classes = list(config_classes())
    assert len(classes) > 10
    unread = {
        f"{cls.__name__}.{field.name}" for cls in classes for field in dataclasses.fields(cls) if field.name not in read
    }
    assert not unread


def test_imports_and_help_are_fast():
    """Measured by what is imported rather than by a clock: none of the heavy packages."""
    code = (
        "import sys, gen1_jax, gen1_jax.cli\n"
        "try: gen1_jax.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'numpy', 'av', 'tokenizers', 'PIL', 'rich', 'tensorflow_datasets', 'grain'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
