# Airflow with our DAGs and plugin, for all its roles; the command chooses one:
#   docker build -f docker/airflow.Dockerfile -t laion-etl-airflow .
#   docker run --init laion-etl-airflow airflow api-server | scheduler | dag-processor | triggerer
# The target `all` also has torch, for stages that run on the scheduler's machine (compose.yaml); in a cluster
# they run as pods of the worker images, and the default target is enough.
# User, folders and /entrypoint, which its probes call, are what the official Helm chart expects of an image.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv --without-pip /opt/laion
COPY docker/requirements-airflow.txt docker/requirements-auth.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r requirements-airflow.txt -r requirements-auth.txt
COPY pyproject.toml README.md LICENSE ./
COPY sql ./sql
COPY laion_etl ./laion_etl
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps .

FROM build AS build-all
COPY docker/requirements-score.txt docker/requirements-torch.txt requirements.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r requirements-score.txt \
    && python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --only-binary :all: \
        -c requirements.txt -r requirements-torch.txt

FROM ${BASE} AS base
ARG VERSION=0.2.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="laion-etl Airflow" \
      org.opencontainers.image.description="Airflow with laion_etl's DAGs and plugin" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 50000 --gid 0 --home-dir /home/airflow --create-home airflow \
    && mkdir -p /opt/airflow/logs /data && chown -R 50000:0 /opt/airflow /data && chmod -R g=u /opt/airflow /data \
    && printf '#!/bin/sh\nexec "$@"\n' >/entrypoint && chmod 755 /entrypoint
ENV PATH=/opt/laion/bin:$PATH PYTHONUNBUFFERED=1 AIRFLOW_HOME=/opt/airflow LAION_ETL_DATA_DIR=/data \
    AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
COPY docker/pools.json /opt/airflow/pools.json
# The plugin comes with the package.
COPY dags /opt/airflow/dags
USER 50000
WORKDIR /opt/airflow
# Each role has its own health check in compose.yaml and in the chart.
HEALTHCHECK NONE
CMD ["airflow", "version"]

FROM base AS all
COPY --from=build-all /opt/laion /opt/laion
RUN python -m laion_etl.cli.warm_kernels

FROM base AS airflow
COPY --from=build /opt/laion /opt/laion
