# syntax=docker/dockerfile:1.7
# The worker's image. The locked torch wheels carry their own CUDA libraries, so the base needs none: the host's driver is
# enough, which the NVIDIA runtime mounts because of the two NVIDIA_* variables below.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# 1. The locked environment. Only the lock is copied in, so a change of code does not install anything again.
FROM ${PYTHON_IMAGE} AS environment
WORKDIR /app
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN --mount=type=cache,target=/root/.cache/pip pip install uv==0.13.8
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev

# 2. The code, and the weights that the build argument names (none by default), 
# e.g. --build-arg BAKE_MODELS="musicgen-small htdemucs". They lie in /app/weights, which is looked at last.
FROM environment AS weights
ARG BAKE_MODELS=""
COPY errors.py ./
COPY audio ./audio
COPY models ./models
COPY demo/weights ./demo/weights
RUN --mount=type=cache,target=/root/.cache/huggingface /app/.venv/bin/python -m models.bake ${BAKE_MODELS}

# 3. What runs.
FROM ${PYTHON_IMAGE} AS worker
# Debian keeps only the newest point release of a package, so a pinned one would stop installing.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# The user below has no passwd entry, so torch finds no user name (for the name of its cache folder) and there is no home.
# The SDK refuses hosts whose driver is older than RUNPOD_MIN_CUDA_VERSION.
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=worker \
    LOGNAME=worker \
    OUTPUT_DIR=/tmp/output \
    RUNPOD_MIN_CUDA_VERSION=13.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment /app/.venv /app/.venv
COPY --from=weights /app/weights /app/weights
COPY handler.py errors.py pyproject.toml test_input.json README.md CHANGELOG.md ./
COPY operations ./operations
COPY models ./models
COPY audio ./audio
COPY worker ./worker
COPY demo/weights ./demo/weights
USER 65532:65532
CMD ["python", "-u", "handler.py"]
