import json
from pathlib import Path

import pytest
from PIL import Image

from zellige.benchmarks.training_curves import draw
from zellige.errors import DataError

pytest.importorskip("matplotlib")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [{"step": step, "critic": 1 / step} | ({"mask": step / 9} if step > 4 else {}) for step in range(1, 9)]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_list_of_keys_is_a_panel(log: Path) -> None:
    sizes = []
    for panels in ([["critic"]], [["critic", "mask"], ["mask"]]):
        draw(log, log.with_name("curves.png"), panels)
        sizes.append(Image.open(log.with_name("curves.png")).size)
    assert sizes[1][0] == 2 * sizes[0][0] and sizes[1][1] == sizes[0][1]


def test_a_key_that_the_log_has_not_is_refused_with_those_that_it_has(log: Path) -> None:
    with pytest.raises(DataError, match=r"log\.jsonl holds no 'loss'; it holds critic, mask, step$"):
        draw(log, log.with_name("curves.png"), [["critic"], ["loss"]])
    assert not log.with_name("curves.png").exists()
