//! What the bytes of one block mean, type by type, as ggml defines it. Each rounds where ggml rounds.

/// Elements that share a scale in most types.
const GROUP: usize = 32;
/// Bytes of 4-bit codes of such elements: the first half is in the low bits, the second in the high bits.
const NIBBLES: usize = GROUP / 2;

fn half(block: &[u8], at: usize) -> f32 {
    match block.get(at..).and_then(<[u8]>::first_chunk::<2>) {
        Some(bytes) => half::f16::from_le_bytes(*bytes).to_f32(),
        None => 0.0,
    }
}

pub(crate) fn f32(block: &[u8; 4], values: &mut [f32; 1]) {
    *values = [f32::from_le_bytes(*block)];
}

pub(crate) fn f16(block: &[u8; 2], values: &mut [f32; 1]) {
    *values = [half::f16::from_le_bytes(*block).to_f32()];
}

pub(crate) fn bf16(block: &[u8; 2], values: &mut [f32; 1]) {
    *values = [half::bf16::from_le_bytes(*block).to_f32()];
}

/// Scale, then codes less 8.
pub(crate) fn q4_0(block: &[u8; 18], values: &mut [f32; GROUP]) {
    let scale = half(block, 0);
    nibbles(&block[2..], values, |code| f32::from(code as i8 - 8) * scale);
}

/// Scale, minimum, then codes.
pub(crate) fn q4_1(block: &[u8; 20], values: &mut [f32; GROUP]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    nibbles(&block[4..], values, |code| f32::from(code) * scale + least);
}

/// Scale, the fifth bit of every code, then their other bits; codes are less 16.
pub(crate) fn q5_0(block: &[u8; 22], values: &mut [f32; GROUP]) {
    let scale = half(block, 0);
    with_fifth_bit(&block[2..], values, |code| f32::from(code as i8 - 16) * scale);
}

/// Scale, minimum, the fifth bit of every code, then their other bits.
pub(crate) fn q5_1(block: &[u8; 24], values: &mut [f32; GROUP]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    with_fifth_bit(&block[4..], values, |code| f32::from(code) * scale + least);
}

/// Scale, then codes.
pub(crate) fn q8_0(block: &[u8; 34], values: &mut [f32; GROUP]) {
    let scale = half(block, 0);
    for (value, &code) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(code as i8) * scale;
    }
}

/// Writes what becomes of 32 codes of 4 bits.
fn nibbles(codes: &[u8], values: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = values.split_at_mut(NIBBLES.min(values.len()));
    for ((code, low), high) in codes.iter().zip(low).zip(high) {
        (*low, *high) = (value(code & 15), value(code >> 4));
    }
}

fn with_fifth_bit(block: &[u8], values: &mut [f32; GROUP], value: impl Fn(u8) -> f32) {
    let Some((fifth, codes)) = block.split_first_chunk::<4>() else { return };
    let fifth = u32::from_le_bytes(*fifth);
    let bit = |element: usize| ((fifth >> element & 1) as u8) << 4;
    for (element, code) in codes.iter().enumerate().take(NIBBLES) {
        values[element] = value(code & 15 | bit(element));
        values[element + NIBBLES] = value(code >> 4 | bit(element + NIBBLES));
    }
}

/// The 6-bit scale and minimum of one of the 8 groups, out of 12 bytes.
fn scale_and_least(packed: &[u8], group: usize) -> (f32, f32) {
    let at = |index: usize| packed.get(index).copied().unwrap_or(0);
    let (scale, least) = match group.checked_sub(4) {
        None => (at(group) & 63, at(group + 4) & 63),
        Some(later) => {
            let low = at(group + 4);
            (low & 15 | at(later) >> 6 << 4, low >> 4 | at(group) >> 6 << 4)
        }
    };
    (f32::from(scale), f32::from(least))
}

/// Scale of the scales, scale of the minima, those of 8 groups, then the codes of two groups at a time.
pub(crate) fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (scales, minima) = (half(block, 0), half(block, 2));
    let (packed, codes) = (&block[4..16], &block[16..]);
    let pairs = codes.chunks_exact(GROUP).zip(values.chunks_exact_mut(2 * GROUP));
    for (pair, (codes, values)) in pairs.enumerate() {
        let (low, high) = values.split_at_mut(GROUP);
        for (group, values, shift) in [(2 * pair, low, 0), (2 * pair + 1, high, 4)] {
            let (scale, least) = scale_and_least(packed, group);
            let (scale, least) = (scales * scale, minima * least);
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from(code >> shift & 15) - least;
            }
        }
    }
}

/// As Q4_K, with the fifth bits of all groups between scales and codes: bit `g` of byte `i` is for element `i` of group `g`.
pub(crate) fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (scales, minima) = (half(block, 0), half(block, 2));
    let (packed, fifth, codes) = (&block[4..16], &block[16..48], &block[48..]);
    let pairs = codes.chunks_exact(GROUP).zip(values.chunks_exact_mut(2 * GROUP));
    for (pair, (codes, values)) in pairs.enumerate() {
        let (low, high) = values.split_at_mut(GROUP);
        for (group, values, shift) in [(2 * pair, low, 0), (2 * pair + 1, high, 4)] {
            let (scale, least) = scale_and_least(packed, group);
            let (scale, least) = (scales * scale, minima * least);
            for ((value, code), fifth) in values.iter_mut().zip(codes).zip(fifth) {
                *value = scale * f32::from(code >> shift & 15 | (fifth >> group & 1) << 4) - least;
            }
        }
    }
}

/// Four low bits, two high bits and scales of two halves of 128 elements, then the scale of the scales; codes are less 32.
pub(crate) fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let (low, high, scales, whole) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    let halves = low.chunks_exact(64).zip(high.chunks_exact(32)).zip(scales.chunks_exact(8));
    for (((low, high), scales), values) in halves.zip(values.chunks_exact_mut(128)) {
        for (element, value) in values.iter_mut().enumerate() {
            // Quarters of 32: the first two are in the low halves of 64 bytes, the others in the high halves.
            let (quarter, place) = (element / 32, element % 32);
            let code = low[32 * (quarter % 2) + place] >> (4 * (quarter / 2)) & 15;
            let code = code | (high[place] >> (2 * quarter) & 3) << 4;
            let scale = whole * f32::from(scales[element / 16] as i8);
            *value = scale * f32::from(code as i8 - 32);
        }
    }
}
