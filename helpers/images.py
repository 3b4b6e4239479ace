"""Sample images, reading, and the one preprocessing function, taught in notebook 01."""

import http.client
import importlib.util
import re
import urllib.request
import zlib
from pathlib import Path

import cv2
import numpy as np

# Files inside installed packages, with the licences that the packages name.
SAMPLES = {
    "coffee": ("skimage/data/coffee.png", "Rachel Michetti, CC0"),
    "camera": ("skimage/data/camera.png", "Lav Varshney, CC0"),
    "chelsea": ("skimage/data/chelsea.png", "Stéfan van der Walt, CC0"),
    "rocket": ("skimage/data/rocket.jpg", "SpaceX, public domain"),
    "china": ("sklearn/datasets/images/china.jpg", "danielbuechele, CC BY 2.0"),
    "flower": ("sklearn/datasets/images/flower.jpg", "vultilion, CC BY 2.0"),
    "clock": ("skimage/data/clock_motion.png", "Stéfan van der Walt, public domain"),
    "astronaut": ("skimage/data/astronaut.png", "NASA, public domain"),
}
FETCH_TIMEOUT = 15  # seconds without a byte
MAX_DOWNLOAD = 50_000_000  # bytes
FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF.{4}WEBP",
}
# EXIF data with an orientation from 2 to 8, in both orders of bytes.
TURNED = (
    rb"\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
    rb"|\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08]"
)


def sample(name):
    """Path of one of the sample images.

    Raises:
        ValueError: there is none of that name; the message lists them.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample image {name!r}; there are {', '.join(SAMPLES)}")
    package, _, file = SAMPLES[name][0].partition("/")
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    return Path(folder) / file


def _fetch(url):
    """The bytes at a URL, at most ``MAX_DOWNLOAD``."""
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT) as answer:
            content = answer.read(MAX_DOWNLOAD + 1)
            if len(content) > MAX_DOWNLOAD:
                raise ValueError(
                    f"{url} is larger than {MAX_DOWNLOAD / 1e6:.0f} MB; expected a "
                    "picture. Save it to a file and give its path if it is one"
                )
            if answer.length:  # the connection ended before the file did
                raise http.client.IncompleteRead(content, answer.length)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"cannot fetch {url}: {error}. Is the address right, and this machine "
            "online? A file on this machine works too"
        ) from None
    return content


def is_animated(data):
    """Whether a PNG or WebP file holds several pictures."""
    if data.startswith(b"RIFF"):
        return data[12:16] == b"VP8X" and bool(int.from_bytes(data[20:21], "big") & 2)
    return 0 < data.find(b"acTL") < data.find(b"IDAT")


def drop_colour_profile(data):
    """A PNG file without its profile, about which libpng may print warnings."""
    begin = data.find(b"iCCP")
    if not 4 < begin < data.find(b"IDAT"):
        return data
    end = begin + 8 + int.from_bytes(data[begin - 4 : begin], "big")
    check = int.from_bytes(data[end - 4 : end], "big")
    if zlib.crc32(data[begin : end - 4]) != check:  # it only looks like one
        return data
    return data[: begin - 4] + data[end:]


def decode(data, max_pixels=2**30):
    """Decode a JPEG, PNG or WebP file, as lesson 13's server does.

    A JPEG is turned upright as its EXIF data say. Grey and CMYK become RGB,
    transparency becomes white, and 16 bits become 8. Colour profiles are not applied.

    Args:
        data: the file, bytes.
        max_pixels: what OpenCV's limit, ``OPENCV_IO_MAX_IMAGE_PIXELS``, is set to.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ValueError: it is no such file, it is damaged or too large, or it leaves open
            which picture is meant, which way up it is or how bright.
    """
    found = f"found {len(data):,} bytes"
    kind = next((k for k, x in FORMATS.items() if re.match(x, data, re.DOTALL)), None)
    if not kind:
        begin = f" that begin with {data[:12]!r}" if data else ""
        raise ValueError(f"{found}{begin}; expected a JPEG, PNG or WebP file")
    if is_animated(data):
        raise ValueError(f"found an animated {kind}; expected one picture")
    if kind != "JPEG" and re.search(TURNED, data):
        found = f"found a {kind} that its EXIF data turn"
        raise ValueError(f"{found}; expected an upright one, or a JPEG")
    if kind == "PNG":
        data = drop_colour_profile(data)
    flags = cv2.IMREAD_COLOR if kind == "JPEG" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE" not in str(error):
            raise
        found = f"found a {kind} that promises more than {max_pixels:,} pixels"
        raise ValueError(f"{found}; expected a smaller picture") from None
    if image is None:
        found = f"{found} of {kind} that cannot be decoded"
        raise ValueError(f"{found}; expected a whole file: this one is cut or damaged")
    if image.ndim == 2 and 0 < data.find(b"tRNS") < data.find(b"IDAT"):
        raise ValueError("found a PNG with a see-through grey; expected RGBA")
    return make_rgb(image)


def make_rgb(image):
    """Make RGB bytes of what OpenCV decoded.

    Args:
        image: (height, width) or (height, width, 3 or 4), uint8 or uint16; BGR or BGRA.

    Returns:
        (height, width, 3) uint8, RGB, on white where it is see-through.

    Raises:
        ValueError: less than a quarter of the range of 16 bits is used.
    """
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.dtype == np.uint16:
        brightest = image[..., :3].max()
        if brightest < 2**14:  # as of 10 or 12 bits that nobody scaled
            found = f"found 16 bits, of which {brightest:,} is the brightest"
            raise ValueError(f"{found}; expected white at 65,535, or a file of 8 bits")
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.shape[2] == 4:
        shade = (255 - image[..., :3]).astype(np.uint16) * image[..., 3:]
        image = (255 - (shade + 127) // 255).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read(source):
    """Read an image: see ``decode``.

    Args:
        source: path of a JPEG, PNG or WebP file, or an ``http://`` or ``https://`` URL.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the URL cannot be fetched.
        ValueError: it is no picture that ``decode`` takes, or more than
            ``MAX_DOWNLOAD`` bytes at a URL.
    """
    if str(source).startswith(("http://", "https://")):
        content = _fetch(str(source))
    elif Path(source).is_file():
        content = Path(source).read_bytes()
    else:
        raise FileNotFoundError(f"there is no image at {source}")
    try:
        return decode(content)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def preprocess(image, resize, crop, mean, std):
    """Resize the shorter side, crop the centre, normalise.

    Args:
        image: (height, width, 3) uint8, RGB.
        resize: pixels of the shorter side before the crop.
        crop: side of the central square, pixels.
        mean, std: of each channel, for intensities from 0 to 1.

    Returns:
        (3, crop, crop) float32.
    """
    height, width = image.shape[:2]
    scale = resize / min(height, width)
    size = round(width * scale), round(height * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, size, interpolation=method)
    top, left = (size[1] - crop) // 2, (size[0] - crop) // 2
    image = image[top : top + crop, left : left + crop]
    image = (image / np.float32(255) - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def sample_batch(preprocessing, names=tuple(SAMPLES)):
    """The sample images, ready for a network.

    Args:
        preprocessing: keyword arguments of ``preprocess``.
        names: which samples, in which order.

    Returns:
        (len(names), 3, crop, crop) float32.
    """
    return np.stack([preprocess(read(sample(x)), **preprocessing) for x in names])
