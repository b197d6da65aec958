//! Int8 matrix multiplication by tile registers: the same product as [`super::gemm`], bit for bit.
//!
//! Rows of codes and panels of packed weights are tiles as they lie, 64 of depth each. Sums of 32 rows by 32
//! columns stay in four tiles over the whole depth; what is left of it, less than 64, is added by vectors. So
//! are products of few rows as a whole. Codes of two bytes take two passes, one for each.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::gemm::{self, Job};
use super::rows::{code_words, row_words};
use crate::gemm::{SUM_ROWS, Sums, finish};
use crate::pack::PANEL;
use crate::simd::Simd;
use crate::simd::dot::Dot;
use crate::simd::tiles::{TILE_BYTES, TILE_ROWS, TileConfig, TileUnit};
use crate::tile::Pieces;

/// Rows below which tiles are not worth it.
const MIN_ROWS: usize = 8;

/// Rows of two tiles A, one above the other.
const PAIR_ROWS: usize = 2 * TILE_ROWS;

/// Panels of two tiles B, side by side.
const PAIR_PANELS: usize = 2;

/// Words in the row of a tile A: its depth by fours.
const TILE_WORDS: usize = TILE_BYTES / 4;

/// Bytes of the longest code.
const MAX_BYTES: usize = 2;

/// Elements in a tile B.
const TILE_ELEMENTS: usize = TILE_ROWS * TILE_WORDS;

/// Bytes from one row of sums to the next.
const SUM_STRIDE: usize = PAIR_PANELS * TILE_BYTES;

// The numbers of the tiles: sums by tile A and tile B, then both tiles A, then both tiles B.
const SUMS_00: usize = 0;
const SUMS_01: usize = 1;
const SUMS_10: usize = 2;
const SUMS_11: usize = 3;
const A_0: usize = 4;
const A_1: usize = 5;
const B_0: usize = 6;
const B_1: usize = 7;

/// Integer sums of two tiles A by two panels; uninitialised until the tiles are stored.
#[repr(align(64))]
struct TileSums(MaybeUninit<[i32; PAIR_ROWS * PAIR_PANELS * PANEL]>);

/// Rows by panels that are computed at once.
struct Block {
    /// The first row.
    row: usize,
    /// Rows of both tiles A; the second may have none.
    heights: [usize; 2],
    /// One or two.
    panels: Range<usize>,
}

/// # Safety
/// As [`gemm::multiply`].
#[inline(always)]
pub(crate) unsafe fn multiply<T: TileUnit>(t: T, job: &Job<'_>) {
    const { assert!(<T::Vectors as Dot>::OFFSET == 0, "tiles multiply activations as they are") };
    if job.x.rows() < MIN_ROWS || code_words(job.b.k()) < TILE_WORDS {
        // SAFETY: as promised by the caller.
        return unsafe { gemm::multiply(t.vectors(), job) };
    }
    for rows in Pieces::new(0..job.x.rows(), job.block_rows(PAIR_ROWS)) {
        // Every piece has as many rows as the first, or one less.
        let height = Pieces::new(rows.clone(), PAIR_ROWS).next().map_or(0, |piece| piece.len());
        let first = if height > TILE_ROWS { height.div_ceil(2) } else { height };
        let heights = [first, height - first];
        let [a_0, a_1] = heights;
        // SAFETY: no tile has more than 16 rows, and the tiles have the shapes of `heights`.
        unsafe {
            t.configure(&TileConfig::of_rows([a_0, a_0, a_1, a_1, a_0, a_1, TILE_ROWS, TILE_ROWS]));
            multiply_rows(t, job, rows, heights);
        }
        t.release();
    }
}

/// # Safety
/// As [`multiply`]; the rows exist, `heights` add up to the first of their pieces, and the tiles have their shapes.
#[inline(always)]
unsafe fn multiply_rows<T: TileUnit>(t: T, job: &Job<'_>, rows: Range<usize>, heights: [usize; 2]) {
    let height = heights[0] + heights[1];
    let mut panel = job.panels.start;
    while panel < job.panels.end {
        let panels = panel..job.panels.end.min(panel + PAIR_PANELS);
        for piece in Pieces::new(rows.clone(), PAIR_ROWS) {
            // Where a piece has a row less than the tiles, they take the one before it, too.
            let block = Block { row: piece.end - height, heights, panels: panels.clone() };
            let mut tiles = [const { TileSums(MaybeUninit::uninit()) }; MAX_BYTES];
            // SAFETY: rows and panels exist, and `to` has room for the rows of a part.
            unsafe {
                for (byte, sums) in tiles.iter_mut().enumerate().take(job.b.bits().bytes()) {
                    clear(t, &block);
                    add_products(t, &block, job, byte);
                    store(t, &block, sums);
                }
                for part in Pieces::new(piece, SUM_ROWS) {
                    let mut sums = Sums::new();
                    let (direct, to) = job.destination(part.start, &panels, &mut sums, PAIR_PANELS);
                    if gemm::is_chained::<T::Vectors>(job.b.bits()) {
                        scale::<T, true>(t, job, &block, &tiles, part.clone(), to);
                    } else {
                        scale::<T, false>(t, job, &block, &tiles, part.clone(), to);
                    }
                    if !direct {
                        finish::<_, true>(t.vectors(), &job.target, part, panels.clone(), &sums, PAIR_PANELS);
                    }
                }
            }
        }
        panel = panels.end;
    }
}

/// Sets all sums of a block to zero.
///
/// # Safety
/// The tiles have the shapes of the block.
#[inline(always)]
unsafe fn clear<T: TileUnit>(t: T, block: &Block) {
    // SAFETY: as promised by the caller.
    unsafe {
        t.zero::<SUMS_00>();
        t.zero::<SUMS_01>();
        if block.heights[1] > 0 {
            t.zero::<SUMS_10>();
            t.zero::<SUMS_11>();
        }
    }
}

/// Adds the products of a byte of the rows' codes by the panels' weights to the sums, as far as the depth fills
/// tiles.
///
/// # Safety
/// The tiles have the shapes of the block; its rows and panels exist, and codes have that byte.
#[inline(always)]
unsafe fn add_products<T: TileUnit>(t: T, block: &Block, job: &Job<'_>, byte: usize) {
    let stride = size_of::<f32>() * job.x.words().stride();
    let words = code_words(job.b.k());
    let mut a_0 = job.x.words().row_pointer(block.row).wrapping_add(byte * words);
    let mut a_1 = job.x.words().row_pointer(block.row + block.heights[0]).wrapping_add(byte * words);
    let mut b_0 = job.b.panel_pointer(block.panels.start);
    let mut b_1 = job.b.panel_pointer(block.panels.start + 1);
    let (two_tiles, two_panels) = (block.heights[1] > 0, block.panels.len() == PAIR_PANELS);
    for _ in 0..words / TILE_WORDS {
        // SAFETY: 16 more words of each row and 16 more lines of each panel exist.
        unsafe {
            t.load::<B_0>(b_0.cast(), TILE_BYTES);
            t.load::<A_0>(a_0.cast(), stride);
            t.multiply::<SUMS_00, A_0, B_0>();
            if two_panels {
                t.load::<B_1>(b_1.cast(), TILE_BYTES);
                t.multiply::<SUMS_01, A_0, B_1>();
            }
            if two_tiles {
                t.load::<A_1>(a_1.cast(), stride);
                t.multiply::<SUMS_10, A_1, B_0>();
                if two_panels {
                    t.multiply::<SUMS_11, A_1, B_1>();
                }
            }
        }
        (a_0, a_1) = (a_0.wrapping_add(TILE_WORDS), a_1.wrapping_add(TILE_WORDS));
        (b_0, b_1) = (b_0.wrapping_add(TILE_ELEMENTS), b_1.wrapping_add(TILE_ELEMENTS));
    }
}

/// Stores the sums of a block.
///
/// # Safety
/// The tiles have the shapes of the block.
#[inline(always)]
unsafe fn store<T: TileUnit>(t: T, block: &Block, sums: &mut TileSums) {
    let upper: *mut u8 = sums.0.as_mut_ptr().cast();
    let lower = upper.wrapping_add(block.heights[0] * SUM_STRIDE);
    // SAFETY: `sums` holds 32 rows of two panels, and both tiles have at most that many.
    unsafe {
        t.store::<SUMS_00>(upper, SUM_STRIDE);
        t.store::<SUMS_01>(upper.wrapping_add(TILE_BYTES), SUM_STRIDE);
        if block.heights[1] > 0 {
            t.store::<SUMS_10>(lower, SUM_STRIDE);
            t.store::<SUMS_11>(lower.wrapping_add(TILE_BYTES), SUM_STRIDE);
        }
    }
}

/// Adds the products of the rest of the depth to the stored sums of some rows, joins those of all bytes, scales
/// them, and adds the bias. The first result goes to `to`, which comes with the way to the next row.
///
/// # Safety
/// The rows belong to the block, whose sums are stored; rows and panels exist, and `to` has room for them.
#[inline(always)]
unsafe fn scale<T: TileUnit, const CHAINED: bool>(
    t: T,
    job: &Job<'_>,
    block: &Block,
    tiles: &[TileSums; MAX_BYTES],
    rows: Range<usize>,
    (to, to_row): (*mut f32, usize),
) {
    let s = t.vectors();
    let words = code_words(job.b.k());
    for (p, panel) in block.panels.clone().enumerate() {
        let b = job.b.panel_pointer(panel);
        // SAFETY: every row has `words` words for each byte of a code and 2 more, every panel `words` lines, 16
        // scales and 16 sums.
        unsafe {
            let [bias] = job.biases(s, panel);
            for (i, row) in rows.clone().enumerate() {
                let x = job.x.words().row_pointer(row);
                let mut sums = s.no_sums();
                for (byte, tiles) in tiles.iter().enumerate().take(job.b.bits().bytes()) {
                    let mut own = s.no_sums();
                    for word in (words / TILE_WORDS * TILE_WORDS..words).step_by(2) {
                        let (x, b) = (x.add(byte * words + word), b.add(word * PANEL));
                        let pair = [s.load_word(x), s.load_word(x.add(1))];
                        own = s.dot::<CHAINED>(own, pair, [s.load_line(b), s.load_line(b.add(PANEL))]);
                    }
                    let tiles: *const i32 = tiles.0.as_ptr().cast();
                    own = t.add_sums(own, tiles.add(((row - block.row) * PAIR_PANELS + p) * PANEL));
                    sums = s.join_sums(sums, own);
                }
                let x = x.add(row_words(job.b.k(), job.b.bits()));
                let scale = s.mul(s.splat(*x), s.load(job.b.scales_pointer(panel)));
                let zero_point = (*x.add(1)).to_bits().cast_signed();
                let value = s.dequantize(sums, zero_point, job.b.sums_pointer(panel), scale);
                s.store(s.add(value, bias), to.add(i * to_row + p * PANEL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::activation::Activation;
    use crate::ceiling::tile_products;
    use crate::gemm::Epilogue;
    use crate::int8::gemm::ROW_BLOCK_BYTES;
    use crate::int8::{
        ActivationBits, Int8Weight, PackedInt8, QuantizedRows, QuantizedRowsMut, pack_int8, packed_int8_len, quantize,
        quantized_columns,
    };
    use crate::matrix::{Matrix, MatrixMut};
    use crate::simd::portable::Portable;
    use crate::simd::tiles::TILES;

    /// Tiles in plain Rust, which refuse what the instructions fault on, and count what they do.
    struct TileModel {
        config: Option<TileConfig>,
        tiles: [[[u8; TILE_BYTES]; TILE_ROWS]; TILES],
        products: usize,
    }

    impl TileModel {
        fn new() -> RefCell<Self> {
            RefCell::new(Self { config: None, tiles: [[[0; TILE_BYTES]; TILE_ROWS]; TILES], products: 0 })
        }

        /// Rows of a tile and bytes of each.
        fn shape(&self, tile: usize) -> (usize, usize) {
            let config = self.config.as_ref().expect("tiles are configured");
            let shape = (usize::from(config.rows[tile]), usize::from(config.row_bytes[tile]));
            assert!(shape.0 > 0, "tile {tile} has a shape");
            shape
        }
    }

    impl TileUnit for &RefCell<TileModel> {
        type Vectors = Portable;

        fn vectors(self) -> Portable {
            Portable
        }
        unsafe fn add_sums(self, mut sums: <Portable as Dot>::Sums, from: *const i32) -> <Portable as Dot>::Sums {
            // SAFETY: as promised by the caller.
            let from = unsafe { from.cast::<[i32; PANEL]>().read() };
            for (sum, from) in sums.as_flattened_mut().chunks_exact_mut(2).zip(from) {
                sum[0] += from;
            }
            sums
        }
        unsafe fn configure(self, config: &TileConfig) {
            assert_eq!((config.palette, config.start_row, config.reserved), (1, 0, [0; 14]));
            for (rows, bytes) in config.rows.into_iter().zip(config.row_bytes) {
                assert!(usize::from(rows) <= TILE_ROWS && usize::from(bytes) <= TILE_BYTES);
                assert_eq!(rows == 0, bytes == 0);
            }
            assert!(config.rows[TILES..].iter().all(|rows| *rows == 0));
            let mut model = self.borrow_mut();
            assert!(model.config.is_none(), "tiles were released");
            model.config = Some(*config);
            model.tiles.as_flattened_mut().fill([0; TILE_BYTES]);
        }
        fn release(self) {
            self.borrow_mut().config.take().expect("tiles are configured");
        }
        unsafe fn zero<const TILE: usize>(self) {
            let mut model = self.borrow_mut();
            model.shape(TILE);
            model.tiles[TILE] = [[0; TILE_BYTES]; TILE_ROWS];
        }
        unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize) {
            let mut model = self.borrow_mut();
            let (rows, bytes) = model.shape(TILE);
            model.tiles[TILE] = [[0; TILE_BYTES]; TILE_ROWS];
            for (i, row) in model.tiles[TILE].iter_mut().enumerate().take(rows) {
                // SAFETY: as promised by the caller.
                unsafe { std::ptr::copy_nonoverlapping(from.add(i * stride), row.as_mut_ptr(), bytes) };
            }
        }
        unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize) {
            let model = self.borrow();
            let (rows, bytes) = model.shape(TILE);
            for (i, row) in model.tiles[TILE].iter().enumerate().take(rows) {
                // SAFETY: as promised by the caller.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to.add(i * stride), bytes) };
            }
        }
        unsafe fn multiply<const SUMS: usize, const A: usize, const B: usize>(self) {
            let mut model = self.borrow_mut();
            assert!(SUMS != A && SUMS != B && A != B);
            let ((rows, sum_bytes), (a_rows, a_bytes), (b_rows, b_bytes)) =
                (model.shape(SUMS), model.shape(A), model.shape(B));
            assert_eq!((rows, sum_bytes, b_rows), (a_rows, b_bytes, a_bytes / 4));
            let (a, b) = (model.tiles[A], model.tiles[B]);
            for (row, a) in model.tiles[SUMS].iter_mut().zip(a).take(rows) {
                for (column, sum) in row[..sum_bytes].chunks_exact_mut(4).enumerate() {
                    let mut total = i32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
                    for depth in 0..a_bytes {
                        let b = b[depth / 4][4 * column + depth % 4].cast_signed();
                        total += i32::from(a[depth]) * i32::from(b);
                    }
                    sum.copy_from_slice(&total.to_le_bytes());
                }
            }
            model.products += 1;
        }
    }

    /// Reproducible values in [-1, 1).
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        let mut next = || {
            state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Compares some panels of a product with those of the portable kernel, a residual being added in place, and
    /// returns how many products of tiles it took.
    fn check((m, n, k): (usize, usize, usize), bits: ActivationBits, panels: Range<usize>) -> usize {
        let stride = quantized_columns(k, bits) + 3;
        let mut rows = vec![f32::NAN; m * stride];
        let words = MatrixMut::new(&mut rows, m, quantized_columns(k, bits), stride).unwrap();
        let mut words = QuantizedRowsMut::new(words, k, bits).unwrap();
        let floats = values(m * k, 1);
        let quantization = quantize::Job::new(Matrix::contiguous(&floats, m, k).unwrap(), None, &mut words).unwrap();
        // SAFETY: the job was checked.
        unsafe { quantize::rows(Portable, &quantization) };
        let words = Matrix::new(&rows, m, quantized_columns(k, bits), stride).unwrap();
        let x = QuantizedRows::new(words, k, bits).unwrap();
        let codes: Vec<i8> = values(n * k, 2).iter().map(|v| (v * 64.0) as i8).collect();
        let mut packed = vec![0.0; packed_int8_len(n, k)];
        pack_int8(&Int8Weight { codes: &codes, scales: &values(n, 3), n, k, bits }, &mut packed).unwrap();
        let b = PackedInt8::new(&packed, n, k, bits).unwrap();
        let bias = values(n, 4);
        let model = TileModel::new();
        let run = |kernel: &dyn Fn(&Job<'_>)| {
            let mut out = values(m * n, 5);
            let mut view = MatrixMut::contiguous(&mut out, m, n).unwrap();
            // SAFETY: the view outlives the job; a residual may be the memory of the result.
            let residual = unsafe { Matrix::from_raw_parts(view.row_pointer(0), m, n, n) };
            let epilogue = Epilogue { bias: Some(&bias), activation: Some(Activation::Relu), residual: Some(residual) };
            kernel(&Job::new(x, b, panels.clone(), &epilogue, &mut view).unwrap());
            out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        // SAFETY: the jobs were checked, and neither kernel needs anything of the CPU.
        let got = run(&|job| unsafe { multiply(&model, job) });
        // SAFETY: as above.
        let want = run(&|job| unsafe { gemm::multiply(Portable, job) });
        assert!(got == want, "{m}x{n}x{k}, panels {panels:?}");
        assert!(model.borrow().config.is_none(), "tiles are released");
        model.into_inner().products
    }

    #[test]
    fn tiles_compute_what_vectors_compute() {
        for bits in ActivationBits::ALL {
            for m in [8, 9, 15, 16, 17, 31, 32, 33, 34, 63, 65, 70, 96, 97] {
                for (n, k) in [(1usize, 57), (16, 64), (17, 65), (33, 72), (64, 129), (48, 384), (100, 200)] {
                    let panels = n.div_ceil(PANEL);
                    for range in [0..panels, 0..1, panels / 2..panels] {
                        assert!(check((m, n, k), bits, range) > 0);
                    }
                    assert_eq!(check((m, n, k), bits, 1..1), 0);
                }
            }
        }
    }

    #[test]
    fn rows_are_cut_into_blocks() {
        let k = ROW_BLOCK_BYTES / 64;
        for m in [64, 65, 129, 150] {
            check((m, 20, k), ActivationBits::Eight, 0..2);
        }
    }

    #[test]
    fn products_are_as_few_as_can_be() {
        let products = |m, n, k| check((m, n, k), ActivationBits::Seven, 0..usize::div_ceil(n, PANEL));
        assert_eq!(products(16, 16, 64), 1);
        assert_eq!(products(17, 16, 64), 2);
        assert_eq!(products(96, 48, 384), 6 * 3 * 6);
        assert_eq!((products(7, 16, 64), products(8, 16, 56)), (0, 0), "few rows and little depth are for vectors");
    }

    #[test]
    fn the_configuration_has_the_layout_of_the_cpu() {
        let config = TileConfig::of_rows([1, 2, 3, 4, 5, 6, 0, 16]);
        let at = &raw const config;
        // SAFETY: the type has 64 bytes and no padding.
        let bytes = unsafe { at.cast::<[u8; 64]>().read() };
        assert_eq!(bytes[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let row_bytes: Vec<u8> = [64, 0].iter().copied().cycle().take(12).chain([0, 0, 64, 0]).collect();
        assert_eq!(bytes[16..32], row_bytes);
        assert_eq!(bytes[32..48], [0; 16]);
        assert_eq!(bytes[48..], [1, 2, 3, 4, 5, 6, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_ceiling_counts_products() {
        let model = TileModel::new();
        // SAFETY: the model needs nothing of the CPU.
        let sum = unsafe { tile_products(&model, 2 * 4 * 128) };
        assert_eq!((sum, model.into_inner().products), (2.0 * 64.0, 8));
    }
}
