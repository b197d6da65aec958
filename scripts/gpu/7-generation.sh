#!/usr/bin/env bash
# A model that generates, on the first GPU: `7-generation.sh MODEL`, the folder of a decoder, as SmolLM2-135M. Tokens a second of one
# client and of 32, and whether each gets the tokens that it gets alone. Needs Python 3 and nothing else. A few minutes.
set -euo pipefail
model=$(realpath "${1:?name the folder of a decoder}")
cd "$(dirname "$0")"
export CENTUPLE_CUDA_KERNELS=$PWD/cubins
for precision in f16 int8; do
    timeout 220 python3 bench/generation/streams.py "$model" --binary ./centuple --device cuda --precision $precision --prompt 30 --rounds 2
done
