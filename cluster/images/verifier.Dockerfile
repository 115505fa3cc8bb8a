# The image of CPU workers, which judge: the same Python, Ray and toolchains as the GPU image, from
# the same pins, without what only engines and trainers import, which is most of it.
#   docker build -f cluster/images/verifier.Dockerfile -t registry.example.com/haloforge-verifier:0.1.0 .
# The sandbox's first tier needs user namespaces: run it with seccomp and AppArmor unconfined. Where
# they are refused the second tier, landlock, holds, with a warning. No privileges are needed.
FROM python:3.11.14-bookworm
RUN useradd --create-home --uid 1000 haloforge
WORKDIR /haloforge
COPY cluster/install-toolchains.sh cluster/
RUN sh cluster/install-toolchains.sh && rm -rf /var/lib/apt/lists/*
COPY cluster/requirements-gpu.txt cluster/
ARG LEFT_OUT="(torch|triton|vllm|deepspeed|flashinfer-python|tilelang|(nvidia|cuda)-[a-z0-9-]+)"
RUN python -m pip install --no-cache-dir uv==0.13.9 \
    && grep -Ev "^${LEFT_OUT}==" cluster/requirements-gpu.txt >/tmp/pins.txt \
    && uv pip install --system --no-cache --no-deps --compile-bytecode --requirement /tmp/pins.txt
COPY . .
RUN uv pip install --system --no-cache --no-deps --no-build-isolation .
USER haloforge
