# The app: every `encoder` command but the operator. Runs the unified app by default.
#   docker build -t encoder . && docker run --env-file .env -p 8080:8080 encoder
FROM debian:bookworm-slim AS build
ARG PIP_CERT
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
RUN python3 -m venv /opt/encoder && python3 -m venv /opt/build
COPY requirements/cli.txt requirements/build.txt /src/requirements/
RUN /opt/encoder/bin/pip install --no-cache-dir --require-hashes -r /src/requirements/cli.txt \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY api /src/api
COPY worker-image/encoder_worker /src/worker-image/encoder_worker
RUN cd /src && /opt/build/bin/hatchling build -t wheel -d /tmp/wheel \
 && /opt/encoder/bin/pip install --no-cache-dir --no-deps /tmp/wheel/*.whl \
 && /opt/encoder/bin/pip uninstall --yes --quiet pip setuptools \
 && /usr/bin/python3 -m compileall -q /opt/encoder

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ffmpeg ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
COPY --from=build /opt/encoder /opt/encoder
RUN install -d -o 10001 -g 10001 /var/lib/encoder
ENV PATH=/opt/encoder/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ENCODER_HOST=0.0.0.0 ENCODER_DATA_DIR=/var/lib/encoder
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["/opt/encoder/bin/encoder"]
CMD ["up"]
