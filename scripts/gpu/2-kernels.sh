#!/usr/bin/env bash
# Each kernel on the first GPU against its contract, on shapes drawn by chance: sums of tensor cores within 2e-3 (f16) or
# 1e-2 (bf16), all else, and one tile beside another, to the last bit. About a minute.
set -euo pipefail
cd "$(dirname "$0")"
timeout 480 ./gpu kernels cubins
