import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.lib import images
from stages.lib.images import Frame, ImageFault

SQUASH = Frame(32, "squash", 10, 20)
CROP = Frame(32, "crop", 10, 20)
PAD = Frame(32, "pad", 10, 20)


def opened(tmp_path: Path, picture: Image.Image, name: str = "x.png", frame: Frame = SQUASH, **saved) -> images.Opened:
    picture.save(tmp_path / name, **saved)
    return images.open_square(tmp_path / name, frame)


def fault(path: Path, frame: Frame = SQUASH) -> ImageFault:
    with pytest.raises(ImageFault) as caught:
        images.open_square(path, frame)
    return caught.value


def fault_of(tmp_path: Path, content: bytes, name: str = "x.png", frame: Frame = SQUASH) -> ImageFault:
    (tmp_path / name).write_bytes(content)
    return fault(tmp_path / name, frame)


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds two bytes of pixels: decoding it fails."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


# --- modes


@pytest.mark.parametrize(
    ("mode", "colour", "expected", "name"),
    [
        ("RGB", (200, 30, 60), (200, 30, 60), "x.png"),
        ("L", 90, (90, 90, 90), "x.png"),
        ("1", 1, (255, 255, 255), "x.png"),
        ("1", 0, (0, 0, 0), "x.png"),
        ("LA", (90, 255), (90, 90, 90), "x.png"),
        ("LA", (90, 0), (255, 255, 255), "x.png"),
        ("RGBA", (200, 30, 60, 255), (200, 30, 60), "x.png"),
        ("RGBA", (200, 30, 60, 0), (255, 255, 255), "x.png"),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204), "x.png"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "x.tif"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "x.jpg"),
        ("I;16", 32768, (128, 128, 128), "x.png"),
        ("I;16", 65535, (255, 255, 255), "x.png"),
        ("I;16", 32768, (128, 128, 128), "x.tif"),
        ("I", 32768, (128, 128, 128), "x.tif"),
        ("F", 0.5, (128, 128, 128), "x.tif"),
        ("F", 32768.0, (128, 128, 128), "x.tif"),
    ],
)
def test_modes(tmp_path, mode, colour, expected, name):
    found = opened(tmp_path, Image.new(mode, (40, 50), colour), name)
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape == (32, 32, 3)
    assert (found.width, found.height, found.animated) == (40, 50, False)
    tolerance = 3 if name.endswith(".jpg") else 1
    np.testing.assert_allclose(found.pixels.astype(int), np.broadcast_to(expected, (32, 32, 3)), atol=tolerance)


def test_palette(tmp_path):
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (16, 0, 32, 32))
    plain = opened(tmp_path, picture).pixels
    assert plain[5, 5].tolist() == [10, 20, 30]
    assert plain[5, 25].tolist() == [200, 100, 50]
    clear = opened(tmp_path, picture, transparency=0).pixels
    assert clear[5, 5].tolist() == [255, 255, 255]
    assert clear[5, 25].tolist() == [200, 100, 50]


def test_transparent_colour_of_rgb_and_grey(tmp_path):
    assert (opened(tmp_path, Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3)).pixels == 255).all()
    assert (opened(tmp_path, Image.new("L", (8, 8), 7), transparency=7).pixels == 255).all()


def test_sixteen_bits_keep_their_gradient(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 32).round().astype(np.uint16), (32, 1))
    found = opened(tmp_path, Image.fromarray(ramp)).pixels
    np.testing.assert_allclose(found[3, :, 0], np.linspace(0, 255, 32), atol=1)


def test_float_with_nan(tmp_path):
    values = np.full((32, 32), 0.5, dtype=np.float32)
    values[:4] = np.nan
    found = opened(tmp_path, Image.fromarray(values), "x.tif").pixels
    np.testing.assert_allclose(found[10:].astype(int), 128, atol=1)


def test_hidden_colour_does_not_bleed(tmp_path):
    picture = Image.new("RGBA", (256, 256), (255, 0, 0, 0))  # red, but wholly transparent
    picture.paste((255, 255, 255, 255), (0, 0, 101, 256))
    assert (opened(tmp_path, picture).pixels == 255).all()


def test_digest_is_that_of_the_file(tmp_path, picture):
    found = opened(tmp_path, picture(0), "x.jpg")
    assert found.digest == hashlib.sha256((tmp_path / "x.jpg").read_bytes()).hexdigest()


def test_name_does_not_decide_the_format(tmp_path, picture):
    found = opened(tmp_path, picture(0), "x.jpg", format="PNG")
    np.testing.assert_array_equal(found.pixels, opened(tmp_path, picture(0)).pixels)


# --- orientation and geometry

TURNED = {  # how a camera that writes this value has stored an upright picture, on arrays
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("frame", [SQUASH, CROP, PAD], ids=lambda frame: frame.fit)
@pytest.mark.parametrize("value", TURNED)
def test_orientations_give_the_same_pixels(tmp_path, picture, value, frame):
    upright = picture(3, (160, 100))
    expected = opened(tmp_path, upright, "upright.jpg", frame, quality=95).pixels
    exif = Image.Exif()
    exif[0x0112] = value
    stored = Image.fromarray(np.ascontiguousarray(TURNED[value](np.asarray(upright))))
    found = opened(tmp_path, stored, "turned.jpg", frame, quality=95, exif=exif).pixels
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("name", ["turned.tif", "turned.png", "turned.webp"])
@pytest.mark.parametrize("value", TURNED)
def test_orientation_counts_once_in_other_formats(tmp_path, picture, value, name):
    """Pillow turns a TIFF by itself while it loads, and no other format."""
    upright = picture(3, (160, 100))
    expected = opened(tmp_path, upright).pixels
    exif = Image.Exif()
    exif[0x0112] = value
    stored = Image.fromarray(np.ascontiguousarray(TURNED[value](np.asarray(upright))))
    found = opened(tmp_path, stored, name, exif=exif).pixels
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # as images.py does; pytest has put its own rule before that
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
def test_odd_metadata_does_not_matter(tmp_path, picture, exif):
    expected = opened(tmp_path, picture(3), "a.jpg").pixels
    np.testing.assert_array_equal(opened(tmp_path, picture(3), "b.jpg", exif=exif).pixels, expected)


def test_unknown_orientation_is_passed_over(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 77
    expected = opened(tmp_path, picture(3), "a.jpg").pixels
    np.testing.assert_array_equal(opened(tmp_path, picture(3), "b.jpg", exif=exif).pixels, expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as stages.lib.images does; pytest sets that aside
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II", b"Exif\0\0II*\0\x08\0\0\0\x05\0"], ids=range(3))
def test_broken_metadata_does_not_cost_the_picture(tmp_path, picture, name, exif):
    expected = opened(tmp_path, picture(3), name).pixels
    np.testing.assert_array_equal(opened(tmp_path, picture(3), name, exif=exif).pixels, expected)


def striped(width: int, height: int) -> Image.Image:
    """Red, green and blue thirds along the longer side."""
    picture = Image.new("RGB", (width, height), (0, 255, 0))
    first = (0, 0, width // 3, height) if width > height else (0, 0, width, height // 3)
    last = (2 * width // 3, 0, width, height) if width > height else (0, 2 * height // 3, width, height)
    picture.paste((255, 0, 0), first)
    picture.paste((0, 0, 255), last)
    return picture


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (960, 320)])
def test_crop_keeps_the_middle(tmp_path, size):
    pixels = opened(tmp_path, striped(*size), frame=CROP).pixels
    assert (np.argmax(pixels, axis=2) == 1).all()
    inner = pixels[1:-1, 1:-1]  # Pillow's reduction may mix a little of what lies beside into the outermost pixels
    np.testing.assert_array_equal(inner, np.broadcast_to((0, 255, 0), inner.shape))


@pytest.mark.parametrize("size", [(96, 24), (24, 96)])
def test_pad_adds_white_evenly(tmp_path, size):
    pixels = opened(tmp_path, striped(*size), frame=PAD).pixels
    along = pixels if size[0] > size[1] else pixels.swapaxes(0, 1)
    assert (along[:12] == 255).all()
    assert (along[20:] == 255).all()
    assert along[16, [2, 16, 29]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert (along[12:20].min(axis=2) == 0).all()  # no white in the picture itself


@pytest.mark.parametrize("size", [(96, 24), (24, 96)])
def test_squash_keeps_everything(tmp_path, size):
    pixels = opened(tmp_path, striped(*size), frame=SQUASH).pixels
    along = pixels if size[0] > size[1] else pixels.swapaxes(0, 1)
    for row in (0, 31):
        assert along[row, [2, 16, 29]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("frame", [SQUASH, CROP, PAD], ids=lambda frame: frame.fit)
def test_reduced_jpeg_decoding_shows_the_same(tmp_path, picture, frame):
    drawn = picture(5, (640, 480))
    lossless = opened(tmp_path, drawn, "x.png", frame).pixels.astype(int)
    assert np.abs(opened(tmp_path, drawn, "x.jpg", frame, quality=95).pixels - lossless).mean() < 2


def test_one_pixel(tmp_path):
    for frame in (SQUASH, CROP, PAD):
        assert (opened(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), frame=frame).pixels == (9, 8, 7)).all()


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    found = opened(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=50)
    assert found.animated
    np.testing.assert_allclose(found.pixels.astype(int), np.broadcast_to((255, 0, 0), (32, 32, 3)), atol=6)


def test_pages_of_a_tiff_are_no_animation(tmp_path):
    pages = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    found = opened(tmp_path, pages[0], "x.tif", save_all=True, append_images=pages[1:])
    assert not found.animated
    assert (found.pixels == (255, 0, 0)).all()


# --- faults


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", "empty_file", "0 bytes"),
        (b"<!DOCTYPE html><html>404</html>", "not_an_image", "HTML page"),
        (b"\n <html><body>", "not_an_image", "HTML page"),
        (b"%PDF-1.7 ...", "not_an_image", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not_an_image", "git lfs pull"),
        (b'{"error": "gone"}', "not_an_image", "JSON"),
        (b"PK\x03\x04....", "not_an_image", "ZIP"),
        (b"<svg xmlns=''/>", "not_an_image", "SVG"),
        (b"\x1b[31mabc", "not_an_image", r"\x1b[31mabc"),
        (b"\0" * 600, "not_an_image", "known format"),
        (b"\x89PNG\r\n\x1a\n", "not_an_image", "known format"),
    ],
)
def test_files_that_are_no_image(tmp_path, content, kind, reason):
    found = fault_of(tmp_path, content)
    assert found.kind == kind
    assert reason in found.reason
    assert found.reason.isprintable()


def test_postscript_is_no_image(tmp_path):
    """Pillow hands it to Ghostscript where that is installed: a program that a file brings must not run."""
    found = fault_of(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n")
    assert found.kind == "not_an_image"


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif"])
def test_truncated(tmp_path, picture, name):
    picture(1).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    found = fault_of(tmp_path, whole[: len(whole) // 2], name)
    assert found.kind == "damaged_image"
    assert "damaged" in found.reason


def test_changed_byte_of_a_png(tmp_path, picture):
    picture(1).save(tmp_path / "x.png")
    whole = bytearray((tmp_path / "x.png").read_bytes())
    whole[len(whole) // 2] ^= 255
    assert fault_of(tmp_path, bytes(whole)).kind == "damaged_image"


def test_missing_and_dangling(tmp_path):
    assert fault(tmp_path / "x.png").kind == "missing_image"
    assert "no such file" in fault(tmp_path / "x.png").reason
    (tmp_path / "link.png").symlink_to("gone.png")
    found = fault(tmp_path / "link.png")
    assert found.kind == "dangling_link"
    assert "gone.png" in found.reason


def test_link_to_an_image_and_link_to_itself(tmp_path, picture):
    picture(1).save(tmp_path / "x.png")
    (tmp_path / "link.png").symlink_to("x.png")
    assert images.open_square(tmp_path / "link.png", SQUASH).width == 96
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert fault(tmp_path / "loop.png").kind == "unreadable_file"


def test_name_too_long_and_file_as_folder(tmp_path):
    assert fault(tmp_path / ("x" * 300 + ".png")).kind == "unreadable_file"
    (tmp_path / "file").write_text("x")
    assert fault(tmp_path / "file" / "x.png").kind in ("unreadable_file", "missing_image")


def test_no_regular_file(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for name in ("folder.png", "pipe.png"):
        found = fault(tmp_path / name)
        assert found.kind == "not_an_image"
        assert "regular file" in found.reason


def test_too_many_pixels_are_refused_without_decoding(tmp_path):
    found = fault_of(tmp_path, png_header(50000, 40000))
    assert found.kind == "too_many_pixels"
    assert "50000 x 40000" in found.reason
    assert "10 megapixels" in found.reason
    # the same file within the limits is decoded, and fails there
    assert fault_of(tmp_path, png_header(500, 400)).kind == "damaged_image"


def test_large_picture_in_an_icon_is_refused_without_decoding(tmp_path):
    """Pillow decodes an icon while it opens it; the size that its directory states is not that of the picture."""
    inner = png_header(6000, 6000)
    directory = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    assert fault_of(tmp_path, directory + inner).kind in ("too_many_pixels", "not_an_image")


def test_limits_are_inclusive(tmp_path):
    frame = Frame(32, "squash", 0.0008, 2)
    assert opened(tmp_path, Image.new("RGB", (40, 20)), frame=frame).width == 40
    Image.new("RGB", (40, 21)).save(tmp_path / "x.png")
    assert fault(tmp_path / "x.png", frame).kind == "too_many_pixels"
    Image.new("RGB", (39, 19)).save(tmp_path / "x.png")
    assert fault(tmp_path / "x.png", frame).kind == "extreme_aspect"


@pytest.mark.parametrize("size", [(2100, 100), (100, 2100)])
def test_extreme_aspect(tmp_path, size):
    found = fault_of(tmp_path, png_header(*size))
    assert found.kind == "extreme_aspect"
    assert f"{size[0]} x {size[1]}" in found.reason
    assert "20 to 1" in found.reason


# --- names


@pytest.mark.parametrize(
    "name", ["../x.png", "..", "/etc/passwd", "sub/../../x.png", "a\0b.png", "", ".", "./", "sub/..", "//x.png"]
)
def test_names_that_leave_the_folder(name):
    assert images.inside(Path("photos"), name) is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x.png", "x.png"),
        ("sub/x.png", "sub/x.png"),
        ("./x.png", "x.png"),
        ("sub/../x.png", "x.png"),
        ("..x.png", "..x.png"),
        ("sub/..x/y.png", "sub/..x/y.png"),
        ("~/x.png", "~/x.png"),
    ],
)
def test_names_in_the_folder(name, path):
    assert images.inside(Path("photos"), name) == Path("photos") / path
