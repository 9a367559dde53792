import json

import pytest

from zellige.cli.options import report

FOUND = {"iou": 0.51171, "per_class": [{"name": "red heart", "iou": 0.25, "cluster": None}], "files": ["a.png"]}


def test_lists_of_rows_become_tables_below_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    report(FOUND, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["iou", "0.5117"], ["files", '["a.png"]'],
        ["per_class"], ["name", "iou", "cluster"], ["red", "heart", "0.25"],
    ]  # fmt: skip


def test_json_is_one_line_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    report(FOUND, as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out) == FOUND
