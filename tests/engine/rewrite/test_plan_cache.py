"""What was measured is kept on disk for all processes, whatever happens to the file."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.convolutions import CodedConv, UpConv
from zellige.engine.rewrite import plan_cache
from zellige.engine.rewrite.forms import forms
from zellige.engine.rewrite.plan import AS_TRAINED, plan

from .judge import layer, random
from .timed import Timer, Tiny, by_layer, folder, given, run, subject, timer

__all__ = ["folder", "timer"]


def test_is_written_once_and_read_by_the_next(timer: Timer, folder: Path) -> None:
    timed = timer(PhaseUpConv=0.5)
    network = Tiny()
    first = plan(network, run(network))
    assert timed and not any(choice.cached for choice in first)
    content = (folder / "rewrites.json").read_bytes()
    timed.clear()
    network = Tiny()
    second = plan(network, run(network))
    assert not timed and all(choice.cached for choice in second)
    assert first == second and (folder / "rewrites.json").read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["rewrites.json"]


def test_layers_that_are_alike_are_measured_once(timer: Timer) -> None:
    timed = timer()
    network = nn.Sequential(*(layer(UpConv, 8, 8, "zeros", seed=k) for k in range(3)))
    x = random(1, 8, 4, 4, dtype=torch.float32)
    plan(network, lambda: [part(x) for part in network])
    assert {form for form in timed if isinstance(form, UpConv)} == {network[0]}


def test_does_not_take_the_time_of_one_for_another(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    x, code = given()
    last = torch.channels_last
    cases: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "first": (layer(UpConv, 3, 8, "zeros"), (x,)),
        "dtype": (layer(UpConv, 3, 8, "zeros").bfloat16(), (x.bfloat16(),)),
        "dtype of the map": (layer(UpConv, 3, 8, "zeros"), (x.double(),)),
        "batch": (layer(UpConv, 3, 8, "zeros"), (x[:1].clone(memory_format=last),)),
        "size": (layer(UpConv, 3, 8, "zeros"), (x[..., 1:].clone(memory_format=last),)),
        "memory order": (layer(UpConv, 3, 8, "zeros"), (x.contiguous(),)),
        "outputs": (layer(UpConv, 3, 9, "zeros"), (x,)),
        "padding": (layer(UpConv, 3, 8, "replicate"), (x,)),
        "no padding": (layer(UpConv, 3, 8, "none"), (x,)),
        "bias": (layer(UpConv, 3, 8, "zeros", bias=False), (x,)),
        "kind": (layer(CodedConv, 4, 3, 8), (x, code)),
    }
    keys = {name: subject._key(part, inputs) for name, (part, inputs) in cases.items()}
    assert len(set(keys.values())) == len(cases)
    key = keys["first"]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert subject._key(*cases["first"]) != key
    torch.set_num_threads(before)
    assert subject._key(*cases["first"]) == key
    for versioned in (subject, torch):  # this package's version, and torch's
        with monkeypatch.context() as patch:
            patch.setattr(versioned, "__version__", "9.9")
            subject._machine.cache_clear()
            assert "9.9" in subject._key(*cases["first"]) != key
    subject._machine.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(subject, "processor", lambda: "another processor")
        subject._machine.cache_clear()
        assert "another processor" in subject._key(*cases["first"])
    subject._machine.cache_clear()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000, b"null", b'"text"', b"3", b'{"key": 3}', b'{"key": {}}',
        b'{"key": []}', b'{"key": null}', b"\0" * 100,
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_damaged_file_is_measured_and_written_anew(timer: Timer, folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "rewrites.json").write_bytes(content)
    timed, network = timer(PhaseUpConv=0.5), Tiny()
    first = plan(network, run(network))
    assert timed
    timed.clear()
    assert plan(network, run(network)) == first and not timed


@pytest.mark.parametrize("name", ["rewrites.json", "rewrites.lock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_not_waited_for(timer: Timer, folder: Path, make: Any, name: str) -> None:
    timer(PhaseUpConv=0.5)
    folder.mkdir()
    make(folder / name)
    network = Tiny()
    assert plan(network, run(network))


@pytest.mark.parametrize(
    "times",
    [
        '{"as trained": NaN, "phases": 1.0}', '{"as trained": 1.0, "phases": Infinity}',
        '{"as trained": 1.0, "phases": 0}', '{"as trained": -1.0, "phases": 1.0}',
        '{"as trained": 1.0, "phases": "1.0"}', '{"as trained": 1.0, "phases": true}',
        '{"as trained": 1.0, "phases": null}', '{"as trained": 1.0, "phases": [1.0]}',
        '{"as trained": 1.0}', '{"phases": 1.0}', '{"as trained": 1.0, "phases": 1.0, "older": 1.0}',
        f'{{"as trained": 1.0, "phases": 1{"0" * 400}}}', '[1.0, 2.0]',
    ],
    ids=lambda times: times[:48],
)  # fmt: skip
def test_an_entry_that_is_foreign_or_outdated_is_replaced_and_others_stay(
    timer: Timer, folder: Path, times: str
) -> None:
    timed = timer(PhaseUpConv=0.5)
    network = nn.Sequential(layer(UpConv, 3, 8, "zeros"))
    expected = plan(network, lambda: network(given()[0]))
    file = folder / "rewrites.json"
    (key,) = json.loads(file.read_text())
    file.write_text(f'{{{json.dumps(key)}: {times}, "other": {{"as trained": 2.0, "x": 1.0}}}}')
    timed.clear()
    assert plan(network, lambda: network(given()[0])) == expected and timed
    stored = json.loads(file.read_text())
    assert stored == {key: {"as trained": 1.0, "phases": 0.5}, "other": {"as trained": 2.0, "x": 1.0}}
    timed.clear()
    assert plan(network, lambda: network(given()[0])) == expected and not timed


@pytest.mark.parametrize("where", ["below a file", "a folder in its place", "/proc"])
def test_a_folder_that_cannot_be_written_is_done_without(
    timer: Timer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "here" / "rewrites.json").mkdir(parents=True)
    places = {"below a file": tmp_path / "file" / "x", "a folder in its place": tmp_path / "here", "/proc": "/proc"}
    monkeypatch.setenv("ZELLIGE_CACHE", str(places[where]))
    timed, network = timer(PhaseUpConv=0.5), Tiny()
    with caplog.at_level(logging.INFO):
        first = plan(network, run(network))
    assert "the choice of rewrites is not kept: " in caplog.messages[-1]
    timed.clear()
    assert plan(network, run(network)) == first and timed
    assert sorted(path.name for path in (tmp_path / "here").iterdir() if path.suffix != ".lock") == ["rewrites.json"]


def test_a_user_without_a_home_goes_without(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("ZELLIGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    timer()
    network = Tiny()
    assert plan(network, run(network))


def test_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert plan_cache.cache_file() == Path("/a/rewrites.json")
    monkeypatch.setenv("ZELLIGE_CACHE", "")
    assert plan_cache.cache_file() == Path("/b/zellige/rewrites.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert plan_cache.cache_file() == Path("/c/.cache/zellige/rewrites.json")


def test_what_another_process_wrote_first_is_adopted(
    timer: Timer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer(PhaseUpConv=2.0, WinogradConv=2.0, ConstantChannelsConv=2.0)
    network = Tiny()
    measured = subject._measured

    def overtaken(*arguments: Any) -> dict[str, float]:
        times = measured(*arguments)
        if arguments[0] == "coded":  # the last but one: all that is measured so far is already on disk, otherwise
            key = subject._key(network.up, given()[:1])
            plan_cache.keep({key: dict.fromkeys([AS_TRAINED, *forms(network.up)], 1.0) | {"phases": 0.25}})
        return times

    monkeypatch.setattr(subject, "_measured", overtaken)
    choices = plan(network, run(network))
    assert by_layer(choices)["up"] == "phases" and choices[0].milliseconds["phases"] == 0.25
    assert by_layer(choices)["coded"] == AS_TRAINED
    stored = json.loads((folder / "rewrites.json").read_text())
    assert len(stored) == len(choices) and all(choice.milliseconds in stored.values() for choice in choices)


def test_an_outdated_entry_that_comes_meanwhile_does_not_count(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    timer(PhaseUpConv=0.5)
    network = nn.Sequential(layer(UpConv, 3, 8, "zeros"))
    measured = subject._measured

    def overtaken(path: str, part: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, float]:
        plan_cache.keep({subject._key(part, inputs): {AS_TRAINED: 1.0}})
        return measured(path, part, inputs)

    monkeypatch.setattr(subject, "_measured", overtaken)
    (choice,) = plan(network, lambda: network(given()[0]))
    assert choice.milliseconds == {AS_TRAINED: 1.0, "phases": 0.5}


def test_processes_that_write_at_once_lose_nothing_and_agree(folder: Path) -> None:
    readers, children = [], 4
    for child in range(children):
        reader, writer = os.pipe()
        if os.fork() == 0:
            with os.fdopen(writer, "w") as pipe:
                found = [
                    plan_cache.keep({"shared": {"a": 1.0 + child}, f"{child}-{turn}": {"a": 1.0}})["shared"]["a"]
                    for turn in range(20)
                ]
                json.dump(found, pipe)
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    found = {time for reader in readers for time in json.load(os.fdopen(reader))}
    for _ in readers:
        os.wait()
    stored = plan_cache.read()
    assert found == {stored["shared"]["a"]} and len(stored) == 20 * children + 1
    assert sorted(path.name for path in folder.iterdir()) == ["rewrites.json"]
