#!/usr/bin/env bash
# zarr 3.1.6: open_array takes config={"write_empty_chunks": True} for an array that exists, and ignores it without a
# word.
#
# create_array honours the same argument, and the signature of open_array names it. A picture whose last rows are black
# is then written without their chunks, although the program asked for them: the store holds fewer files than shards, and
# whoever counts files to tell whether a picture is whole finds a hole. with_config on the opened array, or
# zarr.config.set around the opening, does what the argument does not.
#
# Seen, and expected below: the chunk files after four chunks of zeros were written
#   create_array(config=...): 4
#   open_array(config=...): write_empty_chunks False, 0
#   open_array().with_config(...): 4
#   config.set around open_array: 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6 2> pip.txt || { cat pip.txt; exit 1; }
cat > seen.py <<'PYTHON'
from pathlib import Path

import zarr

WANTED = {"write_empty_chunks": True}
FORM = {"shape": (4, 4), "chunks": (2, 2), "dtype": "uint8", "fill_value": 0}


def chunks(name, array):
    array[:] = 0
    return sum(path.is_file() for path in Path(name, "c").rglob("*")) if Path(name, "c").exists() else 0


print("create_array(config=...):", chunks("a", zarr.create_array("a", config=WANTED, **FORM)))
zarr.create_array("b", **FORM)
opened = zarr.open_array("b", mode="r+", config=WANTED)
print("open_array(config=...): write_empty_chunks", str(opened.config.write_empty_chunks) + ",", chunks("b", opened))
zarr.create_array("c", **FORM)
print("open_array().with_config(...):", chunks("c", zarr.open_array("c", mode="r+").with_config(WANTED)))
zarr.create_array("d", **FORM)
with zarr.config.set({"array.write_empty_chunks": True}):
    print("config.set around open_array:", chunks("d", zarr.open_array("d", mode="r+")))
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
create_array(config=...): 4
open_array(config=...): write_empty_chunks False, 0
open_array().with_config(...): 4
config.set around open_array: 4
EXPECTED
echo "as described: zarr $(env/bin/python -c 'import zarr; print(zarr.__version__)')"
