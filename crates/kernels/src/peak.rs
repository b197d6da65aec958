//! The largest of many values, and the logarithm of the sum of their exponentials.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::simd::{LANES, Simd, math};
use crate::softmax::LOWEST;

/// What is told of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Index of the first of the largest values.
    pub index: usize,
    /// Natural logarithm of the sum of all exponentials.
    pub log_sum: f64,
}

/// Values whose exponentials are summed up in f32; few enough to be exact, many enough to be fast.
const BLOCK: usize = 64 * LANES;

impl Kernels {
    /// Where the largest value is, and log Σ e^x. `None` if any value is no number or infinity, or all are minus infinity.
    #[must_use]
    pub fn peak(self, values: &[f32]) -> Option<Peak> {
        // SAFETY: the table holds the functions of an instruction set that this CPU has; nothing else is asked for.
        let (block, largest) = unsafe { (self.table.largest)(values) };
        // SAFETY: as above.
        let log_sum = unsafe { (self.table.log_sum_exp)(values, largest) };
        let at = values.get(block..)?.iter().position(|value| *value == largest)?;
        log_sum.is_finite().then_some(Peak { index: block + at, log_sum })
    }
}

/// The start of the first block with the largest value, and that value.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn largest<S: Simd>(s: S, values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (block, values) in values.chunks(BLOCK).enumerate() {
        let (whole, rest) = values.as_chunks::<LANES>();
        let mut largest = s.splat(f32::NEG_INFINITY);
        for lanes in whole {
            // SAFETY: a chunk has so many elements.
            largest = unsafe { s.max(largest, s.load(lanes.as_ptr())) };
        }
        let mut largest = s.maximum(largest);
        for value in rest {
            largest = if *value > largest { *value } else { largest };
        }
        if largest > best.1 {
            best = (block * BLOCK, largest);
        }
    }
    best
}

/// `largest` + log Σ e^(x - `largest`); no number if any of the values or `largest` is none, or infinite.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn log_sum_exp<S: Simd>(s: S, values: &[f32], largest: f32) -> f64 {
    // The maximum of an unordered pair may be either, so what is larger than `largest` is no number or lay beside one.
    let from = s.splat(if largest > LOWEST { largest } else { f32::NAN });
    let mut total = 0.0;
    for values in values.chunks(BLOCK) {
        let (whole, rest) = values.as_chunks::<LANES>();
        let mut sum = s.splat(0.0);
        for lanes in whole {
            // SAFETY: a chunk has so many elements.
            let x = unsafe { s.load(lanes.as_ptr()) };
            sum = s.add(sum, math::exp_of_negative(s, s.sub(x, from)));
        }
        if !rest.is_empty() {
            // SAFETY: the rest has so many elements.
            let x = unsafe { s.load_first(rest.as_ptr(), rest.len()) };
            sum = s.add(sum, s.keep_first(math::exp_of_negative(s, s.sub(x, from)), rest.len()));
        }
        total += f64::from(s.sum(sum));
    }
    f64::from(largest) + total.ln()
}
