#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs this checkout on every worker, runs gen1 train on all of them.
# usage: launch/tpu_vm.sh NAME ZONE TYPE WORKDIR [RECIPE [arguments of gen1 train]]
#   e.g. launch/tpu_vm.sh gen1 us-west4-a v5litepod-256 gs://BUCKET/runs/gen1 configs/gen1.py
# Run it again to go on. Paths of data sets in the recipe must be gs:// or lie on every worker.
# Change: CREATE for more arguments of creation ("--spot", "--network=..."), VERSION for another TPU image.
# At the end: gcloud compute tpus tpu-vm delete NAME --zone ZONE
set -euo pipefail
name=${1:?usage: launch/tpu_vm.sh NAME ZONE TYPE WORKDIR [RECIPE ...]}
zone=${2:?ZONE} type=${3:?TYPE} workdir=${4:?WORKDIR} recipe=${5:-configs/gen1.py}
shift "$(($# < 5 ? $# : 5))"
case $type in
v5lite*) image="v2-alpha-tpuv5-lite" ;;
v5p*) image="v2-alpha-tpuv5" ;;
v6e*) image="v2-alpha-tpuv6e" ;;
*) image="tpu-ubuntu2204-base" ;;
esac
read -r -a create <<<"${CREATE:-}"
tpu=(gcloud compute tpus tpu-vm)
everywhere() { "${tpu[@]}" ssh "$name" --zone "$zone" --worker=all --command "$1"; }

"${tpu[@]}" describe "$name" --zone "$zone" >/dev/null 2>&1 ||
    "${tpu[@]}" create "$name" --zone "$zone" --accelerator-type "$type" --version "${VERSION:-$image}" \
        ${create[@]+"${create[@]}"}

# What is committed, to every worker; Python from uv, because the image's own is older than 3.11.
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
git -C "$(dirname "$0")/.." archive --format=tar.gz -o "$packed/gen1.tar.gz" HEAD
"${tpu[@]}" scp "$packed/gen1.tar.gz" "$name:" --zone "$zone" --worker=all
everywhere 'rm -rf gen1 && mkdir gen1 && tar -xzf gen1.tar.gz -C gen1 &&
    pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --allow-existing --python 3.11 gen1-env &&
    ~/.local/bin/uv pip install --quiet --python gen1-env/bin/python "./gen1[tpu,gcs]"'

# Workers find each other by themselves. The connection must last: start this in tmux, on a machine that stays on.
arguments=$(printf ' %q' --config "$recipe" --workdir "$workdir" "$@")
everywhere "cd gen1 && ~/gen1-env/bin/gen1 train$arguments"
