import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import COUNT, HEIGHT, WIDTH, make_video, picture, tones
from PIL import Image

from gen1_jax.media import Limits, MediaError, open_video, read_image
from gen1_jax.media.errors import check_size


def read(path, **choice):
    with open_video(path, **choice) as reader:
        return list(reader)


def assert_refused(path, *words, **choice):
    """One clear line that names the file."""
    with pytest.raises(MediaError) as caught:
        read(path, **choice)
    message = str(caught.value)
    assert Path(path).name in message and "\n" not in message, message
    for word in words:
        assert word in message


URLS = [
    "http://example.org/a.mp4",
    "HTTPS://example.org/a.mp4",
    "file:a.mp4",
    "concat:a.ts|b.ts",
    "pipe:0",
    "data:video/mp4;base64,AAAA",
    "subfile,,start,0,end,9,,:a.mp4",
    "lavfi:testsrc",
    "rtsp://example.org/live",
]


@pytest.mark.parametrize("reader", [read, read_image])
@pytest.mark.parametrize("url", URLS)
def test_urls_and_protocols_are_refused(url, reader):
    with pytest.raises(MediaError, match="only local files" if "," not in url[:8] else "no such file"):
        reader(url)


def test_a_colon_in_a_name_is_fine_in_a_full_path(tmp_path):
    make_video(tmp_path / "plain.mp4").rename(tmp_path / "a:b %03d.mp4")
    assert len(read(tmp_path / "a:b %03d.mp4")) == COUNT


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none here")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    assert_refused(tmp_path / "pipe.mp4", "not a regular file")
    assert_refused(tmp_path / "empty", "no pictures")
    assert_refused(tmp_path / "zero.mp4", "empty")
    assert_refused(tmp_path / "dangling.mp4", "no such file")
    assert_refused(tmp_path / "gone.mp4", "no such file")
    assert_refused(tmp_path / "zero.mp4" / "inside.mp4", "no such file")
    for path in ("", "/dev/zero"):
        with pytest.raises(MediaError):
            read(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        assert_refused(tmp_path / "s.mp4", "not a regular file")


def test_a_picture_of_tiles_is_no_clip_of_its_first_tile(tmp_path):
    """FFmpeg gives each tile of a phone's picture as a stream of its own, of which the first would be taken."""
    with av.open(str(tmp_path / "a.heic"), "w", format="mp4", container_options={"brand": "heic"}) as output:
        streams = [output.add_stream("libx264", rate=1, options={"bf": "0"}) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in streams:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), "rgb24")))
            output.mux(stream.encode(None))
    for reader in (read, read_image):
        with pytest.raises(MediaError, match=r"a\.heic: a HEIC picture.*JPEG or PNG"):
            reader(tmp_path / "a.heic")


@pytest.mark.parametrize("reader", [read, read_image])
def test_what_git_keeps_in_place_of_a_large_file_is_named(tmp_path, reader):
    (tmp_path / "a.mp4").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n")
    with pytest.raises(MediaError, match=r"a\.mp4: is a pointer of Git LFS.*git lfs pull"):
        reader(tmp_path / "a.mp4")


def test_strange_names_stay_on_one_line(tmp_path):
    with pytest.raises(MediaError) as caught:
        read(tmp_path / "two\nlines\x1b[31m.mp4")
    assert str(caught.value).isprintable()
    with pytest.raises(MediaError, match="embedded null"):
        read(str(tmp_path) + "/nul\0byte.mp4")


REFERRING = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="secret.ts"/></svg>',
    "script.eps": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(secret.ts) run\n",
    "words.mp4": "These are words. " * 99,
    "subtitles.srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "frame%03d.png": "pattern",
}


@pytest.mark.parametrize(
    "name",
    [
        "hls.m3u8",
        "hls.mp4",
        "concat.mp4",
        "dash.mpd",
        "session.sdp",
        "drawing.svg",
        "script.eps",
        "words.mp4",
        "subtitles.srt",
        "frame%03d.png",
    ],
)
def test_files_that_refer_to_others_or_are_no_media(tmp_path, name):
    make_video(tmp_path / "secret.ts")
    Image.fromarray(picture(0)).save(tmp_path / "frame001.png")
    (tmp_path / name).write_text(REFERRING[name])
    assert_refused(tmp_path / name)
    with pytest.raises(MediaError, match=name.split(".")[0]):
        read_image(tmp_path / name)


def test_sound_alone_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "song.m4a"), "w") as output:
        track = output.add_stream("aac", rate=48_000, layout="mono")
        for chunk in tones(1):
            output.mux(track.encode(chunk))
        output.mux(track.encode(None))
    assert_refused(tmp_path / "song.m4a", "only sound")


def test_cover_art_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as output:
        track = output.add_stream("aac", rate=48_000, layout="mono")
        cover = output.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), "rgb24")))
        output.mux(cover.encode(None))
        for chunk in tones(1):
            output.mux(track.encode(chunk))
        output.mux(track.encode(None))
    assert_refused(tmp_path / "song.m4a", "only sound")


CONTAINERS = {
    "moov_last.mp4": ("libx264", "yuv420p", {"sound": "aac"}),
    "moov_first.mp4": ("libx264", "yuv420p", {"sound": "aac", "muxer": {"movflags": "+faststart"}}),
    "fragmented.mp4": ("libx264", "yuv420p", {"options": {"g": "3"}, "muxer": {"movflags": "frag_keyframe"}}),
    "sound.mkv": ("libx264", "yuv420p", {"sound": "libopus"}),
    "silent.webm": ("libvpx-vp9", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "flash.flv": ("libx264", "yuv420p", {}),
    "stream.ts": ("libx264", "yuv420p", {}),
    "palette.gif": ("gif", "pal8", {}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_cut_file_is_refused_unless_every_frame_is_there(tmp_path, name):
    codec, pixel_format, options = CONTAINERS[name]
    path = make_video(tmp_path / name, codec, pixel_format, **options)
    whole, data = read(path), path.read_bytes()
    refused = 0
    cuts = [1, 8, 40, 200, 600, *(len(data) * k // 20 for k in range(1, 20)), len(data) - 9, len(data) - 2]
    if name == "flash.flv":  # it promises no more than a duration, which is checked to two frames
        cuts = [cut for cut in cuts if cut < len(data) * 0.7]
    if name == "stream.ts":  # cut between packets it is as good as a whole one
        cuts = [cut + 1 if cut % 188 == 0 else cut for cut in cuts]
    for cut in cuts:
        path.write_bytes(data[:cut])
        try:
            frames = read(path)
        except MediaError as error:
            assert name in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert len(frames) == len(whole), f"cut at {cut} of {len(data)} went unnoticed"
    assert refused >= len(cuts) - 3


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mjpeg"), ("a.flv", "libx264"), ("a.ivf", "libvpx"), ("a.webm", "libvpx")]
)
def test_a_cut_between_two_frames_is_noticed(tmp_path, name, codec):
    path = make_video(tmp_path / name, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")
    with av.open(str(path)) as file:
        positions = [packet.pos for packet in file.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: positions[5]])
    with av.open(str(path)) as file:
        assert 3 <= len(list(file.decode(video=0))) <= 7  # FFmpeg alone says nothing
    assert_refused(path, "truncated")


def test_an_index_that_points_outside_the_file(tmp_path):
    path = make_video(tmp_path / "a.mp4", sound="aac")
    data = bytearray(path.read_bytes())
    at = data.index(b"stco") + 12
    data[at : at + 4] = struct.pack(">I", 10**8)
    path.write_bytes(data)
    assert_refused(path, "truncated")


def test_damage_that_the_decoder_conceals_is_refused(tmp_path):
    """FFmpeg paints over damage and marks the frame: those are refused, as are those it cannot decode."""
    noise = np.random.default_rng(0).integers(0, 255, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    path = make_video(tmp_path / "a.mp4", frames=list(noise), options={"g": "5"})
    data = path.read_bytes()
    begin, concealed = data.index(b"mdat") + 5000, 0
    for seed in range(20):
        dice, broken = random.Random(seed), bytearray(data)
        at = dice.randrange(begin, len(data) - 2000)
        broken[at : at + 400] = dice.randbytes(400)
        path.write_bytes(broken)
        try:
            with av.open(str(path)) as file:
                marked = any(frame.is_corrupt for frame in file.decode(video=0))
        except av.InvalidDataError:
            assert_refused(path, "damaged")
        else:
            if marked:
                concealed += 1
                assert_refused(path, "damaged")
            assert len(read(path, frames=1)) == 1  # what lies before can be had
    assert concealed


def fake_png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def fake_gif(width, height):
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bomb.png", fake_png(50_000, 50_000)),
        ("bomb_below_pillows_own_guard.png", fake_png(9_000, 9_000)),
        ("bomb.gif", fake_gif(15_000, 15_000)),
    ],
)
def test_decompression_bombs_are_refused_before_they_unfold(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert_refused(tmp_path / name, "pixels")
    with pytest.raises(MediaError, match="pixels"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("data", [fake_gif(0, 0), fake_gif(0, 8), fake_gif(65_535, 65_535), fake_png(0, 8)])
def test_frames_without_size_are_refused(tmp_path, data):
    (tmp_path / "flat.gif").write_bytes(data)
    assert_refused(tmp_path / "flat.gif")


def test_a_header_without_size_is_refused_even_if_the_decoder_minds_it_not():
    for width, height in ((0, 48), (64, 0), (-1, -1)):
        with pytest.raises(MediaError, match=r"a\.mp4.*no size"):
            check_size("a.mp4", width, height, Limits())


def test_limits_name_the_option_that_raises_them(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    assert_refused(path, "--max-pixels", limits=Limits(max_pixels=WIDTH * HEIGHT - 1))
    with pytest.raises(MediaError, match=r"a\.mp4.*--max-frames"):  # at once, by the header
        open_video(path, limits=Limits(max_frames=COUNT - 1))
    assert_refused(path, "--max-bytes", limits=Limits(max_bytes=path.stat().st_size - 1))
    exact = Limits(max_pixels=WIDTH * HEIGHT, max_frames=COUNT, max_bytes=path.stat().st_size)
    assert len(read(path, limits=exact)) == COUNT
    assert len(read(path, limits=Limits(max_frames=3), frames=3)) == 3
    assert len(read(path, limits=Limits(max_frames=2), start=4, stride=3)) == 2
    for i in range(3):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    size = sum(file.stat().st_size for file in tmp_path.glob("*.png"))
    assert_refused(tmp_path, "--max-bytes", limits=Limits(max_bytes=size - 1))
    assert_refused(tmp_path, "--max-frames", limits=Limits(max_frames=2))
    with pytest.raises(MediaError, match="--max-pixels"):
        read_image(tmp_path / "0.png", Limits(max_pixels=9))


def test_a_header_that_hides_its_length_meets_the_limit_while_reading(tmp_path):
    path = make_video(tmp_path / "a.h264")
    assert_refused(path, "--max-frames", limits=Limits(max_frames=4))


def test_frames_that_grow_meet_the_limit_while_reading(tmp_path):
    options = {"bf": "0"}
    small = make_video(tmp_path / "a.h264", options=options).read_bytes()
    large = make_video(tmp_path / "b.h264", frames=[picture(0, 128, 96)], options=options).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    assert_refused(tmp_path / "both.h264", "--max-pixels", limits=Limits(max_pixels=64 * 48))


def test_a_folder_of_unequal_pictures_names_the_odd_one(tmp_path):
    for i in range(2):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    Image.fromarray(picture(2, 32, 32)).save(tmp_path / "2.png")
    with pytest.raises(MediaError, match=r"2\.png.*32x32.*64x48"):
        read(tmp_path)


def test_a_folder_with_a_broken_picture_names_it(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:80])
    with pytest.raises(MediaError, match=r"1\.png"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "c.avi", "d.gif", "e.ts", "f.webp", "g.png", "h.tif"])
def test_random_damage_never_raises_anything_else(tmp_path, name):
    dice = random.Random(name)
    if name[2:] in ("webp", "png", "tif"):
        first, *rest = [Image.fromarray(picture(i)) for i in range(3)]
        first.save(tmp_path / name, save_all=True, append_images=rest)
    else:
        make_video(tmp_path / name)
    data, victim = (tmp_path / name).read_bytes(), tmp_path / f"broken.{name[2:]}"
    for _ in range(40):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 3, 20])):
            at = dice.randrange(len(broken) if dice.random() < 0.5 else min(400, len(broken)))
            broken[at : at + dice.choice([1, 1, 4])] = dice.choice([b"\0", b"\xff", b"\xff\xff\xff\xff", b""])
        victim.write_bytes(broken or b"x")
        try:
            shapes = {frame.rgb.shape for frame in read(victim)}
        except MediaError as error:
            assert victim.name in str(error) and str(error).isprintable()
        else:
            assert len(shapes) == 1


def test_nothing_is_printed(tmp_path):
    """FFmpeg and Pillow write to the process's stderr, past Python: seen from outside only."""
    path = make_video(tmp_path / "a.mp4", muxer={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[:-500])
    (tmp_path / "b.png").write_bytes(fake_png(9_000, 11_000))
    code = (
        "from gen1_jax.media import open_video, MediaError\n"
        f"for path in ({str(path)!r}, {str(tmp_path / 'b.png')!r}):\n"
        "    try: list(open_video(path))\n"
        "    except MediaError: pass\n"
        "    else: raise SystemExit('accepted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
