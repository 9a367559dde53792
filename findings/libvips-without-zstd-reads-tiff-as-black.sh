#!/usr/bin/env bash
# pyvips-binary 8.18.7 is built without zstd: it reads a tiled TIFF with that compression as black, and raises no error.
#
# tifffile 2026.3.3 writes the file and reads it as it was. libvips opens it, tells its size, and
# gives zeros for every tile. `fail_on="error"` changes nothing, although its name says that errors end the reading;
# only `fail_on="warning"` raises. The same picture with deflate is read right. Who makes a Deep Zoom pyramid of a zstd
# TIFF gets a black one.
#
# Seen, and expected below:
#   deflate: sum equal
#   zstd: tifffile sum equal
#   zstd: libvips 64x64, sum 0
#   zstd: libvips fail_on=error, sum 0
#   zstd: libvips fail_on=warning, Error
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet pyvips==3.2.0 pyvips-binary==8.18.7 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6 2> pip.txt || { cat pip.txt; exit 1; }
cat > seen.py <<'PYTHON'
import numpy as np
import pyvips
import tifffile

picture = np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)
whole = int(picture.sum())
for name in ("deflate", "zstd"):
    tifffile.imwrite(f"{name}.tif", picture, compression=name, tile=(32, 32), photometric="rgb", metadata=None)


def by_libvips(path, **options):
    image = pyvips.Image.tiffload(path, **options)
    return image, int(image.numpy().astype(np.int64).sum())


print("deflate: sum equal" if by_libvips("deflate.tif")[1] == whole else "deflate: another sum")
print("zstd: tifffile sum equal" if int(tifffile.imread("zstd.tif").sum()) == whole else "zstd: tifffile another sum")
image, found = by_libvips("zstd.tif")
print(f"zstd: libvips {image.width}x{image.height}, sum {found}")
for fail_on in ("error", "warning"):
    try:
        told = f"sum {by_libvips('zstd.tif', fail_on=fail_on)[1]}"
    except pyvips.Error:
        told = "Error"
    print(f"zstd: libvips fail_on={fail_on}, {told}")
PYTHON
env/bin/python seen.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
deflate: sum equal
zstd: tifffile sum equal
zstd: libvips 64x64, sum 0
zstd: libvips fail_on=error, sum 0
zstd: libvips fail_on=warning, Error
EXPECTED
echo "as described: libvips $(env/bin/python -c 'import pyvips; print(pyvips.version(0), pyvips.version(1), pyvips.version(2), sep=".")')"
