#!/usr/bin/env bash
# nano from nothing: worlds, the five networks one after the other, the model folder.
# usage: launch/nano.sh DIR        run it again to go on where it stopped
# CLIPS (20000) synthetic clips; TRAIN: more arguments of every gen1 train, say "--config.log_every=10".
set -euo pipefail
configs=$(cd "$(dirname "$0")/../configs" && pwd)
clips=${CLIPS:-20000}
read -r -a more <<<"${TRAIN:-}"
mkdir -p "${1:?usage: launch/nano.sh DIR}"
cd "$1"

train() { # train RECIPE WORKDIR MODEL: each network is trained beside those before it
    gen1 train --config "$configs/$1.py" --workdir "runs/$2" --config.model="$3" ${more[@]+"${more[@]}"}
}

gen1 render --clips "$clips" --frames 8 --size 128 --batch-size 16 --out worlds
train nano_vae vae nano
train nano_clip clip runs/vae
train nano_depth depth runs/clip
test -d encoders || gen1 export --model runs/depth -o encoders
gen1 precompute --data worlds --model encoders --size 128x128 --out worlds_latents
train prior prior encoders
test -d conditioned || gen1 export --model runs/prior -o conditioned
train nano unet conditioned
test -d nano || gen1 export --model runs/unet --dtype bfloat16 --max-file-size 15 -o nano
