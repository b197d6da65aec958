//! One row by weights that come from memory: every precision at the shapes of SmolLM2-135M, on two threads, beside the
//! rate at which the same threads read memory.
//!
//! Each round reads some megabytes and then runs each product through as many, always others, so that nothing is found in a
//! cache. Figures are the fastest tenth of the rounds: on a machine that others use, the rest measures them.
//! `cargo bench -p centuple-kernels --bench decode -- [ISA] [ROWS] [THREADS]`

use std::hint::black_box;
use std::time::Instant;

use centuple_kernels::{
    ActivationBits, Epilogue, Isa, Kernels, Matrix, MatrixMut, PackedHalf, PackedInt4, PackedInt8, PackedMatrix,
    QuantizedRowsMut, RowCodes, ThreadPool, packed_half_len, packed_int4_len, packed_int8_len, packed_len, panels,
    quantized_columns,
};

/// Columns and depth: key, query, merged projections, up, merged gate and up, down, head.
const SHAPES: [(usize, usize); 7] =
    [(192, 576), (576, 576), (960, 576), (1536, 576), (3072, 576), (576, 1536), (49152, 576)];
const ROUNDS: usize = 60;
/// Elements of a group of 4-bit weights.
const GROUP: usize = 128;
/// Words of weights: several times the last cache.
const WORDS: usize = (256 << 20) / 4;
/// Words that are read at a time; at least one matrix.
const PART: usize = (24 << 20) / 4;
/// Floats of a huge page.
const HUGE: usize = (2 << 20) / 4;

/// Numbers on huge pages, as plans have their weights.
struct Weights {
    data: Vec<f32>,
    start: usize,
}

impl Weights {
    /// Ordinary numbers: as one f32, as two f16, as four i8.
    fn new() -> Self {
        let mut data: Vec<f32> = Vec::with_capacity(WORDS + HUGE);
        let start = data.as_ptr().align_offset(4 * HUGE);
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code)]
        // SAFETY: the range lies in the vector's own memory; advice changes no content.
        unsafe {
            libc::madvise(data.as_mut_ptr().wrapping_add(start).cast(), 4 * WORDS, libc::MADV_HUGEPAGE);
        }
        data.resize(WORDS + HUGE, f32::from_bits(0x3C00_3800));
        Self { data, start }
    }

    fn get(&self) -> &[f32] {
        &self.data[self.start..self.start + WORDS]
    }
}

/// A precision: what its weights take, and one product with some panels of them.
struct Precision {
    name: &'static str,
    words: fn(usize, usize) -> usize,
    product: fn(&Operands<'_>, &[f32], std::ops::Range<usize>, &mut MatrixMut<'_>),
}

/// What all products of a shape share.
struct Operands<'a> {
    kernels: Kernels,
    n: usize,
    k: usize,
    floats: Matrix<'a>,
    codes: &'a QuantizedRowsMut<'a>,
    long_codes: &'a QuantizedRowsMut<'a>,
    grouped: &'a QuantizedRowsMut<'a>,
}

const PRECISIONS: [Precision; 5] = [
    Precision {
        name: "f32",
        words: packed_len,
        product: |of, words, panels, out| {
            let b = PackedMatrix::new(words, of.n, of.k).expect("the words suffice");
            of.kernels.gemm(of.floats, b, panels, &Epilogue::default(), out).expect("the shapes fit");
        },
    },
    Precision {
        name: "f16",
        words: packed_half_len,
        product: |of, words, panels, out| {
            let b = PackedHalf::from_words(words, of.n, of.k).expect("the words suffice");
            of.kernels.gemm_half(of.floats, b, panels, &Epilogue::default(), out).expect("the shapes fit");
        },
    },
    Precision {
        name: "int8",
        words: packed_int8_len,
        product: |of, words, panels, out| {
            let b = PackedInt8::new(words, of.n, of.k, ActivationBits::Seven).expect("the words suffice");
            of.kernels.gemm_int8(of.codes.as_rows(), b, panels, &Epilogue::default(), out).expect("the shapes fit");
        },
    },
    // What follows an activation function has longer codes.
    Precision {
        name: "12-bit",
        words: packed_int8_len,
        product: |of, words, panels, out| {
            let b = PackedInt8::new(words, of.n, of.k, ActivationBits::Twelve).expect("the words suffice");
            of.kernels
                .gemm_int8(of.long_codes.as_rows(), b, panels, &Epilogue::default(), out)
                .expect("the shapes fit");
        },
    },
    Precision {
        name: "int4",
        words: |n, k| packed_int4_len(n, k, GROUP, false),
        product: |of, words, panels, out| {
            let b = PackedInt4::new(words, of.n, of.k, GROUP, false).expect("the words suffice");
            of.kernels.gemm_int4(of.grouped.as_rows(), b, panels, &Epilogue::default(), out).expect("the shapes fit");
        },
    },
];

/// Bytes per second at which the threads read some words.
fn read(pool: &ThreadPool, weights: &[f32]) -> f64 {
    let words: &[u64] = bytemuck::cast_slice(weights);
    let start = Instant::now();
    pool.run(&|worker| {
        worker.barrier();
        let part = &words[worker.share(words.len())];
        black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        worker.barrier();
    })
    .expect("nobody panics");
    (8 * words.len()) as f64 / start.elapsed().as_secs_f64()
}

/// Bytes per second of one precision on the matrices that some words hold, the threads meeting after each matrix.
fn decode(pool: &ThreadPool, weights: &[f32], precision: &Precision, operands: &Operands<'_>) -> f64 {
    let (m, n, k) = (operands.floats.rows(), operands.n, operands.k);
    // Matrices lie on pages, as in a plan.
    let words = (precision.words)(n, k);
    let length = words.next_multiple_of(1024);
    let start = Instant::now();
    pool.run(&|worker| {
        let mut out = vec![0.0; m * n];
        let mut out = MatrixMut::contiguous(&mut out, m, n).expect("the results fit");
        let pairs = worker.share(panels(n).div_ceil(2));
        let part = 2 * pairs.start..(2 * pairs.end).min(panels(n));
        worker.barrier();
        for matrix in weights.chunks_exact(length) {
            (precision.product)(operands, matrix, part.clone(), &mut out);
            worker.barrier();
        }
        black_box(out.row_mut(0));
    })
    .expect("nobody panics");
    (4 * words * (weights.len() / length)) as f64 / start.elapsed().as_secs_f64()
}

/// The rate that a tenth of the rounds exceeds.
fn best(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() - 1 - rates.len() / 10] / 1e9
}

/// Rates of reading and of every precision at one shape.
fn rates(pool: &ThreadPool, weights: &[f32], kernels: Kernels, (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let values: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 101) as f32 * 0.02 - 1.0).collect();
    let floats = Matrix::contiguous(&values, m, k).expect("the values fit");
    let forms = [ActivationBits::Seven, ActivationBits::Twelve]
        .map(RowCodes::Whole)
        .into_iter()
        .chain([RowCodes::Groups(GROUP)]);
    let forms: Vec<RowCodes> = forms.collect();
    let mut words: Vec<Vec<f32>> = forms.iter().map(|&form| vec![0.0; m * quantized_columns(k, form)]).collect();
    let quantized = words.iter_mut().zip(forms).map(|(words, form)| {
        let view = MatrixMut::contiguous(words, m, quantized_columns(k, form)).expect("the words fit");
        let mut rows = QuantizedRowsMut::new(view, k, form).expect("the words fit");
        kernels.quantize_rows(floats, None, &mut rows).expect("the shapes fit");
        rows
    });
    let quantized: Vec<QuantizedRowsMut<'_>> = quantized.collect();
    let [codes, long_codes, grouped] = &quantized[..] else { unreachable!("three forms") };
    let operands = Operands { kernels, n, k, floats, codes, long_codes, grouped };
    let mut at = 0;
    let mut next = |least: usize| {
        let length = PART.max(least.next_multiple_of(HUGE));
        at = if at + length > weights.len() { 0 } else { at };
        at += length;
        &weights[at - length..at]
    };
    let mut found = vec![Vec::new(); PRECISIONS.len() + 1];
    for _ in 0..ROUNDS {
        found[0].push(read(pool, next(0)));
        for (found, precision) in found[1..].iter_mut().zip(&PRECISIONS) {
            found.push(decode(pool, next((precision.words)(n, k)), precision, &operands));
        }
    }
    found.iter_mut().map(|rates| best(rates)).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let isa = arguments.first().map_or(Isa::best(), |name| name.parse().expect("an instruction set"));
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (rows, threads) = (number(1, 1), number(2, 2));
    let kernels = Kernels::new(isa).expect("the CPU has the instruction set");
    let pool = ThreadPool::new(threads).expect("threads start");
    let weights = Weights::new();
    println!("{isa}, {rows} rows, {threads} threads; GB/s, and percent of reading");
    for (n, k) in SHAPES {
        let rates = rates(&pool, weights.get(), kernels, (rows, n, k));
        print!("{k:>5} -> {n:<6} read {:5.1}", rates[0]);
        for (rate, precision) in rates[1..].iter().zip(&PRECISIONS) {
            print!("   {} {rate:5.1} {:4.0} %", precision.name, 100.0 * rate / rates[0]);
        }
        println!();
    }
}
