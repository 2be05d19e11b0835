# Two images from one file:
#   docker build -t encoder .                       every command but the operator; `encoder up` by default
#   docker build --target api -t encoder-api .      the same without ffmpeg, for what never runs a job
FROM debian:bookworm-slim AS build
ARG PIP_CERT
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
RUN python3 -m venv /opt/encoder && python3 -m venv /opt/build
COPY requirements/cli.txt requirements/build.txt /src/requirements/
# Of the 400 services that botocore describes we call S3, and STS for a role.
RUN /opt/encoder/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements/cli.txt \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/requirements/build.txt \
 && find /opt/encoder/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name 'sts' ! -name 'sso*' -exec rm -r {} +
COPY pyproject.toml README.md LICENSE /src/
COPY api /src/api
COPY worker-image/encoder_worker /src/worker-image/encoder_worker
RUN cd /src && /opt/build/bin/hatchling build -t wheel -d /tmp/wheel \
 && /opt/encoder/bin/pip install --no-cache-dir --no-deps --no-compile /tmp/wheel/*.whl \
 && /opt/encoder/bin/pip uninstall --yes --quiet pip setuptools \
 && /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/encoder

# Debian's package brings drivers and sound servers for screens. What its two programs are linked to
# is a third of that. Where it came from stays readable for scanners, in dpkg's status.d.
FROM debian:bookworm-slim AS ffmpeg
RUN find /usr/lib -name '*.so*' >/tmp/before \
 && apt-get update \
 && apt-get install --yes --no-install-recommends ffmpeg \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
 && ldd /usr/bin/ffmpeg /usr/bin/ffprobe | awk '$3 ~ /^\// { print $3 }' | sed 's,^/lib/,/usr/lib/,' \
    | sort -u | grep -vxFf /tmp/before >/tmp/libraries \
 && mkdir -p /out/var/lib/dpkg/status.d \
 && cp --parents --dereference /usr/bin/ffmpeg /usr/bin/ffprobe $(cat /tmp/libraries) /out \
 && for package in $(xargs -n 1 readlink --canonicalize </tmp/libraries \
      | xargs dpkg-query --search /usr/bin/ffmpeg | cut -d : -f 1 | sort -u); \
    do dpkg-query --status "$package" >"/out/var/lib/dpkg/status.d/$package"; done

FROM debian:bookworm-slim AS api
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
COPY --from=build /opt/encoder /opt/encoder
RUN install -d -o 10001 -g 10001 /var/lib/encoder
ENV PATH=/opt/encoder/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ENCODER_HOST=0.0.0.0 ENCODER_DATA_DIR=/var/lib/encoder
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["/opt/encoder/bin/encoder"]
CMD ["api"]

FROM api AS app
COPY --from=ffmpeg /out /
# Nothing that it loads is missing.
RUN ["/usr/bin/ffmpeg", "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", \
     "testsrc2=d=0.1", "-c:v", "libx264", "-f", "null", "-"]
CMD ["up"]
