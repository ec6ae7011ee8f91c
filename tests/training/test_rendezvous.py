"""Workers that meet, miss one another or disagree: threads stand in for processes."""

import concurrent.futures

import pytest

from tests.training.test_strategy import free_ports
from tfmodels.training.rendezvous import meet_workers


def workers(count):
    return [f"localhost:{port}" for port in free_ports(count)]


def meet(calls):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [each.exception() for each in [pool.submit(meet_workers, *call) for call in calls]]


def test_all_come():
    listed = workers(3)
    assert meet([(listed, i, 10) for i in range(3)]) == [None] * 3


def test_a_missing_one_is_named():
    listed = workers(3)
    errors = meet([(listed, i, 0.5) for i in range(2)])
    for error in errors:
        assert isinstance(error, TimeoutError) and f"Missing: {listed[2]}" in str(error)


def test_lists_that_differ():
    first, second, third = workers(3)
    errors = meet([([first, second], 0, 2), ([first, second, third], 1, 2)])
    assert any(
        isinstance(e, ValueError) and f"{first}, {second}" in str(e) and third in str(e) for e in errors
    )


def test_two_workers_of_one_index():
    listed = workers(2)
    with pytest.raises(TimeoutError, match="Missing"):
        meet_workers(listed, 1, 0.3)
    errors = meet([(listed, 0, 1), (listed, 0, 1)])
    assert any(isinstance(e, OSError) and "cannot be opened" in str(e) for e in errors)
