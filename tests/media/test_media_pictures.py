import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import RED, colour_profile, picture
from PIL import Image, ImageCms

from gen1_jax.media import IMAGE_SUFFIXES, MediaError, open_video, read_image, side_by_side, write_image


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


TURNED = {1: lambda a: a, 3: lambda a: np.rot90(a, 2), 6: lambda a: np.rot90(a, -1), 8: np.rot90, 2: np.fliplr}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_rotation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "phone.png", picture(3), exif=exif)
    np.testing.assert_array_equal(read_image(path), TURNED[orientation](picture(3)))


def test_what_is_transparent_is_laid_over_black(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8) + np.array([200, 30, 30, 0], np.uint8)
    rgba[:, 1, 3], rgba[:, 2, 3] = 128, 255
    rgb = read_image(save(tmp_path / "a.png", rgba))
    np.testing.assert_allclose(rgb[0].astype(int), [(0, 0, 0), (100, 15, 15), RED], atol=1)
    grey = read_image(save(tmp_path / "b.png", np.array([[[10, 0], [10, 255]]], np.uint8)))
    np.testing.assert_array_equal(grey[0, :, 0], [0, 10])
    palette = Image.fromarray(picture(0)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "c.gif", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "c.gif")[0, 0] == 0).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 257, 32_768, 65_535]], np.uint16)
    rgb = read_image(save(tmp_path / f"a.{suffix}", grey))
    np.testing.assert_array_equal(rgb[0], np.repeat([[0], [1], [128], [255]], 3, axis=1))


_YCBCR_TIFF = pytest.param(
    "YCbCr",
    "a.tif",
    marks=pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="Pillow 12 cannot read the YCbCr TIFF that it writes"
    ),
)


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("CMYK", "a.tif"), _YCBCR_TIFF])
def test_other_colour_spaces_become_rgb(tmp_path, mode, name):
    rgb = read_image(save(tmp_path / name, picture(3), mode))
    np.testing.assert_allclose(rgb[4::16, 4::16].astype(int), picture(3)[4::16, 4::16], atol=6)


def test_palettes_become_rgb(tmp_path):
    palette = Image.fromarray(picture(3)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture(3))


@pytest.mark.parametrize(("mode", "name"), [("1", "a.png"), ("L", "a.jpg"), ("LA", "a.png"), ("L", "a.webp")])
def test_grey_becomes_rgb(tmp_path, mode, name):
    rgb = read_image(save(tmp_path / name, np.full((16, 16, 3), 255, np.uint8), mode))
    assert rgb.shape == (16, 16, 3) and (rgb > 250).all()


ORANGE = np.full((16, 16, 3), (200, 100, 50), np.uint8)
IN_SRGB = (216, 93, 24)  # of ORANGE in Display P3 with a power of 2.2, by the matrices of both


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_colour_profiles_are_applied(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", ORANGE, icc_profile=colour_profile(), quality=95)
    np.testing.assert_allclose(read_image(path)[8, 8].astype(int), IN_SRGB, atol=6)


def test_colour_profiles_of_all_kinds_of_pixels(tmp_path):
    grey, half = np.full((16, 16), 128, np.uint8), np.full((16, 16), 128, np.uint8)
    linear = colour_profile((), b"GRAY", 1.0)
    cases = {
        "palette": (Image.fromarray(ORANGE).quantize(4), colour_profile(), IN_SRGB),
        "alpha": (
            Image.fromarray(np.dstack([ORANGE, half])),
            colour_profile(),
            [round(c * 128 / 255) for c in IN_SRGB],
        ),
        "grey": (Image.fromarray(grey), linear, (188, 188, 188)),  # half of the light
        "grey_alpha": (Image.fromarray(np.dstack([grey, half])), linear, (94, 94, 94)),
        "srgb": (
            Image.fromarray(ORANGE),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
            ORANGE[0, 0],
        ),
    }
    for name, (image, profile, expected) in cases.items():
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
        np.testing.assert_allclose(
            read_image(tmp_path / f"{name}.png")[8, 8].astype(int), expected, atol=1, err_msg=name
        )


def test_pictures_of_a_folder_have_their_profiles_applied(tmp_path):
    save(tmp_path / "a.png", ORANGE, icc_profile=colour_profile())
    save(tmp_path / "b.png", ORANGE)
    with open_video(tmp_path) as reader:
        first, second = (frame.rgb[8, 8].astype(int) for frame in reader)
    np.testing.assert_allclose(first, IN_SRGB, atol=1)
    np.testing.assert_array_equal(second, ORANGE[8, 8])


@pytest.mark.parametrize(
    "profile", [b"rubbish", colour_profile()[:200], colour_profile()[:-100], colour_profile((), b"GRAY")]
)
def test_a_damaged_colour_profile_is_left_out_with_a_warning(tmp_path, profile):
    path = save(tmp_path / "a.png", ORANGE, icc_profile=profile)
    with pytest.warns(UserWarning, match=r"a\.png: its colour profile cannot be used"):
        np.testing.assert_array_equal(read_image(path), ORANGE)


def test_floats_are_refused(tmp_path):
    with pytest.raises(MediaError, match=r"a\.tif.*floats"):
        read_image(save(tmp_path / "a.tif", np.ones((4, 4), np.float32)))


def test_a_truncated_picture_is_refused(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        path = save(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(MediaError, match=name):
            read_image(path)


def test_a_folder_is_not_a_picture(tmp_path):
    with pytest.raises(MediaError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_pictures_are_written_and_read_back(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", picture(3))
    tolerance = 6 if suffix.startswith(".jp") else 0
    rgb = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(rgb[4::16, 4::16].astype(int), picture(3)[4::16, 4::16], atol=tolerance)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_a_picture_is_not_written_half(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.jpg"):
        write_image(tmp_path / "a.bmp", picture(0))
    with pytest.raises(MediaError, match="does not exist"):
        write_image(tmp_path / "none" / "a.png", picture(0))
    (tmp_path / "a.webp").write_text("the old one")
    with pytest.raises(MediaError, match=r"a\.webp"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20_000, 3), np.uint8))  # WebP ends at 16,383
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the old one"]


def test_side_by_side_keeps_height_and_aspect():
    row = side_by_side([picture(1), picture(2, 128, 96), picture(3, 64, 24)], gap=4)
    assert row.shape == (48, 64 + 4 + 64 + 4 + 128, 3)
    np.testing.assert_array_equal(row[:, :64], picture(1))
    assert (row[:, 64:68] == 255).all() and (row[:, 132:136] == 255).all()
    np.testing.assert_allclose(row[4::16, 76].astype(int), picture(2)[4::16, 8], atol=3)
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.integers(0, 5))
def test_side_by_side_takes_any_sizes(sizes, gap):
    row = side_by_side([np.zeros((height, width, 3), np.uint8) for height, width in sizes], gap)
    height = sizes[0][0]
    widths = [max(1, round(w * height / h)) for h, w in sizes]
    assert row.shape == (height, sum(widths) + gap * (len(sizes) - 1), 3)
