"""What lesson 02 says of a wrong preprocessing."""

import numpy as np
import onnxruntime as ort

from helpers import classifiers, images, parity


def test_a_wrong_preprocessing_is_a_thousand_limits_away(artifacts):
    session = ort.InferenceSession(artifacts / "classifier.onnx")
    reference = np.load(artifacts / "reference.npz")
    right = classifiers.read_description().preprocessing
    raw = images.sample_batch({**right, "mean": [0] * 3, "std": [1] * 3})
    for wrong in reference["input"][:, ::-1], raw:
        (found,) = session.run(None, {"input": wrong})
        distance = parity.compare(reference["logits"], found)["relative L2"]
        assert distance > 1000 * 1e-4
