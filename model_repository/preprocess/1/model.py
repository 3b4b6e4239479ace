"""From encoded pictures, or from pixels, to the tensor that a network takes."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        """Read the preprocessing parameters from the config, and check them."""
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
        # OpenCV reads this when it is imported, and checks it against a file's header.
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(self.max_pixels)
        global pictures
        import pictures  # the file beside this one

        pictures.cv2.setNumThreads(1)  # a thread for each picture is enough
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests):
        """Prepare the pictures of all requests in parallel."""
        jobs = []
        for request in requests:
            found = request.inputs()[0].as_numpy()
            if found.dtype == object:  # encoded, one in each row
                found = found.ravel()
            jobs.append([self.pool.submit(self.prepare, x) for x in found])
        return [self.respond(x) for x in jobs]

    def prepare(self, picture):
        """The tensor of one picture, and its width and height."""
        if isinstance(picture, bytes):
            picture = pictures.decode(picture, self.max_pixels)
        height, width = picture.shape[:2]
        scale = max(1, self.numbers["resize"] / max(1, min(height, width)))
        if not 0 < round(height * scale) * round(width * scale) <= self.max_pixels:
            raise ValueError(
                f"found {width:,} × {height:,} pixels; expected at least 1 × 1, and at "
                f"most {self.max_pixels:,} before and after the resize"
            )
        return pictures.preprocess(picture, **self.numbers), np.int32([width, height])

    def respond(self, jobs):
        """The response to one request: its tensors, or the first error."""
        done = []
        for i, job in enumerate(jobs, 1):
            where = f"picture {i} of {len(jobs)}"
            try:
                done.append(job.result())
            except ValueError as error:  # the picture is wrong
                words, code = f"{where}: {error}", pb_utils.TritonError.INVALID_ARG
            except Exception as error:  # our fault: details only in the log
                pb_utils.Logger.log_error(f"{where}: {error!r}")
                words, code = f"failed at {where}", pb_utils.TritonError.INTERNAL
            if len(done) < i:  # only this request fails
                error = pb_utils.TritonError(words, code)
                return pb_utils.InferenceResponse(error=error)
        tensor, size = map(np.stack, zip(*done))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("tensor", tensor), pb_utils.Tensor("size", size)]
        )
