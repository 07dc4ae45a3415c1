# A resolver for download workers (kubernetes/unbound.conf), from Debian's package; it listens on port 5353. The base is that of
# the other images, so that there is one to keep up to date.
#   docker build -f docker/resolver.Dockerfile -t laion-etl-resolver .
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE}
ARG VERSION=0.2.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="laion-etl resolver" \
      org.opencontainers.image.description="unbound for download workers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update && apt-get install -y --no-install-recommends unbound && rm -rf /var/lib/apt/lists/*
COPY docker/kubernetes/unbound.conf /etc/laion-etl/unbound.conf
RUN unbound-checkconf /etc/laion-etl/unbound.conf
# Its own user; a number, so that Kubernetes can check that it is not root.
RUN useradd --no-create-home --uid 10002 resolver
USER 10002
EXPOSE 5353/udp 5353/tcp
HEALTHCHECK NONE
ENTRYPOINT ["unbound", "-d", "-c", "/etc/laion-etl/unbound.conf"]
