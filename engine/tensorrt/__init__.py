"""TensorRT without PyTorch: engines built from ONNX models, kept on disk, and run on arrays of numpy or CuPy.

| file | holds |
|---|---|
| `flavours` | TensorRT and TensorRT-RTX, and all that differs between them |
| `driver` | which CUDA devices there are, as the driver tells |
| `graph` | what an ONNX model must be before a parser sees it |
| `messages` | what the library only logs, as sentences |
| `build` | an ONNX model to an engine |
| `cache` | engines on disk, each built once for all processes of a user |
| `opened` | an engine from a file of either kind, through the cache |
| `slots` | one batch size of an engine: its execution context and its CUDA graph |
| `engine` | an engine that runs |

Nothing here imports torch or Triton, so that a service can do without them.
"""
