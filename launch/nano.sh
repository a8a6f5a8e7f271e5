#!/usr/bin/env bash
# nano from nothing: worlds, the five networks, the model folder. Run it again to go on where it stopped.
#
#   launch/nano.sh DIR              everything, one after the other
#   launch/nano.sh DIR TARGET...    some of it, as "launch/nano.sh DIR worlds networks encoders"
#
# Targets, in order: worlds | networks (or vae, depth, clip, prior) | encoders | latents | unet | nano
# With FROM:         start | worlds | networks (or vae, prior, latents) | encoders | unet | nano
# Beside them:       public, after worlds: the U-Net of nano-public (configs/nano_public.py), and its model folder
#                    judge: a CLIP that judges nano's edits (configs/nano_clip.py:judge), on worlds of seed SEED + 1
#                    fast, after worlds: nano in four evaluations (configs/nano_fast.py), and its model folder
#                    flow, after worlds: nano as a rectified flow (configs/nano_flow.py), and its model folder
#                    dit, after worlds: nano with a transformer (configs/nano_dit.py), and its model folder
#                    upscaler: one for nano (configs/nano_upscaler.py), on worlds of twice the size, and its model folder
#                    split, after worlds: nano with a learned split (configs/nano_split.py), and its model folder
#                    nano2: nano with many inputs (configs/nano2.py), on worlds of its own, and its model folder
# GPUS (those that nvidia-smi lists): all but unet are divided among them by hand, unet by JAX.
# CLIPS (20000) synthetic clips of seed SEED (0). PROCESSES (5) that render on a GPU. TRAIN: more arguments of every
# gen1 train, say "--config.log_every=10". FROM: a model to go on from, as "nano" or a folder seen from DIR: its decoder,
# prior and U-Net, by the recipes' second part (configs/nano.py:again); what latents are made with stays as it is.
set -euo pipefail
self=$(realpath "$0")
configs=$(dirname "$self")/../configs
gpus=${GPUS:-$(nvidia-smi -L 2>/dev/null | wc -l || true)}
clips=${CLIPS:-20000} seed=${SEED:-0} frames=8 rendered=worlds
from=${FROM:-}
encoders=(vae depth clip) model=nano text=runs/clip encode=./encoders all=(worlds networks encoders latents unet nano)
if test -n "$from"; then # its encoders are there from the start, so latents are made beside the networks
    encoders=(vae) model=./start text=./start encode=./start all=(start worlds networks encoders unet nano)
fi
read -r -a more <<<"${TRAIN:-}"
mkdir -p "${1:?usage: launch/nano.sh DIR [TARGET...]}"
cd "$1"
shift

train() { # train RECIPE WORKDIR MODEL [PART]: a network beside those of the model, which are frozen
    local part=${4:-${from:+again}}
    gen1 train --config "$configs/$1.py${part:+:$part}" --workdir "runs/$2" --config.model="$3" ${more[@]+"${more[@]}"}
}

render() { # render ARGUMENT...: a share of the worlds
    gen1 render --clips "$clips" --seed "$seed" --frames "$frames" --size 128 --out "$rendered" "$@"
}

worlds() {
    if test "$gpus" = 0; then
        render --processes "$(nproc)"
        return
    fi
    render --batch-size 16 --process-count "$((clips / 16 + 1))" # one file: what it compiles, the others find
    divided "${PROCESSES:-5}" render --batch-size 16
}

latents() { # latents [MODEL OUT]: what training needs of the worlds, by the networks of a model
    local command=(gen1 precompute --data worlds --model "${1:-$encode}" --size 128x128 --out "${2:-worlds_latents}")
    if test "$gpus" = 0; then "${command[@]}"; else divided 3 "${command[@]}"; fi
}

inputs() { # worlds with all that nano 2 is given, rendered on the way
    local kinds=edges,normals,flow,segmentation,pose,source
    local command=(gen1 precompute --data "worlds:$clips@${SEED:-0}" --frames 16 --model nano --size 128x128
        --structure "depth,$kinds" --record "$kinds" --levels two --out worlds_inputs)
    if test "$gpus" = 0; then "${command[@]}"; else divided 1 "${command[@]}" --batch-size 16; fi
}

large() { # worlds of twice the size, and what is known of them at nano's
    local command=(gen1 precompute --data "worlds:$clips@${SEED:-0}" --model nano --size 256x256
        --structure low_resolution --levels two --out worlds_large)
    if test "$gpus" = 0; then "${command[@]}"; else divided 1 "${command[@]}" --batch-size 8; fi
}

divided() { # divided N COMMAND...: a share of the work for each GPU, for N processes each
    for ((gpu = 0; gpu < gpus; gpu++)); do
        CUDA_VISIBLE_DEVICES=$gpu XLA_PYTHON_CLIENT_PREALLOCATE=false "${@:2}" \
            --processes "$1" --process-index "$gpu" --process-count "$gpus" &
    done
    all_of "$gpus"
}

networks() { # all at once: each of them waits for its data a good part of the time
    if test "$gpus" = 0; then
        "$self" . "${encoders[@]}" prior ${from:+latents}
        return
    fi
    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.3
    CUDA_VISIBLE_DEVICES=0 "$self" . vae &
    if test -z "$from"; then
        CUDA_VISIBLE_DEVICES=$((gpus - 1)) "$self" . depth &
        CUDA_VISIBLE_DEVICES=$((gpus - 1)) "$self" . clip prior &
        all_of 3
    else
        CUDA_VISIBLE_DEVICES=$((gpus - 1)) "$self" . prior &
        "$self" . latents &
        all_of 3
    fi
}

model_folder() { # model_folder WORKDIR OUT
    test -d "$2" || gen1 export --model "runs/$1" --dtype bfloat16 --max-file-size 15 -o "$2"
    test ! -d "$2" ||
        python -c 'from gen1_jax.synthetic.captions import words; print(*sorted(words()), sep="\n")' >"$2/words.txt"
}

all_of() { # all_of N: as many jobs; the first that fails ends the script, and the script the others
    for ((job = 0; job < $1; job++)); do wait -n; done
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

test $# -gt 0 || set -- "${all[@]}"
for target; do
    case $target in
    worlds | networks | latents) "$target" ;;
    start) test -d start || gen1 export --model "$from" --dtype bfloat16 -o start ;;
    vae | clip | depth) train "nano_$target" "$target" "$model" ;;
    prior) train nano_prior prior "$text" ;;
    encoders) # as they will ship, so that the U-Net learns on the latents of the very weights it is used with
        parts=(prior=runs/prior)
        for network in "${encoders[@]}"; do parts+=("$network=runs/$network"); done
        test -d encoders || gen1 export --model "$model" --parts "${parts[@]}" --dtype bfloat16 -o encoders
        ;;
    unet) train nano unet ./encoders ;;
    nano) model_folder unet nano ;;
    judge)
        seed=$((seed + 1)) frames=2 rendered=worlds_judge worlds # it sees pictures: many worlds, few of each
        from='' train nano_clip judge nano judge
        test -d nano_judge || gen1 export --model runs/judge --format clip --dtype bfloat16 -o nano_judge
        ;;
    fast | flow)
        latents nano
        from='' train "nano_$target" "$target" nano
        model_folder "$target" "nano_$target"
        ;;
    dit)
        latents nano
        from='' train nano_dit dit nano
        from='' train nano_dit dit_again runs/dit again
        model_folder dit_again nano_dit
        ;;
    upscaler)
        large
        from='' train nano_upscaler upscaler nano
        model_folder upscaler nano_upscaler
        ;;
    split)
        latents nano
        from='' train nano_split split nano
        test -d nano_split || gen1 export --model runs/split --dtype bfloat16 -o nano_split # it reads no words
        ;;
    nano2)
        inputs
        from='' train nano2 nano2 nano
        from='' train nano2 nano2_long runs/nano2 long
        model_folder nano2_long nano2
        ;;
    public)
        latents nano-public worlds_public
        from='' train nano_public public nano-public
        model_folder public nano_public
        ;;
    *) echo "nano.sh: no target $target" >&2 && exit 2 ;;
    esac
done
