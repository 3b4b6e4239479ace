"""Start a Triton Inference Server, or use one that runs already.

The embedded server is the real ``tritonserver`` from the wheel ``nvidia-pytriton``. It
has one C++ backend, for Python models; ``triton_backends/`` adds the others as
"Python-based backends". https://github.com/triton-inference-server/python_backend
"""

import difflib
import http.client
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from helpers import machine, paths, repository_check, versions

TRITONSERVER = paths.TRITON_ENVIRONMENT / "bin" / "tritonserver"
REQUIREMENTS = paths.ROOT / "requirements-server.txt"
BACKENDS = Path(__file__).parent / "triton_backends"
SUPERVISOR = Path(__file__).parent / "triton_supervisor.py"
# What lies in the folder of each: its model.py, and what that imports.
BACKENDS_IN_PYTHON = {
    "onnxruntime": ("batching.py",),
    "tensorrt": ("batching.py", "../engine.py"),
}

# An idle HTTP connection of a client keeps Triton from ending for this long (30 s by
# default); requests of this series take far less.
EXIT_TIMEOUT = 3
# Triton's thread for metrics sleeps this long, 2 s by default, and ends only then.
METRICS_INTERVAL = 200
START_SCRIPT = """\
#!/bin/sh
# The embedded Triton. Its Python backend starts the first python3 on PATH.
home=$(cd "$(dirname "$0")/.." && pwd)
site=$(echo "$home"/lib/python3.*/site-packages)
export PATH="$home/bin:$PATH"
libraries="$home/lib:$site/nvidia_pytriton.libs"
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
server="$site/pytriton/tritonserver"
exec "$server/bin/tritonserver" --backend-directory="$home/backends" \\
    --cache-directory="$server/caches" "$@"
"""

_serial = itertools.count()


class TritonServerError(RuntimeError):
    """The server cannot be installed, did not start, or cannot be reached."""


# ---------------------------------------------------------------- installation


def _libpython():
    """Path of ``libpython3.X.so``, which Triton's Python stub is linked against.

    Raises:
        TritonServerError: this Python has none.
    """
    version = f"3.{sys.version_info.minor}"
    folders = (
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}",
    )
    for folder in folders:
        library = Path(folder, f"libpython{version}.so.1.0")
        if library.exists():
            return library
    raise TritonServerError(
        f"{sys.executable} has no libpython{version}.so.1.0, which the embedded Triton "
        f"needs. On Debian or Ubuntu: apt install libpython{version}. With pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install ... "
        "The Pythons of conda and uv have it."
    )


def _refresh():
    """Bring the start script and the stand-ins up to date; Triton refuses links."""
    files = {TRITONSERVER: START_SCRIPT}
    for name, imports in BACKENDS_IN_PYTHON.items():
        folder = paths.TRITON_ENVIRONMENT / "backends" / name
        for source in (BACKENDS / name / "model.py", *map(BACKENDS.joinpath, imports)):
            files[folder / source.name] = source.read_text()
    for file, text in files.items():
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    TRITONSERVER.chmod(0o755)


def _add_python_backend(home):
    """Put Triton's Python backend together with the stub of this Python."""
    (site,) = home.glob("lib/python3.*/site-packages")
    server = site / "pytriton" / "tritonserver"
    stubs = server / "python_backend_stubs" / f"3.{sys.version_info.minor}"
    python_backend = home / "backends" / "python"
    python_backend.mkdir(parents=True)
    for part in (*(server / "backends" / "python").glob("*.*"), *stubs.iterdir()):
        shutil.copy(part, python_backend)


def _add_libraries_of_perf_analyzer(home):
    """Link two libraries of the server under the names that perf_analyzer asks for."""
    (libraries,) = home.glob("lib/python3.*/site-packages/nvidia_pytriton.libs")
    for name, pattern in (
        ("libb64.so.0d", "libb64-*.so*"),
        ("libcudart.so.12", "libcudart-*.so.12*"),
    ):
        for library in libraries.glob(pattern):
            (home / "lib" / name).symlink_to(library)


def install():
    """Make ``.venv-triton``: the server, the stand-in backends, and a start script.

    Does nothing where it is there already and ``requirements-server.txt`` has not
    changed since. An interrupted installation starts from nothing the next time.

    Returns:
        The path of the start script, ``.venv-triton/bin/tritonserver``.

    Raises:
        TritonServerError: this Python is none that the server can use, or pip failed.
    """
    home = paths.TRITON_ENVIRONMENT
    installed = home / REQUIREMENTS.name
    if (
        installed.exists()
        and installed.read_text() == REQUIREMENTS.read_text()
        and (home / "bin" / "python3").exists()  # not so when its Python was removed
    ):
        _refresh()
        return TRITONSERVER
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        raise TritonServerError(
            f"found Python {sys.version.split()[0]}; the embedded Triton needs numpy<2 "
            "and with it Python 3.11 or 3.12"
        )
    libpython = _libpython()
    print(f"Installing the server into {home.name}: a minute or two", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    for command in (
        [python, "-m", "venv", home],
        [home / "bin" / "pip", "install", "--quiet", "--requirement", REQUIREMENTS],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            text = result.stdout + result.stderr
            raise TritonServerError(f"{' '.join(map(str, command))} failed:\n{text}")

    _add_python_backend(home)
    (home / "lib" / libpython.name).symlink_to(libpython)
    _add_libraries_of_perf_analyzer(home)
    _refresh()
    shutil.copy(REQUIREMENTS, installed)  # last: this file says that all is there
    return TRITONSERVER


def _check_installation():
    if not TRITONSERVER.exists():
        raise TritonServerError(
            f"{TRITONSERVER} is missing: run notebooks/00_check_your_machine.ipynb"
        )
    numpy = list(paths.TRITON_ENVIRONMENT.glob("lib/*/site-packages/numpy-*.dist-info"))
    if not any(path.name.startswith("numpy-1.") for path in numpy):
        found = ", ".join(path.stem for path in numpy) or "no numpy"
        raise TritonServerError(
            f"{paths.TRITON_ENVIRONMENT} holds {found}; Triton 2.51's Python backend "
            "answers with empty outputs or dies with anything but numpy 1. Cure: "
            f"{paths.TRITON_ENVIRONMENT}/bin/pip install 'numpy<2'"
        )


# ------------------------------------------------------------------ the server


@dataclass
class Server:
    """A Triton server, and where it listens. Use it in a ``with``, or call ``stop()``.

    Attributes:
        http, grpc, metrics: ``host:port`` without a scheme, as tritonclient wants it.
        log: the server's log; None where the server was not started here.
        command: the command that started it; None likewise.
    """

    http: str
    grpc: str
    metrics: str
    log: Path | None = None
    command: list[str] | None = None
    _supervisor: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def pid(self):
        """Process id of ``tritonserver``; None where it was not started here."""
        import psutil

        if self._supervisor:
            for process in psutil.Process(self._supervisor.pid).children():
                return process.pid
        return None

    @property
    def ports(self):
        """HTTP, gRPC and metrics port, as ``start`` takes them."""
        return [int(x.rpartition(":")[2]) for x in (self.http, self.grpc, self.metrics)]

    def stop(self):
        """End what was started here; a server that ran already is left alone."""
        if self._supervisor:
            self._supervisor.communicate(b"stop")
            self._supervisor = None

    def is_alive(self):
        """Whether the server still runs (for one that ran already: answers)."""
        if self._supervisor:
            return self._supervisor.poll() is None
        return self.log is None and _is_ready(self.http)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


def _bypass_proxy(host):
    """urllib, curl and gRPC follow ``http_proxy``, which cannot reach this machine."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if host not in known.split(","):
        os.environ["no_proxy"] = f"{known},{host}".strip(",")


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, http.client.HTTPException):  # nobody, or no HTTP there
        return False


def _is_ready(http):
    return _answers(f"http://{http}/v2/health/ready")


def free_ports(count=3):
    """Ports on 127.0.0.1 that nobody uses, all different.

    Args:
        count: how many.

    Returns:
        A list of port numbers.
    """
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _check_free(ports):
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise TritonServerError(
                    f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): stop "
                    "what listens there, or pass other ports, or none for free ones"
                ) from None


# What a reader of a failed start needs: errors, and the reason behind each model.
_TELLING = re.compile(r"^E\d{4} |^error:|ERROR|UNAVAILABLE|^Traceback|^\w*Error:")
_NOISE = re.compile(r"CudaDriverHelper|NVML")


def telling_lines(log, most=12):
    """The last lines of a log file that say what went wrong.

    Args:
        log: path of the log.
        most: how many lines at the most.

    Returns:
        A list of lines, oldest first, without the noise of a machine without a GPU.
    """
    lines = Path(log).read_text(errors="replace").splitlines()
    kept = [x for x in lines if _TELLING.search(x) and not _NOISE.search(x)]
    return (kept or lines)[-most:]


# What Triton says, and what it means. The repository's checker says most of it first.
_MEANINGS = (
    (
        r"unable to find backend library for backend '(\w+)'",
        "this server has no backend {0}: correct the name in config.pbtxt (a "
        "platform is no backend), or serve with NVIDIA's container",
    ),
    (
        r"failed to read text proto from (\S+)",
        "the config has a syntax error or an unknown field; python -m "
        "helpers.repository_check names line and column",
    ),
    (
        r"at least one version must be available",
        "the model's folder holds no version that its policy chooses: make a "
        "folder 1/ with the model file in it",
    ),
    (
        r"failed to stat file (\S+)",
        "the model file is not there, or has another name",
    ),
    (
        r"kind KIND_GPU but no GPUs",
        "this machine shows no GPU: use KIND_AUTO or KIND_CPU",
    ),
    (
        r"the model expects \d+ dimensions",
        "dims are those of one item where max_batch_size is above 0, and all of "
        "them where it is 0",
    ),
    (
        r"first dimension must be -1",
        "the model has a fixed batch: export it with a dynamic one, or set "
        "max_batch_size: 0",
    ),
    (
        r"configuration expects \d+ inputs",
        "list every input of the model in the config, and no other",
    ),
    (
        r"configuration expects datatype",
        "the type in the config is not the model's",
    ),
    (
        r"unexpected inference (?:in|out)put '",
        "the name in the config is not the model's",
    ),
    (
        r"Protobuf parsing failed|No graph was found",
        "the file is no ONNX model, or only a part of one",
    ),
    (
        r"External data path validation failed",
        "the weights lie in a second file, which was not copied: export with "
        "external_data=False",
    ),
    (
        r"Unsupported model IR version|ONNX Runtime only \*guarantees\*",
        "the model is newer than this server's ONNX Runtime: export it with a "
        "lower opset_version",
    ),
    (
        r"directory name must equal model name",
        "the field name and the folder differ",
    ),
    (
        r"Could not determine backend",
        "the config names no backend, and no file tells it",
    ),
    (
        r"models that are not available or ambiguous",
        "a step of the ensemble names a model that is not in the repository",
    ),
    (
        r"whose required version 0 is not loaded",
        "a step lacks model_version: -1",
    ),
    (
        r"failed to open text file for read (\S+)",
        "a label or warm-up file is not there",
    ),
    (
        r"No space left on device|[Uu]nable to (?:create|initialize) shared memory",
        "/dev/shm is too small: start the container with --shm-size=1g",
    ),
    (
        r"magicTag|header\.size|is not compatible|different version of TensorRT",
        "the plan is damaged, or was built by another TensorRT or for another "
        "GPU: build it here",
    ),
    (
        r"unrecognized option",
        "this version of tritonserver does not know that argument",
    ),
    (
        r"no attribute 'TritonPythonModel'",
        "model.py has no class of that name",
    ),
)


def explain(text):
    """What a server's log means, for the messages that people meet most.

    Args:
        text: lines of the log, or the message of an error.

    Returns:
        A list of sentences, each once, in the order of the table.
    """
    found = ((re.search(pattern, text), x) for pattern, x in _MEANINGS)
    return [x.format(*match.groups()) for match, x in found if match]


def _check_repository(repository, models, docker, arguments):
    """Raise TritonServerError where the server would refuse a model."""
    server = replace(
        repository_check.abilities("container" if docker else "embedded"),
        cache=any("cache" in argument for argument in arguments),
    )
    findings = repository_check.check(repository, models, server)
    errors = [x for x in findings if x.severity == repository_check.ERROR]
    if errors:
        raise TritonServerError(
            "the server would refuse this repository (check=False starts it anyway):\n"
            + "\n".join(map(str, errors))
        )


@cache
def _known_arguments():
    result = subprocess.run([TRITONSERVER, "--help"], capture_output=True, text=True)
    return frozenset(re.findall(r"--[a-z][a-z-]+", result.stdout + result.stderr))


def _check_arguments(arguments):
    """Raise TritonServerError for an argument that the embedded server lacks."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("--") and name not in _known_arguments():
            near = difflib.get_close_matches(name, _known_arguments(), 1)
            raise TritonServerError(
                f"tritonserver {versions.EMBEDDED.triton} does not know {name}"
                + (f": did you mean {near[0]}?" if near else "")
            )


def _command(repository, ports, shm_prefix):
    """How the embedded server is started."""
    endpoints = dict(zip(("http", "grpc", "metrics"), ports))
    return [
        str(TRITONSERVER),
        f"--model-repository={repository}",
        *(f"--{endpoint}-address=127.0.0.1" for endpoint in endpoints),
        *(f"--{endpoint}-port={port}" for endpoint, port in endpoints.items()),
        *(
            f"--backend-config={backend},shm-region-prefix-name={shm_prefix}"
            for backend in ("python", *BACKENDS_IN_PYTHON)
        ),
    ]


def _docker_command(repository, ports, name):
    """How NVIDIA's container is started; ``docker run`` passes signals on to it."""
    return [
        "docker",
        "run",
        "--rm",
        f"--name={name}",
        "--shm-size=1g",
        *(["--gpus=all"] if machine.gpu_count() else []),
        *(f"--publish=127.0.0.1:{x}:{y}" for x, y in zip(ports, (8000, 8001, 8002))),
        f"--volume={Path(repository).resolve()}:/models:ro",
        versions.CONTAINER.where,
        "tritonserver",
        "--model-repository=/models",
    ]


def _check_docker():
    """Raise TritonServerError where the container cannot be started."""
    image = versions.CONTAINER.where
    try:
        result = subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, text=True
        )
    except FileNotFoundError:
        raise TritonServerError(
            "there is no docker on PATH: install it, or use the embedded server"
        ) from None
    if result.returncode:
        raise TritonServerError(
            f"docker cannot start {image}: {result.stderr.strip()}. Where it is not "
            f"there yet: docker pull {image} (9 GB)"
        )


def supervise(name, command, log, environment=None):
    """Start a program that ends with this process at the latest.

    Args:
        name: prefix of what it leaves in ``/dev/shm``, which is removed at its end.
        command: list of arguments, the program first.
        log: path of the file for what it prints.
        environment: its variables; None for those of this process.

    Returns:
        The ``subprocess.Popen`` of the supervisor, which ends the program when it reads
        ``stop``.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(SUPERVISOR), name, *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupted cell does not interrupt the server
        )


def start(
    repository=paths.MODEL_REPOSITORY,
    models=None,
    ports=None,
    arguments=(),
    timeout=60,
    docker=False,
    check=True,
):
    """Start a server and wait until it is ready.

    Args:
        repository: the model repository.
        models: names of the models to load, with explicit model control; None loads
            everything, and one model that fails keeps the server from starting.
        ports: HTTP, gRPC and metrics port; None for free ones.
        arguments: further arguments for ``tritonserver``.
        timeout: seconds to wait for readiness.
        docker: start NVIDIA's container, with all GPUs where there are any, instead of
            the embedded server. Its image has to be there: 9 GB are not fetched
            behind your back.
        check: look for what the server would refuse first, with ``repository_check``.

    Returns:
        A ``Server``. It ends with this process at the latest.

    Raises:
        FileNotFoundError: there is no such repository.
        TritonServerError: the server or the container's image is not installed, a port
            is taken, a model would be refused, or the server ended or was not ready in
            time; the message holds the findings, or the log's telling lines and what
            they mean.
    """
    if not Path(repository).is_dir():
        raise FileNotFoundError(f"there is no model repository at {repository}")
    if docker:
        _check_docker()
    else:
        _check_installation()
        _refresh()
        _check_arguments(arguments)
    if check:
        _check_repository(repository, models, docker, arguments)
    _bypass_proxy("127.0.0.1")
    if ports:
        _check_free(ports)
    http, grpc, metrics = ports = ports or free_ports()
    name = f"triton-{os.getpid()}-{next(_serial)}-"  # of the container, or in /dev/shm
    command = (_docker_command if docker else _command)(repository, ports, name)
    command += [
        f"--exit-timeout-secs={EXIT_TIMEOUT}",
        f"--metrics-interval-ms={METRICS_INTERVAL}",
    ]
    if models is not None:
        command.append("--model-control-mode=explicit")
        command += [f"--load-model={model}" for model in models]
    command += arguments

    paths.LOGS.mkdir(parents=True, exist_ok=True)
    log = paths.LOGS / f"triton-{http}.log"
    supervisor = supervise(name, command, log)
    server = Server(
        *(f"127.0.0.1:{port}" for port in (http, grpc, metrics)),
        log=log,
        command=command,
        _supervisor=supervisor,
    )
    try:
        _wait_until_ready(server, timeout)
    except BaseException:  # an interrupted wait must not leave a server behind
        server.stop()
        raise
    return server


def _wait_until_ready(server, timeout):
    deadline = time.monotonic() + timeout
    while not _is_ready(server.http):
        if not server.is_alive():
            what = f"ended with status {server._supervisor.returncode}"
        elif time.monotonic() > deadline:
            what = f"was not ready after {timeout} s"
        else:
            time.sleep(0.05)
            continue
        text = "\n".join(telling_lines(server.log))
        text += "".join(f"\nThat means: {x}." for x in explain(text))
        if "failed to load all models" in text:
            text += (
                "\nOne bad model keeps all from coming up. Name the good ones in "
                "models, or start with check=False and the arguments "
                "--exit-on-error=false and --strict-readiness=false"
            )
        raise TritonServerError(
            f"the server {what}. Its log, {os.path.relpath(server.log)}, says:\n{text}"
        )


def attach(address):
    """Use a server that runs already, in a container or on another machine.

    Args:
        address: ``host`` or ``host:port`` of its HTTP endpoint, without a scheme;
            gRPC and metrics are taken to be on the next two ports, as in Triton's
            default 8000, 8001, 8002.

    Returns:
        A ``Server`` whose ``stop()`` leaves that server alone.

    Raises:
        ValueError: the address is not of that form.
        TritonServerError: no server is ready there.
    """
    match = re.fullmatch(r"([\w.-]+)(?::(\d+))?", address)
    if not match:
        raise ValueError(f"{address!r} is not of the form host or host:port")
    host, port = match[1], int(match[2] or 8000)
    server = Server(*(f"{host}:{port + i}" for i in range(3)))
    if not server.is_alive():
        raise TritonServerError(
            f"no Triton server is ready at {server.http}: is it running, and is "
            "this the HTTP port?"
        )
    return server


def serve(models):
    """A server for these models of the project's repository, wherever it is.

    That is the one at the address in the environment variable ``TUTORIAL_TRITON``, as
    ``attach`` takes it; NVIDIA's container, started here, where the variable is
    ``docker``; and the embedded server where it is not set.

    Args:
        models: names of the models to load.

    Returns:
        A ``Server``.

    Raises:
        TritonServerError: see ``start`` and ``attach``; or a model cannot be loaded.
    """
    address = os.environ.get("TUTORIAL_TRITON")
    if address in (None, "", "docker"):
        return start(models=models, docker=address == "docker")
    server = attach(address)
    for model in models:
        if not _answers(f"http://{server.http}/v2/models/{model}/ready"):
            url = f"http://{server.http}/v2/repository/models/{model}/load"
            try:
                urllib.request.urlopen(url, data=b"{}", timeout=60).close()
            except urllib.error.HTTPError as error:
                raise TritonServerError(
                    f"the server at {server.http} cannot load {model}: "
                    f"{error.read().decode()} Does it serve {paths.MODEL_REPOSITORY} "
                    "with --model-control-mode=explicit?"
                ) from None
    return server
