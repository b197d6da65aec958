#!/usr/bin/env bash
# Microseconds of MiniLM-L6 and BERT-base of random weights on the first GPU in f16: the graph alone, and the call with its
# copies. Medians of 1000 for one sequence, of 100 for batches. Batches of 128x128 also in int8 and fp8, and how many times as fast
# as f16 they are. A few minutes.
set -euo pipefail
cd "$(dirname "$0")"
timeout 480 ./gpu latency cubins
