"""Reading and preprocessing pictures."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest

from helpers import (
    images,
)

NUMBERS = {"resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_every_sample_image_loads():
    for name in images.SAMPLES:
        image = images.read(images.sample(name))
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 4), 80, np.uint8),
        np.full((4, 4, 4), 80, np.uint8),
        np.full((4, 4), 80 * 257, np.uint16),
    ],
    ids=["grey", "alpha", "16-bit"],
)
def test_every_kind_of_png_becomes_rgb_bytes(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    image = images.read(tmp_path / "x.png")
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8
    assert (image == 80).all()


def test_load_is_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 2, 3), [0, 0, 255], np.uint8))
    assert images.read(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]


def test_bad_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match="is not an image that OpenCV"):
        images.read(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="OpenCV can read: 0 bytes"):
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
        Thread(target=site.serve_forever).start()
        url = f"http://127.0.0.1:{site.server_port}"
        found = images.read(f"{url}/cat.png")
        assert np.array_equal(found, images.read(images.sample("chelsea")))
        with pytest.raises(OSError, match=r"cannot fetch .*/dog\.png: HTTP Error 404"):
            images.read(f"{url}/dog.png")
        with pytest.raises(ValueError, match=r"page\.png is not an image.*b'<html>"):
            images.read(f"{url}/page.png")
        site.shutdown()
    with pytest.raises(OSError, match=r"cannot fetch .*refused.*this machine online"):
        images.read(f"{url}/cat.png")
    with pytest.raises(OSError, match=r"cannot fetch http://no\.invalid/a\.jpg: "):
        images.read("http://no.invalid/a.jpg")


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (64, 64), (224, 1000)])
def test_preprocess_crops_the_centre_and_normalises(size):
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    image[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    tensor = images.preprocess(image, **NUMBERS)
    assert tensor.shape == (3, 224, 224) and tensor.dtype == np.float32
    assert tensor.min() == -2 and tensor[:, 111:113, 111:113].max() == 2
    assert tensor.flags["C_CONTIGUOUS"]
