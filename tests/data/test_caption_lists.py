"""Captions however people write them down."""

import unicodedata

import pytest

from gen1_jax.data.captions import Captions, decode_text, read_table
from gen1_jax.errors import UserError

CAFE = "a café"
NFD = unicodedata.normalize("NFD", "café.mp4")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_text_in_any_encoding(encoding):
    text = "file,caption\r\na.mp4,a café – “quoted”\r\n"
    assert decode_text(text.encode(encoding)) == text


def test_what_is_no_text():
    for data in (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"file\n\xff\xfe", b"a\x00b\x07" * 9 + b"\xff" * 99):
        with pytest.raises(UserError):
            decode_text(data)


@pytest.mark.parametrize(
    "text",
    [
        f"file,caption\na.mp4,{CAFE}\n",
        f" File , Caption \na.mp4, {CAFE}\n",
        f"caption,file\n{CAFE},a.mp4\n",
        f"id,caption,seconds,file\n1,{CAFE},2.5,./a.mp4\n",
        f'"file", "caption"\n"a.mp4", "{CAFE}"\n',
        f"file_name,text\na.mp4,{CAFE}\n",
        f"filename\tprompt\na.mp4\t{CAFE}\n",
        f"file;caption\r\na.mp4;{CAFE}\r\n\r\n",
        f"file,caption,\na.mp4,{CAFE},,\n",
        f"sep=;\nFile Name;Text\na.mp4;{CAFE}\n",
    ],
)
def test_tables_of_every_shape(tmp_path, text):
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        assert {name: caption.strip() for name, caption in read_table(tmp_path / "t.csv").items()} == {"a.mp4": CAFE}


def test_captions_with_line_breaks_and_commas(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text('file,caption\na.mp4,"two\nlines, ""quoted"""\nb.mp4,a cat, asleep, on a mat\nc.mp4\n')
    assert read_table(table) == {"a.mp4": 'two\nlines, "quoted"', "b.mp4": "a cat, asleep, on a mat", "c.mp4": ""}
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"file_name": "a.mp4", "text": "x", "n": 1}\n\n{"file_name": "b.mp4", "text": "y"}\n')
    assert read_table(lines) == {"a.mp4": "x", "b.mp4": "y"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a.mp4,a cat\n", "no column 'file'"),
        ("file\na.mp4\n", "no column 'caption'"),
        ("file,caption\na.mp4,x\n./a.mp4,y\n", "line 3 names a.mp4 for a second time"),
        ("file,caption\nsub\\a.mp4,x\nsub/a.mp4,x\n", "line 3 names sub/a.mp4 for a second time"),
        ("file,caption\n,x\n", "line 2 names no file"),
        ('file,caption\na.mp4,"x\n', "not a CSV file"),
        ("", "no column 'file'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, complaint):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=f"t.csv: .*{complaint}") as caught:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


@pytest.fixture
def files(tmp_path):
    """Names as a Mac writes them, and one in a subfolder."""
    (tmp_path / "sub").mkdir()
    paths = [tmp_path / NFD, tmp_path / "sub" / "b.mp4", tmp_path / "c.mp4", tmp_path / "d.mp4"]
    for path in paths:
        path.touch()
    return paths


def captions(root, files, *more):
    told = Captions(root, files, *more)
    return [told.of(file) for file in files], told.summary()


def test_names_are_compared_by_what_they_mean(tmp_path, files):
    table = tmp_path / "t.csv"
    table.write_text("file,caption\ncafé.mp4,one\nsub\\b.mp4,two\n./c.mp4,three\nC.mov,x\nother.mp4,x\n")
    texts, summary = captions(tmp_path, files, table)
    assert texts == ["one", "two", "three", ""]
    assert (summary.captioned, summary.without) == (3, 1)
    assert summary.unmatched == {str(table): ("C.mov", "other.mp4")}
    assert summary.lines() == [
        "captions: 3 with, 1 without",
        f"2 rows of {table} match no file: C.mov, other.mp4",
    ]
    table.write_text("file,caption\nSub/B.MP4,two\n")
    assert captions(tmp_path, files, table)[0] == ["", "two", "", ""]
    table.write_text("file,caption\nother.mp4,x\n")
    with pytest.raises(UserError, match="none of its files is among the videos"):
        Captions(tmp_path, files, table)


def test_files_beside_in_any_encoding(tmp_path, files):
    (tmp_path / "café.txt").write_bytes("un\n café".encode("cp1252"))
    (tmp_path / "c.TXT").write_bytes(CAFE.encode("utf-16"))
    (tmp_path / "d.txt").write_bytes(b"\x00\x01\x02\xff")
    assert captions(tmp_path, files)[0] == ["un café", "", CAFE, ""]


def test_tables_among_the_files(tmp_path, files):
    """As Hugging Face's imagefolder has them; the nearest counts most, and before files beside."""
    (tmp_path / "metadata.csv").write_text("file_name,text\nc.mp4,outer\nsub/b.mp4,outer\nnone.mp4,x\n")
    (tmp_path / "sub" / "captions.tsv").write_text("file\tcaption\nb.mp4\tinner\n")
    (tmp_path / "c.txt").write_text("beside")
    (tmp_path / "d.txt").write_text("beside")
    (tmp_path / "captions.csv").write_text("width,height\n1,2\n")
    texts, summary = captions(tmp_path, files)
    assert texts == ["", "inner", "outer", "beside"] and summary.unmatched == {
        str(tmp_path / "metadata.csv"): ("none.mp4",)
    }
    assert len(summary.unusable) == 1 and "captions.csv: has no column 'file'" in summary.lines()[-1]
