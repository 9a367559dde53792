"""Engines of full TensorRT with our plugins compute what the ops compute."""

import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from zellige.export.plugins import register_plugins, split_for_plugins

from .nodes import NODES, Node

KINDS = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.uint8: TensorProto.UINT8,
}


def model_of(node: Node, tensors: dict[str, torch.Tensor], expected: torch.Tensor) -> ModelProto:
    """The node alone, for any batch where it has one."""
    sizes = {name: ["N" if size == 2 and not place else size for place, size in enumerate(tensor.shape)]
             for name, tensor in tensors.items()}  # fmt: skip
    values = [helper.make_tensor_value_info(name, KINDS[tensor.dtype], sizes[name]) for name, tensor in tensors.items()]
    result = helper.make_tensor_value_info("y", KINDS[expected.dtype], ["N", *expected.shape[1:]])
    fused = helper.make_node(node.op_type, list(tensors), ["y"], "fused", domain="zellige", **node.attributes)
    graph = helper.make_graph([fused], "fused", values, [result])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("zellige", 1)]
    return split_for_plugins(helper.make_model(graph, opset_imports=imports))


@pytest.mark.gpu
@pytest.mark.needs_tensorrt
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_an_engine_computes_the_op(node, dtype, batch):
    import tensorrt as trt

    register_plugins(trt)
    tensors = node.tensors(dtype)
    model = model_of(node, tensors, node.op(tensors))
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # version 11 has no other networks
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, tensor in tensors.items():
        if tensor.shape[0] == 2:
            profile.set_shape(name, (1, *tensor.shape[1:]), tuple(tensor.shape), tuple(tensor.shape))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    assert built is not None
    context = trt.Runtime(logger).deserialize_cuda_engine(built).create_execution_context()
    given = {name: (t[:batch] if t.shape[0] == 2 else t).cuda().contiguous() for name, t in tensors.items()}
    expected = node.op(given)
    y = torch.empty_like(expected, memory_format=torch.contiguous_format)
    for name, tensor in (given | {"y": y}).items():
        if name != "y":
            context.set_input_shape(name, tuple(tensor.shape))
        context.set_tensor_address(name, tensor.data_ptr())
    assert context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    if expected.dtype == torch.uint8:
        assert (y.int() - expected.int()).abs().max() <= 1
    elif node.op_type == "Rearrange" and dtype != torch.float32:
        # Weights, which sum to 1, are rounded before they meet the values.
        one_rounding = torch.finfo(dtype).eps * given["v"].abs().max().item()
        torch.testing.assert_close(y, expected, rtol=0, atol=one_rounding)
    else:
        torch.testing.assert_close(y, expected)
