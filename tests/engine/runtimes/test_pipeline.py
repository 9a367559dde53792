import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.runtimes.pipeline import Turn, overlapped
from zellige.errors import TaskError


def test_the_next_job_is_submitted_before_a_result_is_waited_for() -> None:
    events = []
    for job, result in overlapped(
        "abc", lambda k, job: events.append(f"submit {job}"), lambda k, job: events.append(f"collect {job}") or job
    ):
        events.append(f"read {result}")
        assert job == result
    assert events == [
        "submit a", "submit b", "collect a", "read a", "submit c", "collect b", "read b", "collect c", "read c",
    ]  # fmt: skip


@given(st.integers(0, 20))
def test_two_slots_in_turn_never_hold_a_result_that_is_still_read(count: int) -> None:
    slots: list[int | None] = [None, None]

    def submit(number: int, job: int) -> None:
        slots[number % 2] = job

    found = []
    for job, slot in overlapped(range(count), submit, lambda number, job: number % 2):
        assert slots[slot] == job
        found.append(job)
    assert found == list(range(count))


def test_other_threads_wait_for_their_turn() -> None:
    turn, events = Turn(), []

    def second() -> None:
        with turn.taken():
            events.append("second")

    with turn.taken():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.02)
        events.append("first")
    thread.join()
    assert events == ["first", "second"]


def test_a_run_inside_a_run_is_refused() -> None:
    turn = Turn()
    sentence = "this runtime is amid another run, whose buffers it needs; read that run to its end first"
    with turn.taken(), pytest.raises(TaskError, match=f"^{sentence}$"), turn.taken():
        pass
    with turn.taken():
        pass
