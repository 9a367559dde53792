#!/usr/bin/env bash
# ray 2.60.0: workers import from the folder in which the driver was started, before installed packages, although
# Python was told not to (PYTHONSAFEPATH=1).
#
# The driver itself obeys: it imports the installed package. Its workers put the driver's working folder first on their
# path. So in a checkout whose folders are named as modules are, driver and workers run different code, or a worker fails
# with "No module named" for a part of a package that the driver has imported. Setting PYTHONPATH in runtime_env changes
# nothing, because the folder comes before it.
#
# Seen, and expected below:
#   driver: installed
#   worker: folder of the driver
#   worker with PYTHONPATH in runtime_env: folder of the driver
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet ray==2.60.0 2> pip.txt || { cat pip.txt; exit 1; }
packages=$(env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo 'PLACE = "installed"' > "$packages/place_of_import.py"
mkdir work
echo 'PLACE = "folder of the driver"' > work/place_of_import.py
cat > seen.py <<'PYTHON'
import sys

import place_of_import
import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)


@ray.remote
def place():
    import place_of_import

    return place_of_import.PLACE


print("driver:", place_of_import.PLACE)
print("worker:", ray.get(place.remote(), timeout=120))
path = {"env_vars": {"PYTHONPATH": sys.argv[1]}}
told = place.options(runtime_env=path).remote()
print("worker with PYTHONPATH in runtime_env:", ray.get(told, timeout=120))
ray.shutdown()
PYTHON
(cd work && PYTHONSAFEPATH=1 ../env/bin/python ../seen.py "$packages") > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
diff seen.txt - <<'EXPECTED'
driver: installed
worker: folder of the driver
worker with PYTHONPATH in runtime_env: folder of the driver
EXPECTED
echo "as described: ray $(env/bin/python -c 'import ray; print(ray.__version__)')"
