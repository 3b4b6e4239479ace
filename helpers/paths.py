"""Where everything is."""

from embedded_triton.paths import LOGS, MODEL_REPOSITORY, ROOT

__all__ = ["LOGS", "MODEL_REPOSITORY", "ROOT"]

NOTEBOOKS = ROOT / "notebooks"
RECORDINGS = ROOT / "recordings" / "h200_tensorrt_8.6"
RECORDINGS_H100 = ROOT / "recordings" / "h100_tensorrt_8.6"
TWO_CORES = ROOT / "recordings" / "two_cores"
ARTIFACTS = ROOT / "artifacts"

# What one notebook leaves for the next.
MADE_BY = {
    "resnet50.onnx": "01_export_to_onnx",
    "classifier.onnx": "01_export_to_onnx",
    "classifier.json": "01_export_to_onnx",
    "reference.npz": "01_export_to_onnx",
    "parity.csv": "02_validate_onnx",
    "classifier_fp16.onnx": "02_validate_onnx",
    "resnet50.plan": "03_build_tensorrt_engine",
    "resnet50_fp16.onnx": "03_build_tensorrt_engine",
    "resnet50_fp16.plan": "03_build_tensorrt_engine",
    "classifier_fp16.plan": "03_build_tensorrt_engine",
    "predictions.csv": "07_classify_from_a_client",
    "resnet50_int8.onnx": "09_quantise_to_int8",
    "classifier_int8.onnx": "09_quantise_to_int8",
}


def artifact(name):
    """Path of what an earlier notebook left in ``artifacts/``.

    Raises:
        FileNotFoundError: it is not there; the message names the notebook to run.
    """
    path = ARTIFACTS / name
    if not path.exists():
        notebook = MADE_BY.get(name, "*")
        raise FileNotFoundError(
            f"{path} is missing: run notebooks/{notebook}.ipynb, which makes it"
        )
    return path


def served_model(name, version=1):
    """Path of ``model_repository/NAME/VERSION/model.onnx``, which is generated.

    Raises:
        FileNotFoundError: it is not there; the message names the notebook to run.
    """
    path = MODEL_REPOSITORY / name / str(version) / "model.onnx"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: run notebooks/05_write_triton_config.ipynb, "
            "which fills the model repository"
        )
    return path
