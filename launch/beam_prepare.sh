#!/usr/bin/env bash
# Cuts real footage into clips on a cluster that runs Apache Beam pipelines (here Flink; Spark works alike).
# usage: launch/beam_prepare.sh VIDEOS OUT [arguments of gen1 prepare]
#   e.g. MASTER=flink:8081 launch/beam_prepare.sh /shared/footage /shared/clips --captions /shared/captions.csv
# VIDEOS and OUT must lie at the same path on all machines, on a file system that they share (NFS, Lustre, Filestore);
# workers of Dataflow share none: run plain `gen1 prepare` on one large machine there. The workers need this package:
# an image of Dockerfile.gpu with the extra "beam", or one virtual environment on the shared file system.
# Change: MASTER, WORKERS (videos at a time), or OPTIONS for another runner ("--runner=SparkRunner ...").
# Run it again after any interruption: it goes on.
set -euo pipefail
videos=${1:?usage: launch/beam_prepare.sh VIDEOS OUT [arguments of gen1 prepare]}
out=${2:?usage: launch/beam_prepare.sh VIDEOS OUT [arguments of gen1 prepare]}
shift 2
options=${OPTIONS:---runner=FlinkRunner --flink_master=${MASTER:-localhost:8081} --parallelism=${WORKERS:-64}
    --environment_type=EXTERNAL --environment_config=localhost:50000}
gen1 prepare --videos "$videos" --out "$out" --runner beam --beam-options="$options" "$@"
