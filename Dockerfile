# perceiver-io as a container. Not built where this was written: no container runtime is there.
#
#   docker build -t perceiver-io .
#   docker build -t perceiver-io:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm -v "$PWD:/work" perceiver-io classify picture.jpg
FROM python:3.11-slim

# PyTorch's own index says whether its wheels are for CPUs or for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=examples,hub,download
ARG TORCH_VERSION=2.13.0

RUN useradd --create-home --uid 1000 perceiver
WORKDIR /opt/perceiver-io
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

ENV PERCEIVER_IO_CACHE=/home/perceiver/.cache/perceiver_io
USER 1000
WORKDIR /work
ENTRYPOINT ["perceiver-io"]
CMD ["--help"]
