# The command `zellige` in a container.
#
#   docker build --tag zellige .
#   docker run --rm zellige
#   docker run --rm --volume "$PWD/out:/work" zellige generate planet -n 16 --seed 0 --out /work/images
#   docker run --rm --volume "$PWD/out:/work" zellige panorama planet --size 16384x --memory 512MiB --seed 3 --out /work/p.tif
#
# The mounted folder must be writable by the user 10001, or give --user "$(id -u):$(id -g)" --env HOME=/tmp.
# The usual index has torch with CUDA, for --build-arg EXTRAS=cuda,export,tiff. Torch's makers have an index of smaller
# builds for CPUs alone: --build-arg TORCH_INDEX=URL.

FROM python:3.12-slim AS build

# A compiler for the C++ kernels; Python's headers are in the base image.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN python -m venv /opt/zellige
ENV PATH=/opt/zellige/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /source
COPY constraints.txt ./

# torch comes first and alone, because the index decides which build it is. An index of torch's makers lacks some of
# the packages that torch depends on; those come with the package.
ARG TORCH_INDEX=
RUN pip install --constraint constraints.txt --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
RUN pip install --constraint constraints.txt cmake nanobind ninja scikit-build-core setuptools

COPY CMakeLists.txt LICENSE README.md pyproject.toml ./
COPY benchmarks ./benchmarks
COPY cli ./cli
COPY engine ./engine
COPY export ./export
COPY kernels ./kernels
COPY training ./training
COPY zellige ./zellige

ARG EXTRAS=export,tiff
RUN pip install --constraint constraints.txt --no-build-isolation ".[$EXTRAS]"


FROM python:3.12-slim

COPY --from=build /opt/zellige /opt/zellige
ENV PATH=/opt/zellige/bin:$PATH

RUN useradd --create-home --uid 10001 zellige && install --directory --owner zellige /work
USER zellige
WORKDIR /work

# Loads torch and the kernels. Nothing listens on a port.
HEALTHCHECK --interval=5m --timeout=60s CMD ["zellige", "info", "--json"]

ENTRYPOINT ["zellige"]
CMD ["info"]
