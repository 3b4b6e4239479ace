"""What a server would refuse is said before it is started."""

import pytest

import embedded_triton
from conftest import DOUBLE
from embedded_triton import TritonServerError

pytestmark = pytest.mark.server


def test_a_server_is_not_started_on_what_it_would_refuse(make_repository):
    misspelt = f"{DOUBLE}max_batch: 8\n"
    repository = make_repository({"good": DOUBLE, "misspelt": misspelt})
    with pytest.raises(TritonServerError, match=r"misspelt/config\.pbtxt:2: column"):
        embedded_triton.start(repository, models=["good", "misspelt"])


def test_an_argument_that_this_version_lacks_is_named():
    with pytest.raises(TritonServerError, match="does not know --allow-client-shm"):
        embedded_triton.start(models=[], arguments=["--allow-client-shm=true"])
    with pytest.raises(TritonServerError, match="did you mean --exit-on-error"):
        embedded_triton.start(models=[], arguments=["--exit-on-eror=false"])
