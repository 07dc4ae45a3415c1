# Every stage except scoring, one laion-etl command per container: the image of CPU workers and pods.
#   docker build -f docker/worker.Dockerfile -t laion-etl-worker .
#   docker run --rm --init -e LAION_ETL_STORE=s3://bucket/prefix ... laion-etl-worker download --crawl CC-MAIN-2024-38
# Your own package index: --secret id=pip,src=/etc/pip.conf; it is not stored in any layer. Pin BASE by digest.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv --without-pip /opt/laion
COPY docker/requirements-worker.txt ./
# The file includes all dependencies, with hashes, so only files of the lock are installed.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r requirements-worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY sql ./sql
COPY laion_etl ./laion_etl
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps .

FROM ${BASE}
ARG VERSION=0.2.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="laion-etl worker" \
      org.opencontainers.image.description="One laion-etl command: parse, load, plan, download, publish" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --create-home --uid 10001 laion && mkdir /data && chown laion /data
COPY --from=build /opt/laion /opt/laion
ENV PATH=/opt/laion/bin:$PATH PYTHONUNBUFFERED=1 LAION_ETL_DATA_DIR=/data
# A number, so that Kubernetes can check that it is not root.
USER 10001
WORKDIR /home/laion
# For CPUs like the one the image is built on; on others the kernels are compiled at the start.
RUN python -m laion_etl.cli.warm_kernels
# No health check: Kubernetes and Airflow use the command's exit code, and the lease of a batch expires.
HEALTHCHECK NONE
# Exec form, and laion-etl handles SIGTERM itself: it works as process 1, too.
ENTRYPOINT ["laion-etl"]
CMD ["--help"]
