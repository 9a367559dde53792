#!/usr/bin/env bash
# torch 2.13.0: a submodule may not be called `graph` or `code` if the program of torch.export is to be used.
#
# torch.export.export takes such a module without a word, and torch.compile runs it. What is exported cannot be used:
# ExportedProgram.module(), run_decompositions() and torch.onnx.export raise, because the program lives in an
# fx.GraphModule, whose own properties `graph` and `code` hide the submodule. The error names neither the clash nor the
# property: "Node graph_linear_weight target graph.linear.weight references nonexistent attribute linear of graph".
# Converters that read exported programs (seen: openvino 2026.4.1) end in the same error.
#
# Seen, and expected below:
#   body: export yes, module() yes, run_decompositions() yes
#   graph: export yes, module() RuntimeError, run_decompositions() RuntimeError
#   code: export yes, module() RuntimeError, run_decompositions() RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
cat > seen.py <<'PYTHON'
import torch


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x)


def outer(name):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module(name, Inner())

        def forward(self, x):
            return getattr(self, name)(x)

    return Outer().eval()


def outcome(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "yes"


assert torch.__version__.split("+")[0] == "2.13.0", torch.__version__
x = torch.ones(1, 2)
for name in ("body", "graph", "code"):
    program = torch.export.export(outer(name), (x,))
    found = [outcome(lambda: program.module()(x)), outcome(program.run_decompositions)]
    print(f"{name}: export yes, module() {found[0]}, run_decompositions() {found[1]}")
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
body: export yes, module() yes, run_decompositions() yes
graph: export yes, module() RuntimeError, run_decompositions() RuntimeError
code: export yes, module() RuntimeError, run_decompositions() RuntimeError
EXPECTED
echo "as described: torch $(env/bin/python -c 'import torch; print(torch.__version__)')"
