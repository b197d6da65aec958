//! Random numbers that are the same on every machine.

use centuple_tensor::{Tensor, TensorError};

/// SplitMix64 (Steele, Lea & Flood 2014).
pub struct Random(u64);

impl Random {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A whole number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }

    /// A number in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A tensor of numbers in -scale..scale.
    ///
    /// # Errors
    /// The shape is beyond the address space.
    pub fn tensor(&mut self, shape: &[usize], scale: f32) -> Result<Tensor, TensorError> {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| scale * self.float()).collect();
        Tensor::from_f32(shape, &data)
    }

    /// A tensor of ids below `limit`.
    ///
    /// # Errors
    /// The shape is beyond the address space.
    pub fn ids(&mut self, shape: &[usize], limit: usize) -> Result<Tensor, TensorError> {
        let data: Vec<i64> = (0..shape.iter().product()).map(|_| self.below(limit) as i64).collect();
        Tensor::from_i64(shape, &data)
    }
}
