//! Results have the same bits on every machine: fingerprints that were taken on x86-64 hold on aarch64 too. After a
//! change of a kernel that is meant to change bits, take those that the failing tests show.

use centuple_kernels::{
    Activation, ActivationBits, AttentionBlock, Epilogue, Int4Weight, Isa, Kernels, KeyRun, LayerNorm, Matrix,
    MatrixMut, PackedHalf, PackedInt4, PackedInt8, PackedMatrix, PositionScores, Quantization, QuantizedRowsMut,
    RowCodes, attention_scratch, pack, pack_half, pack_int4, pack_int8, packed_half_len, packed_int4_len,
    packed_int8_len, packed_len, quantized_columns,
};

use crate::support::quantized::Quantized;
use crate::support::{all_kernels, values};

const ROWS: usize = 37;
const COLUMNS: usize = 75;
const DEPTH: usize = 111;

/// All but portable kernels that round products before they add them.
fn fused_kernels() -> impl Iterator<Item = Kernels> {
    let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    all_kernels().filter(move |kernels| fused || kernels.isa() != Isa::Portable)
}

/// Compares the FNV-1a hash of the bits.
fn expect(values: &[f32], want: u64, kernels: Kernels) {
    let bytes = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let found = bytes.fold(0xCBF2_9CE4_8422_2325, step);
    assert!(found == want, "{}: {found:#018X} instead of {want:#018X}", kernels.isa());
}

/// Bias, activation and residual, applied by `gemm` to a product of every activation.
fn with_epilogues(mut gemm: impl FnMut(&Epilogue<'_>, &mut MatrixMut<'_>)) -> Vec<f32> {
    let (bias, residual) = (values(COLUMNS, 3), values(ROWS * COLUMNS, 4));
    let residual = Matrix::contiguous(&residual, ROWS, COLUMNS).unwrap();
    let mut all = Vec::new();
    for activation in Activation::ALL {
        let mut out = vec![f32::NAN; ROWS * COLUMNS];
        let epilogue = Epilogue { bias: Some(&bias), activation: Some(activation), residual: Some(residual) };
        gemm(&epilogue, &mut MatrixMut::contiguous(&mut out, ROWS, COLUMNS).unwrap());
        all.extend(out);
    }
    all
}

#[test]
fn products() {
    let (a, weight) = (values(ROWS * DEPTH, 1), values(COLUMNS * DEPTH, 2));
    let a = Matrix::contiguous(&a, ROWS, DEPTH).unwrap();
    let weight = Matrix::contiguous(&weight, COLUMNS, DEPTH).unwrap();
    let mut packed = vec![0.0; packed_len(COLUMNS, DEPTH)];
    pack(weight, &mut packed).unwrap();
    let b = PackedMatrix::new(&packed, COLUMNS, DEPTH).unwrap();
    let mut halves = vec![0.0; packed_half_len(COLUMNS, DEPTH)];
    pack_half(weight, &mut halves).unwrap();
    let half = PackedHalf::from_words(&halves, COLUMNS, DEPTH).unwrap();
    for kernels in fused_kernels() {
        let got = with_epilogues(|epilogue, out| kernels.gemm(a, b, 0..b.panels(), epilogue, out).unwrap());
        expect(&got, 0xFF6E_8C8B_7438_0787, kernels);
        let got = with_epilogues(|epilogue, out| kernels.gemm_half(a, half, 0..b.panels(), epilogue, out).unwrap());
        expect(&got, 0xA529_D072_E6B2_D42D, kernels);
    }
}

#[test]
fn attention() {
    let data = values(60 * 3 * 40, 7);
    let all = Matrix::contiguous(&data, 60, 120).unwrap();
    let runs = [KeyRun::Rows { keys: all.slice_columns(40..80).unwrap(), values: all.slice_columns(80..120).unwrap() }];
    let block = AttentionBlock {
        queries: all.slice_columns(0..40).unwrap().slice_rows(0..50).unwrap(),
        runs: &runs,
        first_position: 10,
        causal: true,
        window: None,
        position: PositionScores::None,
        scale: 0.5,
        soft_cap: None,
        mask: None,
    };
    let mut scratch = vec![0.0; attention_scratch(60, 40, 40)];
    for kernels in fused_kernels() {
        let mut out = vec![f32::NAN; 50 * 40];
        let mut view = MatrixMut::contiguous(&mut out, 50, 40).unwrap();
        kernels.attention(&block, &mut scratch, &mut view).unwrap();
        expect(&out, 0x8D5F_4FF1_CC61_2C68, kernels);
    }
}

#[test]
fn windows_and_position_scores() {
    let (data, tables) = (values(60 * 3 * 40, 7), values(110 * 80, 8));
    let all = Matrix::contiguous(&data, 60, 120).unwrap();
    let runs = [KeyRun::Rows { keys: all.slice_columns(40..80).unwrap(), values: all.slice_columns(80..120).unwrap() }];
    let tables = Matrix::contiguous(&tables, 110, 80).unwrap();
    let buckets: Vec<u32> =
        (0..161).map(|distance| if distance < 60 { 2 * distance / 3 } else { distance / 2 }).collect();
    let disentangled = PositionScores::Disentangled {
        buckets: &buckets[..159],
        content_to_position: Some(tables.slice_rows(0..50).unwrap()),
        position_to_content: Some(tables.slice_rows(50..110).unwrap()),
    };
    let mut scratch = vec![0.0; attention_scratch(60, 40, 40)];
    for kernels in fused_kernels() {
        let mut all_outputs = Vec::new();
        for (position, window) in [(PositionScores::Bias(&data[..99]), Some(13)), (disentangled, None)] {
            let block = AttentionBlock {
                queries: all.slice_columns(0..40).unwrap().slice_rows(0..50).unwrap(),
                runs: &runs,
                first_position: 10,
                causal: false,
                window,
                position,
                scale: 0.5,
                soft_cap: None,
                mask: None,
            };
            let mut out = vec![f32::NAN; 50 * 40];
            let mut view = MatrixMut::contiguous(&mut out, 50, 40).unwrap();
            kernels.attention(&block, &mut scratch, &mut view).unwrap();
            all_outputs.extend(out);
        }
        expect(&all_outputs, 0x36B8_8E31_5A12_E92B, kernels);
    }
}

#[test]
fn norms_softmax_and_quantised_rows() {
    let (x, gamma, beta) = (values(ROWS * COLUMNS, 1), values(COLUMNS, 2), values(COLUMNS, 3));
    let x = Matrix::contiguous(&x, ROWS, COLUMNS).unwrap();
    let norm = LayerNorm { gamma: &gamma, beta: Some(&beta), epsilon: 1e-5 };
    let width = quantized_columns(COLUMNS, ActivationBits::Eight);
    for kernels in fused_kernels() {
        let mut all = vec![f32::NAN; ROWS * COLUMNS];
        let mut words = vec![f32::NAN; ROWS * width];
        let view = MatrixMut::contiguous(&mut words, ROWS, width).unwrap();
        let rows = QuantizedRowsMut::new(view, COLUMNS, ActivationBits::Eight).unwrap();
        let mut quantization = Quantization { factor: Some(&gamma), rows };
        let mut out = MatrixMut::contiguous(&mut all, ROWS, COLUMNS).unwrap();
        kernels.layer_norm_quantize(x, None, &norm, &mut out, &mut quantization).unwrap();
        let mut soft = all.clone();
        kernels.softmax(&mut MatrixMut::contiguous(&mut soft, ROWS, COLUMNS).unwrap());
        all.extend(words);
        all.extend(soft);
        expect(&all, 0xFB8A_FE14_E7C6_5714, kernels);
    }
}

#[test]
fn int8_products() {
    let (x, weight) = (values(ROWS * DEPTH, 1), values(COLUMNS * DEPTH, 2));
    for (bits, want) in
        ActivationBits::ALL.into_iter().zip([0xAC2A_5A1F_BEDD_C680, 0x0198_28D5_D392_46A5, 0xBCE5_2DA7_7C73_CEA1])
    {
        let weight = Quantized::new(&weight, DEPTH, bits);
        let width = quantized_columns(DEPTH, bits);
        let mut packed = vec![0.0; packed_int8_len(COLUMNS, DEPTH)];
        pack_int8(&weight.view(), &mut packed).unwrap();
        let b = PackedInt8::new(&packed, COLUMNS, DEPTH, bits).unwrap();
        for kernels in fused_kernels() {
            let mut words = vec![f32::NAN; ROWS * width];
            let view = MatrixMut::contiguous(&mut words, ROWS, width).unwrap();
            let mut rows = QuantizedRowsMut::new(view, DEPTH, bits).unwrap();
            kernels.quantize_rows(Matrix::contiguous(&x, ROWS, DEPTH).unwrap(), None, &mut rows).unwrap();
            let got = with_epilogues(|epilogue, out| {
                kernels.gemm_int8(rows.as_rows(), b, 0..b.panels(), epilogue, out).unwrap();
            });
            expect(&got, want, kernels);
        }
    }
}

#[test]
fn int4_products() {
    const GROUP: usize = 32;
    let groups = DEPTH.div_ceil(GROUP);
    let nibbles = |count, seed| values(count, seed).iter().map(|value| (value * 8.0).floor() as i8).collect::<Vec<_>>();
    let (x, codes, points) = (values(ROWS * DEPTH, 1), nibbles(COLUMNS * DEPTH, 2), nibbles(COLUMNS * groups, 5));
    let scales = values(COLUMNS * groups, 6);
    for (zero_points, want) in [(None, 0x0B45_E6ED_C447_4A5C), (Some(&points[..]), 0x47D8_12CB_2AC8_7DA6)] {
        let weight = Int4Weight { codes: &codes, scales: &scales, zero_points, n: COLUMNS, k: DEPTH, group: GROUP };
        let mut packed = vec![0.0; packed_int4_len(COLUMNS, DEPTH, GROUP, zero_points.is_some())];
        pack_int4(&weight, &mut packed).unwrap();
        let b = PackedInt4::new(&packed, COLUMNS, DEPTH, GROUP, zero_points.is_some()).unwrap();
        let width = quantized_columns(DEPTH, RowCodes::Groups(GROUP));
        for kernels in fused_kernels() {
            let mut words = vec![f32::NAN; ROWS * width];
            let view = MatrixMut::contiguous(&mut words, ROWS, width).unwrap();
            let mut rows = QuantizedRowsMut::new(view, DEPTH, RowCodes::Groups(GROUP)).unwrap();
            kernels.quantize_rows(Matrix::contiguous(&x, ROWS, DEPTH).unwrap(), None, &mut rows).unwrap();
            let got = with_epilogues(|epilogue, out| {
                kernels.gemm_int4(rows.as_rows(), b, 0..b.panels(), epilogue, out).unwrap();
            });
            expect(&got, want, kernels);
        }
    }
}
