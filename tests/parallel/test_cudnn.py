"""What cuDNN's frontend is told to leave out."""

import json
import os
from pathlib import Path

import pytest

from gen1_jax.cli import main
from gen1_jax.parallel.cudnn import skip_slow_engines

NAME = "CUDNN_ERRATA_JSON_FILE"


@pytest.fixture
def surroundings(monkeypatch):
    monkeypatch.setenv(NAME, "")  # so that it is put back
    monkeypatch.delenv(NAME)


def test_a_command_leaves_out_engines_of_gradients_of_kernels(surroundings, capsys):
    assert main(["info", "nano"]) == 0
    rules = json.loads(Path(os.environ[NAME]).read_text())
    assert rules["version"] == 1
    named = {(rule["operation"], rule["engine"]) for rule in rules["rules"]}
    assert named == {("ConvBwdFilter", 19), ("ConvBwdFilter", 40)}
    needed = {"rule_id", "operation", "engine", "knob", "cudnn_version_start", "cudnn_version_end"}
    assert all(rule.keys() == needed for rule in rules["rules"])


def test_a_file_of_the_surroundings_stays(monkeypatch):
    monkeypatch.setenv(NAME, "mine.json")
    skip_slow_engines()
    assert os.environ[NAME] == "mine.json"
