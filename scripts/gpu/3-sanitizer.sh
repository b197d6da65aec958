#!/usr/bin/env bash
# The same under compute-sanitizer: no access outside of a buffer, no race in shared memory, no read of what nothing
# wrote, no barrier that threads miss. Each tool has two minutes.
set -euo pipefail
cd "$(dirname "$0")"
sanitizer=${1:-compute-sanitizer}
command -v "$sanitizer" >/dev/null || { echo "error: $sanitizer is missing; give its path as an argument" >&2; exit 1; }
for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    timeout 120 "$sanitizer" --tool "$tool" --error-exitcode 1 ./gpu kernels cubins
done
