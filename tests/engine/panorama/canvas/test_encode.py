import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zellige.engine.panorama.canvas.encode import WORKERS, Encoder, Seconds, in_threads
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
        time.sleep(0.001 * (place.left % 3))
        return place.left

    put_all(Encoder(Path("a"), (16, 16), encode, came.extend, Seconds()), 50)
    assert came == list(range(50)) and threads_left() == []


def test_a_renderer_is_only_some_tiles_ahead_of_a_slow_writer() -> None:
    """The queue is bounded, so that memory does not grow when the disk is slower than the renderer."""
    release, begun = threading.Event(), []

    def encode(tile: np.ndarray, place: Region) -> int:
        begun.append(place.left)
        return place.left

    def drain(results: Iterator[int]) -> None:
        release.wait(60)
        for _ in results:
            pass

    encoder = Encoder(Path("a"), (16, 16), encode, drain, Seconds())
    rendering = threading.Thread(target=put_all, args=(encoder, 100), daemon=True)
    rendering.start()
    rendering.join(timeout=0.2)
    assert rendering.is_alive() and len(begun) <= 5 * WORKERS + 2
    release.set()
    rendering.join(timeout=60)
    assert begun == list(range(100)) or sorted(begun) == list(range(100))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a codec's own")])
def test_an_error_of_the_codec_ends_the_run_in_one_sentence(error: Exception) -> None:
    def encode(tile: np.ndarray, place: Region) -> int:
        if place.left == 3:
            raise error
        return place.left

    with pytest.raises(OutputError, match="a cannot be written: .*(No space left|a codec's own)"):
        run_to_the_end(lambda: put_all(Encoder(Path("a"), (16, 16), encode, lambda r: [*r] and None, Seconds()), 100))
    assert threads_left() == []


def test_the_seconds_are_told_apart() -> None:
    seconds = Seconds()

    def encode(tile: np.ndarray, place: Region) -> int:
        time.sleep(0.004)
        return 0

    def drain(results: Iterator[int]) -> None:
        for _ in results:
            time.sleep(0.002)

    put_all(Encoder(Path("a"), (16, 16), encode, drain, seconds), 20)
    assert seconds.encode >= 20 * 0.004 and seconds.write >= 20 * 0.002


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
