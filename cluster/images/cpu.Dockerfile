# The CPU image: for macOS, whose kernel has no sandbox of the kind we need, and for trying things.
#   docker build -f cluster/images/cpu.Dockerfile -t haloforge-cpu .
#   docker run --rm -it --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
#       --shm-size 2g haloforge-cpu make demo
# The sandbox needs user namespaces, which Docker's default profiles refuse.
FROM python:3.11.14-bookworm
RUN useradd --create-home --uid 1000 haloforge && install --directory --owner haloforge /haloforge
WORKDIR /haloforge
COPY cluster/install-toolchains.sh cluster/
RUN sh cluster/install-toolchains.sh && rm -rf /var/lib/apt/lists/*
COPY --chown=haloforge . .
USER haloforge
RUN make venv
