"""What a server would refuse is said before it is started."""

import pytest

import embedded_triton
import repository_check
from conftest import DOUBLE
from embedded_triton import TritonServerError, commands

pytestmark = pytest.mark.server


def test_a_server_is_not_started_on_what_it_would_refuse(make_repository):
    misspelt = f"{DOUBLE}max_batch: 8\n"
    repository = make_repository({"good": DOUBLE, "misspelt": misspelt})
    with pytest.raises(TritonServerError, match=r"misspelt/config\.pbtxt:2: column"):
        embedded_triton.start(repository, models=["good", "misspelt"])


def test_a_warning_keeps_no_server_from_starting(make_repository, monkeypatch):
    """The checker is told whether this server gets a cache."""
    seen, check = [], repository_check.check

    def look(repository, models, server):
        seen.append(server.cache)
        return check(repository, models, server)

    monkeypatch.setattr(repository_check, "check", look)
    cached = f"{DOUBLE}response_cache {{ enable: true }}\n"
    repository = make_repository({"cached": cached})
    for arguments in (), ("--cache-config=local,size=1048576",):
        commands.check_repository(repository, None, False, arguments)
    assert seen == [False, True]


def test_an_argument_that_this_version_lacks_is_named():
    with pytest.raises(TritonServerError, match="does not know --allow-client-shm"):
        embedded_triton.start(models=[], arguments=["--allow-client-shm=true"])
    with pytest.raises(TritonServerError, match="did you mean --exit-on-error"):
        embedded_triton.start(models=[], arguments=["--exit-on-eror=false"])
    commands.check_arguments(["--cache-config", "local,size=1048576"])


def test_every_backend_in_python_has_its_shared_memory_under_the_servers_name(tmp_path):
    """What a killed server leaves in /dev/shm is found by that name."""
    command = commands.embedded_command(tmp_path, (1, 2, 3), "mine-")
    expected = {
        f"--backend-config={backend},shm-region-prefix-name=mine-"
        for backend in ("python", "onnxruntime", "tensorrt")
    }
    assert expected == {x for x in command if x.startswith("--backend-config")}
