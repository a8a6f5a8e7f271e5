"""Which files of a folder count, each once, and what is said of the rest."""

import os

import pytest

from gen1_jax.media import MediaError
from gen1_jax.media.listing import (
    DANGLING,
    HIDDEN,
    JUNK,
    OTHER,
    SPECIAL,
    TWICE,
    describe,
    list_media,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(listing):
    return [os.path.relpath(file, listing.root) for file in listing.files]


def test_media_alone_are_listed_and_the_rest_is_told(tmp_path):
    media = ["a.MPG", "b.ts", "c/d.wmv", "c/e.flv", "f.3gp", "g.m2ts", "h.webp", "i.dir.png/inside.jpg", "z.gif"]
    touch(tmp_path, *media, "notes.md", "a.txt", "captions.csv", "Thumbs.db", "c/desktop.ini")
    touch(tmp_path, ".hidden.mp4", "c/._e.flv", ".thumbnails/a.png", "c/.ipynb_checkpoints/e-checkpoint.mp4")
    touch(tmp_path, "__MACOSX/a.mp4", "c/@eaDir/e.jpg", ".gen1_index/0123.npz")
    os.mkfifo(tmp_path / "pipe.mp4")
    listing = list_media(tmp_path)
    assert names(listing) == sorted(media, key=lambda name: tmp_path / name) and listing.root == tmp_path
    assert listing.left_out == {
        HIDDEN: (".hidden.mp4", ".thumbnails", "c/._e.flv", "c/.ipynb_checkpoints"),
        JUNK: ("Thumbs.db", "__MACOSX", "c/@eaDir", "c/desktop.ini"),
        OTHER: ("notes.md",),
        SPECIAL: ("pipe.mp4",),
    }
    assert "hidden: 4 (.hidden.mp4, .thumbnails, c/._e.flv and 1 more)" in describe(listing.left_out)
    assert names(list_media(tmp_path, (".ts", ".gif"))) == ["b.ts", "z.gif"]


def test_links_are_followed_once(tmp_path):
    """To files, to folders, in circles, and to what has been seen under its own name."""
    touch(tmp_path, "set/real/a.mp4", "outside/b.mp4", "outside/.secret.mp4", "blobs/0123")
    folder = tmp_path / "set"
    (folder / "again").symlink_to(folder / "real")
    (folder / "a_link.mp4").symlink_to(folder / "real" / "a.mp4")
    (folder / "blob.mp4").symlink_to(tmp_path / "blobs" / "0123")
    (folder / "more").symlink_to(tmp_path / "outside")
    (folder / "real" / "up").symlink_to(folder)
    (tmp_path / "outside" / "round").symlink_to(tmp_path)
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    listing = list_media(folder)
    assert names(listing) == ["blob.mp4", "more/b.mp4", "real/a.mp4"]
    assert listing.left_out[DANGLING] == ("circle.mp4", "gone.mp4")
    assert {"a_link.mp4", "again", "real/up", "more/round/set", "more/round/outside"} <= set(listing.left_out[TWICE])
    assert list_media(tmp_path / "set") == listing  # the same each time


def test_patterns_and_files(tmp_path):
    touch(tmp_path, "a.mp4", "b.dat", "sub/c.mp4", "sub/.d.mp4", "notes.md", "odd [1].mp4", "__MACOSX/x.mp4")
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "twice.mp4").symlink_to(tmp_path / "a.mp4")
    assert names(list_media(f"{tmp_path}/*.mp4")) == ["a.mp4", "odd [1].mp4"]
    assert names(list_media(f"{tmp_path}/**/*.mp4")) == ["a.mp4", "odd [1].mp4", "sub/c.mp4"]
    assert names(list_media(f"{tmp_path}/*.dat")) == ["b.dat"] == names(list_media(tmp_path / "b.dat"))
    assert names(list_media(f"{tmp_path}/*")) == ["a.mp4", "odd [1].mp4"]
    assert names(list_media(tmp_path / "odd [1].mp4")) == ["odd [1].mp4"]
    for nothing in ("https://x/y.mp4", tmp_path / "none"):
        with pytest.raises(MediaError):
            list_media(nothing)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_folder_that_cannot_be_opened_is_told(tmp_path):
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    os.chmod(tmp_path / "closed", 0)
    try:
        listing = list_media(tmp_path)
    finally:
        os.chmod(tmp_path / "closed", 0o755)
    assert names(listing) == ["a.mp4"] and "closed" in describe(listing.left_out)[0]
