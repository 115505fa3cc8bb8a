# The image of head and GPU workers: drivers, engines and trainers.
#   docker build -f cluster/images/gpu.Dockerfile -t registry.example.com/haloforge-gpu:0.1.0 .
# CUDA comes with the wheels, the driver from the host (NVIDIA's container toolkit). Python and Ray
# are in /usr/local, which is on the path of every shell that KubeRay or `ray up` may start.
FROM python:3.11.14-bookworm
RUN useradd --create-home --uid 1000 haloforge
WORKDIR /haloforge
COPY cluster/install-toolchains.sh cluster/
RUN sh cluster/install-toolchains.sh && rm -rf /var/lib/apt/lists/*
COPY cluster/requirements-gpu.txt cluster/
RUN python -m pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --no-deps --compile-bytecode \
        --requirement cluster/requirements-gpu.txt
COPY . .
RUN uv pip install --system --no-cache --no-deps --no-build-isolation .
USER haloforge
