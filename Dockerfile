# A tag may be moved. What it names today is pinned by
# --build-arg BASE_DIGEST=@sha256:…, as `docker buildx imagetools inspect IMAGE:TAG` tells it.
ARG BASE_IMAGE=docker.io/rayproject/ray
ARG BASE_TAG=2.60.0-py311-cu130
ARG BASE_DIGEST=

FROM ${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST} AS base

# The installer, in a stage of its own: requirements.lock changes with what only tests need, and
# that must not install the rest again. The secrets pip.conf and uv.toml, both optional, name
# another registry without leaving its address in a layer.
FROM base AS uv
# Nothing of this stage runs later.
# hadolint ignore=DL3002
USER 0
COPY requirements.lock /tmp/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /opt/uv \
    && sed -n '/^uv==/,/[^\\]$/p' /tmp/requirements.lock > /tmp/uv.lock \
    && /opt/uv/bin/pip install --no-cache-dir --require-hashes --requirement /tmp/uv.lock

FROM base AS dependencies
# As above: the last stage takes files alone.
# hadolint ignore=DL3002
USER 0
COPY --from=uv /opt/uv/bin/uv /usr/local/bin/
COPY requirements.image.lock /tmp/
RUN --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=uv.toml,target=/etc/uv/uv.toml \
    python -m venv --without-pip /opt/venv \
    && UV_CACHE_DIR=/var/cache/uv VIRTUAL_ENV=/opt/venv uv pip sync --require-hashes --compile-bytecode \
        --link-mode copy /tmp/requirements.image.lock

FROM dependencies AS models
# Hub ids, with spaces between, that the image is to hold; a language model's text encoder is one
# more of them. The published weights are CC-BY-NC-4.0.
ARG MODELS=""
RUN mkdir -p /models \
    && for model in $MODELS; do \
        HF_HOME=/models/huggingface /opt/venv/bin/hf download "$model" || exit; \
    done

# No compiler is added. On a GPU, Triton compiles its launchers with the base's own g++.
FROM base
LABEL org.opencontainers.image.title="audiocraft-serve" \
      org.opencontainers.image.description="AudioCraft's models behind an HTTP API, as a Ray Serve graph" \
      org.opencontainers.image.licenses="MIT"

USER 0
WORKDIR /app
# KubeRay starts Ray in a login shell: /etc/profile sets PATH anew, and the base's ~/.bashrc puts
# its own Python first. /app/build is where jobs are kept by default.
RUN echo "export PATH=/opt/venv/bin:\$PATH" >> /home/ray/.bashrc \
    && echo "export PATH=/opt/venv/bin:\$PATH" >> /home/ray/.bash_profile \
    && install -d -o 1000 -g 100 /app/build

# By how seldom they change.
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=models --chown=1000:100 /models /models
COPY bundles bundles
COPY LICENSE serve_config.yaml serve_config.gpu.yaml ./
COPY engine engine
COPY deployments deployments
COPY graph graph
COPY api api
COPY launch launch

# The root may be read-only: what is compiled on the way goes to /tmp, what is downloaded to
# /models, which a volume may keep.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    TORCH_HOME=/models/torch \
    XDG_CACHE_HOME=/tmp/cache \
    NUMBA_CACHE_DIR=/tmp/numba \
    TRITON_CACHE_DIR=/tmp/triton \
    CUDA_CACHE_PATH=/tmp/cuda \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=api.proxy.connections.install \
    RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=2 \
    RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS=1 \
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=2147483647 \
    MALLOC_ARENA_MAX=2

# By number, as Kubernetes' runAsNonRoot can check it: ray, of the group users.
USER 1000:100
EXPOSE 8000
# A folder that is written must not be the read-only root's; a named volume takes its place.
VOLUME /app/build
HEALTHCHECK --start-period=10m --interval=10s --timeout=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=9)"]
CMD ["python", "-m", "launch", "serve_config.yaml", "--host", "0.0.0.0"]
