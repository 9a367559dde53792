"""Whatever happens, a target is as it was, or complete."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zellige.engine.files.atomic import AtomicFile, AtomicFolder, partial_of, take_name, write_file
from zellige.errors import OutputError


class TestFiles:
    def test_the_file_appears_when_it_is_complete(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"old")
        with AtomicFile(tmp_path / "a") as file:
            file.write(b"new")
            file.flush()
            assert (tmp_path / "a").read_bytes() == b"old"
        assert (tmp_path / "a").read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"old")
        with pytest.raises(KeyError), AtomicFile(tmp_path / "a") as file:
            file.write(b"new")
            raise KeyError
        assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]

    def test_parts_are_written_one_behind_the_other(self, tmp_path: Path) -> None:
        write_file(tmp_path / "a", b"1", b"", b"23")
        assert (tmp_path / "a").read_bytes() == b"123"

    @pytest.mark.parametrize(
        "write", [lambda path: write_file(path, b"new"), lambda path: take_name(drafted(path), path)]
    )
    def test_a_link_stays_and_its_target_is_replaced(self, tmp_path: Path, write: Callable[[Path], None]) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "real").write_bytes(b"old")
        (tmp_path / "link").symlink_to("elsewhere/real")
        write(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "elsewhere" / "real").read_bytes() == b"new"

    @pytest.mark.parametrize(
        ("make", "sentence"),
        [
            (os.mkdir, "is a folder; give the name of a file in it."),
            (os.mkfifo, "is a device or a pipe; give the name of an ordinary file."),
            (lambda path: os.symlink("/dev/null", path), "is a device or a pipe; give the name of an ordinary file."),
            (lambda path: os.symlink("none/there", path), "create it."),
        ],
    )
    def test_a_target_that_is_no_file_is_refused(
        self, tmp_path: Path, make: Callable[[Path], None], sentence: str
    ) -> None:
        make(tmp_path / "a")
        with pytest.raises(OutputError, match=f"{sentence}$"):
            write_file(tmp_path / "a", b"new")

    def test_a_name_with_a_nul_character_is_refused(self) -> None:
        with pytest.raises(OutputError, match="choose another name"):
            write_file("a\0b", b"new")

    def test_a_full_disk_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with (
            pytest.raises(OutputError, match="No space left on device. Free some space"),
            open("/dev/full", "wb", buffering=0) as full,
            AtomicFile(tmp_path / "a") as file,
        ):
            os.dup2(full.fileno(), file.fileno())
            file.write(b"new")
        assert os.listdir(tmp_path) == []


def drafted(path: Path) -> Path:
    draft = path.with_name("draft")
    draft.write_bytes(b"new")
    return draft


class TestFolders:
    def test_the_folder_appears_when_it_is_complete(self, tmp_path: Path) -> None:
        with AtomicFolder(tmp_path / "new" / "a") as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "file").write_bytes(b"1")
            assert not (tmp_path / "new" / "a").exists()
        assert (tmp_path / "new" / "a" / "inner" / "file").read_bytes() == b"1"
        assert os.listdir(tmp_path / "new") == ["a"]

    def test_a_failure_leaves_nothing_not_even_parents(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), AtomicFolder(tmp_path / "new" / "a") as folder:
            (folder / "file").write_bytes(b"1")
            raise KeyError
        assert os.listdir(tmp_path) == []

    def test_parents_in_which_others_put_something_stay(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), AtomicFolder(tmp_path / "new" / "a"):
            (tmp_path / "new" / "other").touch()
            raise KeyError
        assert os.listdir(tmp_path / "new") == ["other"]

    def test_an_empty_folder_is_replaced_and_a_full_one_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with AtomicFolder(tmp_path / "a") as folder:
            (folder / "file").write_bytes(b"1")
        with pytest.raises(OutputError, match="is there already; remove it, or give another name"):
            AtomicFolder(tmp_path / "a")
        assert os.listdir(tmp_path / "a") == ["file"]

    def test_a_file_in_place_of_a_parent_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot be written"), AtomicFolder(tmp_path / "file" / "a"):
            pass
        assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_may_be_replaced_goes_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "older").write_text("older")
    with AtomicFolder(tmp_path / "a", lambda folder: (folder / "older").exists()) as folder:
        (folder / "newer").write_text("newer")
        assert (tmp_path / "a" / "older").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "newer"]


def test_an_older_folder_stays_if_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "older").write_text("older")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if (Path(source) / "newer").exists():
            raise OSError("refused")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(OutputError, match="refused"),
        AtomicFolder(tmp_path / "a", lambda folder: True) as folder,
    ):
        (folder / "newer").write_text("newer")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "older"]


def test_a_folder_that_others_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is there already"), AtomicFolder(tmp_path / "a"):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").write_text("theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "theirs"]


def test_a_part_of_the_new_folder_may_take_the_name(tmp_path: Path) -> None:
    output = AtomicFolder(tmp_path / "a")
    (output.open() / "part").mkdir()
    (tmp_path / next(tmp_path.iterdir()) / "scratch").write_text("scratch")
    output.commit("part")
    output.discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize(("name", "reason"), [("missing/a", "there is no folder"), ("file/a", "there is no folder")])
def test_a_folder_is_checked_before_it_is_needed(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match=reason):
        AtomicFolder(tmp_path / name).check()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_partial_has_a_fixed_name_beside_the_file_that_a_link_means(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tif").symlink_to("folder/a.tif")
    assert partial_of(tmp_path / "link.tif") == partial_of(tmp_path / "folder" / "a.tif")
    assert partial_of(tmp_path / "a.tif") == tmp_path / ".zellige-a.tif.partial"
    assert partial_of(tmp_path / "a.tif", "journal") == tmp_path / ".zellige-a.tif.journal"
    long = {partial_of(tmp_path / f"{'ä' * 120}{k}").name for k in range(2)}
    assert len(long) == 2 and all(len(name.encode()) < 255 for name in long)


def test_a_released_file_is_opened_again_with_its_content(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.tif")
    output.open(fixed=True).write(b"half")
    output.release()
    assert partial_of(tmp_path / "a.tif").read_bytes() == b"half"
    output = AtomicFile(tmp_path / "a.tif")
    file = output.open(fixed=True, resume=True)
    assert file.read() == b"half"
    file.write(b" and half")
    output.commit()
    assert (tmp_path / "a.tif").read_bytes() == b"half and half" and len(list(tmp_path.iterdir())) == 1


def test_a_link_in_place_of_a_partial_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    partial_of(tmp_path / "a.tif").symlink_to("theirs")
    with pytest.raises(OutputError, match=r"a\.tif cannot be written"):
        AtomicFile(tmp_path / "a.tif").open(fixed=True, resume=True)
    output = AtomicFile(tmp_path / "a.tif")
    output.open(fixed=True).write(b"ours")
    output.commit()
    assert (tmp_path / "theirs").read_bytes() == b"theirs" and (tmp_path / "a.tif").read_bytes() == b"ours"
