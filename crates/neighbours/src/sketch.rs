//! Vectors as bits: two vectors differ in a share of them that is their angle divided by π (Charikar 2002).
//!
//! Each bit says on which side of a plane the vector lies. The planes are rows of a random rotation: several rounds of random
//! signs and a Hadamard matrix, which takes n·log n additions (Ailon and Chazelle 2009).

use std::f32::consts::PI;

/// Bits of a sketch.
pub const SKETCH_BITS: usize = 1024;
/// Bytes of a sketch.
pub(crate) const SKETCH_BYTES: usize = SKETCH_BITS / 8;
/// Standard deviations of the number of bits by which a vector may be further off than its angle says.
const DEVIATIONS: f32 = 5.0;

/// The bits of a vector.
pub(crate) type Sketch = [u8; SKETCH_BYTES];

/// Rounds of the rotation. After one, vectors with few large numbers have less than random planes.
const ROUNDS: usize = 3;

/// Makes sketches of vectors of one length.
pub(crate) struct Sketcher {
    /// For each round and each number -1 or 1.
    signs: [Vec<f32>; ROUNDS],
    row: Vec<f32>,
}

impl Sketcher {
    /// For vectors of that many numbers.
    pub(crate) fn new(dimension: usize) -> Sketcher {
        let width = dimension.next_power_of_two().max(SKETCH_BITS);
        let mut state = 0;
        let mut sign = || if split_mix(&mut state) >> 63 == 0 { 1.0 } else { -1.0 };
        let signs = [(); ROUNDS].map(|()| (0..width).map(|_| sign()).collect());
        Sketcher { signs, row: vec![0.0; width] }
    }

    /// The bits of a vector of the right length.
    pub(crate) fn sketch(&mut self, vector: &[f32]) -> Sketch {
        self.row.fill(0.0);
        self.row[..vector.len()].copy_from_slice(vector);
        for signs in &self.signs {
            self.row.iter_mut().zip(signs).for_each(|(number, sign)| *number *= sign);
            hadamard(&mut self.row);
        }
        let mut sketch = [0; SKETCH_BYTES];
        for (bit, number) in self.row[..SKETCH_BITS].iter().enumerate() {
            sketch[bit / 8] |= u8::from(*number > 0.0) << (bit % 8);
        }
        sketch
    }
}

/// Most bits in which two vectors of that cosine differ, but for one in a million pairs.
pub(crate) fn most_bits_apart(cosine: f32) -> f32 {
    let share = cosine.clamp(-1.0, 1.0).acos() / PI;
    let bits = SKETCH_BITS as f32;
    bits * share + DEVIATIONS * (bits * share * (1.0 - share)).sqrt() + 1.0
}

/// Multiplies by the Hadamard matrix, in place.
fn hadamard(row: &mut [f32]) {
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// The next number of a generator (SplitMix64, Steele et al. 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(a: &Sketch, b: &Sketch) -> u32 {
        a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

    #[test]
    fn bits_apart_follow_the_angle() {
        for dimension in [5, 48, 384, 1000, 3000] {
            let mut sketcher = Sketcher::new(dimension);
            let mut state = 7;
            for cosine in [1.0f32, 0.99, 0.9, 0.7, 0.0, -0.5] {
                let mut gaussian =
                    || (0..12).map(|_| split_mix(&mut state) as f32 / u64::MAX as f32 - 0.5).sum::<f32>();
                let a: Vec<f32> = (0..dimension).map(|_| gaussian()).collect();
                let noise: Vec<f32> = (0..dimension).map(|_| gaussian()).collect();
                let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                let along = a.iter().zip(&noise).map(|(x, y)| x * y).sum::<f32>() / length(&a).powi(2);
                let across: Vec<f32> = a.iter().zip(&noise).map(|(x, y)| y - along * x).collect();
                let scale = (1.0 - cosine * cosine).sqrt() * length(&a) / length(&across);
                let b: Vec<f32> = a.iter().zip(&across).map(|(x, y)| cosine * x + scale * y).collect();
                let found = apart(&sketcher.sketch(&a), &sketcher.sketch(&b)) as f32;
                assert!(found <= most_bits_apart(cosine), "{dimension}, {cosine}: {found}");
                assert!(SKETCH_BITS as f32 - found <= most_bits_apart(-cosine), "{dimension}, {cosine}: {found}");
            }
        }
    }
}
