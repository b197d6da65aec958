#!/usr/bin/env bash
# Whole encoders on the first GPU against the reference evaluator, in f16, bf16 and int8, and each sequence alone against
# its rows in a batch, to the last bit. About a minute.
set -euo pipefail
cd "$(dirname "$0")"
timeout 480 ./gpu encoders cubins
