import json
import logging
import math

import pytest

from zellige.cli.printing import LogLines, report

FOUND = {"iou": 0.51171, "per_class": [{"name": "red heart", "iou": 0.25, "cluster": None}], "files": ["a.png"]}


def printed(capsys: pytest.CaptureFixture[str], **values: object) -> str:
    report(values, as_json=False)
    return capsys.readouterr().out


def test_lists_of_rows_become_tables_below_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    report(FOUND, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["iou", "0.5117"], ["files", "a.png"],
        ["per_class"], ["name", "iou", "cluster"], ["red", "heart", "0.25"],
    ]  # fmt: skip


def test_json_is_one_line_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    report(FOUND, as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out) == FOUND


def test_json_has_null_for_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    report({"a": math.inf, "b": [math.nan, 1.5], "c": {"d": -math.inf}, "e": (math.nan,)}, as_json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": [None]}


@pytest.mark.parametrize("name", ["run[/1]", "a[b]c", ":smile:.png", "[bold]x[/bold]", r"back\[slash]"])
def test_names_are_no_markup(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert printed(capsys, out=name) == f"out  {name}\n"
    assert printed(capsys, rows=[{name: name}]).split() == ["rows", name, name]


def test_a_pipe_gets_long_paths_whole(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/deep" * 100 + "/file.png"
    assert path in printed(capsys, out=path)
    assert path in printed(capsys, rows=[{"path": path, "other": path}])


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, out="a\nb\x1b[2Jc\udcff") == "out  a\\nb\\x1b[2Jc\\udcff\n"


def test_log_lines_are_whole_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "left out: [/x] :smile: " + "long " * 100 + "end"
    LogLines().emit(logging.makeLogRecord({"msg": text, "levelname": "WARNING"}))
    assert capsys.readouterr() == ("", f"zellige: warning: {text}\n")


def test_bytes_have_a_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, bytes=1536, peak_memory_bytes=3 << 29).split() == [
        "size", "1.5", "KiB", "peak_memory", "1.5", "GiB",
    ]  # fmt: skip
