#!/usr/bin/env bash
# The accuracy gate with the GPU's own numbers: `8-accuracy.sh MODEL EXAMPLES ...`, examples as `centuple eval` takes them, as
# all-MiniLM-L6-v2 with STS-B, or a RoBERTa-base with MNLI. Beside f32 on the CPU, f16 may lose 0.1 points (0.001 of a
# correlation) and int8 0.4. What follows is given to `centuple eval`, as --first 2000. Each precision has four minutes, most of
# which the CPU takes.
set -euo pipefail
model=$(realpath "${1:?name the folder of a checkpoint}")
examples=$(realpath "${2:?name a file of examples}")
shift 2
cd "$(dirname "$0")"
export CENTUPLE_CUDA_KERNELS=$PWD/cubins
missed=0
for gate in f16=0.1 int8=0.4; do
    timeout 230 ./centuple eval "$model" "$examples" --device cuda --precision "f32,${gate%=*}" --max-drop "${gate#*=}" "$@" \
        || missed=1
done
exit $missed
