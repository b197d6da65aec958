//! The kernels' own text, run on the CPU (`emulator/emulator.hpp`), against their contract.

use std::cell::RefCell;

use crate::KINDS;
use crate::checks::{self, Subject};
use crate::emulator::Emulator;

/// An emulator of all kinds of machines.
fn subject(seed: u64) -> Subject<Emulator> {
    Subject { device: RefCell::new(Emulator::new(seed)), sums: None, architectures: KINDS.to_vec() }
}

macro_rules! tests {
    ($($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                checks::$check(&subject(line!().into()));
            }
        )*
    };
}

tests! {
    norm_is_its_contract
    quantise_is_its_contract
    gemm_is_its_contract
    every_tile_has_the_same_bits
    gemm_ends_with_its_activation
    attention_is_its_contract
    content_attention_is_its_contract
    grouped_gemm_is_its_contract
    pool_is_its_contract
    dense_is_its_contract
    widen_is_exact
    wide_norm_is_its_contract
    gate_is_its_contract
    rotary_is_its_contract
    select_is_its_contract
    wide_gemm_is_its_contract
    paged_attention_is_its_contract
    head_norm_is_its_contract
    epilogue_is_its_contract
}
