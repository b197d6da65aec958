//! Rotations against f64.

use centuple_kernels::{Matrix, MatrixMut, Rotary};

use crate::support::{all_kernels, assert_close, bits, values};

#[test]
fn rotations_match_f64_and_leave_the_rest() {
    let (rows, heads, limit) = (5, 3, 9);
    let positions = [8, 0, 3, 3, 7];
    for (head_dim, pairs) in [(2, 1), (7, 2), (16, 8), (20, 5), (64, 32), (80, 40), (5, 0)] {
        let columns = heads * head_dim;
        // Columns of a wider matrix.
        let wide = values(rows * (columns + 3), 1);
        let x = Matrix::contiguous(&wide, rows, columns + 3).unwrap().slice_columns(2..columns + 2).unwrap();
        let angles = values(limit * 2 * pairs, 2);
        let table = Matrix::contiguous(&angles, limit, 2 * pairs).unwrap();
        for interleaved in [false, true] {
            let rotary = Rotary { head_dim, interleaved, table, positions: &positions };
            let mut want = Vec::new();
            for (row, position) in positions.iter().enumerate() {
                let angles = table.row(*position as usize).unwrap();
                for head in x.row(row).unwrap().chunks(head_dim) {
                    let mut head: Vec<f64> = head.iter().map(|x| f64::from(*x)).collect();
                    for pair in 0..pairs {
                        let (a, b) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                        let (cosine, sine) = (f64::from(angles[pair]), f64::from(angles[pair + pairs]));
                        (head[a], head[b]) = (head[a] * cosine - head[b] * sine, head[b] * cosine + head[a] * sine);
                    }
                    want.extend(head);
                }
            }
            let mut first = None;
            for kernels in all_kernels() {
                let mut out = vec![f32::NAN; rows * columns];
                let mut view = MatrixMut::contiguous(&mut out, rows, columns).unwrap();
                kernels.rotary(x, &rotary, &mut view).unwrap();
                assert_close(&out, &want, 2e-7, &format!("{} {head_dim} {pairs} {interleaved}", kernels.isa()));
                assert_eq!(first.get_or_insert(bits(&out)), &bits(&out), "{}", kernels.isa());
            }
        }
    }
}

#[test]
fn rotations_that_do_not_fit_are_refused() {
    let data = values(48, 1);
    let x = Matrix::contiguous(&data, 4, 12).unwrap();
    let table = |columns| Matrix::contiguous(&data, 3, columns).unwrap();
    let good = Rotary { head_dim: 6, interleaved: false, table: table(4), positions: &[0, 2, 1, 2] };
    let bad = [
        Rotary { head_dim: 0, ..good },
        Rotary { head_dim: 5, ..good },
        Rotary { table: table(3), ..good },
        Rotary { table: table(8), ..good },
        Rotary { positions: &[0, 1, 2], ..good },
        Rotary { positions: &[0, 1, 2, 3], ..good },
    ];
    for kernels in all_kernels() {
        let mut out = vec![0.0; 48];
        let mut view = MatrixMut::contiguous(&mut out, 4, 12).unwrap();
        kernels.rotary(x, &good, &mut view).unwrap();
        for rotary in &bad {
            assert!(kernels.rotary(x, rotary, &mut view).is_err(), "{rotary:?}");
        }
    }
}
