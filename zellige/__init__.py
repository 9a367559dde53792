"""Zellige: run, train and export GANs that compose images out of parts.

```python
import zellige
gen = zellige.load("planet")
images = gen.generate(16, seed=0)  # uint8 [16, H, W, 3]
report = gen.panorama("out.tif", width=65536, memory="2GiB", seed=0)
```
"""

from typing import TYPE_CHECKING, Any

from zellige.errors import ZelligeError
from zellige.version import __version__

if TYPE_CHECKING:
    from zellige.engine.library import load

__all__ = ["ZelligeError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `zellige --help` and `import zellige` must not pay for it.
    if name == "load":
        from zellige.engine.library import load

        return load
    raise AttributeError(f"module 'zellige' has no attribute {name!r}")
