"""From encoded pictures, or from pixels, to the tensor that a network takes."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils

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


class TritonPythonModel:
    def initialize(self, args):
        """Read what the network takes from the config, and refuse what cannot be."""
        config = json.loads(args["model_config"])
        known = {x: y["string_value"] for x, y in config["parameters"].items()}
        names = "resize", "crop", "mean", "std", "max_pixels"
        try:
            self.numbers = {x: json.loads(known[x]) for x in names}
            self.max_pixels = self.numbers.pop("max_pixels")
            resize, crop = self.numbers["resize"], self.numbers["crop"]
            if crop > resize or config["output"][0]["dims"] != [3, crop, crop]:
                raise ValueError("crop has to be that of the output, resize no less")
        except (KeyError, ValueError) as error:
            words = f"found parameters {known}; expected JSON for each of {names}"
            raise pb_utils.TritonModelException(f"{words}: {error!r}") from None
        # Read when cv2 is imported: a file's header then decides, before any pixel.
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(self.max_pixels)
        global cv2
        import cv2

        cv2.setNumThreads(1)  # a thread for each picture: OpenCV needs none of its own
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests):
        """Prepare all pictures of all requests side by side."""
        jobs = []
        for request in requests:
            pictures = request.inputs()[0].as_numpy()
            if pictures.dtype == object:  # encoded, one in each row
                pictures = pictures.ravel()
            jobs.append([self.pool.submit(self.prepare, x) for x in pictures])
        return [self.respond(x) for x in jobs]

    def prepare(self, picture):
        """The tensor of one picture, and its width and height."""
        if isinstance(picture, bytes):
            picture = decode(picture, self.max_pixels)
        height, width = picture.shape[:2]
        scale = max(1, self.numbers["resize"] / max(1, min(height, width)))
        if not 0 < round(height * scale) * round(width * scale) <= self.max_pixels:
            raise ValueError(
                f"found {width:,} × {height:,} pixels; expected at least 1 × 1, and at "
                f"most {self.max_pixels:,} before and after the resize"
            )
        return preprocess(picture, **self.numbers), np.int32([width, height])

    def respond(self, jobs):
        """Tensors for one request, or what is wrong with one of its pictures."""
        done = []
        for i, job in enumerate(jobs, 1):
            where = f"picture {i} of {len(jobs)}"
            try:
                done.append(job.result())
            except ValueError as error:  # what we found in the picture
                words, code = f"{where}: {error}", pb_utils.TritonError.INVALID_ARG
            except Exception as error:  # our fault, and for our log
                pb_utils.Logger.log_error(f"{where}: {error!r}")
                words, code = f"failed at {where}", pb_utils.TritonError.INTERNAL
            if len(done) < i:  # this request fails, its neighbours do not
                error = pb_utils.TritonError(words, code)
                return pb_utils.InferenceResponse(error=error)
        tensor, size = map(np.stack, zip(*done))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("tensor", tensor), pb_utils.Tensor("size", size)]
        )
