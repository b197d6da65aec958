//! What a machine can do at most.

use centuple_kernels::ThreadPool;
use centuple_kernels::ceiling::{giga_bytes_per_second, giga_int8_macs_per_second, giga_macs_per_second};

use crate::support::all_kernels;

#[test]
fn ceilings_are_positive_numbers() {
    let pool = ThreadPool::new(2).unwrap();
    for kernels in all_kernels() {
        let isa = kernels.isa();
        let rate = giga_macs_per_second(kernels, &pool).unwrap();
        assert!(rate.is_finite() && rate > 0.0, "{isa}: {rate}");
        let rate = giga_int8_macs_per_second(kernels, &pool).unwrap();
        assert!(rate.is_finite() && rate > 0.0, "{isa}: {rate} in int8");
    }
    let rate = giga_bytes_per_second(&pool, 1 << 20).unwrap();
    assert!(rate.is_finite() && rate > 0.0, "{rate}");
}
