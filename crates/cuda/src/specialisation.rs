//! Which kernel with which constants: what NVRTC compiles is one of these.

use std::fmt::Write as _;

use crate::architecture::Architecture;
use crate::error::{CudaError, Result};

/// The 16-bit type of activations and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE binary16.
    F16,
    /// bfloat16; needs compute capability 8.0.
    Bf16,
}

/// An activation function of a kernel. The number is the one in `kernels/arithmetic.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Activation {
    /// None.
    Identity = 0,
    /// `x · Φ(x)` with the exact normal distribution.
    Gelu = 1,
    /// The tanh approximation of GELU.
    GeluTanh = 2,
    /// `max(x, 0)`.
    Relu = 3,
    /// Hyperbolic tangent.
    Tanh = 4,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 5,
    /// `x · sigmoid(x)`.
    Silu = 6,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu = 7,
}

/// How a sequence becomes one row. The number is the one in `kernels/pool.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pooling {
    /// The first token.
    Cls = 0,
    /// The last token.
    LastToken = 1,
    /// The mean.
    Mean = 2,
    /// The sum divided by the square root of the number of tokens.
    MeanSqrtLength = 3,
    /// The largest value of each column.
    Max = 4,
    /// The mean weighted by 1, 2, 3, ...
    WeightedMean = 5,
    /// The token that the batch names.
    Token = 6,
}

/// What the codes of a row are; each takes a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodeType {
    /// Unsigned integers, with a scale and a zero point for each row.
    Integer {
        /// Bits of a code.
        bits: u8,
    },
    /// Floats of 4 bits of exponent and 3 of mantissa, with a scale for each row; they need compute capability 8.9.
    E4m3,
}

/// How a matrix product is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Tokens of a block.
    pub rows: usize,
    /// Columns of a block.
    pub columns: usize,
    warps: [usize; 2],
    stages: usize,
}

/// Tiles of warps that multiply by themselves.
const WARP_TILES: [Tile; 4] = [
    Tile { rows: 16, columns: 16, warps: [1, 1], stages: 8 },
    Tile { rows: 32, columns: 32, warps: [1, 2], stages: 6 },
    Tile { rows: 64, columns: 64, warps: [2, 2], stages: 4 },
    Tile { rows: 128, columns: 128, warps: [2, 4], stages: 3 },
];

/// Tiles of warpgroups, each of which has 64 rows.
const WARPGROUP_TILES: [Tile; 5] = [
    Tile { rows: 64, columns: 16, warps: [4, 1], stages: 8 },
    Tile { rows: 64, columns: 32, warps: [4, 1], stages: 8 },
    Tile { rows: 64, columns: 64, warps: [4, 1], stages: 6 },
    Tile { rows: 128, columns: 128, warps: [8, 1], stages: 6 },
    Tile { rows: 128, columns: 256, warps: [8, 1], stages: 4 },
];

impl Tile {
    /// The tiles of matrix products on an architecture, the smallest one first. Which one is taken changes no bit of a result.
    pub fn all(architecture: Architecture) -> &'static [Tile] {
        if architecture.has_warpgroups() { &WARPGROUP_TILES } else { &WARP_TILES }
    }
}

/// The most elements of a row that each kernel of norms has room for, ascending. Which one is taken changes no bit of a result.
pub const NORM_ROOMS: [usize; 6] = [256, 512, 768, 1024, 2048, 4096];

/// The least room that rows of so many elements have in a kernel of norms.
pub(crate) fn norm_room(elements: usize) -> Result<usize> {
    let room = NORM_ROOMS.into_iter().find(|&room| room >= elements && elements.is_multiple_of(8));
    room.ok_or_else(|| {
        let most = NORM_ROOMS[NORM_ROOMS.len() - 1];
        CudaError::Unsupported(format!(
            "rows of {elements} elements; there are kernels for multiples of 8 up to {most}"
        ))
    })
}

/// Columns of an attention head in a tile. Heads of fewer columns are filled up with zeros.
pub const HEAD_DIMS: [usize; 5] = [32, 64, 96, 128, 256];
/// The same where scores have terms of content and position.
pub const CONTENT_HEAD_DIM: usize = 64;
/// Types of an activation's codes.
pub const CODE_TYPES: [CodeType; 3] = [CodeType::Integer { bits: 7 }, CodeType::Integer { bits: 8 }, CodeType::E4m3];
/// Warps of an attention block, each of which has 16 queries.
pub const ATTENTION_WARPS: [usize; 2] = [1, 4];
/// Activation functions that a matrix product over tokens can end with.
pub const GEMM_ACTIVATIONS: [Activation; 4] =
    [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Relu];
/// Ways to pool.
pub const POOLINGS: [Pooling; 7] = [
    Pooling::Cls,
    Pooling::LastToken,
    Pooling::Mean,
    Pooling::MeanSqrtLength,
    Pooling::Max,
    Pooling::WeightedMean,
    Pooling::Token,
];

/// Rows, or columns, that a block of a row-wise kernel has: one for each of its warps.
pub const ROWS_PER_BLOCK: usize = 4;
const POOL_WARPS: usize = 8;
/// Keys that an attention block takes at a time.
pub const KEYS: usize = 64;

/// A kernel and its constants. What each computes is told in its file, and executed in [`crate::contract`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Specialisation {
    /// Embedding, residual sum, layer norm, quantisation.
    Norm {
        /// The most elements of a row, one of [`NORM_ROOMS`].
        room: usize,
        /// What its codes are, where it writes some.
        codes: Option<CodeType>,
    },
    /// Quantisation of rows that no norm yields.
    Quantise {
        /// What its codes are.
        codes: CodeType,
    },
    /// What follows a matrix product of a library's: scales, bias, activation function, residual.
    Epilogue {
        /// Applied before the residual is added.
        activation: Activation,
        /// Whether the results are e4m3 codes.
        codes: bool,
    },
    /// A linear layer over tokens.
    Gemm {
        /// Whether operands are codes.
        codes: bool,
        /// Applied before the residual is added.
        activation: Activation,
        /// Index into [`Tile::all`].
        tile: usize,
        /// Whether results are f32.
        wide: bool,
    },
    /// A linear layer for each group of columns.
    GroupedGemm {
        /// Index into [`Tile::all`].
        tile: usize,
    },
    /// Attention within each sequence.
    Attention {
        /// Columns of a head in a tile: one of [`HEAD_DIMS`].
        head_dim: usize,
        /// Whether scores have terms of content and position.
        content: bool,
        /// Whether keys and values are in the pages of a cache.
        paged: bool,
        /// Warps of a block.
        warps: usize,
    },
    /// One row per sequence.
    Pool(Pooling),
    /// A linear layer of f32 rows.
    Dense,
    /// New keys and values into the pages of a cache.
    Append,
    /// Rows as f32.
    Widen,
    /// The norm of f32 rows.
    WideNorm,
    /// The norm of each head.
    HeadNorm,
    /// Activation functions of rows, times other rows.
    Gate,
    /// Rotation of heads by positions.
    Rotary {
        /// Whether a pair is two columns next to each other.
        interleaved: bool,
    },
    /// Some rows.
    Select,
}

impl CodeType {
    /// The constants that kernels ask for.
    fn constants(codes: Option<CodeType>) -> [(&'static str, usize); 2] {
        let (bits, e4m3) = match codes {
            None => (0, 0),
            Some(CodeType::Integer { bits }) => (usize::from(bits), 0),
            Some(CodeType::E4m3) => (8, 1),
        };
        [("BITS", bits), ("E4M3", e4m3)]
    }
}

const PRIMITIVES: &str = include_str!("../kernels/primitives.cu");
const ARITHMETIC: &str = include_str!("../kernels/arithmetic.cu");

impl Specialisation {
    /// The kernel's file and its text.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Specialisation::Norm { .. } => ("norm.cu", include_str!("../kernels/norm.cu")),
            Specialisation::Quantise { .. } => ("quantise.cu", include_str!("../kernels/quantise.cu")),
            Specialisation::Epilogue { .. } => ("epilogue.cu", include_str!("../kernels/epilogue.cu")),
            Specialisation::Gemm { .. } | Specialisation::GroupedGemm { .. } => {
                ("gemm.cu", include_str!("../kernels/gemm.cu"))
            }
            Specialisation::Attention { .. } => ("attention.cu", include_str!("../kernels/attention.cu")),
            Specialisation::Pool(_) => ("pool.cu", include_str!("../kernels/pool.cu")),
            Specialisation::Append => ("append.cu", include_str!("../kernels/append.cu")),
            Specialisation::Dense => ("dense.cu", include_str!("../kernels/dense.cu")),
            Specialisation::Widen => ("widen.cu", include_str!("../kernels/widen.cu")),
            Specialisation::WideNorm => ("wide_norm.cu", include_str!("../kernels/wide_norm.cu")),
            Specialisation::HeadNorm => ("head_norm.cu", include_str!("../kernels/head_norm.cu")),
            Specialisation::Gate => ("gate.cu", include_str!("../kernels/gate.cu")),
            Specialisation::Rotary { .. } => ("rotary.cu", include_str!("../kernels/rotary.cu")),
            Specialisation::Select => ("select.cu", include_str!("../kernels/select.cu")),
        }
    }

    /// The tile of a matrix product, an index into [`Tile::all`].
    fn tile(self) -> Option<usize> {
        if let Specialisation::Gemm { tile, .. } | Specialisation::GroupedGemm { tile } = self {
            Some(tile)
        } else {
            None
        }
    }

    fn warps(self, architecture: Architecture) -> usize {
        if let Some(tile) = self.tile() {
            return Tile::all(architecture)[tile].warps.iter().product();
        }
        if let Specialisation::Attention { warps, .. } = self {
            return warps;
        }
        if matches!(self, Specialisation::Pool(_)) { POOL_WARPS } else { ROWS_PER_BLOCK }
    }

    /// Whether it writes e4m3 codes.
    fn is_fp8(self) -> bool {
        matches!(
            self,
            Specialisation::Norm { codes: Some(CodeType::E4m3), .. }
                | Specialisation::Quantise { codes: CodeType::E4m3 }
                | Specialisation::Epilogue { codes: true, .. }
        )
    }
}

/// A kernel as it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// What it computes.
    pub specialisation: Specialisation,
    /// The type of its 16-bit floats.
    pub format: Format,
    /// What it is compiled for.
    pub architecture: Architecture,
}

impl Kernel {
    /// A kernel.
    ///
    /// # Errors
    /// The architecture lacks what it needs.
    pub fn new(specialisation: Specialisation, format: Format, architecture: Architecture) -> Result<Kernel> {
        let too_old = |what: &str, needed: &str| CudaError::Capability {
            what: what.to_owned(),
            needed: needed.to_owned(),
            found: format!("{}.{}", architecture.major, architecture.minor),
        };
        if architecture < Architecture::OLDEST {
            return Err(too_old("Centuple's CUDA backend", "7.5"));
        }
        if format == Format::Bf16 && !architecture.is_ampere() {
            return Err(too_old("bf16", "8.0"));
        }
        let tiles = Tile::all(architecture).len();
        if let Some(tile) = specialisation.tile()
            && tile >= tiles
        {
            return Err(CudaError::Unsupported(format!("tile {tile} for {architecture}, which has {tiles}")));
        }
        if specialisation.is_fp8() && !architecture.has_fp8() {
            return Err(too_old("fp8", "8.9"));
        }
        let kernel = Kernel { specialisation, format, architecture };
        if kernel.shared_bytes() > architecture.shared_bytes() {
            return Err(too_old(&format!("the kernel {}", kernel.name()), "8.0"));
        }
        Ok(kernel)
    }

    /// Every kernel that a plan can ask for on an architecture.
    pub fn all(architecture: Architecture) -> Vec<Kernel> {
        let mut all = Vec::new();
        for room in NORM_ROOMS {
            all.push(Specialisation::Norm { room, codes: None });
            all.extend(CODE_TYPES.map(|codes| Specialisation::Norm { room, codes: Some(codes) }));
        }
        all.extend(CODE_TYPES.map(|codes| Specialisation::Quantise { codes }));
        for codes in [false, true] {
            all.extend(GEMM_ACTIVATIONS.map(|activation| Specialisation::Epilogue { activation, codes }));
        }
        for tile in 0..Tile::all(architecture).len() {
            for codes in [false, true] {
                let gemm = |activation, wide| Specialisation::Gemm { codes, activation, tile, wide };
                all.extend(GEMM_ACTIVATIONS.map(|activation| gemm(activation, false)));
                all.push(gemm(Activation::Identity, true));
            }
            all.push(Specialisation::GroupedGemm { tile });
        }
        for warps in ATTENTION_WARPS {
            let attention = |head_dim, content, paged| Specialisation::Attention { head_dim, content, paged, warps };
            all.extend(HEAD_DIMS.map(|head_dim| attention(head_dim, false, false)));
            all.extend(HEAD_DIMS.map(|head_dim| attention(head_dim, false, true)));
            all.push(attention(CONTENT_HEAD_DIM, true, false));
        }
        all.extend(POOLINGS.map(Specialisation::Pool));
        all.extend([Specialisation::Dense, Specialisation::Append]);
        all.extend([Specialisation::Widen, Specialisation::WideNorm, Specialisation::HeadNorm]);
        all.extend([Specialisation::Gate, Specialisation::Select]);
        all.extend([false, true].map(|interleaved| Specialisation::Rotary { interleaved }));
        [Format::F16, Format::Bf16]
            .into_iter()
            .flat_map(|format| all.iter().map(move |&specialisation| (specialisation, format)))
            .filter_map(|(specialisation, format)| Kernel::new(specialisation, format, architecture).ok())
            .collect()
    }

    /// Threads of a block.
    pub fn threads(self) -> usize {
        32 * self.specialisation.warps(self.architecture)
    }

    /// How a matrix product is cut; other kernels are not.
    pub(crate) fn tile(self) -> Tile {
        Tile::all(self.architecture)[self.specialisation.tile().unwrap_or(0)]
    }

    /// Tiles or keys that are copied while others are used, and the one in use.
    fn stages(self) -> usize {
        let overlapped = self.architecture.is_ampere();
        if self.specialisation.tile().is_some() {
            return if overlapped { self.tile().stages } else { 2 };
        }
        let Specialisation::Attention { head_dim, warps, .. } = self.specialisation else { return 1 };
        let fits = attention_bytes(head_dim, warps, 2) <= self.architecture.shared_bytes();
        if overlapped && fits { 2 } else { 1 }
    }

    /// The constants that its file asks for.
    pub fn constants(self) -> Vec<(&'static str, usize)> {
        let mut constants = vec![("BF16", usize::from(self.format == Format::Bf16))];
        let warps = self.specialisation.warps(self.architecture);
        match self.specialisation {
            Specialisation::Norm { room, codes } => {
                constants.push(("ROOM", room));
                constants.extend(CodeType::constants(codes));
                constants.push(("WARPS", warps));
            }
            Specialisation::Quantise { codes } => {
                constants.extend(CodeType::constants(Some(codes)));
                constants.push(("WARPS", warps));
            }
            Specialisation::Epilogue { activation, codes } => {
                constants.extend([("ACTIVATION", activation as usize), ("E4M3", usize::from(codes)), ("WARPS", warps)]);
            }
            Specialisation::Gemm { codes, activation, wide, .. } => {
                constants.extend(self.tile_constants());
                constants.extend([("CODES", usize::from(codes)), ("ACTIVATION", activation as usize)]);
                constants.extend([("WIDE", usize::from(wide)), ("GROUPED", 0)]);
            }
            Specialisation::GroupedGemm { .. } => {
                constants.extend(self.tile_constants());
                constants.extend([("CODES", 0), ("ACTIVATION", 0), ("WIDE", 0), ("GROUPED", 1)]);
            }
            Specialisation::Attention { head_dim, content, paged, warps } => {
                constants.extend([("HEAD_DIM", head_dim), ("CONTENT", usize::from(content))]);
                constants.extend([("PAGED", usize::from(paged)), ("WARPS", warps), ("STAGES", self.stages())]);
            }
            Specialisation::Pool(pooling) => constants.extend([("POOLING", pooling as usize), ("WARPS", warps)]),
            Specialisation::Rotary { interleaved } => {
                constants.extend([("INTERLEAVED", usize::from(interleaved)), ("WARPS", warps)]);
            }
            Specialisation::Dense
            | Specialisation::Append
            | Specialisation::Widen
            | Specialisation::WideNorm
            | Specialisation::HeadNorm
            | Specialisation::Gate
            | Specialisation::Select => {
                constants.push(("WARPS", warps));
            }
        }
        constants
    }

    fn tile_constants(self) -> [(&'static str, usize); 7] {
        let Tile { rows, columns, warps: [warps_m, warps_n], .. } = self.tile();
        [
            ("TILE_M", rows),
            ("TILE_N", columns),
            ("WARPS_M", warps_m),
            ("WARPS_N", warps_n),
            ("STAGES", self.stages()),
            ("WARPGROUPS", usize::from(self.architecture.has_warpgroups())),
            ("OVERLAPS", usize::from(self.architecture.overlaps_kernels())),
        ]
    }

    /// The name of the function in the compiled module: its file's name and its constants.
    pub fn name(self) -> String {
        let (file, _) = self.specialisation.file();
        let mut name = file.trim_end_matches(".cu").to_owned();
        for (constant, value) in self.constants() {
            // Writing to a string can't fail.
            let _ = write!(name, "_{}{value}", constant.to_lowercase().replace('_', ""));
        }
        name
    }

    /// The text that NVRTC compiles: primitives, shared arithmetic and the kernel, which include nothing.
    pub fn source(self) -> String {
        let (file, text) = self.specialisation.file();
        [("primitives.cu", PRIMITIVES), ("arithmetic.cu", ARITHMETIC), (file, text)]
            .map(|(file, text)| format!("#line 1 \"{file}\"\n{text}"))
            .concat()
    }

    /// The same text without the primitives, for the emulator of the tests.
    pub fn portable_source(self) -> String {
        format!("{ARITHMETIC}\n{}", self.specialisation.file().1)
    }

    /// The constants as a compiler's arguments, the function's name among them.
    pub fn definitions(self) -> Vec<String> {
        let mut definitions = vec![format!("-DNAME={}", self.name())];
        definitions.extend(self.constants().iter().map(|(name, value)| format!("-D{name}={value}")));
        definitions
    }

    /// All of NVRTC's options.
    pub fn options(self) -> Vec<String> {
        let mut options = vec![
            format!("--gpu-architecture={}", self.architecture),
            "--std=c++17".to_owned(),
            // What is fused is written so; the contract rounds in the same places.
            "--fmad=false".to_owned(),
            // A kernel doesn't use every primitive.
            "--diag-suppress=177".to_owned(),
            "--ptxas-options=-v".to_owned(),
        ];
        options.extend(self.definitions());
        options
    }

    /// Bytes of dynamic shared memory of a block.
    pub fn shared_bytes(self) -> usize {
        if self.specialisation.tile().is_some() {
            let Tile { rows, columns, .. } = self.tile();
            return self.stages() * (rows + columns) * 128;
        }
        if let Specialisation::Attention { head_dim, warps, .. } = self.specialisation {
            return attention_bytes(head_dim, warps, self.stages());
        }
        if matches!(self.specialisation, Specialisation::Pool(_)) { POOL_WARPS * size_of::<f32>() } else { 0 }
    }
}

/// Shared memory of an attention block: its queries, and keys and values of each stage.
fn attention_bytes(head_dim: usize, warps: usize, stages: usize) -> usize {
    (16 * warps + stages * 2 * KEYS) * head_dim * size_of::<u16>()
}

/// Columns of a tile for heads of a width; `None` where there is no kernel.
pub fn head_tile(head_dim: usize) -> Option<usize> {
    HEAD_DIMS.into_iter().find(|&tile| head_dim <= tile && head_dim.is_multiple_of(8) && head_dim > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_and_blocks_fit() {
        for architecture in Architecture::BUILT {
            let all = Kernel::all(architecture);
            let names: HashSet<String> = all.iter().map(|kernel| kernel.name()).collect();
            assert_eq!(names.len(), all.len());
            for kernel in all {
                assert!(kernel.shared_bytes() <= architecture.shared_bytes(), "{}", kernel.name());
                assert!(kernel.name().chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            }
        }
    }

    #[test]
    fn old_devices_are_refused() {
        let pascal = Architecture::of(6, 1);
        let error = Kernel::new(Specialisation::Widen, Format::F16, pascal).unwrap_err().to_string();
        assert!(error.contains("7.5") && error.contains("6.1"), "{error}");
        let error = Kernel::new(Specialisation::Widen, Format::Bf16, Architecture::OLDEST).unwrap_err().to_string();
        assert!(error.contains("bf16"), "{error}");
        let widest = Specialisation::Attention { head_dim: 256, content: false, paged: false, warps: 1 };
        let error = Kernel::new(widest, Format::F16, Architecture::OLDEST).unwrap_err().to_string();
        assert!(error.contains("headdim256") && error.contains("8.0"), "{error}");
        let gemm = Specialisation::Gemm { codes: false, activation: Activation::Identity, tile: 4, wide: false };
        let error = Kernel::new(gemm, Format::F16, Architecture::OLDEST).unwrap_err().to_string();
        assert!(error.contains("tile 4") && error.contains("sm_75"), "{error}");
        let quantise = Specialisation::Quantise { codes: CodeType::E4m3 };
        let error = Kernel::new(quantise, Format::F16, Architecture::BUILT[2]).unwrap_err().to_string();
        assert!(error.contains("fp8") && error.contains("8.9") && error.contains("8.6"), "{error}");
    }

    #[test]
    fn heads_have_the_smallest_tile() {
        let tiles = [8, 32, 40, 80, 112, 128, 136, 256].map(head_tile);
        assert_eq!(tiles, [32, 32, 64, 96, 128, 128, 256, 256].map(Some));
        assert_eq!([0, 26, 264].map(head_tile), [None; 3]);
    }
}
