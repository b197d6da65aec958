//! What this machine can do at most: multiply-adds from registers, bytes read from memory. Figures of
//! kernels are given as shares of these, measured in the same run.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use crate::dispatch::Kernels;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::simd::dot::Dot;
#[cfg(any(target_arch = "x86_64", test))]
use crate::simd::tiles::{TILE_BYTES, TILE_ROWS, TILES, TileConfig, TileUnit};
use crate::simd::{LANES, Simd};
use crate::thread_pool::{ThreadPool, Worker};

/// Vector operations per measurement, a multiple of every number of chains; some hundred microseconds.
const MULTIPLY_ADDS: usize = 1_200_000;

/// Int8 dot products per measurement, likewise.
const DOTS: usize = 480_000;

/// Multiply-accumulates of one of them: 16 columns × 8 of depth.
const MACS_PER_DOT: usize = 16 * 8;

/// The same where an instruction multiplies tiles.
const TILE_DOTS: usize = 16 * DOTS;

/// Measurements; the best counts.
const REPEATS: usize = 20;

/// Multiply-accumulates per second that all threads of the pool reach together, in units of 10⁹, when
/// every operand is in a register: the ceiling of every f32 kernel.
pub fn giga_macs_per_second(kernels: Kernels, pool: &ThreadPool) -> Result<f64, KernelError> {
    let macs = (MULTIPLY_ADDS * LANES * pool.threads()) as f64;
    let seconds = best_seconds(pool, &|worker: &Worker<'_>| {
        worker.barrier();
        // SAFETY: the kernel only computes in registers.
        black_box(unsafe { (kernels.table.multiply_add_chains)(black_box(MULTIPLY_ADDS)) });
        worker.barrier();
    })?;
    Ok(macs / seconds / 1e9)
}

/// Multiply-accumulates of int8 per second that all threads of the pool reach together, in units of 10⁹,
/// when every operand is in a register: the ceiling of the int8 kernels on this instruction set, with
/// products chained where that is what its kernel for 7-bit activations does.
/// The portable kernel does better than its figure, because making a chain costs more there than a product.
pub fn giga_int8_macs_per_second(kernels: Kernels, pool: &ThreadPool) -> Result<f64, KernelError> {
    let dots = if kernels.isa() == Isa::Amx { TILE_DOTS } else { DOTS };
    let macs = (dots * MACS_PER_DOT * pool.threads()) as f64;
    let seconds = best_seconds(pool, &|worker: &Worker<'_>| {
        worker.barrier();
        // SAFETY: the kernel only computes in registers.
        black_box(unsafe { (kernels.int8.dot_chains)(black_box(dots)) });
        worker.barrier();
    })?;
    Ok(macs / seconds / 1e9)
}

/// Bytes per second, in units of 10⁹, at which all threads of the pool together read a buffer of
/// `bytes`; a buffer larger than the last cache gives the bandwidth of memory.
pub fn giga_bytes_per_second(pool: &ThreadPool, bytes: usize) -> Result<f64, KernelError> {
    let words = vec![1u64; bytes.div_ceil(size_of::<u64>()).max(1)];
    let seconds = best_seconds(pool, &|worker: &Worker<'_>| {
        worker.barrier();
        let part = &words[worker.share(words.len())];
        black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        worker.barrier();
    })?;
    Ok((words.len() * size_of::<u64>()) as f64 / seconds / 1e9)
}

/// The shortest time of a run.
fn best_seconds(pool: &ThreadPool, job: &(dyn Fn(&Worker<'_>) + Sync)) -> Result<f64, KernelError> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        pool.run(job)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Does `multiply_adds` operations on vectors of 16 lanes.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn multiply_add_chains<S: Simd>(s: S, multiply_adds: usize) -> f32 {
    // As many chains as hide the latency and fit the registers.
    match S::TILE_ROWS {
        12 => chains::<S, 12>(s, multiply_adds),
        6 => chains::<S, 6>(s, multiply_adds),
        _ => chains::<S, 3>(s, multiply_adds),
    }
}

#[inline(always)]
fn chains<S: Simd, const CHAINS: usize>(s: S, multiply_adds: usize) -> f32 {
    let mut sums = [s.splat(1.0); CHAINS];
    let factor = s.splat(black_box(0.999));
    let term = s.splat(black_box(0.001));
    for _ in 0..multiply_adds / CHAINS {
        for sum in &mut sums {
            *sum = s.mul_add(factor, term, *sum);
        }
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        total = s.add(total, *sum);
    }
    s.sum(total)
}

/// Does `dots` int8 dot products.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn dot_chains<S: Dot>(s: S, dots: usize) -> f32 {
    // As many chains as hide the latency and fit the registers.
    match S::DOT_ROWS * S::DOT_PANELS {
        12.. => byte_chains::<S, 20>(s, dots),
        2.. => byte_chains::<S, 5>(s, dots),
        _ => byte_chains::<S, 1>(s, dots),
    }
}

#[inline(always)]
fn byte_chains<S: Dot, const CHAINS: usize>(s: S, dots: usize) -> f32 {
    let x = black_box([1.0f32, 2.0]);
    // SAFETY: both words are there.
    let x = unsafe { [s.load_word(&x[0]), s.load_word(&x[1])] };
    let mut sums = [s.no_sums(); CHAINS];
    for _ in 0..dots / CHAINS {
        for sum in &mut sums {
            // The sums are the weights too, or else the compiler would compute products only once.
            let line = s.as_line(*sum);
            *sum = s.dot::<true>(*sum, x, [line, line]);
        }
    }
    let mut total = s.splat(0.0);
    for sum in sums {
        // SAFETY: the array has 16 elements.
        total = s.add(total, unsafe { s.dequantize(sum, 1, [1; LANES].as_ptr(), s.splat(1.0)) });
    }
    s.sum(total)
}

/// Does `dots` int8 dot products, each a 128th of a product of tiles.
///
/// # Safety
/// None beyond holding the token `t`.
#[cfg(any(target_arch = "x86_64", test))]
#[inline(always)]
pub(crate) unsafe fn tile_products<T: TileUnit>(t: T, dots: usize) -> f32 {
    const CHAINS: usize = 4;
    const DOTS_PER_PRODUCT: usize = TILE_ROWS * LANES * TILE_BYTES / MACS_PER_DOT;
    let bytes = black_box([[1u8; TILE_BYTES]; TILE_ROWS]);
    let mut sums = [[0i32; LANES]; TILE_ROWS];
    // SAFETY: all tiles have 16 rows of 64 bytes, which `bytes` and `sums` have, too.
    unsafe {
        t.configure(&TileConfig::of_rows([TILE_ROWS; TILES]));
        t.load::<4>(bytes.as_flattened().as_ptr(), TILE_BYTES);
        t.load::<5>(bytes.as_flattened().as_ptr(), TILE_BYTES);
        for _ in 0..dots / (CHAINS * DOTS_PER_PRODUCT) {
            t.multiply::<0, 4, 5>();
            t.multiply::<1, 4, 5>();
            t.multiply::<2, 4, 5>();
            t.multiply::<3, 4, 5>();
        }
        t.store::<0>(sums.as_mut_ptr().cast(), TILE_BYTES);
    }
    t.release();
    sums[0][0] as f32
}
