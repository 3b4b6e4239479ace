"""Reading and preprocessing pictures."""

import socket
import struct
import zlib
from functools import partial
from http.server import (
    BaseHTTPRequestHandler,
    SimpleHTTPRequestHandler,
    ThreadingHTTPServer,
)
from io import BytesIO
from threading import Thread, Timer

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import images

NUMBERS = {"resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_every_sample_image_loads():
    for name in images.SAMPLES:
        image = images.read(images.sample(name))
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def encode(pixels, kind=".png"):
    return cv2.imencode(kind, pixels)[1].tobytes()


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (np.full((4, 4), 80, np.uint8), 80),
        (np.full((4, 4, 3), 80, np.uint8), 80),
        (np.full((4, 4, 4), [80, 80, 80, 255], np.uint8), 80),
        (np.full((4, 4, 4), [0, 0, 0, 0], np.uint8), 255),
        (np.full((4, 4, 4), [80, 80, 80, 51], np.uint8), 220),  # 255 - 175 / 5
        (np.full((4, 4), 80 * 257, np.uint16), 80),
        (np.full((4, 4, 3), 80 * 257 - 128, np.uint16), 80),  # rounded, not cut
        (np.full((4, 4, 4), [65535, 65535, 65535, 0], np.uint16), 255),
        (np.full((4, 4, 4), [20560, 20560, 20560, 65535], np.uint16), 80),
        (np.full((4, 4), 2**14, np.uint16), 64),
    ],
)
def test_every_kind_of_png_becomes_rgb_bytes(pixels, expected):
    image = images.decode(encode(pixels))
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8
    assert (image == expected).all()


def test_a_logo_on_nothing_is_on_white_and_keeps_its_colours():
    logo = np.zeros((4, 4, 4), np.uint8)
    logo[1:3, 1:3] = 200, 100, 50, 255  # BGRA
    for kind in ".png", ".webp":
        image = images.decode(encode(logo, kind))
        assert image[0, 0].tolist() == [255] * 3, kind
        assert np.abs(image[1, 1] - np.int32([50, 100, 200])).max() < 9, kind  # lossy


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_16_bits_that_nobody_scaled_are_refused(bits):
    pixels = np.full((4, 4), 2**bits - 1, np.uint16)
    with pytest.raises(ValueError, match=f"of which {2**bits - 1:,} is the brightest"):
        images.decode(encode(pixels))
    alpha = np.full((4, 4, 4), [*[2**bits - 1] * 3, 65535], np.uint16)
    with pytest.raises(ValueError, match="expected white at 65,535"):
        images.decode(encode(alpha))


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PHOTO = Image.linear_gradient("L").convert("RGB").resize((24, 16))


def exif(orientation, order):
    """EXIF data with an orientation, in this order of bytes."""
    mark = {"<": b"II", ">": b"MM"}[order]
    entry = struct.pack(f"{order}HHIHxx", 0x0112, 3, 1, orientation)
    header = mark + struct.pack(f"{order}HIH", 42, 8, 1)
    return b"Exif\0\0" + header + entry + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_and_others_are_not_guessed(orientation, order):
    notes = exif(orientation, order)
    jpeg = images.decode(saved(PHOTO, "JPEG", exif=notes))
    assert jpeg.shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
    for kind, name in ("PNG", "PNG"), ("WEBP", "WebP"):
        file = saved(PHOTO, kind, exif=notes)
        if orientation == 1:
            assert images.decode(file).shape == (16, 24, 3)
        else:
            with pytest.raises(ValueError, match=f"found a {name} that its EXIF data"):
                images.decode(file)


@pytest.mark.parametrize(
    "kind, options, words",
    [
        ("PNG", {"save_all": True}, "an animated PNG; expected one"),
        ("WEBP", {"save_all": True}, "an animated WebP"),
        ("PNG", {"transparency": 7}, "a see-through grey; expected RGBA"),
        ("GIF", {}, "begin with b'GIF87a.*expected a JPEG, PNG or WebP"),
        ("TIFF", {}, "begin with b'II.*expected a JPEG, PNG or WebP"),
    ],
)
def test_what_is_left_open_is_refused(kind, options, words):
    grey = PHOTO.convert("L")
    if "save_all" in options:
        options = {**options, "append_images": [grey.rotate(90)]}
    with pytest.raises(ValueError, match=words):
        images.decode(saved(grey, kind, **options))


def test_a_see_through_colour_of_a_png_is_white():
    colour = PHOTO.getpixel((0, 0))
    image = images.decode(saved(PHOTO, "PNG", transparency=colour))
    assert image[0, 0].tolist() == [255] * 3
    assert images.decode(saved(PHOTO.convert("P"), "PNG")).shape == (16, 24, 3)


def test_riff_without_webp_is_not_called_a_damaged_picture():
    with pytest.raises(ValueError, match="expected a JPEG, PNG or WebP"):
        images.decode(b"RIFF" + bytes(4) + b"WAVEfmt ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_half_a_file_is_damaged(kind):
    file = saved(PHOTO, kind)
    with pytest.raises(ValueError, match="cannot be decoded; expected a whole file"):
        images.decode(file[: len(file) // 2])


def test_load_is_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 2, 3), [0, 0, 255], np.uint8))
    assert images.read(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_bad_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(
        ValueError, match=r"text\.jpg: found 13 bytes that begin with b'not a"
    ):
        images.read(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg: found 0 bytes; expected a JPEG"):
        images.read(tmp_path / "empty.jpg")
    with pytest.raises(FileNotFoundError, match="there is no image at"):
        images.read(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="no sample image 'dog'; there are coffee"):
        images.sample("dog")


def test_an_image_comes_from_a_url_or_an_error_says_why(tmp_path):
    (tmp_path / "cat.png").write_bytes(images.sample("chelsea").read_bytes())
    (tmp_path / "page.png").write_text("<html>log in first</html>")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{site.server_port}"
        found = images.read(f"{url}/cat.png")
        assert np.array_equal(found, images.read(images.sample("chelsea")))
        with pytest.raises(OSError, match=r"cannot fetch .*/dog\.png: HTTP Error 404"):
            images.read(f"{url}/dog.png")
        with pytest.raises(ValueError, match=r"page\.png: found .*b'<html>"):
            images.read(f"{url}/page.png")
        site.shutdown()
    with pytest.raises(OSError, match=r"cannot fetch .*refused.*this machine online"):
        images.read(f"{url}/cat.png")
    with pytest.raises(OSError, match=r"cannot fetch http://no\.invalid/a\.jpg: "):
        images.read("http://no.invalid/a.jpg")


class Sender(BaseHTTPRequestHandler):
    """Sends the bytes that the path asks for, of as many as it promises."""

    def do_GET(self):
        sent, promised = map(int, self.path.strip("/").split("of"))
        self.send_response(200)
        if promised:
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(bytes(sent))
        self.close_connection = True

    def log_message(self, *words):
        pass


def test_a_download_ends_at_a_limit_and_is_not_cut(monkeypatch):
    monkeypatch.setattr(images, "MAX_DOWNLOAD", 1_000_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Sender) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{site.server_port}"
        for path in "1000001of1000001", "1000001of0":
            with pytest.raises(ValueError, match="is larger than 1 MB"):
                images.read(f"{url}/{path}")
        for path in "1000000of1000000", "1000000of0":
            with pytest.raises(ValueError, match="found 1,000,000 bytes"):
                images.read(f"{url}/{path}")
        with pytest.raises(OSError, match=r"cannot fetch .*IncompleteRead"):
            images.read(f"{url}/500of1000")
        site.shutdown()


def test_a_site_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(images, "FETCH_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as site:
        last = Timer(3, site.close)  # which ends a wait without a limit
        last.start()
        port = site.getsockname()[1]
        with pytest.raises(OSError, match="timed out"):
            images.read(f"http://127.0.0.1:{port}/cat.png")
        last.cancel()


def test_a_smaller_picture_is_an_average_and_a_larger_one_is_smooth():
    numbers = {"resize": 224, "crop": 224, "mean": [0] * 3, "std": [1] * 3}
    stripes = np.zeros((672, 672, 3), np.uint8)
    stripes[:, 1::3] = 255  # a third of each three pixels
    assert np.allclose(images.preprocess(stripes, **numbers), 1 / 3)
    edge = np.zeros((56, 56, 3), np.uint8)
    edge[:, 28:] = 255
    assert len(np.unique(images.preprocess(edge, **numbers))) > 2


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (64, 64), (224, 1000)])
def test_preprocess_crops_the_centre_and_normalises(size):
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    image[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    tensor = images.preprocess(image, **NUMBERS)
    assert tensor.shape == (3, 224, 224) and tensor.dtype == np.float32
    assert tensor.min() == -2 and tensor[:, 111:113, 111:113].max() == 2
    assert tensor.flags["C_CONTIGUOUS"]


def test_a_colour_profile_is_dropped_where_it_is_one(capfd):
    whole = images.sample("chelsea").read_bytes()
    profile = zlib.compress(b"no profile at all")
    content = b"iCCPname\0\0" + profile
    length, check = len(content) - 4, zlib.crc32(content)
    chunk = length.to_bytes(4, "big") + content + check.to_bytes(4, "big")
    given = whole[:33] + chunk + whole[33:]  # after the header
    assert images.drop_colour_profile(given).count(b"iCCP") == whole.count(b"iCCP")
    for data in b"", b"iCCP", given[:60], whole.replace(b"iCCP", b"iCCQ"):
        assert images.drop_colour_profile(data) == data
    for name in images.SAMPLES:
        images.read(images.sample(name))
    assert "libpng" not in capfd.readouterr().err
