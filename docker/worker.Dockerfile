# One laion-etl command per container: the image of workers and pods.
#   docker build -f docker/worker.Dockerfile -t laion-etl-worker .
#   docker run --rm -e LAION_ETL_STORE=s3://bucket/prefix ... laion-etl-worker download --crawl CC-MAIN-2024-38
FROM docker.io/library/python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python3 -m venv /opt/laion
COPY requirements.txt ./
RUN /opt/laion/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY sql ./sql
COPY laion_etl ./laion_etl
RUN /opt/laion/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/laion/bin/python -m compileall -q /opt/laion/lib || true

FROM docker.io/library/python:3.11-slim-bookworm
RUN useradd --create-home --uid 10001 laion && mkdir /data && chown laion /data
COPY --from=build /opt/laion /opt/laion
ENV PATH=/opt/laion/bin:$PATH PYTHONUNBUFFERED=1 LAION_ETL_DATA_DIR=/data
USER laion
WORKDIR /home/laion
# For CPUs of the kind the image is built on; others compile when they start.
RUN python -m laion_etl.compile
ENTRYPOINT ["laion-etl"]
CMD ["--help"]
