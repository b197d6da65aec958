#!/usr/bin/env bash
# Builds what the other scripts of this folder need, on a machine with Rust and Python and without a GPU, into a folder
# that can be carried to one with a GPU: the program, every kernel compiled, and the scripts.
#   scripts/gpu/build.sh [FOLDER]      (target/gpu by default)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
folder=${1:-target/gpu}
mkdir -p "$folder"
cargo build --release --workspace --example gpu --bin centuple --locked
built=${CARGO_TARGET_DIR:-target}/release
strip -o "$folder/gpu" "$built/examples/gpu"
strip -o "$folder/centuple" "$built/centuple"
tools=$(python3 scripts/gpu/toolkit.py)
"$folder/gpu" pack "$folder/cubins" "${tools%%$'\n'*}"
cp "$here"/[1-9]-*.sh "$here"/{over_http,beside_cpu}.py bench/peers/{http_client,server,systems}.py "$folder"
mkdir -p "$folder"/{bench/peers,scripts}
cp --parents bench/generation/streams.py crates/centuple/src/calibration.txt "$folder"
cp -r bench/peers/{engines,*.py,requirements.txt} "$folder/bench/peers"
cp scripts/environment.py "$folder/scripts"
du -sh "$folder"
