#!/usr/bin/env bash
# What the driver has: its version, and each GPU with its compute capability and memory. Seconds.
set -euo pipefail
cd "$(dirname "$0")"
./gpu probe
