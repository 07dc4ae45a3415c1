#!/usr/bin/env bash
# Builds the images of this folder and tries each: `laion-etl --version` and a parse in the worker, `airflow
# version` and the DAGs in Airflow's. Uses docker, or buildah, which needs no engine.
#   docker/try.sh [worker] [airflow] [gpu] [resolver]     default: worker airflow
# BUILT=1: try existing images without building. BASE: another base image. PIP_CONF: a pip.conf for your own
# package index. WAT: a WAT file to parse; by default a small one is generated.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
version=0.2.0.dev0
if docker info >/dev/null 2>&1; then tool=docker; else tool=buildah; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
roles=("${@:-worker airflow}")
read -r -a roles <<<"${roles[*]}"

build() {  # build NAME DOCKERFILE [OPTION...]
    local name=$1 file=$2; shift 2
    [ -z "${BUILT:-}" ] || return 0
    local options=(-f "docker/$file" -t "$name:$version" "$@")
    options+=(--build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")
    [ -z "${BASE:-}" ] || options+=(--build-arg "BASE=$BASE")
    [ -z "${PIP_CONF:-}" ] || options+=(--secret "id=pip,src=$PIP_CONF")
    if [ "$tool" = docker ]; then
        docker build "${options[@]}" .
    else
        buildah bud --isolation=chroot --network=host --format=docker --pull-never "${options[@]}" .
    fi
}

run() {  # run NAME COMMAND...: as the image's user, with $work at /input
    local name=$1; shift
    if [ "$tool" = docker ]; then
        docker run --rm --init --entrypoint "" -v "$work:/input" "$name:$version" "$@"
        return
    fi
    local container
    container=$(buildah from --pull-never "localhost/$name:$version")
    local code=0
    buildah run --isolation=chroot --network=host -v "$work:/input" "$container" -- "$@" || code=$?
    buildah rm "$container" >/dev/null
    return $code
}

check_worker() {
    if [ -n "${WAT:-}" ]; then
        install -m 644 "$WAT" "$work/try.warc.wat.gz"
    else
        "$python" -c 'import sys; from laion_etl.cli.warm_kernels import _sample; open(sys.argv[1], "wb").writelines(_sample())' \
            "$work/try.warc.wat.gz"
    fi
    run laion-etl-worker laion-etl --version
    run laion-etl-worker sh -c 'test "$(id -u)" = 10001 && laion-etl stage parse /input/try.warc.wat.gz --crawl try --partition 0 --json'
    run laion-etl-worker python -c 'import importlib.util; assert not any(map(importlib.util.find_spec, ("airflow", "torch")))'
}

check_airflow() {
    run laion-etl-airflow airflow version
    run laion-etl-airflow python -c 'import airflow.providers.fab.auth_manager.fab_auth_manager'
    run laion-etl-airflow sh -c 'airflow db migrate >/dev/null 2>&1 && python -c "
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
assert bag.import_errors == {}, bag.import_errors
assert \"new_crawls\" in bag.dags and len(bag.dags) > 100, sorted(bag.dags)
print(len(bag.dags), \"DAGs\")"'
}

check_gpu() {
    run laion-etl-worker-gpu python -c 'import torch; from laion_etl.score.openclip import open_clip; open_clip(); print("torch", torch.__version__, "CUDA", torch.version.cuda)'
}

check_resolver() {
    run laion-etl-resolver sh -c 'test "$(id -u)" = 10002 && unbound-checkconf /etc/laion-etl/unbound.conf'
}

for role in "${roles[@]}"; do
    case $role in
        worker) build laion-etl-worker worker.Dockerfile; check_worker ;;
        airflow) build laion-etl-airflow airflow.Dockerfile; check_airflow ;;
        gpu) build laion-etl-worker-gpu worker-gpu.Dockerfile --build-arg "WORKER=laion-etl-worker:$version"; check_gpu ;;
        resolver) build laion-etl-resolver resolver.Dockerfile; check_resolver ;;
        *) echo "unknown role $role; use worker, airflow, gpu or resolver"; exit 2 ;;
    esac
    echo "$role: ok"
done
