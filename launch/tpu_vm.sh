#!/usr/bin/env bash
# Trains on Cloud TPUs: creates them, installs this checkout on every worker, runs gen1 train on all of them.
# usage: [VIDEOS=SET] [IMAGES=SET] [MODEL=FOLDER] launch/tpu_vm.sh NAME ZONE TYPE WORKDIR [RECIPE [arguments of gen1 train]]
#   e.g. VIDEOS=gs://BUCKET/clips IMAGES=gs://BUCKET/clips \
#        launch/tpu_vm.sh gen1 us-west4-a v5litepod-256 gs://BUCKET/runs/gen1 configs/gen1.py
# In the queue, the way to most TPUs (a queued resource; waits for its turn):    QUEUED=1 launch/tpu_vm.sh ...
# Several slices that work as one (always in the queue):  SLICES=2 launch/tpu_vm.sh gen1 us-west4-a v5litepod-128 ...
# Both examples are 256 chips, as the recipe's mesh:   gen1 plan --config configs/gen1.py --topology v5e:16x16
# VIDEOS, IMAGES: data sets, and MODEL: what to start from, in place of the recipe's; gs:// or a path on every worker.
# Change: CREATE for more arguments of creation ("--spot", "--network=..."), VERSION for another TPU image.
# It starts training again when all have saved (exit code 75), and on a new TPU when it was preempted; any other code
# ends it. Run it again to go on. The connection must last: start it in tmux, on a machine that stays on.
# At the end: gcloud compute tpus tpu-vm delete NAME --zone ZONE, or queued-resources delete NAME --zone ZONE --force
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
slices=${SLICES:-1}
if test -n "${QUEUED:-}" || test "$slices" -gt 1; then
    tpu=(gcloud compute tpus queued-resources) all=(--node=all --worker=all) field='value(state.state)' delete=(--force)
    create+=(--runtime-version "${VERSION:-$image}")
    if test "$slices" -gt 1; then create+=(--node-count "$slices"); else create+=(--node-id "$name"); fi
else
    tpu=(gcloud compute tpus tpu-vm) all=(--worker=all) field='value(state)' delete=()
    create+=(--version "${VERSION:-$image}")
fi

state() { "${tpu[@]}" describe "$name" --zone "$zone" --format="$field" 2>/dev/null; }

everywhere() { "${tpu[@]}" ssh "$name" --zone "$zone" "${all[@]}" --command "$1"; }

ready() { # waits for the TPU; one that is not there, or no more, is created
    local is
    while true; do
        is=$(state) || is=absent
        case $is in
        READY | ACTIVE | "") return ;;
        absent) "${tpu[@]}" create "$name" --zone "$zone" --accelerator-type "$type" "${create[@]}" ;;
        PREEMPTED | TERMINATED | SUSPENDED | FAILED)
            "${tpu[@]}" delete "$name" --zone "$zone" --quiet ${delete[@]+"${delete[@]}"}
            ;;
        *)
            echo "tpu_vm.sh: $name is $is; waiting" >&2
            sleep "${POLL:-60}"
            ;;
        esac
    done
}

install() { # what is committed, on every worker; Python from uv, because the image's own is older than 3.11
    test -f "$packed/gen1.tar.gz" ||
        git -C "$(dirname "$0")/.." archive --format=tar.gz -o "$packed/gen1.tar.gz" HEAD
    "${tpu[@]}" scp "$packed/gen1.tar.gz" "$name:" --zone "$zone" "${all[@]}"
    everywhere 'rm -rf gen1 && mkdir gen1 && tar -xzf gen1.tar.gz -C gen1 &&
    pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --allow-existing --python 3.11 gen1-env &&
    ~/.local/bin/uv pip install --quiet --python gen1-env/bin/python "./gen1[tpu,gcs]"'
}

packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
arguments=$(printf ' %q' --config "$recipe" --workdir "$workdir" \
    ${VIDEOS:+"--config.data.video.sources=('$VIDEOS',)"} ${IMAGES:+"--config.data.image.sources=('$IMAGES',)"} \
    ${MODEL:+"--config.model=$MODEL"} "$@")
code=75
while test "$code" -eq 75; do
    ready
    install
    code=0
    everywhere "cd gen1 && ~/gen1-env/bin/gen1 train$arguments" || code=$? # workers find each other by themselves
    test "$code" -ne 0 || break
    case $(state || true) in
    PREEMPTED | TERMINATED | SUSPEND* | FAILED) code=75 ;; # the TPU is gone, not the run
    esac
done
exit "$code"
