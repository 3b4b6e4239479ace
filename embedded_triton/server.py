"""Start a Triton Inference Server, or use one that runs already."""

import http.client
import itertools
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from embedded_triton import commands, installation, paths, supervisor
from embedded_triton.errors import TritonServerError
from embedded_triton.log_messages import explain, find_error_lines
from embedded_triton.ports import check_free, free_ports

# An idle HTTP connection of a client keeps Triton from ending for this long (30 s by
# default); requests of this series take far less.
EXIT_TIMEOUT = 3
# Triton's thread for metrics sleeps this long, 2 s by default, and ends only then.
METRICS_INTERVAL = 200
LOAD_TIMEOUT = supervisor.LOAD_TIMEOUT  # seconds for a model that ``serve`` loads
_serial = itertools.count()
# What the supervisor writes into the log
_ENDED = re.compile(r"error: supervisor: process (\d+) of model (.+) has ended")
_REPLACED = re.compile(r"supervisor: process (\d+) of model .+ is replaced")


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
        """Process id of ``tritonserver``; None where it ended, or runs elsewhere."""
        import psutil

        if self._supervisor and self._supervisor.poll() is None:
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
        """Whether the server still runs, and all its models have their processes.

        Of a server that ran already: whether it answers.
        """
        if self._supervisor:
            return self._supervisor.poll() is None and not self.dead_models
        return self.log is None and _is_ready(self.http)

    @property
    def dead_models(self):
        """Names of the models that have lost a process, and were not loaded again.

        Triton says that such a model is ready, and each request that comes to the lost
        process fails. It takes a second until a process is found here. Empty for a
        server that was not started here.
        """
        dead = {}
        lines = self.log.read_text(errors="replace").splitlines() if self.log else ()
        for line in lines:
            if match := _ENDED.match(line):
                dead[match[1]] = match[2]
            elif match := _REPLACED.match(line):
                dead.pop(match[1], None)
        return sorted({*dead.values()})

    def check_models(self):
        """Raise TritonServerError where a model has lost a process."""
        if dead := self.dead_models:
            raise TritonServerError(
                f"a process of {', '.join(dead)} has ended, and requests to it fail: "
                "unload and load the model, or start the server with repair=True. "
                f"The log is {os.path.relpath(self.log)}"
            )

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


def start(
    repository=paths.MODEL_REPOSITORY,
    models=None,
    ports=None,
    arguments=(),
    timeout=60,
    docker=None,
    check=True,
    repair=False,
):
    """Start a server and wait until it is ready.

    That is NVIDIA's container where the environment variable ``TUTORIAL_TRITON`` is
    ``docker``, and the embedded server otherwise.

    Args:
        repository: the model repository.
        models: names of the models to load, with explicit model control; None loads
            everything, and one model that fails keeps the server from starting.
        ports: HTTP, gRPC and metrics port; None for free ones.
        arguments: further arguments for ``tritonserver``.
        timeout: seconds to wait for readiness.
        docker: whether to start the container, whatever the variable says. It gets
            all GPUs where there are any. Its image has to be there: 9 GB are not
            fetched behind your back.
        check: look for what the server would refuse first, with ``repository_check``.
        repair: what to do where a process of a model ends, which Triton does not
            notice. True unloads and loads that model where ``models`` are named, and
            ends the server where not, so that a load balancer takes it out. In either
            case the log and ``Server.dead_models`` tell.

    Returns:
        A ``Server``. It ends with this process at the latest.

    Raises:
        FileNotFoundError: there is no such repository.
        NoServerError: the embedded server does not run on this machine, and Docker is
            not chosen or not installed.
        TritonServerError: the server or the container's image is not installed, a port
            is taken, a model would be refused, or the server ended or was not ready in
            time; the message holds the findings, or the log's error lines and what
            they mean.
    """
    if not Path(repository).is_dir():
        raise FileNotFoundError(f"there is no model repository at {repository}")
    if docker is None:
        docker = os.environ.get("TUTORIAL_TRITON") == "docker"
    if docker:
        commands.check_docker()
    else:
        installation.find_tritonserver()
        installation.refresh()
        commands.check_arguments(arguments)
    if check:
        commands.check_repository(repository, models, docker, arguments)
    _bypass_proxy("127.0.0.1")
    if ports:
        check_free(ports)
    http, grpc, metrics = ports = ports or free_ports()
    name = f"triton-{os.getpid()}-{next(_serial)}-"  # of the container, or in /dev/shm
    make_command = commands.container_command if docker else commands.embedded_command
    command = make_command(repository, ports, name)
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
    action = supervisor.REPORT
    if repair:
        action = supervisor.END if models is None else f"127.0.0.1:{http}"
    process = supervisor.start_supervised(name, command, log, repair=action)
    server = Server(
        *(f"127.0.0.1:{port}" for port in (http, grpc, metrics)),
        log=log,
        command=command,
        _supervisor=process,
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
        if server._supervisor.poll() is not None:
            what = f"ended with status {server._supervisor.returncode}"
        elif time.monotonic() > deadline:
            what = f"was not ready after {timeout} s (timeout= waits longer)"
        else:
            time.sleep(0.05)
            continue
        text = "\n".join(find_error_lines(server.log))
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
    if host in ("127.0.0.1", "localhost"):
        _bypass_proxy(host)
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
        ValueError, NoServerError, TritonServerError: see ``start`` and ``attach``; or a
            model cannot be loaded.
    """
    address = os.environ.get("TUTORIAL_TRITON")
    if address in (None, "", "docker"):
        return start(models=models)
    server = attach(address)
    for model in models:
        if not _answers(f"http://{server.http}/v2/models/{model}/ready"):
            url = f"http://{server.http}/v2/repository/models/{model}/load"
            try:
                urllib.request.urlopen(url, data=b"{}", timeout=LOAD_TIMEOUT).close()
            except TimeoutError:
                raise TritonServerError(
                    f"the server at {server.http} did not load {model} in "
                    f"{LOAD_TIMEOUT} s. Where a process of a model ends while it is "
                    "loaded, Triton waits for it for minutes: start the server again"
                ) from None
            except urllib.error.HTTPError as error:
                raise TritonServerError(
                    f"the server at {server.http} cannot load {model}: "
                    f"{error.read().decode()} Does it serve {paths.MODEL_REPOSITORY} "
                    "with --model-control-mode=explicit?"
                ) from None
    return server
