import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.journal import Journal, journal_of
from zellige.errors import OutputError, ResumeError, ZelligeError

PICTURE = {"model": "ab" * 32, "seed": 3, "size": [64, 24], "region": None, "precision": "fp32", "soften": 0.5}
FACTS = {"format": ".tif", "tile": [16, 16]}


@contextmanager
def journal(folder: Path, *, resume: bool = False, **other: Any) -> Iterator[Journal]:
    made = Journal(folder / "a.tif", PICTURE | other, resume=resume)
    with made.opened(folder / "partial", FACTS) as opened:
        yield opened


def killed(folder: Path, lines: int = 2) -> bytes:
    """What a killed process leaves: two tiles a line, of 10 bytes each."""
    (folder / "partial").write_bytes(b"")
    with journal(folder) as opened:
        opened.clear()
        opened.begin((2, 3), 4, 2, 8, {"seed": "3"})
        for k in range(1, lines + 1):
            opened.note(2 * k, [10, 10], 100 + 20 * k)
        content = journal_of(folder / "a.tif").read_bytes()
    journal_of(folder / "a.tif").write_bytes(content)
    return content


def test_a_resume_finds_what_was_noted(tmp_path: Path) -> None:
    killed(tmp_path)
    with journal(tmp_path, resume=True) as opened:
        assert opened.resumed and (opened.tiles, [*opened.lengths], opened.end) == (4, [10] * 4, 140)
        assert (opened.block, opened.batch, opened.together, opened.metadata) == ((2, 3), 4, 2, {"seed": "3"})
    assert [path.name for path in tmp_path.iterdir()] == ["partial"]  # the journal is gone when the picture is complete


def test_a_last_line_that_was_cut_is_dropped_wherever_it_was_cut(tmp_path: Path) -> None:
    content = killed(tmp_path)
    before = len(content[: content.rstrip().rfind(b"\n")]) + 1
    for length in range(before, len(content)):
        journal_of(tmp_path / "a.tif").write_bytes(content[:length])
        with pytest.raises(KeyError), journal(tmp_path, resume=True) as opened:
            assert (opened.tiles, opened.end) == (2, 120)
            opened.clear()
            opened.note(3, [7], 127)
            raise KeyError
        with pytest.raises(KeyError), journal(tmp_path, resume=True) as opened:
            assert (opened.tiles, [*opened.lengths], opened.end) == (3, [10, 10, 7], 127)
            raise KeyError


@pytest.mark.parametrize("left", ["nothing", "no partial", "an empty journal", "half a line", "no tile"])
def test_nothing_to_resume_begins_anew_and_says_so(tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture) -> None:
    if left != "nothing":
        content = killed(tmp_path, lines=0 if left == "no tile" else 2)
        if left == "no partial":
            (tmp_path / "partial").unlink()
        if left in ("an empty journal", "half a line"):
            journal_of(tmp_path / "a.tif").write_bytes(content[: 20 if left == "half a line" else 0])
    with journal(tmp_path, resume=True) as opened:
        assert not opened.resumed and (opened.tiles, opened.end, len(opened.lengths)) == (0, 0, 0)
        opened.clear()
        opened.begin((2, 3), 1, 1, 1, {})
        assert json.loads(journal_of(tmp_path / "a.tif").read_bytes())["picture"]["seed"] == 3
    assert "a.tif has no unfinished part to resume, so it is begun anew" in caplog.text


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"seed": 4}, "was begun with the seed 3 and cannot go on with 4."),
        ({"model": "cd" * 32}, "was begun with the model abababababab and cannot go on with cdcdcdcdcdcd."),
        ({"size": [96, 24]}, r"was begun with the size \[64, 24\] and cannot go on with \[96, 24\]."),
        ({"region": [0, 0, 1, 1]}, "was begun with the region nothing and cannot go on with"),
        ({"precision": "bf16"}, "was begun with the precision fp32 and"),
        ({"soften": 1.0}, "was begun with the soften 0.5 and"),
        ({"map": "ef" * 32}, "was begun with the map nothing and cannot go on with efefefefefef."),
    ],
)
def test_another_picture_is_refused_and_the_unfinished_one_stays(
    tmp_path: Path, other: dict[str, Any], sentence: str
) -> None:
    content = killed(tmp_path)
    with pytest.raises(ResumeError, match=sentence), journal(tmp_path, resume=True, **other):
        pass
    assert journal_of(tmp_path / "a.tif").read_bytes() == content
    with journal(tmp_path, resume=True) as opened:
        assert opened.tiles == 4


def line(**changes: Any) -> bytes:
    return json.dumps({"tiles": 5, "bytes": [10], "end": 150} | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 30 + b"\n", b"\xff\xfe\n", b"[]\n", b"null\n", b"{}\n", b"[" * 10**5 + b"\n", b"9" * 5000 + b"\n",
        line(tiles=4), line(tiles=0), line(tiles=-1), line(tiles=10**30), line(tiles=6), line(tiles="5"),
        line(bytes=[]), line(bytes=[0]), line(bytes=[-10], end=130), line(bytes=[10**30]), line(end=149),
        line(end=10**30), line(more=1),
    ],
)  # fmt: skip
def test_a_damaged_line_is_one_sentence_and_changes_nothing(tmp_path: Path, damage: bytes) -> None:
    content = killed(tmp_path) + damage
    journal_of(tmp_path / "a.tif").write_bytes(content)
    with (
        pytest.raises(ResumeError, match=r"line 4 of .*journal is damaged .* Begin anew without --resume\."),
        journal(tmp_path, resume=True),
    ):
        pass
    assert journal_of(tmp_path / "a.tif").read_bytes() == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIRST = st.fixed_dictionaries(
    {},
    optional={
        "journal": st.just(1) | JSON,
        "picture": st.just(json.loads(json.dumps(PICTURE | FACTS))) | JSON,
        "block": st.lists(st.integers(0, 9), min_size=2, max_size=2) | JSON,
        "batch": st.integers(0, 9) | JSON,
        "together": st.integers(0, 9) | JSON,
        "threads": st.integers(0, 3) | JSON,
        "forms": st.none() | JSON,
        "metadata": st.just({}) | JSON,
    },
)
LINE = st.fixed_dictionaries(
    {"tiles": st.integers(-1, 9) | JSON},
    optional={"bytes": st.lists(st.integers(-1, 9), max_size=3) | JSON, "end": st.integers(-1, 99) | JSON, "x": JSON},
)
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.tuples(FIRST, st.lists(LINE, max_size=3), st.binary(max_size=9)).map(
        lambda parts: b"\n".join([*(json.dumps(part).encode() for part in [parts[0], *parts[1]]), parts[2]])
    ),
    st.tuples(st.integers(0, 600), st.integers(0, 600), st.binary(max_size=9)),
)


@settings(max_examples=400)
@example(content=b"")
@given(content=CONTENT)
def test_only_our_errors_escape_from_any_content(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | tuple[int, int, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    valid = killed(folder)
    if isinstance(content, tuple):  # a valid journal in which a part is another one
        start, length, part = content
        content = valid[:start] + part + valid[start + length :]
    path = journal_of(folder / "a.tif")
    path.write_bytes(content)
    try:
        with journal(folder, resume=True) as opened:
            assert opened.resumed == (opened.tiles > 0)
            assert len(opened.lengths) in (0, opened.tiles) and sum(opened.lengths) <= opened.end
    except ZelligeError as error:
        assert str(error).count("\n") == 0
        assert path.read_bytes() == content


def test_two_processes_do_not_write_one_picture(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.journal import Journal
with Journal(Path({str(tmp_path / "a.tif")!r}), {{}}).opened(Path("partial"), {{}}) as opened:
    opened.clear()
    opened.begin((2, 3), 1, 1, 1, {{}})
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        for resume in (False, True):
            with (
                pytest.raises(OutputError, match=r"another process is rendering .*a\.tif; wait until it ends"),
                journal(tmp_path, resume=resume),
            ):
                pass
        assert journal_of(tmp_path / "a.tif").stat().st_size  # which is the other's
        other.kill()  # the lock ends with its process
        other.wait()
        with journal(tmp_path) as opened:
            opened.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(journal_of(tmp_path / "a.tif"))
    with pytest.raises(OutputError, match=r"a\.tif cannot be written"), journal(tmp_path):
        pass


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    journal_of(tmp_path / "a.tif").symlink_to("theirs")
    with pytest.raises(OutputError, match=r"a\.tif cannot be written"), journal(tmp_path):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_a_failed_run_leaves_a_journal_only_if_it_was_to_be_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for resume in (False, True):
        with pytest.raises(KeyError), journal(tmp_path, resume=resume) as opened:
            opened.clear()
            opened.begin((2, 3), 1, 1, 1, {})
            opened.note(1, [10], 110)
            raise KeyError
        assert journal_of(tmp_path / "a.tif").exists() == resume
    assert "a.tif stays unfinished; the same command goes on behind tile 1" in caplog.text


def test_a_refusal_before_the_first_tile_leaves_an_older_journal(tmp_path: Path) -> None:
    content = killed(tmp_path)
    with pytest.raises(KeyError), journal(tmp_path):
        raise KeyError
    assert journal_of(tmp_path / "a.tif").read_bytes() == content


def test_a_line_is_due_where_tiles_that_were_composed_together_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal(tmp_path) as opened:
        opened.clear()
        opened.begin((2, 3), 1, 3, 8, {})
        assert not any(opened.due(tiles) for tiles in range(1, 20))  # a second has not passed
        monkeypatch.setattr(journals, "_SECONDS", 0)
        assert [tiles for tiles in range(1, 20) if opened.due(tiles)] == [3, 6, 8, 11, 14, 16, 19]
