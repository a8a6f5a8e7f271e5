#!/usr/bin/env bash
# nano from nothing: worlds, the five networks, the model folder. Run it again to go on where it stopped.
#
#   launch/nano.sh DIR              everything, one after the other
#   launch/nano.sh DIR TARGET...    some of it, as "CUDA_VISIBLE_DEVICES=1 launch/nano.sh DIR clip depth"
#
# Targets: worlds | vae, clip, depth (in any order, also at once) | encoders | latents | prior | conditioned | unet | nano
# CLIPS (20000) synthetic clips. PROCESSES (1) that render and encode; several on one GPU share its memory:
# XLA_PYTHON_CLIENT_PREALLOCATE=false. TRAIN: more arguments of every gen1 train, say "--config.log_every=10".
set -euo pipefail
configs=$(cd "$(dirname "$0")/../configs" && pwd)
clips=${CLIPS:-20000}
processes=${PROCESSES:-1}
read -r -a more <<<"${TRAIN:-}"
mkdir -p "${1:?usage: launch/nano.sh DIR [TARGET...]}"
cd "$1"
shift

train() { # train RECIPE WORKDIR MODEL: a network beside those of the model, which are frozen
    gen1 train --config "$configs/$1.py" --workdir "runs/$2" --config.model="$3" ${more[@]+"${more[@]}"}
}

test $# -gt 0 || set -- worlds vae clip depth encoders latents prior conditioned unet nano
for target; do
    case $target in
    worlds) gen1 render --clips "$clips" --frames 8 --size 128 --batch-size 16 --processes "$processes" --out worlds ;;
    vae | clip | depth) train "nano_$target" "$target" nano ;;
    encoders) test -d encoders || gen1 export --model nano --parts vae=runs/vae clip=runs/clip depth=runs/depth -o encoders ;;
    latents) gen1 precompute --data worlds --model encoders --size 128x128 --processes "$processes" --out worlds_latents ;;
    prior) train prior prior encoders ;;
    conditioned) test -d conditioned || gen1 export --model runs/prior -o conditioned ;;
    unet) train nano unet conditioned ;;
    nano) test -d nano || gen1 export --model runs/unet --dtype bfloat16 --max-file-size 15 -o nano ;;
    *) echo "nano.sh: no target $target" >&2 && exit 2 ;;
    esac
done
