from pathlib import Path

import pytest

from zellige.engine.files.cache import cache_folder


def test_the_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.setenv("ZELLIGE_CACHE", "")
    assert cache_folder() == Path("/b/zellige")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert cache_folder() == Path("/c/.cache/zellige")


@pytest.mark.parametrize("name", ["ZELLIGE_CACHE", "XDG_CACHE_HOME"])
def test_a_tilde_is_the_users_home(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZELLIGE_CACHE")
    monkeypatch.setenv("HOME", "/c")
    monkeypatch.setenv(name, "~/x")
    assert cache_folder() in (Path("/c/x"), Path("/c/x/zellige"))


def test_a_relative_folder_stays_where_it_is_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZELLIGE_CACHE", "x")
    assert cache_folder() == tmp_path / "x"
