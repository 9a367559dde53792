import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zellige.engine.panorama.canvas.encode import TILES_IN_MEMORY, WORKERS, Encoder, Seconds, in_threads
from zellige.engine.panorama.scene import Region
from zellige.errors import OutputError

from .painting import run_to_the_end, threads_left

TILE = np.zeros((16, 16, 3), np.uint8)


def put_all(encoder: Encoder[int], count: int) -> None:
    try:
        for index in range(count):
            encoder.put(TILE, 0, index)
        encoder.finish()
    finally:
        encoder.abandon()


def test_results_come_in_the_order_of_the_tiles() -> None:
    came: list[int] = []

    def encode(tile: np.ndarray, place: Region) -> int:
        sum(range(100_000 * (place.left % 3)))  # some tiles take longer than those after them
        return place.left

    put_all(Encoder(Path("a"), (16, 16), encode, came.extend, Seconds()), 50)
    assert came == list(range(50)) and threads_left() == []


def test_a_renderer_is_only_some_tiles_ahead_of_a_slow_writer() -> None:
    """The queue is bounded, so that memory does not grow when the disk is slower than the renderer."""
    turn = threading.Condition()
    counts = {"put": 0, "written": 0, "ahead": 0}

    def drain(results: Iterator[int]) -> None:
        for _ in results:
            with turn:  # a writer that waits for as many tiles as the renderer can always put
                turn.wait_for(lambda: counts["put"] >= min(100, counts["written"] + 2 * WORKERS))
                counts["written"] += 1

    def render() -> None:
        encoder = Encoder(Path("a"), (16, 16), lambda tile, place: place.left, drain, Seconds())
        try:
            for index in range(100):
                encoder.put(TILE, 0, index)
                with turn:
                    counts["put"] += 1
                    counts["ahead"] = max(counts["ahead"], counts["put"] - counts["written"])
                    turn.notify_all()
            encoder.finish()
        finally:
            encoder.abandon()

    run_to_the_end(render)
    assert 2 * WORKERS <= counts["ahead"] <= TILES_IN_MEMORY and counts["written"] == 100


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a codec's own")])
def test_an_error_of_the_codec_ends_the_run_in_one_sentence(error: Exception) -> None:
    def encode(tile: np.ndarray, place: Region) -> int:
        if place.left == 3:
            raise error
        return place.left

    with pytest.raises(OutputError, match="a cannot be written: .*(No space left|a codec's own)"):
        run_to_the_end(lambda: put_all(Encoder(Path("a"), (16, 16), encode, lambda r: [*r] and None, Seconds()), 100))
    assert threads_left() == []


def test_the_seconds_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = threading.local()  # each thread has a clock, which stands still while others work
    monkeypatch.setattr(time, "perf_counter", lambda: getattr(clock, "now", 0.0))

    def spend(seconds: float) -> int:
        clock.now = time.perf_counter() + seconds
        return 0

    def drain(results: Iterator[int]) -> None:
        for _ in results:
            spend(2.0)

    seconds = Seconds()
    put_all(Encoder(Path("a"), (16, 16), lambda tile, place: spend(4.0), drain, seconds), 20)
    assert (seconds.encode, seconds.write) == (80.0, 40.0)


def test_in_threads_does_all_numbers_once() -> None:
    done: list[int] = []
    in_threads(done.append, 1000)
    assert sorted(done) == list(range(1000))


def test_in_threads_stops_at_an_error() -> None:
    done: list[int] = []

    def action(number: int) -> None:
        done.append(number)
        if number == 5:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        in_threads(action, 10**6)
    assert len(done) < 10**6 and threads_left() == []
