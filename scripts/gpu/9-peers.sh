#!/usr/bin/env bash
# int8 beside PyTorch's f32 on the same GPU: `9-peers.sh MODEL`, the folder of a RoBERTa-base or BERT-base. 32 sequences of 256 tokens
# have to be 4.53 times as fast. Needs Python 3 and, the first time, a network for PyTorch, which isn't counted. A few minutes.
set -euo pipefail
model=$(realpath "${1:?name the folder of a checkpoint}")
cd "$(dirname "$0")"
export CENTUPLE_CUDA_KERNELS=$PWD/cubins
python3 bench/peers/run.py --help >/dev/null
timeout 460 python3 bench/peers/run.py "$model" --binary ./centuple --precision cuda-int8 --shapes 32x256 --least 32x256=4.53
