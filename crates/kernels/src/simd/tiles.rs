//! Tile registers, and the instruction that multiplies two of them: what the int8 kernel for AMX is written on.
//!
//! There are eight, each of up to 16 rows of 64 bytes. A tile A holds rows of codes, 64 of depth; a tile B 16
//! lines of packed weights, 4 of depth by 16 columns each; a tile of sums 16 columns in 32 bits for each row
//! of A.
#![allow(unsafe_code)]

use super::dot::Dot;

/// Tile registers.
pub(crate) const TILES: usize = 8;

/// Rows of the largest tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Bytes of the longest row of a tile.
pub(crate) const TILE_BYTES: usize = 64;

/// The shapes of all tiles, as the CPU reads them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    pub(crate) palette: u8,
    pub(crate) start_row: u8,
    pub(crate) reserved: [u8; 14],
    /// Bytes in a row of each tile; those after the eighth do not exist.
    pub(crate) row_bytes: [u16; 16],
    /// Rows of each tile, likewise.
    pub(crate) rows: [u8; 16],
}

const _: () = assert!(size_of::<TileConfig>() == 64);

impl TileConfig {
    /// Tiles of so many rows of 64 bytes; a tile of no rows must not be used.
    #[inline(always)]
    pub(crate) fn of_rows(rows: [usize; TILES]) -> Self {
        let mut config = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, rows) in rows.into_iter().enumerate() {
            config.rows[tile] = rows as u8;
            config.row_bytes[tile] = if rows == 0 { 0 } else { TILE_BYTES as u16 };
        }
        config
    }
}

/// Proof that the CPU has tiles, and their instructions. Tiles are named by their number.
pub(crate) trait TileUnit: Copy {
    /// The vectors beside the tiles.
    type Vectors: Dot;

    /// The vectors beside the tiles.
    fn vectors(self) -> Self::Vectors;
    /// `sums` plus the 16 integers at `from`.
    ///
    /// # Safety
    /// 16 integers at `from` are readable.
    unsafe fn add_sums(self, sums: <Self::Vectors as Dot>::Sums, from: *const i32) -> <Self::Vectors as Dot>::Sums;

    /// Gives the tiles of this thread their shapes, and zeros.
    ///
    /// # Safety
    /// No tile has more than 16 rows.
    unsafe fn configure(self, config: &TileConfig);
    /// Takes the shapes from the tiles.
    fn release(self);
    /// Fills a tile with zeros.
    ///
    /// # Safety
    /// The tile has a shape.
    unsafe fn zero<const TILE: usize>(self);
    /// Loads a tile whose rows are `stride` bytes apart.
    ///
    /// # Safety
    /// The tile has a shape, and all its rows are readable.
    unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize);
    /// Stores a tile, its rows `stride` bytes apart.
    ///
    /// # Safety
    /// The tile has a shape, and all its rows are writable.
    unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize);
    /// Adds to each of `SUMS` the products of a row of `A`, unsigned bytes, by a column of `B`, signed bytes.
    ///
    /// # Safety
    /// The tiles are different ones. `SUMS` has as many rows as `A`, and `B` has 16; all rows have 64 bytes.
    unsafe fn multiply<const SUMS: usize, const A: usize, const B: usize>(self);
}
