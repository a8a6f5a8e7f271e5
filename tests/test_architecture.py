"""The rules of the package's shape: who may import whom, and that nothing is configured in vain."""

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

from field_reads import FieldReads

import gen1_jax

ROOT = Path(gen1_jax.__file__).parent

ROOMS = (
    {"models", "diffusion", "synthetic", "media", "parallel", "measures"},
    {"pretrained"},
    {"data"},
    {"checkpoints"},
    {"training", "editing"},
    {"evaluation", "planning", "exporting"},
    {"app"},
    {"commands"},
)
"""From the bottom: each imports what stands below it, and nothing of those beside it."""
FLOOR = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
ONLY_IN = {
    "orbax": {"checkpoints"},
    "gradio": {"app"},
    **{name: {"exporting"} for name in ("torch", "diffusers")},
    "transformers": {"exporting", "pretrained"},
}
SHIPPED_FOR_TORCH = ROOT / "exporting" / "modeling_gen1.py"  # it is copied out, and runs without the rest


def modules():
    """All but the folder that is copied into exports: it is not part of the program, and nothing imports it."""
    return sorted(path for path in ROOT.rglob("*.py") if "for_diffusers" not in path.parts)


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


def forbidden(room: str, name: str) -> bool:
    """Whether a module of a room may not import this."""
    top, *rest = name.split(".")
    if top != "gen1_jax":
        return room not in ONLY_IN.get(top, {room})
    if not rest or rest[0] in (room, "errors", "files", "kept", "versions", "__version__"):
        return False
    return FLOOR.get(rest[0], len(ROOMS)) >= FLOOR[room]


def test_rooms_import_only_what_stands_below_them():
    for path in modules():
        relative = path.relative_to(ROOT)
        if len(relative.parts) == 1:  # cli.py, errors.py, files.py, kept.py, versions.py and __init__.py
            continue
        wrong = [name for name in imports(path) if forbidden(relative.parts[0], name)]
        assert not wrong, f"{relative} imports {wrong}"


def test_what_the_rule_forbids():
    for room, name in [
        ("training", "gen1_jax.editing.pipeline"),
        ("editing", "gen1_jax.training.config"),
        ("pretrained", "gen1_jax.data.storage"),
        ("checkpoints", "gen1_jax.training.step"),
        ("models", "gen1_jax.diffusion"),
        ("planning", "gen1_jax.evaluation.info"),
        ("data", "gen1_jax.cli"),
        ("training", "orbax.checkpoint"),
    ]:
        assert forbidden(room, name), (room, name)
    assert not forbidden("commands", "gen1_jax.app.page") and not forbidden("checkpoints", "orbax.checkpoint")


def test_every_room_has_its_place():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms <= FLOOR.keys()


OF_THE_PROGRAM = {  # what only a mistake of this program raises; and what is copied out
    "exporting/modeling_gen1.py": None,
    "planning/hlo.py": 1,
    "diffusion/samplers/linear.py": 1,
    "models/conditions.py": 1,
    "media/writer.py": 3,
    "media/images.py": 1,
    "pretrained/layout.py": 1,
}


def test_what_a_user_does_wrong_is_a_user_error():
    """A ValueError would be taken for a fault of the program: exit code 1 and a traceback."""
    for path in modules():
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Raise)]
        lines = [node.lineno for node in calls if ast.unparse(node).startswith("raise ValueError(")]
        allowed = OF_THE_PROGRAM.get(path.relative_to(ROOT).as_posix(), 0)
        assert allowed is None or len(lines) <= allowed, f"{path}: ValueError in lines {lines}: raise UserError"


def assigned(node: ast.AST):
    """Pairs of a target and its value, of a tuple one by one."""
    match node:
        case ast.NamedExpr(target=target, value=value):
            yield target, value
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            yield from zip(targets, values, strict=False)
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)


def kinds_by_name(text: str):
    """Lines of a module that ask which kind a model's content is by its name, rather than what the kind says."""
    tree, aliases = ast.parse(text), set()

    def is_name(node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name in aliases
            case ast.NamedExpr(value=value):
                return is_name(value)
            case ast.Attribute(attr="name", value=ast.Attribute(attr="content")):
                return True
        return isinstance(node, ast.Attribute) and node.attr == "content_kind"

    for target, value in (pair for node in ast.walk(tree) for pair in assigned(node)):
        aliases |= {target.id} if isinstance(target, ast.Name) and is_name(value) else set()
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
                found = is_name(left) or is_name(right)
            case ast.Compare(
                left=left, ops=[ast.In() | ast.NotIn()], comparators=[ast.Tuple() | ast.List() | ast.Set()]
            ):
                found = is_name(left)
            case ast.Match(subject=asked) | ast.Subscript(value=ast.Dict(), slice=asked):
                found = is_name(asked)
            case _:
                found = False
        if found:
            yield node.lineno if hasattr(node, "lineno") else node.subject.lineno


def test_kinds_of_content_are_asked_for_what_they_are():
    """A further kind is a line of `models.content_kind`, and no branch elsewhere."""
    for path in modules():
        lines = list(kinds_by_name(path.read_text()))
        assert not lines, f"{path} names a kind of content in lines {lines}: ask a property of ContentKind"


def test_branches_by_the_name_of_a_kind_of_content_are_noticed():
    for text in (
        'if config.unet.content_kind == "text": pass',
        'if "text" != unet.content.name: pass',
        'kind, shows = config.unet.content_kind, True\nshows and kind == "text"',
        'if (kind := unet.content_kind) in ("text", "split"): pass',
        'match unet.content_kind:\n    case "text": pass',
        'tokens = {"text": 77, "image": 1}[unet.content_kind]',
    ):
        assert len(list(kinds_by_name(text))) == 1, text
    allowed = "told = {unet.content_kind: tokens}\nunet.content_kind not in told\nkind = unet.content\nkind.reads_text"
    assert not list(kinds_by_name(allowed))


def test_torch_is_imported_where_it_is_used():
    for path in set(modules()) - {SHIPPED_FOR_TORCH}:
        for node in ast.parse(path.read_text()).body:
            names = {name.split(".")[0] for name in imports_of(node)}
            assert not names & {"torch", "diffusers", "transformers"}, f"{path} imports {names}"


def test_gradio_is_in_the_files_that_draw():
    users = {path for path in modules() if any(name.split(".")[0] == "gradio" for name in imports(path))}
    fields = set((ROOT / "app").glob("*fields.py"))
    assert users == {ROOT / "app" / f"{name}.py" for name in ("page", "endpoint")} | fields


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


def unread(classes, files):
    """Fields of these classes that nothing in these files reads."""
    read = FieldReads({cls.__name__: cls for cls in classes}, files).read
    return {
        f"{cls.__name__}.{field.name}"
        for cls in classes
        for field in dataclasses.fields(cls)
        if (cls.__name__, field.name) not in read
    }


def test_every_field_is_read_somewhere():
    classes = list(config_classes())
    shipped = [cls for cls in classes if cls.__module__.endswith(f".{SHIPPED_FOR_TORCH.stem}")]
    assert len(classes) > 10 and len(shipped) == 1
    assert not unread(shipped, [SHIPPED_FOR_TORCH])  # its UNetConfig is another than ours of that name
    assert not unread([cls for cls in classes if cls not in shipped], set(modules()) - {SHIPPED_FOR_TORCH})


def test_a_field_that_is_not_read_is_noticed(tmp_path):
    """One whose name others have, too, and one that is only checked."""
    file = tmp_path / "dead.py"
    file.write_text(DEAD)
    spec = importlib.util.spec_from_file_location("dead", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert unread([module.OuterConfig, module.InnerConfig], [file]) == {"InnerConfig.width", "InnerConfig.depth"}


DEAD = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class InnerConfig:
    width: int = 1
    depth: int = 2
    height: int = 3

    def __post_init__(self):
        assert self.depth > 0

@dataclasses.dataclass(frozen=True)
class OuterConfig:
    inner: InnerConfig = InnerConfig()
    width: int = 4

class User:
    def __init__(self, config: OuterConfig):
        self.config = config

    def use(self, picture):
        inner = self.config.inner
        return inner.height + self.config.width + picture.width + picture.depth
"""


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
