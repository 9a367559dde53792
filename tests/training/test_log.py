"""A log that was damaged is mended without losing a line, and says so."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from zellige.errors import OutputError
from zellige.training.log import Log, forget_after
from zellige.training.run_folder import RunFolder

GOOD = [b'{"step": 1, "critic": 0.5}\n', b'{"step": 2, "critic": 0.25}\n']
DAMAGED = {
    "number": b"5", "array": b"[1]", "text": b'"x"', "null": b"null", "deep": b"[" * 100_000, "half": b'{"st',
    "not UTF-8": b'{"step": 1, "\xff": 0}', "step of null": b'{"step": null}', "step of text": b'{"step": "1"}',
    "negative step": b'{"step": -1}', "step of true": b'{"step": true}', "no step": b"{}",
    
    "many digits": b'{"step": ' + b"9" * 5000 + b"}", "empty": b"", "zeros": b"\0" * 50,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "log.jsonl").write_bytes(b"".join(GOOD))
    return RunFolder(tmp_path)


@pytest.mark.parametrize("kind", DAMAGED)
def test_line_that_is_none_is_set_aside_and_said(
    kind: str, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.log.write_bytes(GOOD[0] + DAMAGED[kind] + b"\n" + GOOD[1])
    forget_after(folder, 2)
    assert folder.log.read_bytes() == b"".join(GOOD)
    assert folder.damaged.read_bytes() == DAMAGED[kind] + b"\n"
    assert f"1 lines of {folder.log} cannot be read and are set aside in log.jsonl.damaged" in caplog.text


def test_lines_that_are_set_aside_stay_with_those_of_before(folder: RunFolder) -> None:
    for line in (b"5\n", b"6\n"):
        with folder.log.open("ab") as log:
            log.write(line)
        forget_after(folder, 2)
    assert folder.damaged.read_bytes() == b"5\n6\n"


def test_line_that_a_crash_cut_is_dropped(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    folder.log.write_bytes(b"".join(GOOD) + b'{"step": 3, "cri')
    forget_after(folder, 2)
    assert folder.log.read_bytes() == b"".join(GOOD) and not folder.damaged.exists() and not caplog.records


def test_steps_that_are_done_again_are_dropped(folder: RunFolder) -> None:
    forget_after(folder, 1)
    assert folder.log.read_bytes() == GOOD[0]


def test_lines_go_on_after_a_way_back(folder: RunFolder) -> None:
    with Log(folder, 2) as log:
        log(3, {"critic": 1.0})
        log.back_to(1)
        log(2, {"critic": 2.0})
    assert [json.loads(line)["step"] for line in folder.log.read_text().splitlines()] == [1, 2]


def test_full_disk_is_said(folder: RunFolder) -> None:
    folder.log.unlink()
    folder.log.symlink_to("/dev/full")
    with Log(folder, 2) as log, pytest.raises(OutputError, match="cannot be written: No space left on device"):
        log(3, {"critic": 1.0})


def test_full_disk_is_not_said_by_a_thread_too(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    hook = threading.excepthook

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.RecordWriter, "write", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"), Log(folder, 2):
        pass
    assert capfd.readouterr().err == "" and threading.excepthook is hook
