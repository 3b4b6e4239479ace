"""Run HAProxy in front of servers; taught in notebook 17.

HAProxy is a program of its own: ``apt install haproxy``. Where it is not installed, the
notebook shows what it did on another machine, from a recording.
http://docs.haproxy.org/2.6/configuration.html
"""

import contextlib
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from embedded_triton import versions
from embedded_triton.supervisor import start_supervised
from helpers import machine, paths

RECORDING = paths.TWO_CORES / "scale_out.json"
LIVE = paths.ARTIFACTS / "scale_out.json"  # copied to RECORDING by hand
INSTALL = (
    "HAProxy is not installed: apt install haproxy (or dnf, brew), or name the program "
    "in TUTORIAL_HAPROXY. What you see below is a recording"
)


class BalancerError(RuntimeError):
    """HAProxy is not installed, refused its configuration, or did not come up."""


def find_haproxy():
    """Path of HAProxy, or None: ``TUTORIAL_HAPROXY`` where it is set, else on PATH.

    Debian puts it into ``/usr/sbin``, which is not on everybody's PATH.
    """
    if (named := os.environ.get("TUTORIAL_HAPROXY")) is not None:
        return shutil.which(named) if named else None
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@cache
def available():
    """Whether HAProxy is installed; says once how to install it where it is not."""
    if not find_haproxy():
        print(INSTALL)
    return find_haproxy() is not None


# ------------------------------------------------------------------ the balancer


@dataclass
class Balancer:
    """A running HAProxy. Use it in a ``with``, or call ``stop()``.

    Attributes:
        config: path of its configuration.
        log: path of what it printed.
        socket: path of its admin socket, the ``stats socket`` of the configuration.
    """

    config: Path
    log: Path
    socket: Path
    _supervisor: subprocess.Popen | None = field(default=None, repr=False)

    def ask(self, command):
        """Send a line to the admin socket, such as ``show stat``; returns the answer.

        Raises:
            BalancerError: HAProxy does not run, or refused the command.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except OSError as error:
                raise BalancerError(
                    f"HAProxy does not answer at {self.socket} ({error.strerror}); its "
                    f"log is {self.log}"
                ) from None
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                text = answer.read().strip()
        if command.startswith("set ") and text:  # it answers with nothing but errors
            raise BalancerError(f"{command}: {text}")
        return text

    def servers(self):
        """Every server line of the configuration and how it does.

        Returns:
            A dict of ``BACKEND/SERVER`` and a dict of the columns of ``show stat``,
            texts: ``status`` (``UP``, ``DOWN``, ``DRAIN``, ``MAINT`` ...), ``scur``
            (requests under way), ``stot`` (requests so far) and others.
        """
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines())
        return {
            f"{x['pxname']}/{x['svname']}": x
            for x in rows
            if x["svname"] not in ("FRONTEND", "BACKEND")
        }

    def wait(self, server, status, timeout=30):
        """Wait until a server has a status; returns the seconds that it took.

        Raises:
            BalancerError: it has not in time, or there is no such server.
        """
        begin = time.monotonic()
        while True:
            known = self.servers()
            if server not in known:
                names = ", ".join(known)
                raise BalancerError(f"no server {server!r}; there are {names}")
            found = known[server]["status"]
            if found == status:
                return time.monotonic() - begin
            if time.monotonic() > begin + timeout:
                raise BalancerError(
                    f"{server} is {found} after {timeout} s; expected {status}"
                )
            time.sleep(0.02)

    def stop(self):
        """End it, at once."""
        if self._supervisor:
            self._supervisor.communicate(b"stop")
            self._supervisor = None
            shutil.rmtree(self.socket.parent, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


def start(config, timeout=10, **variables):
    """Start HAProxy and wait until it listens and has found its servers.

    Args:
        config: text of the configuration. It has to say ``stats socket "${SOCKET}" mode
            600 level admin``; the path behind that name is chosen here.
        timeout: seconds to wait.
        variables: further variables that the configuration uses. They do not get into
            the file.

    Returns:
        A ``Balancer``. It ends with this process at the latest.

    Raises:
        BalancerError: HAProxy is not installed, refused the configuration, or has no
            server that is up in time; the message holds what it said.
    """
    if not find_haproxy():
        raise BalancerError(INSTALL.partition(". ")[0])
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="haproxy-"))  # a socket's path is short
    file, log = (paths.LOGS / f"{folder.name}.{x}" for x in ("cfg", "log"))
    file.write_text(config)
    balancer = Balancer(file, log, folder / "admin.sock")
    environment = {**os.environ, **variables, "SOCKET": str(balancer.socket)}
    checked = subprocess.run(
        [find_haproxy(), "-c", "-f", file],
        env=environment,
        capture_output=True,
        text=True,
    )
    if checked.returncode:
        shutil.rmtree(folder)
        said = re.findall(r"config : (?!Error\(s\) found)(.+)", checked.stderr)
        text = "\n".join(said or [checked.stderr]).replace(str(file), file.name)
        raise BalancerError(f"HAProxy refuses the configuration:\n{text}")
    command = [find_haproxy(), "-db", "-f", str(file)]  # -db: in the foreground
    balancer._supervisor = start_supervised(
        f"{folder.name}-", command, log, environment
    )
    try:
        _wait_until_up(balancer, time.monotonic() + timeout)
    except BaseException:
        balancer.stop()
        raise
    return balancer


def _wait_until_up(balancer, deadline):
    """Wait for the first health checks: until then every server counts as up."""
    checked = ("L7OK", "")  # of ``check_status``; empty where a server is not checked
    while True:
        with contextlib.suppress(BalancerError):
            states = [x["check_status"] for x in balancer.servers().values()]
            if all(x in checked for x in states):
                return
        if balancer._supervisor.poll() is not None or time.monotonic() > deadline:
            text = "\n".join(balancer.log.read_text().splitlines()[-6:])
            raise BalancerError(f"HAProxy did not find its servers. It said:\n{text}")
        time.sleep(0.05)


# -------------------------------------------------------------------- recordings


def measure_or_read(name, measure):
    """Measure where HAProxy is installed; else read what was measured elsewhere.

    Live results are gathered in ``artifacts/scale_out.json``; the recording is a copy
    of that file from a whole run of the notebook.

    Args:
        name: of the measurement, in that file.
        measure: a function without arguments that returns a JSON value.

    Returns:
        What the function returns now, or what it returned when it was recorded.

    Raises:
        BalancerError: HAProxy is not installed, and nothing of that name is recorded.
    """
    if not available():
        recorded = json.loads(RECORDING.read_text())
        if name not in recorded:
            raise BalancerError(f"there is no {name} in {RECORDING}, and no HAProxy")
        return recorded[name]
    results = json.loads(LIVE.read_text()) if LIVE.exists() else {}
    results["environment"] = {
        "processor": machine.processor(),
        "HAProxy": haproxy_version(),
        "Triton": versions.EMBEDDED.triton,
    }
    results[name] = measure()
    LIVE.write_text(json.dumps(results) + "\n")
    return json.loads(json.dumps(results[name]))


def haproxy_version():
    """Version of the installed HAProxy, such as ``2.6.12``; None without one."""
    if not find_haproxy():
        return None
    result = subprocess.run([find_haproxy(), "-v"], capture_output=True, text=True)
    return re.search(r"version ([\d.]+)", result.stdout)[1]
