"""TensorRT without PyTorch: engines built from ONNX models, kept on disk, and run on arrays of numpy or CuPy.

| file | holds |
|---|---|
| `flavours` | the table of differences between TensorRT and TensorRT-RTX |
| `driver` | the CUDA devices that the driver reports |
| `graph` | the checks of an ONNX model before a parser of TensorRT reads it |
| `messages` | error sentences from the library's log |
| `build` | the build of an engine from an ONNX model |
| `cache` | engines on disk, each built once for all processes of a user |
| `opened` | opens an engine's file, or an ONNX model through the cache |
| `slots` | one batch size of an engine: its execution context and its captured work |
| `engine` | runs an engine on arrays |

Nothing here imports torch or Triton, so that a service can do without them.
"""
