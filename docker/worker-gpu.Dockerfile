# A worker that also scores: adds torch, in PyPI's build for Linux, which is the one for CUDA.
#   docker build -f docker/worker-gpu.Dockerfile -t laion-etl-worker-gpu .
#   docker run --rm --init --gpus all -e LAION_ETL_STORE=s3://bucket/prefix ... laion-etl-worker-gpu score --crawl ...
# Another build of torch, for CPUs or another CUDA: a pip.conf with PyTorch's index, --secret id=pip,src=pip.conf
ARG WORKER=laion-etl-worker:0.2.0.dev0
FROM ${WORKER}
LABEL org.opencontainers.image.title="laion-etl worker with torch" \
      org.opencontainers.image.description="One laion-etl command, including scoring on GPUs"
COPY docker/requirements-score.txt docker/requirements-torch.txt requirements.txt /tmp/requirements/
USER 0
# The base's Python has pip, the environment's does not. torch is pinned by version, without hashes: each index has its
# own files. CUDA's libraries are not in the lock: torch itself pins their exact versions.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    export PATH=/usr/local/bin:/usr/bin:$PATH \
    && python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r /tmp/requirements/requirements-score.txt \
    && python3 -m pip --python /opt/laion/bin/python install --no-cache-dir --only-binary :all: \
        -c /tmp/requirements/requirements.txt -r /tmp/requirements/requirements-torch.txt
USER 10001
# Where open_clip and transformers keep the weights they fetch: mount a volume there to fetch them once.
ENV HF_HOME=/data/models NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
