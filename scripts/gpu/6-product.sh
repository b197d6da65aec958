#!/usr/bin/env bash
# The program itself on all GPUs with a checkpoint: `6-product.sh MODEL`, the folder of an uncased BERT with its tokenizer, as
# all-MiniLM-L6-v2. Times of batches in f16, int8 and fp8 (or in what PRECISIONS names), answers beside the CPU's, and what one client of
# the server waits, which on an H100 is at most 250 µs for 16 tokens. Needs Python 3, cuBLASLt for fp8, and nothing else. A few
# minutes.
set -euo pipefail
model=$(realpath "${1:?name the folder of a checkpoint}")
cd "$(dirname "$0")"
export CENTUPLE_CUDA_KERNELS=$PWD/cubins
for precision in ${PRECISIONS:=f16 int8 fp8}; do
    timeout 120 ./centuple bench "$model" --device cuda --precision $precision --shapes 1x16,1x128,32x128,32x256
done
timeout 90 python3 beside_cpu.py ./centuple "$model" $PRECISIONS
most=
case $(./gpu probe) in *H100*) most='=250' ;; esac
timeout 120 python3 over_http.py ./centuple "$model" cuda-f16 "16$most" 128
