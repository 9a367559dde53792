"""Parameters that nobody passes are removed from PTX, and only those."""

import pytest

from zellige.export.plugins.ptx import renamed, with_visible_parameters

PTX = """
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u32 kernel_param_1,
	.param .u64 .ptr .global .align 1 kernel_param_2,
	.param .u64 .ptr .global .align 1 kernel_param_3
)
.reqntid 128
{
	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b32 	%r1, [kernel_param_1];
}
"""


def test_parameters_behind_the_arguments_are_removed():
    found = with_visible_parameters(PTX, "kernel", 2)
    assert found is not None and found.count(".param .") == 2
    assert found.split("kernel_param_1\n)")[1] == PTX.split("kernel_param_3\n)")[1]


def test_nothing_is_removed_where_all_are_arguments():
    found = with_visible_parameters(PTX, "kernel", 4)
    assert found is not None and found.split() == PTX.split()


@pytest.mark.parametrize("visible", [0, 1])
def test_parameters_that_the_code_reads_are_not_removed(visible):
    assert with_visible_parameters(PTX, "kernel", visible) is None


def test_a_parameter_is_not_taken_for_another_whose_name_begins_alike():
    read = PTX.replace("%r1, [kernel_param_1]", "%r1, [kernel_param_10]")
    assert with_visible_parameters(read, "kernel", 1) is not None


def test_code_without_the_entry_is_refused():
    assert with_visible_parameters(PTX, "other", 2) is None


def test_a_kernel_and_its_parameters_take_the_new_name_and_nothing_else_does():
    code = PTX + "// a_kernel, kernel2 and kernel_parameter stay\n"
    found = renamed(code, "kernel", "blend")
    assert found.count("blend") == code.count("kernel") - 3 and "blend_param_3\n)" in found
    assert found.endswith("// a_kernel, kernel2 and kernel_parameter stay\n")
