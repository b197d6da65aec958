#!/usr/bin/env bash
# Tests kernels and runtime on aarch64: on such a machine as they are, elsewhere emulated by QEMU. Needs a Rust
# toolchain with rustup; installs a cross linker and QEMU with apt-get where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "install ${*:2}"
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${@:2}"
    else
        echo "error: \`$1\` is missing; install ${*:2}" >&2
        exit 1
    fi
}

crates=(-p centuple-kernels -p centuple-runtime)
if [ "$(uname -m)" = aarch64 ]; then
    exec cargo test --locked "${crates[@]}"
fi

need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
need qemu-aarch64-static qemu-user-static
rustup target add aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

say "a CPU with every extension"
QEMU_CPU=max cargo test --locked --target aarch64-unknown-linux-gnu "${crates[@]}"
say "a CPU without FEAT_DotProd"
QEMU_CPU=cortex-a72 cargo test --locked --target aarch64-unknown-linux-gnu "${crates[@]}"
