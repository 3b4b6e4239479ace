"""Decode a picture and prepare it for a network: the code of ``helpers/images.py``."""

import re
import zlib

import cv2
import numpy as np

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


def decode(data, max_pixels):
    """(height, width, 3) uint8, RGB, or a ValueError that says what was found."""
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
    """RGB bytes of what OpenCV decoded, on white where it is see-through."""
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


def preprocess(image, resize, crop, mean, std):
    """Resize the shorter side, crop the centre, normalise: (3, crop, crop) float32."""
    height, width = image.shape[:2]
    scale = resize / min(height, width)
    size = round(width * scale), round(height * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, size, interpolation=method)
    top, left = (size[1] - crop) // 2, (size[0] - crop) // 2
    image = image[top : top + crop, left : left + crop]
    image = (image / np.float32(255) - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(image.transpose(2, 0, 1))
