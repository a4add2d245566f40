# The proxy as an image: docker build -t ai-proxy . (see docs/docker.md for how to run it).
# Every package is checked against its hash, and so is what installs them and what builds our own.
#
# A tag can be given to another image at any time. To build on one that cannot change, look up the digest
# with `docker buildx imagetools inspect python:3.12-slim`, and name it:
#   docker build --build-arg BASE=python:3.12-slim@sha256:... -t ai-proxy .
ARG BASE=python:3.12-slim

FROM $BASE AS build
COPY requirements-uv.lock /
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement /requirements-uv.lock
ENV VIRTUAL_ENV=/opt/ai-proxy \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /source
RUN uv venv --python python3.12 "$VIRTUAL_ENV"
COPY pyproject.toml requirements.lock ./
# The lock also holds what developers need; as constraints it pins and checks only what is asked for.
RUN uv pip install --require-hashes --constraints requirements.lock --requirements pyproject.toml
COPY README.md LICENSE ./
COPY src src
RUN uv pip install --no-deps --build-constraints requirements.lock .

FROM $BASE
LABEL org.opencontainers.image.title="ai-proxy" \
      org.opencontainers.image.description="One HTTP endpoint in front of every inference backend." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 ai-proxy \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/ai-proxy --no-create-home --shell /usr/sbin/nologin ai-proxy \
    && install --directory --owner=ai-proxy --group=ai-proxy --mode=0700 /run/ai-proxy /var/lib/ai-proxy
COPY --from=build /opt/ai-proxy /opt/ai-proxy
ENV PATH=/opt/ai-proxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AI_PROXY_CONFIG=/etc/ai-proxy/config.yaml \
    AI_PROXY_DATA_DIR=/var/lib/ai-proxy \
    AI_PROXY_RUN_DIR=/run/ai-proxy
VOLUME ["/var/lib/ai-proxy"]
EXPOSE 11000
STOPSIGNAL SIGTERM
USER 10001:10001
# It asks over the control socket, so it follows the port of the configuration.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["ai-proxy", "ps"]
ENTRYPOINT ["ai-proxy"]
CMD ["serve", "--host", "0.0.0.0"]
