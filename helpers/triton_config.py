"""``config.pbtxt`` to Triton's own protobuf message and back."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig


def parse(text):
    """Read the text of a ``config.pbtxt`` with the schema that the server uses.

    Returns:
        A ``ModelConfig`` message.

    Raises:
        ValueError: the text does not follow the schema; the message says at which line
            and column.
    """
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"not a valid config.pbtxt: {error}") from None


def write(text, folder):
    """Check the text of a config and write it as ``folder/config.pbtxt``.

    Args:
        text: what ``parse`` takes.
        folder: the model's folder; made where it is missing.

    Returns:
        The ``ModelConfig`` message.

    Raises:
        ValueError: see ``parse``; nothing is written then.
    """
    config = parse(text)
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "config.pbtxt").write_text(text)
    return config
