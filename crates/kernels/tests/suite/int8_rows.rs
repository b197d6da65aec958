//! Quantisation of rows and of embedding tables.

use centuple_kernels::{
    ActivationBits, EmbeddingTable, Int8Table, Kernels, LayerNorm, Matrix, MatrixMut, Quantization, QuantizedRows,
    QuantizedRowsMut, embed, int8_table_columns, pack_table, quantized_columns,
};
use proptest::prelude::*;

use crate::support::quantized::symmetric;
use crate::support::{all_kernels, bits, values};

const COLUMNS: [usize; 12] = [1, 2, 7, 8, 9, 16, 17, 31, 33, 100, 384, 1000];

/// The words of quantised rows without gaps.
fn quantize(kernels: Kernels, x: &[f32], columns: usize, factor: Option<&[f32]>, bits: ActivationBits) -> Vec<f32> {
    quantize_within(kernels, x, columns, factor, bits, None)
}

fn quantize_within(
    kernels: Kernels,
    x: &[f32],
    columns: usize,
    factor: Option<&[f32]>,
    bits: ActivationBits,
    range: Option<[f32; 2]>,
) -> Vec<f32> {
    let rows = x.len() / columns;
    let width = quantized_columns(columns, bits);
    let mut words = vec![f32::NAN; rows * width];
    let view = MatrixMut::contiguous(&mut words, rows, width).unwrap();
    let mut out = QuantizedRowsMut::new(view, columns, bits).unwrap().within(range);
    kernels.quantize_rows(Matrix::contiguous(x, rows, columns).unwrap(), factor, &mut out).unwrap();
    words
}

fn view(words: &[f32], columns: usize, bits: ActivationBits) -> QuantizedRows<'_> {
    let width = quantized_columns(columns, bits);
    QuantizedRows::new(Matrix::contiguous(words, words.len() / width, width).unwrap(), columns, bits).unwrap()
}

/// The definition: codes, scale, zero point.
fn expected(row: &[f32], activation_bits: ActivationBits, range: Option<[f32; 2]>) -> (Vec<u16>, f32, i32) {
    let levels = f32::from(activation_bits.levels());
    let [low, high] = range.unwrap_or_else(|| [f32::min, f32::max].map(|of| row.iter().copied().fold(0.0, of)));
    let scale = (high - low) / levels;
    let inverse = 1.0 / scale;
    let zero_point = (-low * inverse).round_ties_even();
    let code = |v: &f32| ((v * inverse).round_ties_even() + zero_point).clamp(0.0, levels) as u16;
    (row.iter().map(code).collect(), scale, zero_point as i32)
}

#[test]
fn rows_follow_the_definition_on_every_instruction_set() {
    for kernels in all_kernels() {
        for activation_bits in ActivationBits::ALL {
            for columns in COLUMNS {
                let mut x = values(4 * columns, 7);
                x[..columns].iter_mut().for_each(|x| *x = x.abs());
                x[columns..2 * columns].iter_mut().for_each(|x| *x = -x.abs());
                let factor: Vec<f32> = values(columns, 8).iter().map(|x| 1.5 + x).collect();
                // One row leaves any range.
                x[3 * columns..].iter_mut().for_each(|x| *x *= 1e30);
                for range in [None, Some([-0.5, 0.25]), Some([-1e-3, 0.0]), Some([0.0, 90.0])] {
                    let words = quantize_within(kernels, &x, columns, Some(&factor), activation_bits, range);
                    let rows = view(&words, columns, activation_bits);
                    for (i, row) in x.chunks(columns).enumerate() {
                        let scaled: Vec<f32> = row.iter().zip(&factor).map(|(x, factor)| x * factor).collect();
                        let (codes, scale, zero_point) = expected(&scaled, activation_bits, range);
                        let codes: Vec<i16> = codes.into_iter().map(u16::cast_signed).collect();
                        let what = format!("{} {activation_bits:?} {columns} {range:?}", kernels.isa());
                        assert_eq!(rows.codes(i).unwrap(), codes, "{what}");
                        assert_eq!(rows.scale(i).unwrap().to_bits(), scale.to_bits(), "{what}");
                        assert_eq!(rows.zero_point(i).unwrap(), zero_point, "{what}");
                    }
                    assert!(rows.codes(4).is_none() && rows.scale(4).is_none() && rows.zero_point(4).is_none());
                    for row in words.chunks(quantized_columns(columns, activation_bits)) {
                        let bytes: Vec<u8> = row.iter().flat_map(|word| word.to_bits().to_le_bytes()).collect();
                        let mut places = bytes[..bytes.len() - 8].chunks(columns.next_multiple_of(8));
                        assert!(places.all(|bytes| bytes[columns..].iter().all(|byte| *byte == 0)));
                    }
                }
            }
        }
    }
}

#[test]
fn every_code_of_12_bits_is_split_into_bytes_of_6() {
    let x: Vec<f32> = (0..4096).map(|code| code as f32).collect();
    for kernels in all_kernels() {
        let words = quantize(kernels, &x, 4096, None, ActivationBits::Twelve);
        assert_eq!(view(&words, 4096, ActivationBits::Twelve).scale(0), Some(1.0));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_bits().to_le_bytes()).collect();
        for code in 0..4096 {
            assert_eq!([bytes[code], bytes[4096 + code]].map(usize::from), [code / 64, code % 64]);
        }
    }
}

#[test]
fn rows_without_range_or_with_nan_are_harmless() {
    let columns = 21;
    for kernels in all_kernels() {
        for place in [0, 15, 20] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = values(3 * columns, 1);
                x[columns + place] = value;
                x[2 * columns..].fill(0.0);
                let words = quantize_within(kernels, &x, columns, None, ActivationBits::Seven, Some([-1.0, 1.0]));
                assert!(view(&words, columns, ActivationBits::Seven).scale(1).unwrap().is_nan(), "{value}");
                let words = quantize(kernels, &x, columns, None, ActivationBits::Seven);
                let rows = view(&words, columns, ActivationBits::Seven);
                assert!(rows.scale(0).unwrap() > 0.0);
                assert!(rows.scale(1).unwrap().is_nan(), "{} {value} at {place}", kernels.isa());
                assert_eq!((rows.scale(2), rows.zero_point(2)), (Some(0.0), Some(0)));
                assert!((1..3).all(|row| rows.codes(row).unwrap().iter().all(|code| *code == 0)));
            }
        }
        let x = [1e-42, -1e-42, 0.0, f32::MAX, f32::MIN, 0.0];
        let words = quantize(kernels, &x, 3, None, ActivationBits::Eight);
        let rows = view(&words, 3, ActivationBits::Eight);
        assert_eq!(rows.scale(0), Some(0.0));
        assert!(rows.scale(1).unwrap().is_nan());
    }
}

#[test]
fn fused_layer_norm_equals_its_parts() {
    for kernels in all_kernels() {
        for columns in COLUMNS {
            let rows = 5;
            let (x, residual) = (values(rows * columns, 1), values(rows * columns, 2));
            let (gamma, beta, factor) = (values(columns, 3), values(columns, 4), values(columns, 5));
            let norm = LayerNorm { gamma: &gamma, beta: Some(&beta), epsilon: 1e-5 };
            let x = Matrix::contiguous(&x, rows, columns).unwrap();
            let residual = Some(Matrix::contiguous(&residual, rows, columns).unwrap());
            let mut want = vec![0.0; rows * columns];
            kernels
                .layer_norm(x, residual, &norm, &mut MatrixMut::contiguous(&mut want, rows, columns).unwrap())
                .unwrap();
            for (activation_bits, factor) in
                ActivationBits::ALL.into_iter().flat_map(|bits| [(bits, None), (bits, Some(&factor[..]))])
            {
                let want_words = quantize(kernels, &want, columns, factor, activation_bits);
                let mut words = vec![f32::NAN; want_words.len()];
                let view =
                    MatrixMut::contiguous(&mut words, rows, quantized_columns(columns, activation_bits)).unwrap();
                let target = QuantizedRowsMut::new(view, columns, activation_bits).unwrap();
                let mut quantization = Quantization { factor, rows: target };
                let mut out = vec![0.0; rows * columns];
                let mut view = MatrixMut::contiguous(&mut out, rows, columns).unwrap();
                kernels.layer_norm_quantize(x, residual, &norm, &mut view, &mut quantization).unwrap();
                assert_eq!(bits(&out), bits(&want), "{} {columns}", kernels.isa());
                assert_eq!(bits(&words), bits(&want_words), "{} {columns}", kernels.isa());
            }
        }
    }
}

#[test]
fn misfits_are_refused_and_no_columns_taken() {
    for kernels in all_kernels() {
        let width = quantized_columns(4, ActivationBits::Seven);
        let mut words = vec![0.0; 2 * width];
        let view = MatrixMut::contiguous(&mut words, 2, width).unwrap();
        assert!(QuantizedRowsMut::new(view, 4, ActivationBits::Twelve).is_err());
        let view = MatrixMut::contiguous(&mut words, 2, width).unwrap();
        let mut out = QuantizedRowsMut::new(view, 4, ActivationBits::Seven).unwrap();
        let x = Matrix::contiguous(&[0.0; 8], 2, 4).unwrap();
        kernels.quantize_rows(x, Some(&[1.0; 4]), &mut out).unwrap();
        assert!(kernels.quantize_rows(x, Some(&[1.0; 3]), &mut out).is_err());
        assert!(kernels.quantize_rows(x.slice_rows(0..1).unwrap(), None, &mut out).is_err());
        assert!(kernels.quantize_rows(x.slice_columns(0..3).unwrap(), None, &mut out).is_err());
        for activation_bits in ActivationBits::ALL {
            let view = MatrixMut::contiguous(&mut words, 2, quantized_columns(0, activation_bits)).unwrap();
            let mut out = QuantizedRowsMut::new(view, 0, activation_bits).unwrap();
            kernels.quantize_rows(Matrix::contiguous(&[], 2, 0).unwrap(), None, &mut out).unwrap();
            assert_eq!(out.as_rows().scale(1), Some(0.0));
            assert_eq!(out.as_rows().codes(1), Some(Vec::new()));
        }
    }
}

#[test]
fn int8_tables_are_looked_up() {
    let (rows, columns) = (5, 13);
    let mut table = values(rows * columns, 1);
    table[columns..2 * columns].fill(0.0);
    let mut words = vec![f32::NAN; rows * int8_table_columns(columns)];
    let (codes, scales): (Vec<_>, Vec<_>) = table.chunks(columns).map(|row| symmetric(row, 1.0)).unzip();
    let codes = codes.concat();
    pack_table(&codes, &scales, columns, &mut words).unwrap();
    let int8 = Int8Table::new(&words, rows, columns).unwrap();
    let float = Matrix::contiguous(&table, rows, columns).unwrap();
    let ids = [4, 1, 0];
    let mut out = vec![0.0; 3 * columns];
    let mut view = MatrixMut::contiguous(&mut out, 3, columns).unwrap();
    let tables =
        [EmbeddingTable { table: int8.into(), ids: &ids }, EmbeddingTable { table: float.into(), ids: &[0, 0, 0] }];
    embed(&tables, &mut view).unwrap();
    for (token, id) in ids.iter().enumerate() {
        let scale = int8.row(*id as usize).unwrap().1;
        for column in 0..columns {
            let want = table[*id as usize * columns + column] + table[column];
            assert!((out[token * columns + column] - want).abs() <= 0.5001 * scale + 1e-6);
        }
    }
    let mut view = MatrixMut::contiguous(&mut out, 1, columns).unwrap();
    assert!(embed(&[EmbeddingTable { table: int8.into(), ids: &[5] }], &mut view).is_err());
    assert!(Int8Table::new(&words[1..], rows, columns).is_err());
    assert!(pack_table(&codes, &scales, columns, &mut words[1..]).is_err());
    assert!(pack_table(&codes[1..], &scales, columns, &mut words).is_err());
}

proptest! {
    /// A code is at most one step from the value it stands for: half a step by its own rounding and half
    /// by that of the zero point, which the top of the range may be clamped by.
    #[test]
    fn codes_stand_for_their_values(
        row in prop::collection::vec(-1000.0f32..1000.0, 1..80),
        activation_bits in prop::sample::select(&ActivationBits::ALL),
    ) {
        for kernels in all_kernels() {
            let words = quantize(kernels, &row, row.len(), None, activation_bits);
            let rows = view(&words, row.len(), activation_bits);
            let (scale, zero_point) = (rows.scale(0).unwrap(), rows.zero_point(0).unwrap());
            for (code, value) in rows.codes(0).unwrap().iter().zip(&row) {
                prop_assert!(*code >= 0 && *code <= activation_bits.levels().cast_signed());
                let meant = (i32::from(*code) - zero_point) as f32 * scale;
                prop_assert!((meant - value).abs() <= 1.001 * scale, "{value} became {meant}");
            }
        }
    }
}
