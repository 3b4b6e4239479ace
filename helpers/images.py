"""Sample images, reading, and the one preprocessing function, taught in notebook 01."""

import http.client
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import skimage.data

# Files inside the package scikit-image, with the licences that skimage.data names.
SAMPLES = {
    "coffee": ("coffee.png", "Rachel Michetti, CC0"),
    "camera": ("camera.png", "Lav Varshney, CC0"),
    "chelsea": ("chelsea.png", "Stéfan van der Walt, CC0"),
    "rocket": ("rocket.jpg", "SpaceX, public domain"),
    "clock": ("clock_motion.png", "Stéfan van der Walt, public domain"),
    "coins": ("coins.png", "Brooklyn Museum, no known copyright restrictions"),
    "astronaut": ("astronaut.png", "NASA, public domain"),
    "hubble": ("hubble_deep_field.jpg", "NASA, public domain"),
}
FETCH_TIMEOUT = 15  # seconds without a byte


def sample(name):
    """Path of one of the sample images.

    Raises:
        ValueError: there is none of that name; the message lists them.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample image {name!r}; there are {', '.join(SAMPLES)}")
    return Path(skimage.data.__file__).parent / SAMPLES[name][0]


def _fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"cannot fetch {url}: {error}. Is the address right, and this machine "
            "online? A file on this machine works too"
        ) from None


def read(source):
    """Read an image.

    Args:
        source: path of a file, or an ``http://`` or ``https://`` URL.

    Returns:
        (height, width, 3) uint8, RGB. Grey becomes RGB, transparency is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the URL cannot be fetched.
        ValueError: it is not an image that OpenCV can read.
    """
    if str(source).startswith(("http://", "https://")):
        content = _fetch(str(source))
    elif Path(source).is_file():
        content = Path(source).read_bytes()
    else:
        raise FileNotFoundError(f"there is no image at {source}")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file, or more pixels than OpenCV's limit
        image = None
    if image is None:
        raise ValueError(
            f"{source} is not an image that OpenCV can read: {len(content)} bytes that "
            f"begin with {content[:12]!r}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
