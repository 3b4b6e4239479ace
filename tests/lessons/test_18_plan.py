"""Whether the plan agrees with theory."""

import numpy as np
import pytest

from conftest import taught

LESSON = "18_plan_a_cluster"


@pytest.fixture(scope="module")
def planning():
    """What the lesson defines that plans."""
    names = taught(LESSON, "def simulate_p99(")
    return taught(LESSON, "def plan_replicas(", **names)


def test_p99_is_that_of_queueing_theory(planning):
    service = np.random.default_rng(1).exponential(0.01, 100_000)
    found = planning["simulate_p99"](50, 1, service, requests=200_000)
    assert found == pytest.approx(np.log(100) / (100 - 50), rel=0.1)  # M/M/1
    assert planning["simulate_p99"](1, 1, [0.01]) == pytest.approx(
        0.01, rel=0.1
    )  # nobody waits


def test_a_plan_keeps_its_promise_with_one_to_lose(planning):
    seconds = [0.01, 0.012]
    needed = planning["plan_replicas"](500, 0.05, seconds)
    assert planning["simulate_p99"](500, needed - 1, seconds) <= 0.05
    assert planning["simulate_p99"](500, needed - 2, seconds) > 0.05
    assert planning["plan_replicas"](1, 0.05, seconds) == 2


def test_no_plan_for_a_promise_that_nobody_can_keep(planning):
    with pytest.raises(ValueError, match="takes 10 ms alone"):
        planning["plan_replicas"](10, 0.005, [0.01])
    # One in a hundred is slow: whether that breaks a p99 is a matter of chance, and
    # the search ends either way.
    for slow in range(95, 101):
        try:
            assert planning["plan_replicas"](50, 0.1, [0.01] * slow + [0.5]) >= 2
        except ValueError as error:
            assert "takes 500 ms alone" in str(error)
