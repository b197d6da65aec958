#!/usr/bin/env bash
# Whole encoders on the first GPU against the reference evaluator, in f16, bf16, int8 and fp8, and each sequence alone against
# its rows in a batch, to the last bit; cuBLASLt's products, and their rows with fewer others. About a minute.
set -euo pipefail
cd "$(dirname "$0")"
timeout 480 ./gpu encoders cubins
