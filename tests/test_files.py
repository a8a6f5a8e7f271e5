import pytest

from gen1_jax.files import replacing, write_text


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_appears_whole_or_not_at_all(tmp_path, alone):
    target = tmp_path / "a.npz"
    with replacing(target, alone=alone) as beside:
        assert beside.parent == tmp_path and beside.suffix == ".npz" and beside.name.startswith(".")
        beside.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(KeyError), replacing(target, alone=alone) as beside:
        beside.write_text("tw")
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"] and target.read_text() == "one"
    with replacing(target, alone=alone) as beside:
        beside.write_text("two")
    assert target.read_text() == "two"


def test_what_a_killed_process_left_is_written_over(tmp_path):
    target = tmp_path / "shard-00000-of-00002"
    with replacing(target, alone=True) as beside:
        beside.write_text("whole")
    beside.write_text("half of")  # as if killed
    with replacing(target, alone=True) as again:
        assert again == beside
        again.write_text("anew")
    assert [file.name for file in tmp_path.iterdir()] == [target.name] and target.read_text() == "anew"


def test_shards_of_one_set_are_written_beside_each_other(tmp_path):
    """Their names differ in what looks like a suffix."""
    with replacing(tmp_path / "a.array_record-0", alone=True) as one:
        with replacing(tmp_path / "a.array_record-1", alone=True) as other:
            assert one != other
            other.write_text("1")
        one.write_text("0")
    assert (tmp_path / "a.array_record-0").read_text() == "0" and (tmp_path / "a.array_record-1").read_text() == "1"


def test_folders_and_text(tmp_path):
    with replacing(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "x").write_text("x")
    assert (tmp_path / "folder" / "x").read_text() == "x"
    with pytest.raises(KeyError), replacing(tmp_path / "other") as beside:
        beside.mkdir()
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
    write_text(tmp_path / "t", "naïve\n")
    assert (tmp_path / "t").read_bytes() == "naïve\n".encode()
