"""README.md and those of the folders: short, whole, and their code is what the package has."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import gen1_jax
from gen1_jax import cli, synthetic
from gen1_jax.synthetic import vocabulary

ROOT = Path(gen1_jax.__file__).parents[1]
README = (ROOT / "README.md").read_text()
READMES = sorted(
    [
        ROOT / "README.md",
        *(path for room in ("gen1_jax", "launch", "colabs") for path in (ROOT / room).rglob("README.md")),
    ]
)


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The `gen1` commands of all plain blocks, their lines joined and comments taken away."""
    lines = "".join(blocks(text)).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|\s#", line)]
    return [part for part in parts if part.startswith("gen1 ")]


def test_the_top_readme_is_short_and_begins_with_what_a_newcomer_needs():
    assert len(README.splitlines()) < 160
    assert blocks(README)[:2] == ["pip install -e . && gen1 demo\n", 'pip install -e ".[test]" && pytest\n']
    headings = re.findall(r"^##+ (.*)$", README, re.MULTILINE)
    assert headings == [
        *("Two commands", "What nano knows", "Edit", "In Python", "In the browser", "Your own clips"),
        *("Public checkpoints", "Architecture", "Licence"),
    ]


def test_rooms_that_readers_ask_about_have_a_readme():
    rooms = ("app", "data", "evaluation", "exporting", "models", "planning", "training")
    assert {ROOT / "gen1_jax" / room / "README.md" for room in rooms} <= set(READMES)
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#:]+README\.md)\)", README)}
    assert set(READMES) - linked == {ROOT / "README.md"}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(path):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(path):
    """Each `gen1` command of a README has a command and options that exist, and files of the project that do."""
    for command in commands(path.read_text()):
        words = shlex.split(command.replace("...", "")[len("gen1 ") :])
        if words == ["train"]:  # "gen1 train ..."
            continue
        cli._parse(words)
        for word in words:
            if word.startswith(("configs/", "gen1_jax/")):
                assert (ROOT / word.split(":")[0]).exists(), command


def test_the_first_example_is_in_words_that_nano_knows():
    (prompt,) = {
        *re.findall(r'"(.*)"', commands(README)[1]),
        *re.findall(r'prompt="(.*)"', blocks(README, "python")[0]),
    }
    assert synthetic.parse(prompt).objects == (("car", "gold"),)
    kinds = (vocabulary.SHAPES, vocabulary.MATERIALS, vocabulary.ENVIRONMENTS, vocabulary.LIGHTS, vocabulary.STYLES)
    counts = re.search(
        r"(\d+) things.*?(\d+) materials.*?(\d+) places.*?(\d+) lights.*?(\d+) styles", README, re.DOTALL
    )
    assert tuple(map(int, counts.groups())) == tuple(map(len, kinds))


def test_the_loader_that_is_printed_is_the_one_that_ships():
    printed = blocks((ROOT / "gen1_jax/exporting/README.md").read_text(), "python")[0]
    assert loader(printed) == loader((ROOT / "gen1_jax/exporting/load_stablehlo.py").read_text())


def loader(code: str) -> str:
    """The function `load` without what it says of itself: docstring, annotations, default."""
    (function,) = (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name == "load")
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef):
            node.returns, node.args.defaults = None, []
            if ast.get_docstring(node):
                del node.body[0]
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(function)


def test_the_picture_at_the_top_moves_and_is_light():
    from PIL import Image

    link = re.search(r"!\[.*?\]\((.*?)\)", README)[1]
    assert (ROOT / link).stat().st_size < 1.5e6
    with Image.open(ROOT / link) as picture:
        assert picture.n_frames > 8
