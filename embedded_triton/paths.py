"""Where the server, its model repository and its logs are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL_REPOSITORY = ROOT / "model_repository"
LOGS = ROOT / "artifacts" / "logs"
ENVIRONMENT = ROOT / ".venv-triton"
TRITONSERVER = ENVIRONMENT / "bin" / "tritonserver"
REQUIREMENTS = ROOT / "requirements-server.txt"
BACKENDS = Path(__file__).parent / "backends"
