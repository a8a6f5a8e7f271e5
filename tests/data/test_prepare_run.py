"""Whole runs: what lands where, resuming, the same bytes, captions, Beam, the command line."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from prepare_videos import BUCKETS, OPTIONS, footage, fragile, pan, video

from gen1_jax.cli import main
from gen1_jax.data import prepare_beam
from gen1_jax.data.dataset import open_dataset, read_recipe
from gen1_jax.data.prepare import PreparedClip, PreparedVideo
from gen1_jax.data.prepare_listing import list_videos
from gen1_jax.data.prepare_report import PrepareSummary
from gen1_jax.data.prepare_run import PrepareRequest, prepare_dataset
from gen1_jax.media import Limits


def request(videos, out, **more):
    return PrepareRequest(videos=str(videos), out=str(out), options=OPTIONS, **{"workers": 1, **more})


def instant(path, options):
    """A clip out of nothing."""
    clip = PreparedClip(video=os.fsencode(path.name), start=0, frames=1, height=2, width=2, frame_rate=1.0)
    return PreparedVideo(clips=(clip,) * 3, shots=1, rejected={})


NOTHING = PrepareSummary(
    **{"output": "out", "split": "train", "videos": 0, "prepared": 0, "quarantined": 0, "shots": 0, "clips": 0},
    **{"buckets": {}, "rejected": {}, "size": 0, "seconds": 0.0},
)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def quarantine(out):
    return {
        line["file"]: line["reason"] for line in map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return footage(tmp_path_factory.mktemp("footage") / "videos")


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    """The result of a plain run, and its summary."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare_dataset(request(videos, out))


def test_a_run(prepared):
    out, summary = prepared
    records = list(open_dataset(out, "train"))
    assert [record["id"] for record in records] == [
        *("b_two_shots.mp4#000000", "b_two_shots.mp4#000008", "b_two_shots.mp4#000020", "b_two_shots.mp4#000028"),
        *("sub/portrait.mkv#000000", "sub/portrait.mkv#000008"),
    ]
    assert [(record["height"], record["width"]) for record in records] == [(32, 56)] * 4 + [(56, 32)] * 2
    assert {(record["frames"], float(record["frame_rate"])) for record in records} == {(4, 5.0)}
    assert records[0]["video"][4:8] == b"ftyp" and records[5]["source"] == "sub/portrait.mkv"
    assert dataclasses.asdict(summary) == {
        **{"output": str(out), "split": "train", "videos": 6, "prepared": 6, "quarantined": 2, "shots": 5, "clips": 6},
        **{"buckets": {"32x56": 2, "56x32": 4}, "rejected": {"black": 1, "too short": 1}},
        **{"size": sum(len(record["video"]) for record in records), "seconds": summary.seconds},
    }
    assert not [name for name in files_of(out) if ".prepare" in name or "part" in name]


def test_bad_files_are_in_quarantine(prepared, videos):
    reasons = quarantine(prepared[0])
    assert list(reasons) == ["text.mov", "truncated.mp4"]
    assert "truncated" in reasons["truncated.mp4"] and "not a video" in reasons["text.mov"]
    assert str(videos) not in json.dumps(reasons)


def test_the_same_bytes_with_two_workers_and_from_another_place(prepared, videos, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(videos)
    prepare_dataset(request(moved, tmp_path / "out", workers=2))
    assert files_of(tmp_path / "out") == files_of(prepared[0])


def test_a_finished_run_does_nothing_again(prepared, videos):
    out, summary = prepared
    before = files_of(out)
    again = prepare_dataset(request(videos, out), prepare=instant)
    assert files_of(out) == before
    assert again == dataclasses.replace(summary, prepared=0, seconds=again.seconds)


def test_a_lost_shard_is_written_again(prepared, videos, tmp_path):
    out = tmp_path / "out"
    prepare_dataset(request(videos, out))
    next(out.glob("*.array_record*")).unlink()
    assert prepare_dataset(request(videos, out)).prepared == 6
    assert files_of(out) == files_of(prepared[0])


needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam (the extra 'beam') is not installed"
)


@pytest.mark.parametrize("runner", ["local", pytest.param("beam", marks=needs_beam)])
def test_crash_and_hang_are_survived(tmp_path, runner):
    (tmp_path / "videos").mkdir()
    for name in ("crash.mp4", "a.mp4", "hang.mp4", "z.mp4"):
        video(tmp_path / "videos" / name, pan(8))
    made = request(tmp_path / "videos", tmp_path / "out", workers=2, timeout=5.0, runner=runner)
    summary = prepare_dataset(made, prepare=fragile)
    assert quarantine(tmp_path / "out") == {
        "crash.mp4": "its decoder crashed (SIGABRT)",
        "hang.mp4": "no result within 5 s; its decoder hangs, or --timeout is too small",
    }
    assert summary.clips == 2 and summary.quarantined == 2


def test_a_killed_run_goes_on(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, name in enumerate(("a.mp4", "b.mp4", "m_slow.mp4", "z.mp4")):
        video(folder / name, pan(8, index))
    (folder / "hold").touch()  # until then m_slow hangs
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from test_prepare_run import *\n"
        "if __name__ == '__main__': prepare_dataset(request(sys.argv[3], sys.argv[4]), prepare=fragile)"
    )
    here = Path(__file__).parent
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", code, here, here.parent, folder, out])
    try:
        end = time.monotonic() + 60
        while not (out / ".prepare_train" / "00000001").exists():
            assert run.poll() is None and time.monotonic() < end
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    assert (folder / "log").read_text().split() == ["a.mp4", "b.mp4"]
    (folder / "hold").unlink()
    (out / ".prepare_train" / ".00000002.1.part").write_bytes(b"half of it")
    summary = prepare_dataset(request(folder, out), prepare=fragile)
    assert (folder / "log").read_text().split() == ["a.mp4", "b.mp4", "m_slow.mp4", "z.mp4"]
    assert (summary.videos, summary.prepared) == (4, 2)
    prepare_dataset(request(folder, tmp_path / "whole"), prepare=fragile)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_other_options_or_videos_are_refused(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.mp4").write_text(name)
    out = tmp_path / "out"
    prepare_dataset(request(folder, out), prepare=instant)
    with pytest.raises(ValueError, match=r"other stride \(2, not 3\)"):
        options = dataclasses.replace(OPTIONS, stride=3)
        prepare_dataset(dataclasses.replace(request(folder, out), options=options), prepare=instant)
    (folder / "c.mp4").write_text("c")
    with pytest.raises(ValueError, match=r"other videos \(2 files .* not 3 files"):
        prepare_dataset(request(folder, out), prepare=instant)
    assert prepare_dataset(request(folder, out, split="test"), prepare=instant).clips == 9
    assert len(open_dataset(out, "train")) == 6 and len(open_dataset(out, "test")) == 9


def test_sets_of_before_there_was_no_limit_of_frames_go_on(tmp_path):
    (tmp_path / "a.mp4").write_text("a")
    out = tmp_path / "out"
    before = dataclasses.replace(request(tmp_path, out), options=dataclasses.replace(OPTIONS, limits=Limits()))
    prepare_dataset(before, prepare=instant)
    assert "options" not in read_recipe(out, "train")["limits"]
    assert prepare_dataset(request(tmp_path, out), prepare=instant).prepared == 0
    fewer = dataclasses.replace(OPTIONS, limits=Limits(max_frames=9))
    with pytest.raises(ValueError, match="other limits"):
        prepare_dataset(dataclasses.replace(request(tmp_path, out), options=fewer), prepare=instant)


def test_videos_whose_owners_forbid_training_are_left_out_and_counted(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        video(tmp_path / "videos" / f"{name}.mp4", pan(9))
    packet = b'<plus:DataMining rdf:resource="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/>'
    box = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + packet  # of XMP
    with (tmp_path / "videos" / "b.mp4").open("ab") as file:
        file.write((8 + len(box)).to_bytes(4, "big") + b"uuid" + box)
    options = ("--frames", 4, "--stride", 2, "--buckets", "56x32", "--workers", 1, "--videos", tmp_path / "videos")
    assert command(*options, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "1 clip of 2 videos" in said and "left out: 1 training forbidden by IPTC or XMP" in said
    assert "include_opted_out" not in read_recipe(tmp_path / "out", "train")  # and sets of before go on
    assert command(*options, "--out", tmp_path / "all", "--include-opted-out") == 0
    assert "2 clips of 2 videos" in (said := capsys.readouterr().out) and "left out" not in said
    assert command(*options, "--out", tmp_path / "out", "--include-opted-out") == 2
    assert "other include_opted_out" in capsys.readouterr().err


def test_shards_divide_the_clips_in_order(tmp_path):
    for name in "abcde":
        (tmp_path / f"{name}.mp4").write_text(name)
    prepare_dataset(request(tmp_path, tmp_path / "out", shards=4), prepare=instant)
    shards = sorted((tmp_path / "out").glob("*.array_record*"))
    source = open_dataset(tmp_path / "out", "train")
    assert len(shards) == 4 and [record["video"] for record in source] == [
        f"{n}.mp4".encode() for n in "abcde" for _ in "123"
    ]


def test_two_runs_at_once_are_refused(tmp_path):
    import fcntl

    (tmp_path / "a.mp4").write_text("a")
    (tmp_path / "out").mkdir()
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another gen1 prepare"):
        prepare_dataset(request(tmp_path, tmp_path / "out"), prepare=instant)
    os.close(folder)


def listed(videos, captions=None):
    return {entry.source: entry.caption for entry in list_videos(videos, captions)}


def test_captions(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "b.MP4", "sub/c.webm", "d.mp4", ".hidden.mp4", "e.doc"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("a sidecar\n  of two lines \n")
    (tmp_path / "d.txt").write_bytes("a caf\u00e9".encode("utf-8-sig"))
    table = tmp_path / "captions.csv"
    table.write_text('file,caption\nsub/c.webm,"a, c"\n./d.mp4,of the table\nunknown.mp4,x\n')
    plain = {"a.mp4": "a sidecar of two lines", "b.MP4": "", "d.mp4": "a caf\u00e9", "sub/c.webm": ""}
    assert listed(tmp_path) == plain and list(listed(tmp_path)) == sorted(plain)
    assert listed(tmp_path, table) == {**plain, "sub/c.webm": "a, c", "d.mp4": "of the table"}
    assert listed(tmp_path / "sub", table) == {"c.webm": "a, c"}  # by its place beside the table
    assert listed(table) == {"sub/c.webm": "a, c", "d.mp4": "of the table", "unknown.mp4": "x"}
    assert listed(tmp_path / "a.mp4") == {"a.mp4": plain["a.mp4"]}
    assert listed(f"{tmp_path}/*.mp4") == {"a.mp4": plain["a.mp4"], "d.mp4": plain["d.mp4"]}
    assert listed(f"{tmp_path}/**/*.webm") == {"sub/c.webm": ""}


def test_a_list_of_videos_names_them_in_its_own_way(tmp_path):
    cafe = unicodedata.normalize("NFD", "café.mp4")
    (tmp_path / "sub").mkdir()
    for name in (cafe, f"sub/{cafe}", "a.mp4"):
        (tmp_path / name).touch()
    outside = tmp_path / "outside.csv"
    (tmp_path / "list.csv").write_bytes(
        f"text; file_name\r\nun café;café.mp4\r\nb;sub\\café.mp4\r\n;./none.mp4\r\nc;{tmp_path}/a.mp4\r\n".encode(
            "cp1252"
        )
    )
    found = list_videos(tmp_path / "list.csv")
    assert {entry.source: entry.caption for entry in found} == {
        **{cafe: "un café", f"sub/{cafe}": "b", "none.mp4": "", f"{tmp_path}/a.mp4": "c"}
    }
    assert [entry.path.exists() for entry in found].count(False) == 1
    outside.write_text("file,caption\nsub/café.mp4,other\n")
    assert listed(tmp_path / "list.csv", outside)[f"sub/{cafe}"] == "other"


def test_captions_reach_the_records(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "t.csv").write_text("caption,file\na caption,b.mp4\n")
    prepare_dataset(request(tmp_path, tmp_path / "out", captions=str(tmp_path / "t.csv")), prepare=instant)
    assert [record["caption"] for record in open_dataset(tmp_path / "out", "train")] == [""] * 3 + ["a caption"] * 3


def test_file_names_that_are_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"bad\xff.mp4")).touch()
    (tmp_path / "with {braces}\n.mp4").touch()
    assert list(listed(tmp_path)) == ["bad\\xff.mp4", "with {braces}\n.mp4"]
    prepare_dataset(request(tmp_path, tmp_path / "out"), prepare=instant)
    assert open_dataset(tmp_path / "out", "train")[0]["source"] == "bad\\xff.mp4"


def command(*arguments):
    return main(["prepare", *map(str, arguments)])


def test_the_command(videos, prepared, tmp_path, capsys):
    options = ("--frames", 4, "--stride", 2, "--buckets", ",".join(f"{w}x{h}" for h, w in BUCKETS), "--workers", 1)
    assert command("--videos", videos, "--out", tmp_path / "{out}", *options) == 0
    shown = capsys.readouterr().out
    assert "6 clips of 6 videos (5 shots)" in shown and "56x32: 4 clips" in shown and "1 black" in shown
    assert "in quarantine: 2 videos" in shown
    assert files_of(tmp_path / "{out}") == files_of(prepared[0])
    assert command("--videos", videos, "--out", tmp_path / "{out}", *options, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["clips"], summary["prepared"], summary["buckets"]) == (6, 0, {"32x56": 2, "56x32": 4})


def test_the_command_tells_what_it_left_out_and_of_captions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gen1_jax.data.prepare_run.prepare_dataset", lambda request, progress, videos: NOTHING)
    for name in ("a.mp4", ".b.mp4", "c.doc", "d.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "captions.csv").write_text("file, caption\n.\\a.mp4, {x}\nz.mp4,x\n")
    assert command("--videos", tmp_path, "--out", tmp_path / "out") == 0
    assert "captions: 0 with, 2 without" in (shown := capsys.readouterr().out)
    assert f"not used: {tmp_path}/captions.csv; name it with --captions" in shown
    assert "files left out, hidden: 1 (.b.mp4)" in shown and "neither video nor picture: 1 (c.doc)" in shown
    assert command("--videos", tmp_path, "--out", tmp_path / "out", "--captions", tmp_path / "captions.csv") == 0
    assert "captions: 1 with, 1 without" in (shown := capsys.readouterr().out) and "match no file: z.mp4" in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--videos", "nothing"], "no such file"),
        (["--videos", "empty"], "no videos found"),
        (["--videos", "*.mp4"], "no videos found"),
        (["--videos", "https://x/y.mp4"], "only local files"),
        (["--videos", "s3://b/*.mp4"], "only local files"),
        (["--videos", "bad.csv"], "column 'file'"),
        (["--videos", "twice.csv"], "second time"),
        (["--videos", "binary.csv"], "not a CSV file"),
        (["--videos", "v", "--captions", "twice.csv"], "column 'caption'"),
        (["--videos", "v", "--captions", "stranger.csv"], "none of its files"),
        (["--videos", "v", "--buckets", "447x256"], "even"),
        (["--videos", "v", "--frames", "0"], "frames"),
        (["--videos", "v", "--runner", "cloud"], "local, beam"),
        (["--videos", "v", "--workers", "0"], "workers"),
        (["--videos", "v", "--split", "a-b"], "split"),
        (["--videos", "v"], "not one usable clip in 1 video (see quarantine.jsonl)"),
    ],
)
def test_wrong_input_is_told_in_a_line(arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "v" / "text.mp4").write_text("no video")
    (tmp_path / "bad.csv").write_text("name,caption\na.mp4,x\n")
    (tmp_path / "twice.csv").write_text("file\na.mp4\na.mp4\n")
    (tmp_path / "stranger.csv").write_text("file,caption\na.mp4,x\n")
    (tmp_path / "binary.csv").write_bytes(b"file\n\xff\xfe")
    assert command(*arguments, "--out", "out") == 2
    error = capsys.readouterr().err
    assert complaint in error and error.startswith("gen1: ") and error.count("\n") == 1
    assert not list(tmp_path.glob("out/*.array_record*"))


@needs_beam
def test_beam_writes_the_same(videos, prepared, tmp_path):
    prepare_dataset(request(videos, tmp_path / "out", runner="beam"))
    assert files_of(tmp_path / "out") == files_of(prepared[0])


def test_without_beam_the_command_says_what_to_install(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_beam, "beam", None)
    with pytest.raises(ValueError, match=r"gen1-jax\[beam\]"):
        prepare_dataset(request(videos, tmp_path / "out", runner="beam"))
