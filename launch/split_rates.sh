#!/usr/bin/env bash
# How good a learned split is over its bits a frame: for each rate a training, then swaps that have an exact answer.
# Run it again to go on where it stopped; nano, with depth and CLIP, is the first line of the table.
#
#   launch/split_rates.sh DIR                 after launch/nano.sh DIR worlds latents: DIR has worlds_latents
#   launch/split_rates.sh DIR 8x1x8 4x2x4     of these grids, groups and bits
#
# STEPS (4000) of each training. CLIPS (256) that are swapped. TRAIN: more arguments of every gen1 train.
set -euo pipefail
launch=$(dirname "$(realpath "$0")")
read -r -a more <<<"${TRAIN:-}"
cd "${1:?usage: launch/split_rates.sh DIR [GRIDxGROUPSxBITS...]}"
shift
test $# -gt 0 || set -- 4x1x4 4x1x8 8x1x4 8x1x8 8x2x8 16x1x8 16x2x8 # 64, 128, 256, 512, 1024, 2048 and 4096 bits

swap() { # swap MODEL OUT
    test -f "$2/results.json" || gen1 evaluate --model "$1" --benchmark swap --clips "${CLIPS:-256}" \
        --batch-size 64 --judge nano-judge --out "$2"
}

swap nano swap/nano
for rate; do
    IFS=x read -r grid groups bits <<<"$rate"
    gen1 train --config "$launch/../configs/nano_split.py" --workdir "runs/split_$rate" \
        "--config.stages[0].steps=${STEPS:-4000}" "--config.split.grid=$grid" "--config.split.groups=$groups" \
        "--config.split.bits=$bits" ${more[@]+"${more[@]}"}
    swap "runs/split_$rate" "swap/split_$rate"
done
python "$launch/split_table.py" swap/*/results.json
