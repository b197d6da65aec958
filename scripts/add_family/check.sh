#!/usr/bin/env bash
# Adds a made-up family as CONTRIBUTING.md says, one file and one word, tests it, and takes it out again.
set -euo pipefail
cd "$(dirname "$0")/../.."
families=crates/models/src/families
list="$(mktemp)"
cp "$families/mod.rs" "$list"
restore() {
    cp "$list" "$families/mod.rs"
    rm -f "$list" "$families/made_up.rs" crates/centuple/tests/made_up.rs
}
trap restore EXIT
cp scripts/add_family/made_up.rs "$families/made_up.rs"
cp scripts/add_family/made_up_test.rs crates/centuple/tests/made_up.rs
sed -i 's/^families!\[/families![made_up, /' "$families/mod.rs"
grep -q '^families!\[made_up, ' "$families/mod.rs" || { echo "error: $families/mod.rs has no list to add to" >&2; exit 1; }
# With the features of the whole workspace, so that nothing is built anew for it.
cargo test --locked --workspace --test made_up
