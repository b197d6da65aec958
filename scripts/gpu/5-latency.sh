#!/usr/bin/env bash
# Microseconds of MiniLM-L6 and BERT-base of random weights on the first GPU in f16, int8 and, where there is cuBLASLt, fp8: the graph
# alone, and the call with its copies. Medians of 1000 for one sequence, of 100 for batches; then the targets and their verdicts, of
# which an H100 may miss none. A few minutes.
set -euo pipefail
cd "$(dirname "$0")"
timeout 480 ./gpu latency cubins
