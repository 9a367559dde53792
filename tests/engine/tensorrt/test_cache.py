"""An engine is built once, whatever happens to its file and to those who build it: with real files and processes."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from zellige.engine.tensorrt.cache import EngineKey, cached, engines_folder

KEY = EngineKey("ab" * 32, ((1, 8, 32),), ("sm_86", "sm_89"), "", "rtx", {"tensorrt_rtx": "1.7", "zellige": "0.1"})
ENGINE = b"vtrt\n" + bytes(range(256)) * 64

# A process that builds: says so on its output, then does what the line says, and prints what it got.
BUILDER = """
import sys
from zellige.engine.tensorrt.cache import EngineKey, cached

def build():
    print("builds", flush=True)
    return eval(sys.stdin.readline())

print(len(cached({key!r}, build)), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def builds() -> list[bytes]:
    """What was built, in order."""
    return []


def building(builds: list[bytes], content: bytes = ENGINE) -> Callable[[], bytes]:
    def build() -> bytes:
        builds.append(content)
        return content

    return build


def builder(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER.format(key=KEY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"ZELLIGE_CACHE": str(folder.parent)},
    )  # fmt: skip


def said(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def told(process: "subprocess.Popen[bytes]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def test_an_engine_is_built_once_and_read_by_the_next(folder: Path, builds: list[bytes]) -> None:
    assert [cached(KEY, building(builds)) for _ in range(3)] == [ENGINE] * 3
    assert builds == [ENGINE]
    assert [path.name for path in folder.iterdir()] == [f"{KEY.name}.engine"]


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, graph="cd" * 32), replace(KEY, profiles=((1, 8, 16),)), replace(KEY, profiles=((1, 8, 32),) * 2),
        replace(KEY, targets=("sm_86",)), replace(KEY, device="NVIDIA H200"), replace(KEY, flavour="full"),
        replace(KEY, versions={"tensorrt_rtx": "1.8", "zellige": "0.1"}),
    ],
)  # fmt: skip
def test_whatever_an_engine_depends_on_makes_another_one(other: EngineKey, folder: Path, builds: list[bytes]) -> None:
    cached(KEY, building(builds))
    assert cached(other, building(builds, b"another")) == b"another"
    assert cached(KEY, building(builds)) == ENGINE and len(builds) == 2


def test_the_same_facts_in_another_order_are_the_same_key() -> None:
    assert replace(KEY, versions=dict(reversed(KEY.versions.items()))).name == KEY.name


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"", lambda content: content[:-1], lambda content: content + b"\0",
        lambda content: content[: len(content) // 2], lambda content: content[:-7] + b"\xff" + content[-6:],
        lambda content: content.replace(b'"format": 1', b'"format": 2'),
        lambda content: content.replace(b"sm_86", b"sm_80"), lambda content: b"[" * 100_000 + b"\n" + content,
        lambda content: b"null\n" + content, lambda content: ENGINE, lambda content: b"\n" + content,
    ],
)  # fmt: skip
def test_a_damaged_file_is_built_and_written_anew(
    damage: Callable[[bytes], bytes], folder: Path, builds: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    cached(KEY, building(builds))
    path = folder / f"{KEY.name}.engine"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert cached(KEY, building(builds)) == ENGINE and len(builds) == 2
    assert caplog.messages == [f"{path} is damaged or of another version; the engine is built again"]
    assert path.read_bytes() == sound


def test_a_file_of_another_key_under_this_name_is_not_taken(folder: Path, builds: list[bytes]) -> None:
    other = replace(KEY, device="another")
    cached(other, building(builds, b"another"))
    (folder / f"{other.name}.engine").rename(folder / f"{KEY.name}.engine")
    assert cached(KEY, building(builds)) == ENGINE


def test_a_build_that_fails_is_tried_again_and_leaves_nothing(folder: Path, builds: list[bytes]) -> None:
    def failing() -> bytes:
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        cached(KEY, failing)
    assert list(folder.iterdir()) == []
    assert cached(KEY, building(builds)) == ENGINE


@pytest.mark.parametrize("where", ["below a file", "/proc", "a folder in its place"])
def test_a_folder_that_cannot_be_written_is_done_without(
    where: str, tmp_path: Path, builds: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "here" / "engines" / f"{KEY.name}.engine").mkdir(parents=True)
    places = {
        "below a file": tmp_path / "file" / "x",
        "/proc": Path("/proc"),
        "a folder in its place": tmp_path / "here",
    }
    monkeypatch.setenv("ZELLIGE_CACHE", str(places[where]))
    with caplog.at_level(logging.INFO):
        assert [cached(KEY, building(builds)) for _ in range(2)] == [ENGINE] * 2
    assert len(builds) == 2 and "the engine is not kept: " in caplog.text


def test_a_read_only_folder_is_done_without(builds: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.geteuid()
    # Not in tmp_path, into which no other user can look: root writes everywhere, so the test is of nobody then.
    with tempfile.TemporaryDirectory() as place:
        engines = Path(place) / "engines"
        engines.mkdir()
        for folder in (engines, Path(place)):
            folder.chmod(0o555)
        monkeypatch.setenv("ZELLIGE_CACHE", place)
        try:
            os.seteuid(before or 65534)
            assert [cached(KEY, building(builds)) for _ in range(2)] == [ENGINE] * 2
        finally:
            os.seteuid(before)
            Path(place).chmod(0o755)
        assert len(builds) == 2 and list(engines.iterdir()) == []


def test_a_user_without_a_home_goes_without(builds: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("ZELLIGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cached(KEY, building(builds)) == ENGINE


def test_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert engines_folder() == Path("/a/engines")
    monkeypatch.setenv("ZELLIGE_CACHE", "")
    assert engines_folder() == Path("/b/zellige/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert engines_folder() == Path("/c/.cache/zellige/engines")


class TestProcesses:
    def test_of_many_at_once_one_builds_and_all_have_its_engine(self, folder: Path) -> None:
        processes = [builder(folder) for _ in range(4)]
        for process in processes:
            told(process, "b'engine' * 100_000")  # whoever builds reads it
        found = [process.communicate()[0].decode().split("\n") for process in processes]
        assert sorted(lines[-2] for lines in found) == ["600000"] * 4
        assert sum(lines.count("builds") for lines in found) == 1
        assert [path.name for path in folder.iterdir()] == [f"{KEY.name}.engine"]

    def test_who_waits_for_a_builder_that_is_killed_builds(self, folder: Path) -> None:
        first, second = builder(folder), None
        assert said(first) == "builds"
        try:
            second = builder(folder)
            first.send_signal(signal.SIGKILL)
            first.wait()
            assert said(second) == "builds"
            told(second, "b'second'")
            assert said(second) == "6"
        finally:
            for process in (first, second):
                if process is not None:
                    process.kill()
                    process.communicate()
        assert [path.name for path in folder.iterdir()] == [f"{KEY.name}.engine"]

    def test_a_lock_that_a_killed_builder_left_is_no_lock(self, folder: Path, builds: list[bytes]) -> None:
        process = builder(folder)
        assert said(process) == "builds"
        process.kill()
        process.communicate()
        assert (folder / f"{KEY.name}.lock").exists()
        assert cached(KEY, building(builds)) == ENGINE
        assert [path.name for path in folder.iterdir()] == [f"{KEY.name}.engine"]

    def test_a_lock_older_than_the_limit_is_not_waited_for(
        self, folder: Path, builds: list[bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        process = builder(folder)
        try:
            assert said(process) == "builds"  # and hangs
            os.utime(folder / f"{KEY.name}.lock", (0, 0))
            assert cached(KEY, building(builds), expires=60) == ENGINE
            assert "is not waited for any longer" in caplog.text
            told(process, "b'late'")
            assert said(process) == "4"
        finally:
            process.kill()
            process.communicate()
        assert cached(KEY, building(builds)) == b"late" and len(builds) == 1

    def test_what_a_killed_writer_left_is_cleared_away(self, folder: Path, builds: list[bytes]) -> None:
        folder.mkdir(parents=True)
        (left := folder / ".zellige-1234.partial").write_bytes(ENGINE[:100])
        os.utime(left, (0, 0))
        (fresh := folder / ".zellige-5678.partial").write_bytes(ENGINE[:100])  # another process is at it
        cached(KEY, building(builds))
        assert {path.name for path in folder.iterdir()} == {f"{KEY.name}.engine", fresh.name}

    @pytest.mark.parametrize("suffix", [".engine", ".lock"])
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
    def test_no_process_waits_for_what_is_no_file(
        self, make: Callable[[Path], None], suffix: str, folder: Path, builds: list[bytes]
    ) -> None:
        folder.mkdir(parents=True)
        make(folder / f"{KEY.name}{suffix}")
        assert cached(KEY, building(builds)) == ENGINE


def test_the_file_says_what_the_engine_was_built_from(folder: Path, builds: list[bytes]) -> None:
    cached(KEY, building(builds))
    line = json.loads((folder / f"{KEY.name}.engine").read_bytes().split(b"\n")[0])
    assert line["key"] == json.loads(json.dumps(KEY.facts())) and line["key"]["targets"] == ["sm_86", "sm_89"]
