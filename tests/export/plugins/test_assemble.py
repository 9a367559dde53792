"""What is assembled for every GPU is every plugin, and what an assembler refuses is an error."""

import pytest

from zellige.errors import DeviceError
from zellige.export.plugins.assemble import EXAMPLES, TARGETS, assemble
from zellige.export.plugins.table import PLUGINS

PTX = ".version 8.0\n.target sm_{arch}\n.address_size 64\n.visible .entry nothing() {{ ret; }}\n"


@pytest.fixture(autouse=True)
def needs_the_assembler() -> None:
    pytest.importorskip("triton", reason="the assembler comes with Triton")


def test_there_is_an_example_of_every_plugin():
    assert set(EXAMPLES) == {plugin.name for plugin in PLUGINS}
    for plugin in PLUGINS:
        shapes, attributes = EXAMPLES[plugin.name]
        assert set(shapes) <= set(plugin.inputs) and attributes.keys() == plugin.attributes.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_code_of_an_older_architecture_is_taken(target):
    assemble(PTX.format(arch=80), target)


def test_code_of_a_newer_architecture_is_refused():
    with pytest.raises(DeviceError, match="sm_80 does not take the PTX: .*higher than"):
        assemble(PTX.format(arch=90), 80)


def test_what_is_no_code_is_refused():
    with pytest.raises(DeviceError, match="sm_90 does not take the PTX"):
        assemble("nonsense", 90)
