//! Random numbers that are looked up, not drawn: each has a place, and nobody else's draws move it.

/// Philox4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let (low0, high0) = 0xD251_1F53_u32.widening(counter[0]);
        let (low1, high1) = 0xCD9E_8D57_u32.widening(counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

trait Widening {
    /// The low and the high half of a product.
    fn widening(self, other: Self) -> (u32, u32);
}

impl Widening for u32 {
    fn widening(self, other: u32) -> (u32, u32) {
        let product = u64::from(self) * u64::from(other);
        (product as u32, (product >> 32) as u32)
    }
}

/// The number in [0, 1), with 53 bits, of a draw for the token at `position` of the answer's sequence `sequence`.
pub fn uniform(seed: u64, sequence: u32, position: u64, draw: u32) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, sequence, draw];
    let [low, high, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors of the generator publish.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }

    #[test]
    fn every_place_has_its_own_number() {
        let mut seen = std::collections::BTreeSet::new();
        for (seed, sequence, position, draw) in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)] {
            let number = uniform(seed, sequence, position, draw);
            assert!((0.0..1.0).contains(&number));
            assert!(seen.insert(number.to_bits()));
        }
        let mean = (0..10_000).map(|position| uniform(7, 0, position, 0)).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.015, "{mean}");
    }
}
