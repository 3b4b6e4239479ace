"""From encoded pictures, or from pixels, to the tensor that a network takes."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils


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


FORMATS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WebP"}


def is_animated(data):
    """Whether it is a PNG or WebP file of several pictures."""
    if data.startswith(b"RIFF"):
        return data[12:16] == b"VP8X" and bool(int.from_bytes(data[20:21], "big") & 2)
    return 0 < data.find(b"acTL") < data.find(b"IDAT")


def decode(data, max_pixels):
    """(height, width, 3) uint8, RGB, turned upright as the file's EXIF data say."""
    found = f"found {len(data):,} bytes"
    kind = next((FORMATS[x] for x in FORMATS if data.startswith(x)), None)
    if not kind:
        begin = f" that begin with {data[:12]!r}" if data else ""
        raise ValueError(f"{found}{begin}; expected a JPEG, PNG or WebP file")
    if is_animated(data):
        raise ValueError(f"found an animated {kind}; expected one picture")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "MAX_IMAGE" not in str(error):
            raise
        found = f"found a {kind} that promises more than {max_pixels:,} pixels"
        raise ValueError(f"{found}; expected a smaller picture") from None
    if image is None:
        found = f"{found} of {kind} that cannot be decoded"
        raise ValueError(f"{found}; expected a whole file: this one is cut or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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

        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

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

    def execute(self, requests):
        """Prepare all pictures of all requests side by side."""
        jobs = []
        for request in requests:
            pictures = request.inputs()[0].as_numpy()
            if pictures.dtype == object:  # encoded, one in each row
                pictures = pictures.ravel()
            jobs.append([self.pool.submit(self.prepare, x) for x in pictures])
        return [self.respond(x) for x in jobs]

    def respond(self, jobs):
        """Tensors for one request, or what is wrong with one of its pictures."""
        done = []
        for i, job in enumerate(jobs, 1):
            try:
                done.append(job.result())
            except Exception as error:  # this request fails, its neighbours do not
                words = f"picture {i} of {len(jobs)}: {error}"
                error = pb_utils.TritonError(words, pb_utils.TritonError.INVALID_ARG)
                return pb_utils.InferenceResponse(error=error)
        tensor, size = map(np.stack, zip(*done))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("tensor", tensor), pb_utils.Tensor("size", size)]
        )
