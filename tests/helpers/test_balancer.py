"""HAProxy is started, asked and stopped; a recording takes its place."""

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

import embedded_triton
from conftest import wait_for
from helpers import balancer, paths
from helpers.balancer import BalancerError

CONFIG = """\
global
    stats socket "${SOCKET}" mode 600 level admin
defaults
    mode http
    option httpchk GET /v2/health/ready
    default-server check inter 200ms fall 2 rise 1
    timeout connect 1s
    timeout client 60s
    timeout server 60s
listen http
    bind 127.0.0.1:PORT
    server r0 SERVER
"""


needs_haproxy = pytest.mark.skipif(
    not balancer.find_haproxy(), reason="HAProxy is not installed: apt install haproxy"
)


def config(server, port=None):
    port = port or embedded_triton.free_ports(1)[0]
    return CONFIG.replace("PORT", str(port)).replace("SERVER", server)


def haproxies():
    """Process ids of the HAProxies that run."""
    return {x.pid for x in psutil.process_iter(["name"]) if x.info["name"] == "haproxy"}


@needs_haproxy
def test_passes_requests_on_and_leaves_nothing(server):
    (port,) = embedded_triton.free_ports(1)
    before = haproxies()
    with balancer.start(config(server.http, port)) as front:
        embedded_triton.attach(f"127.0.0.1:{port}")
        assert {k: x["status"] for k, x in front.servers().items()} == {"http/r0": "UP"}
        (pid,) = haproxies() - before
        listening = psutil.Process(pid).net_connections("tcp")
        addresses = {x.laddr for x in listening if x.status == "LISTEN"}
        assert addresses == {("127.0.0.1", port)}
        assert front.socket.stat().st_mode & 0o777 == 0o600
    front.stop()  # a second time does nothing
    assert haproxies() == before
    assert not front.socket.parent.exists()
    with pytest.raises(BalancerError, match="does not answer at"):
        front.ask("show stat")


@needs_haproxy
def test_the_socket_takes_commands(server):
    with balancer.start(config(server.http)) as front:
        front.ask("set server http/r0 state maint")
        assert front.wait("http/r0", "MAINT") < 5
        with pytest.raises(BalancerError, match=r"is MAINT after 0\.1 s; expected UP"):
            front.wait("http/r0", "UP", timeout=0.1)
        with pytest.raises(BalancerError, match="No such server"):
            front.ask("set server http/r9 state maint")


@needs_haproxy
def test_says_what_is_wrong_with_a_configuration(server):
    wrong = config(server.http).replace("mode http", "mode htp")
    with pytest.raises(BalancerError, match=r"haproxy-\w+\.cfg:4\] : .*'htp'"):
        balancer.start(wrong)


@needs_haproxy
def test_says_when_no_server_is_there():
    before = haproxies()
    (free,) = embedded_triton.free_ports(1)
    with pytest.raises(BalancerError, match="did not find its servers"):
        balancer.start(config(f"127.0.0.1:{free}"), timeout=2)
    assert haproxies() == before


class Hesitant(BaseHTTPRequestHandler):
    """A server that takes its time to say that it is ready."""

    def do_GET(self):
        time.sleep(0.1)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass


@needs_haproxy
def test_waits_for_the_first_health_check():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hesitant) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{site.server_port}"
        text = config(address).replace("200ms", "1s")  # begun one after the other
        with balancer.start(f"{text}    server r1 {address}\n") as front:
            states = {x["check_status"] for x in front.servers().values()}
            assert states <= {"L7OK", "* L7OK"}  # the star: a check goes on
        site.shutdown()


@needs_haproxy
def test_ends_with_its_owner(server, tmp_path):
    before = haproxies()
    (tmp_path / "haproxy.cfg").write_text(config(server.http))
    program = (
        "import sys, time; from pathlib import Path; from helpers import balancer\n"
        "front = balancer.start(Path(sys.argv[1]).read_text())\n"
        "print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "haproxy.cfg"],
        stdout=subprocess.PIPE,
        cwd=paths.ROOT,
    )
    assert owner.stdout.readline() == b"up\n"
    assert haproxies() != before
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for(lambda: haproxies() == before, seconds=10)


@pytest.fixture
def no_haproxy(monkeypatch):
    monkeypatch.setenv("TUTORIAL_HAPROXY", "")
    balancer.available.cache_clear()
    yield
    balancer.available.cache_clear()


def test_says_how_to_install_what_is_missing(no_haproxy, capsys):
    with pytest.raises(BalancerError, match="not installed: apt install haproxy"):
        balancer.start("")
    assert not balancer.available()
    assert not balancer.available()
    assert capsys.readouterr().out.count("apt install haproxy") == 1


def test_reads_the_recording_where_it_is_missing(no_haproxy):
    def measure():
        raise AssertionError("nothing can be measured here")

    recorded = json.loads(balancer.RECORDING.read_text())
    assert balancer.measure_or_read("with_retry", measure) == recorded["with_retry"]
    with pytest.raises(BalancerError, match="no something_else in"):
        balancer.measure_or_read("something_else", measure)


def test_what_is_measured_here_is_gathered_in_one_file(monkeypatch, tmp_path):
    monkeypatch.setattr(balancer, "available", lambda: True)
    monkeypatch.setattr(balancer, "haproxy_version", lambda: "2.6.12")
    monkeypatch.setattr(balancer, "LIVE", tmp_path / "scale_out.json")
    assert balancer.measure_or_read("one", lambda: 1) == 1
    assert balancer.measure_or_read("two", lambda: (2, 3)) == [2, 3]  # as in the file
    kept = json.loads((tmp_path / "scale_out.json").read_text())
    assert kept.pop("environment")["HAProxy"] == "2.6.12"
    assert kept == {"one": 1, "two": [2, 3]}
