"""What `gen1 edit` does with files, with pictures left as the model sees them: nothing is sampled here."""

from argparse import ArgumentTypeError
from fractions import Fraction

import numpy as np
import pytest
from media.media_files import BLUE, COUNT, GREEN, HEIGHT, RED, WIDTH, index_of, make_video, picture
from PIL import Image

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.commands.values import frame_rate, moment, size
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.source import read_source
from gen1_jax.editing.writing import compare_frames, write_frames
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, VideoWriter, load_video, open_video
from gen1_jax.media.provenance import verify


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline(open_trained(tiny_model))  # whose networks nobody asks for


@pytest.fixture
def unchanged(pipeline):
    """`gen1 edit` of a model that returns what it sees; the result's `VideoInfo`, and its frames."""

    def run(video, output, **options):
        request = EditRequest(video=video, output=output, prompt="x", **options)
        source = read_source(video, pipeline, request.limits, part=request.part, size=request.size)
        frames = iter(source.frames)
        if request.compare:
            frames = compare_frames(source, {"depth": np.zeros_like(source.frames)}, frames)
        written = write_frames(output, frames, source, request, audio=True)
        with open_video(output) as reader:
            info, frames = reader.info, list(reader)
        assert written == (info.width, info.height, len(frames))
        return info, frames, reader.end

    return run


def anamorphic(path, aspect, width=64, height=48, frames=1):
    with VideoWriter(path, width=width, height=height, frame_rate=10, sample_aspect_ratio=Fraction(aspect)) as writer:
        for i in range(frames):
            writer.write(picture(i, width, height))
    return path


@pytest.mark.parametrize(
    ("aspect", "seen"), [("2/1", (128, 48)), ("1/2", (64, 96)), ("8/9", (64, 54)), ("1/1", (64, 48))]
)
@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.gif", "out.webm", "out/"])
def test_files_that_say_nothing_of_pixels_have_square_ones(unchanged, tmp_path, name, aspect, seen):
    info, _, _ = unchanged(anamorphic(tmp_path / "in.mp4", aspect), f"{tmp_path}/{name}")
    assert (info.width, info.height, info.sample_aspect_ratio) == (*seen, 1)


def test_videos_keep_the_shape_of_their_pixels(unchanged, tmp_path):
    for suffix in (".mp4", ".mov", ".mkv"):
        info, _, _ = unchanged(anamorphic(tmp_path / "in.mp4", 2), tmp_path / f"out{suffix}")
        assert (info.width, info.height, info.sample_aspect_ratio) == (64, 48, 2)


def test_the_model_and_a_comparison_see_square_pixels(unchanged, pipeline, tmp_path):
    path = anamorphic(tmp_path / "in.mp4", 2, frames=2)
    frames = read_source(path, pipeline, Limits()).frames
    assert frames.shape[2] / frames.shape[1] == pytest.approx(128 / 48, rel=0.4)
    assert load_video(path).shape == (2, 48, 128, 3)
    info, _, _ = unchanged(path, tmp_path / "out.mp4", compare=True)
    assert info.sample_aspect_ratio == 1
    assert info.width / info.height > 1.2 * 3 * 64 / 48


def test_what_is_written_is_signed_unless_nobody_wants_it(unchanged, tmp_path):
    path = anamorphic(tmp_path / "in.mp4", 1, frames=2)
    unchanged(path, tmp_path / "signed.mp4")
    unchanged(path, tmp_path / "plain.mp4", provenance=False)
    assert verify(tmp_path / "signed.mp4").state == "Valid" and verify(tmp_path / "plain.mp4") is None
    unchanged(path, tmp_path / "again.mp4", provenance=False)
    plain, again = (tmp_path / name for name in ("plain.mp4", "again.mp4"))
    assert plain.read_bytes() == again.read_bytes()  # as no two that are signed are


def test_the_speed_of_a_folder_of_pictures(unchanged, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(6):
        Image.fromarray(picture(i)).save(tmp_path / "in" / f"{i}.png")
    for fps, lasted in ((None, Fraction(6, 8)), (Fraction(24), Fraction(1, 4)), (Fraction(2), Fraction(3))):
        info, frames, end = unchanged(tmp_path / "in", tmp_path / "out.mp4", fps=fps)
        assert (len(frames), info.frame_rate, end) == (6, fps or 8, lasted)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (5, [0, 2, 4, 6, 8]),
        (10, list(range(10))),
        (20, [i // 2 for i in range(20)]),
        (4, [0, 2, 5, 7]),
        (3, [0, 3, 6]),
    ],
)
def test_a_frame_rate_changes_neither_speed_nor_length(unchanged, tmp_path, fps, expected):
    source = make_video(tmp_path / "in.mp4", sound="aac")  # ten frames, a second
    info, frames, end = unchanged(source, tmp_path / "out.mp4", fps=Fraction(fps))
    assert [index_of(frame.rgb) for frame in frames] == expected
    assert [frame.time for frame in frames] == [Fraction(i, fps) for i in range(len(frames))]
    assert (end, info.has_audio) == (1, True)


@pytest.mark.parametrize(
    ("part", "expected", "lasted"),
    [
        ({"start": 3}, range(3, 10), 0.7),
        ({"start": Fraction(3, 10)}, range(3, 10), 0.7),
        ({"start": Fraction(1, 4)}, range(2, 10), 0.75),  # the one that is on the screen then
        ({"duration": 4}, range(4), 0.4),
        ({"duration": Fraction(35, 100)}, range(4), 0.35),
        ({"start": Fraction(1, 2), "duration": Fraction(2, 10)}, [5, 6], 0.2),
        ({"start": Fraction(1, 2), "duration": 9}, range(5, 10), 0.5),
        ({"start": 2, "duration": 6, "stride": 3}, [2, 5], 0.6),
        ({"frames": 2, "stride": 2}, [0, 2], 0.4),
        ({"start": Fraction(2, 10), "fps": Fraction(5), "frames": 3}, [2, 4, 6], 0.6),
    ],
)
def test_parts_in_frames_and_in_seconds(unchanged, tmp_path, part, expected, lasted):
    _, frames, end = unchanged(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4", **part)
    assert [index_of(frame.rgb) for frame in frames] == list(expected)
    assert float(end) == pytest.approx(lasted)


def test_a_held_frame_can_be_started_in(unchanged, tmp_path):
    """A screen recording: nothing moves for five seconds."""
    with VideoWriter(tmp_path / "in.mkv", width=WIDTH, height=HEIGHT, frame_rate=10) as writer:
        for i, time in enumerate((0, 5)):
            writer.write(picture(i), Fraction(time), Fraction(3))
    part = {"start": Fraction(2), "duration": Fraction(4)}
    _, frames, end = unchanged(tmp_path / "in.mkv", tmp_path / "out.mp4", **part)
    assert [(index_of(frame.rgb), frame.time) for frame in frames] == [(0, 0), (1, 3)] and end == 4


def test_a_start_behind_the_end_says_how_long_the_video_is(unchanged, tmp_path):
    for start, word in ((Fraction(3, 2), "is over before 1.5 s"), (10, "only 10 frames")):
        with pytest.raises(UserError, match=rf"in\.mp4.*{word}.*--start"):
            unchanged(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4", start=start)


def test_a_size_cuts_the_sides_and_distorts_nothing(unchanged, tmp_path):
    source = make_video(tmp_path / "in.mp4")
    info, frames, _ = unchanged(source, tmp_path / "out.mp4", size=(96, 96))
    assert (info.width, info.height, info.sample_aspect_ratio) == (96, 96, 1)
    for at, colour in (((24, 24), RED), ((24, 72), GREEN), ((72, 24), BLUE)):
        np.testing.assert_allclose(frames[0].rgb[at].astype(int), colour, atol=40)
    assert index_of(unchanged(source, tmp_path / "out.png", size=(33, 7), frames=1)[1][0].rgb) == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": (33, 24)}, "34x24"),
        ({"size": (9000, 9000)}, "--max-pixels"),
        ({"stride": 2, "fps": Fraction(5)}, "--stride and --fps"),
        ({"duration": Fraction(0)}, "duration"),
    ],
)
def test_what_cannot_be_is_refused_at_once(tmp_path, options, word):
    with pytest.raises(UserError, match=word):
        EditRequest(video=tmp_path / "none.mp4", output=tmp_path / "out.mp4", prompt="x", **options)


def test_a_frame_rate_does_not_get_round_the_limit_on_frames(unchanged, tmp_path):
    with VideoWriter(tmp_path / "in.mp4", width=WIDTH, height=HEIGHT, frame_rate=10) as writer:
        writer.write(picture(0), Fraction(0), Fraction(10_000))
    with pytest.raises(UserError, match=r"--fps 30: .*in\.mp4.*--max-frames"):
        unchanged(tmp_path / "in.mp4", tmp_path / "out.mp4", fps=Fraction(30))


def test_frames_that_a_gif_leaves_out_are_counted(unchanged, tmp_path):
    source = make_video(tmp_path / "in.mp4", rate=100)
    with pytest.warns(UserWarning, match=r"out\.gif: 5 of 10 frames are left out"):
        _, frames, end = unchanged(source, tmp_path / "out.gif")
    assert (len(frames), end) == (COUNT // 2, Fraction(1, 10))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("48", 48),
        ("48f", 48),
        ("0", 0),
        ("2s", Fraction(2)),
        ("1.5s", Fraction(3, 2)),
        (".5s", Fraction(1, 2)),
        ("250ms", Fraction(1, 4)),
        ("0:12.5", Fraction(25, 2)),
        ("1:02", Fraction(62)),
        ("90:00", Fraction(5400)),
        ("1:00:02.5", Fraction(7205, 2)),
    ],
)
def test_moments_are_frames_or_seconds(text, value):
    assert moment(text) == value and type(moment(text)) is type(value)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (moment, "1.5", "1.5s is a time"),
        (moment, "-1", "neither"),
        (moment, "0:75", "neither"),
        (moment, "1:99:00", "neither"),
        (moment, "soon", "neither"),
        (moment, "", "neither"),
        (frame_rate, "0", "at most 1000"),
        (frame_rate, "1/0", "30000/1001"),
        (frame_rate, "nan", "30000/1001"),
        (frame_rate, "fast", "30000/1001"),
        (size, "512", "WIDTHxHEIGHT"),
        (size, "0x5", "WIDTHxHEIGHT"),
        (size, "512x288x3", "WIDTHxHEIGHT"),
    ],
)
def test_values_that_mean_nothing_name_what_would(parse, text, words):
    with pytest.raises(ArgumentTypeError, match=words):
        parse(text)


def test_frame_rates_as_people_write_them():
    assert [frame_rate(text) for text in ("24", "12.5", "30000/1001", "29.97", "23.976", "59.94", "30.5")] == [
        24,
        Fraction(25, 2),
        Fraction(30000, 1001),
        Fraction(30000, 1001),
        Fraction(24000, 1001),
        Fraction(60000, 1001),
        Fraction(61, 2),
    ]
    assert size("512x288") == (512, 288)
