//! Kernels on a device against their contract: every layout, index and order of sums, on shapes drawn by chance.
//!
//! The device is the emulator of the tests, or a GPU (`examples/gpu.rs`).

mod fp8;

use std::cell::{RefCell, RefMut};

use bytemuck::{AnyBitPattern, NoUninit};
use centuple_cuda::contract::{
    self, Affine, Attention, Codes, Coding, Dense, Gemm, HeadNorm, Heads, Norm, Pool, Rotary, Weight, gate,
    grouped_gemm, pool, quantise, select, wide_norm,
};
use centuple_cuda::{
    Activation, Architecture, AttentionOperands, BatchPointers, CODE_TYPES, CONTENT_HEAD_DIM, CachePointers, Capacity,
    CodePointers, CodeType, Columns, ContentScores, DenseOperands, Device, Distances, Extent, Format, GEMM_ACTIVATIONS,
    GemmOperands, GroupedGemmOperands, HeadNormOperands, IntegerOperands, Kernel, Launch, NORM_ROOMS, NormOperands,
    Operation, POOLINGS, Pointer, Pooling, RotaryOperands, Rows, Specialisation, Tile, WideNormOperands,
    attention_blocks, head_tile,
};
pub(crate) use fp8::{epilogue_is_its_contract, matmul_is_its_contract};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// SplitMix64, as floats.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn floats(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| scale * ((self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0)).collect()
    }

    fn stored(&mut self, format: Format, count: usize, scale: f32) -> Vec<u16> {
        format.narrowed(&self.floats(count, scale))
    }

    fn ids(&mut self, count: usize, limit: usize) -> Vec<i32> {
        (0..count).map(|_| (self.bits() % limit as u64) as i32).collect()
    }
}

/// A device, how closely it has to agree, and what its kernels are compiled for.
pub(crate) struct Subject<D> {
    pub(crate) device: RefCell<D>,
    /// By how much sums of a tensor core may differ, relative to one and the number, of f16 and of bf16: those within one
    /// instruction are its own. `None` where every bit counts.
    pub(crate) sums: Option<[f32; 2]>,
    pub(crate) architectures: Vec<Architecture>,
}

impl<D> Subject<D> {
    /// One of the architectures that have a format, by a number.
    fn architecture(&self, format: Format, number: u64) -> Option<Architecture> {
        self.able(Specialisation::Widen, format, number)
    }

    /// One of the architectures that have a kernel, by a number.
    fn able(&self, specialisation: Specialisation, format: Format, number: u64) -> Option<Architecture> {
        let able: Vec<Architecture> = self
            .architectures
            .iter()
            .copied()
            .filter(|&architecture| Kernel::new(specialisation, format, architecture).is_ok())
            .collect();
        able.get(number as usize % able.len().max(1)).copied()
    }
}

/// Memory as plain numbers.
trait Hold {
    /// Memory that holds elements.
    fn hold<T: NoUninit>(&mut self, elements: &[T]) -> Pointer;
    /// Elements that memory holds.
    fn held<T: AnyBitPattern + NoUninit>(&mut self, from: Pointer, count: usize) -> Vec<T>;
}

impl<D: Device> Hold for D {
    fn hold<T: NoUninit>(&mut self, elements: &[T]) -> Pointer {
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        let pointer = self.allocate(bytes.len()).expect("memory");
        self.write(pointer, bytes).expect("it was just allocated");
        pointer
    }

    fn held<T: AnyBitPattern + NoUninit>(&mut self, from: Pointer, count: usize) -> Vec<T> {
        let mut elements = vec![T::zeroed(); count];
        self.read(from, bytemuck::cast_slice_mut(&mut elements)).expect("memory of the device");
        elements
    }
}

/// A device with the buffers of a batch, whose grids have room for more than it has.
struct Bench<'d, D> {
    device: RefMut<'d, D>,
    batch: BatchPointers,
    capacity: Capacity,
}

impl<'d, D: Device> Bench<'d, D> {
    fn new(subject: &'d Subject<D>, lengths: &[usize], pool_from: &[usize], queries: usize) -> Bench<'d, D> {
        let mut device = subject.device.borrow_mut();
        let blocks = attention_blocks(lengths, queries);
        let tokens: usize = lengths.iter().sum();
        // Every third token.
        let selected: Vec<i32> = (0..tokens as i32).step_by(3).collect();
        let mut offsets = vec![0i32];
        lengths.iter().for_each(|&length| offsets.push(offsets[offsets.len() - 1] + length as i32));
        let batch = BatchPointers {
            header: device.hold(&[tokens as i32, lengths.len() as i32, blocks.len() as i32, selected.len() as i32]),
            offsets: device.hold(&offsets),
            blocks: device.hold(&blocks.concat().iter().map(|&x| x as i32).collect::<Vec<_>>()),
            pool_from: device.hold(&pool_from.iter().map(|&x| x as i32).collect::<Vec<_>>()),
            selected: device.hold(&selected),
            cache: CachePointers::default(),
            sources: CachePointers::default(),
        };
        Bench { device, batch, capacity: Capacity { tokens: tokens + 21, sequences: lengths.len() + 2 } }
    }

    fn tokens(subject: &'d Subject<D>, tokens: usize) -> Bench<'d, D> {
        Bench::new(subject, &[tokens], &[0], 16)
    }

    /// Rows of a kind, for which grids have room to spare.
    fn extent(&self, rows: Rows) -> Extent {
        self.batch.extent(rows, self.capacity)
    }

    fn hold_codes(&mut self, codes: &Codes) -> CodePointers {
        CodePointers {
            codes: self.device.hold(&codes.codes),
            scales: self.device.hold(&codes.scales),
            zero_points: self.device.hold(&codes.zero_points),
        }
    }

    fn space_for_codes(&mut self, tokens: usize, width: usize, of: CodeType) -> CodePointers {
        let zero_points = match of {
            CodeType::Integer { .. } => self.device.hold(&vec![0i32; tokens]),
            CodeType::E4m3 => Pointer::NULL,
        };
        CodePointers {
            codes: self.device.hold(&vec![0u8; tokens * width]),
            scales: self.device.hold(&vec![0f32; tokens]),
            zero_points,
        }
    }

    fn held_codes(&mut self, codes: CodePointers, tokens: usize, width: usize) -> Codes {
        let zero_points = match codes.zero_points {
            Pointer::NULL => Vec::new(),
            there => self.device.held(there, tokens),
        };
        Codes {
            codes: self.device.held(codes.codes, tokens * width),
            scales: self.device.held(codes.scales, tokens),
            zero_points,
        }
    }

    fn run(&mut self, launch: &Launch) {
        self.operate(&Operation::Launch(launch.clone()));
    }

    fn operate(&mut self, operation: &Operation) {
        let device = &mut *self.device;
        let prepared = match operation {
            Operation::Launch(launch) => device.prepare(launch.kernel),
            Operation::Matmul(matmul) => device.prepare_matmul(matmul),
        };
        let run = prepared.and_then(|()| device.capture(std::slice::from_ref(operation)));
        run.and_then(|graph| device.replay(graph)).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn kernel(specialisation: Specialisation, format: Format, architecture: Architecture) -> Kernel {
    Kernel::new(specialisation, format, architecture).expect("a kernel")
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::F16), Just(Format::Bf16)]
}

fn code_types() -> impl Strategy<Value = CodeType> {
    proptest::sample::select(CODE_TYPES.to_vec())
}

/// Cases of a property, each with a seed of its own; few, since each compiles kernels.
fn cases<S: Strategy>(count: u32, strategy: S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, check).unwrap_or_else(|error| panic!("{error}"));
}

/// Whether stored numbers agree within a step relative to `floor + |expected|`.
fn close(format: Format, steps: [f32; 2], floor: f32, found: &[u16], expected: &[u16]) -> Result<(), TestCaseError> {
    let step = steps[usize::from(format == Format::Bf16)];
    prop_assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (format.widen(found), format.widen(expected));
        let distance = (found - expected).abs();
        prop_assert!(distance <= step * (floor + expected.abs()), "{found} instead of {expected} at {place}");
    }
    Ok(())
}

impl<D> Subject<D> {
    /// Compares sums of a tensor core.
    fn sums(&self, format: Format, found: &[u16], expected: &[u16]) -> Result<(), TestCaseError> {
        if let Some(steps) = self.sums {
            return close(format, steps, 1.0, found, expected);
        }
        prop_assert_eq!(found, expected);
        Ok(())
    }

    /// The same, followed by a function that a machine approximates in its last bit.
    fn functions(&self, format: Format, found: &[u16], expected: &[u16]) -> Result<(), TestCaseError> {
        match self.sums {
            Some(steps) => close(format, steps, 1.0, found, expected),
            None => close(format, [1e-3, 8e-3], 1e-3, found, expected),
        }
    }
}

/// A range for all rows, which some leave, in half of the cases whose codes are integers.
fn given_range(seed: u64, codes: Option<CodeType>) -> Option<[f32; 2]> {
    (seed % 4 < 2 && matches!(codes, Some(CodeType::Integer { .. }))).then_some(if seed.is_multiple_of(4) {
        [-1.25, 2.5]
    } else {
        [0.0, 1.0]
    })
}

pub(crate) fn norm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes =
        (formats(), prop_oneof![1usize..40, 60usize..130, Just(320)], 1usize..9, 0usize..4, any::<[bool; 4]>());
    let all = (shapes, proptest::option::of(code_types()), any::<u64>());
    cases(32, all, |((format, eighths, tokens, tables, [x, residual, norm, by_square]), codes, seed)| {
        let hidden = 8 * eighths;
        let rooms: Vec<usize> = NORM_ROOMS.into_iter().filter(|&room| room >= hidden).collect();
        let specialisation = Specialisation::Norm { room: rooms[(seed % 7) as usize % rooms.len()], codes };
        let Some(architecture) = subject.able(specialisation, format, seed) else { return Ok(()) };
        let (mut random, mut bench) = (Random(seed), Bench::tokens(subject, tokens));
        let held: Vec<(Vec<u16>, Vec<i32>)> =
            (0..tables).map(|_| (random.stored(format, 10 * hidden, 1.0), random.ids(tokens, 10))).collect();
        let [x, residual] = [x, residual].map(|there| there.then(|| random.stored(format, tokens * hidden, 2.0)));
        let (gamma, beta) = (random.floats(hidden, 1.5), random.floats(hidden, 0.5));
        let (factor, scale) = (random.floats(hidden, 2.0), if seed % 3 == 0 { 1.7 } else { 1.0 });
        let range = given_range(seed, codes);
        let borrowed: Vec<(&[u16], &[i32])> = held.iter().map(|(table, ids)| (&table[..], &ids[..])).collect();
        let contract = Norm {
            format,
            tokens,
            hidden,
            x: x.as_deref(),
            tables: &borrowed,
            residual: residual.as_deref(),
            scale,
            affine: norm.then_some(Affine { gamma: &gamma, beta: (!by_square).then_some(&beta[..]), epsilon: 1e-5 }),
            codes: codes.map(|codes| match codes {
                CodeType::Integer { bits } => Coding::Integers { factor: &factor, bits, range },
                CodeType::E4m3 => Coding::E4m3,
            }),
        };
        let (expected, expected_codes) = contract.run();

        let device = &mut bench.device;
        let integers = IntegerOperands { factor: device.hold(&factor), range: range.unwrap_or_default() };
        let mut operands = NormOperands { hidden, epsilon: 1e-5, scale, integers, ..NormOperands::default() };
        for (to, (table, ids)) in operands.tables.iter_mut().zip(&held) {
            *to = (device.hold(table), device.hold(ids));
        }
        operands.x = x.map_or(Pointer::NULL, |x| device.hold(&x));
        operands.residual = residual.map_or(Pointer::NULL, |residual| device.hold(&residual));
        if norm {
            operands.gamma = device.hold(&gamma);
            operands.beta = if by_square { Pointer::NULL } else { device.hold(&beta) };
        }
        operands.y = device.hold(&vec![0u16; tokens * hidden]);
        if let Some(codes) = codes {
            operands.codes = bench.space_for_codes(tokens, hidden, codes);
        }
        let kernel = kernel(specialisation, format, architecture);
        bench.run(&Launch::norm(kernel, bench.extent(Rows::Tokens), &operands));
        prop_assert_eq!(bench.device.held::<u16>(operands.y, tokens * hidden), expected);
        if codes.is_some() {
            prop_assert_eq!(bench.held_codes(operands.codes, tokens, hidden), expected_codes);
        }
        Ok(())
    });
}

pub(crate) fn quantise_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), 1usize..9, 1usize..80, code_types(), any::<u64>());
    cases(24, all, |(format, tokens, eighths, codes, seed)| {
        let specialisation = Specialisation::Quantise { codes };
        let Some(architecture) = subject.able(specialisation, format, seed) else { return Ok(()) };
        let (mut random, mut bench, width) = (Random(seed), Bench::tokens(subject, tokens), eighths * 8);
        let mut x = random.stored(format, tokens * width, 3.0);
        // A row without a range has codes of nothing.
        x[..width].fill(0);
        let factor = random.floats(width, 2.0);
        let range = given_range(seed, Some(codes));
        let integers = IntegerOperands { factor: bench.device.hold(&factor), range: range.unwrap_or_default() };
        let (at, count) = (bench.device.hold(&x), bench.extent(Rows::Tokens));
        let place = bench.space_for_codes(tokens, width, codes);
        let kernel = kernel(specialisation, format, architecture);
        bench.run(&Launch::quantise(kernel, count, at, integers, place, width));
        let expected = match codes {
            CodeType::Integer { bits } => quantise(format, &x, &factor, bits, range),
            CodeType::E4m3 => Codes::e4m3(&format.widened(&x), width),
        };
        prop_assert_eq!(bench.held_codes(place, tokens, width), expected);
        Ok(())
    });
}

/// What a linear layer is made of.
struct Layer {
    format: Format,
    k: usize,
    n: usize,
    x: Vec<u16>,
    codes: Codes,
    weight: Vec<u16>,
    weight_codes: Vec<i8>,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<u16>>,
}

impl Layer {
    fn new(random: &mut Random, format: Format, [tokens, k, n]: [usize; 3], [bias, residual]: [bool; 2]) -> Layer {
        let x = random.stored(format, tokens * k, 1.0);
        let codes = quantise(format, &x, &random.floats(k, 1.0), 8, None);
        let weight_codes = random.ids(n * k, 255).into_iter().map(|code| (code - 127) as i8).collect();
        Layer {
            format,
            k,
            n,
            x,
            codes,
            weight: random.stored(format, n * k, 1.0),
            weight_codes,
            scales: random.floats(n, 0.02),
            bias: bias.then(|| random.floats(n, 1.0)),
            residual: residual.then(|| random.stored(format, tokens * n, 1.0)),
        }
    }

    fn expected(&self, codes: bool, activation: Activation) -> Vec<u16> {
        let Layer { format, k, n, .. } = *self;
        let weight = if codes {
            Weight::Codes { x: &self.codes, weight: &self.weight_codes, scales: &self.scales }
        } else {
            Weight::Floats { x: &self.x, weight: &self.weight }
        };
        let (bias, residual) = (self.bias.as_deref(), self.residual.as_deref());
        Gemm { format, k, n, weight, bias, activation, residual }.run()
    }

    /// Where the results are.
    fn run<D: Device>(
        &self,
        bench: &mut Bench<D>,
        specialisation: Specialisation,
        architecture: Architecture,
    ) -> Pointer {
        let Specialisation::Gemm { codes, .. } = specialisation else { panic!("no matrix product") };
        let sum = |row: &[i8]| row.iter().map(|&code| i32::from(code)).sum::<i32>();
        let mut operands = GemmOperands { n: self.n, k: self.k, ..GemmOperands::default() };
        if codes {
            operands.codes = bench.hold_codes(&self.codes);
            operands.weight = bench.device.hold(&self.weight_codes);
            operands.weight_scales = bench.device.hold(&self.scales);
            operands.weight_sums = bench.device.hold(&self.weight_codes.chunks(self.k).map(sum).collect::<Vec<_>>());
        } else {
            operands.x = bench.device.hold(&self.x);
            operands.weight = bench.device.hold(&self.weight);
        }
        let device = &mut bench.device;
        operands.bias = self.bias.as_ref().map_or(Pointer::NULL, |bias| device.hold(bias));
        operands.residual = self.residual.as_ref().map_or(Pointer::NULL, |residual| device.hold(residual));
        let results = self.x.len() / self.k * self.n;
        operands.y = device.hold(&vec![0f32; results]);
        let kernel = kernel(specialisation, self.format, architecture);
        bench.run(&Launch::gemm(kernel, bench.extent(Rows::Tokens), &operands));
        operands.y
    }
}

/// Every tile, on floats and on codes, gives the bits of the contract: none depends on how the tokens are cut.
pub(crate) fn gemm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes = (1usize..50, 1usize..14, 1usize..11, any::<[bool; 2]>());
    cases(16, (formats(), shapes, any::<usize>(), any::<u64>()), |(format, (tokens, k, n, operands), tile, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let tile = tile % Tile::all(architecture).len();
        let mut random = Random(seed);
        // Depths that don't fill the last step, columns that don't fill the last tile.
        let layer = Layer::new(&mut random, format, [tokens, k * 16, n * 8], operands);
        for codes in [false, true] {
            let specialisation = Specialisation::Gemm { codes, activation: Activation::Identity, tile, wide: false };
            let mut bench = Bench::tokens(subject, tokens);
            let place = layer.run(&mut bench, specialisation, architecture);
            let expected = layer.expected(codes, Activation::Identity);
            let found = bench.device.held::<u16>(place, expected.len());
            // Sums of codes are exact everywhere.
            if codes {
                prop_assert_eq!(found, expected);
            } else {
                subject.sums(format, &found, &expected)?;
            }
        }
        Ok(())
    });
}

/// Every tile of every architecture, with more steps than it has stages: the bits of the smallest one.
pub(crate) fn every_tile_has_the_same_bits<D: Device>(subject: &Subject<D>) {
    for format in [Format::F16, Format::Bf16] {
        // Rows and columns that fill no tile.
        let layer = Layer::new(&mut Random(7), format, [70, 1168, 136], [true, true]);
        let able =
            subject.architectures.iter().filter(|built| Kernel::new(Specialisation::Widen, format, **built).is_ok());
        for &architecture in able {
            for codes in [false, true] {
                let expected = layer.expected(codes, Activation::Identity);
                let run = |tile| {
                    let gemm = Specialisation::Gemm { codes, activation: Activation::Identity, tile, wide: false };
                    let mut bench = Bench::tokens(subject, 70);
                    let place = layer.run(&mut bench, gemm, architecture);
                    bench.device.held::<u16>(place, expected.len())
                };
                let smallest = run(0);
                let checked = subject.sums(format, &smallest, &expected);
                checked.unwrap_or_else(|error| panic!("{format:?} on {architecture}: {error}"));
                for tile in 1..Tile::all(architecture).len() {
                    assert!(run(tile) == smallest, "{format:?} on {architecture}, codes: {codes}, tile {tile}");
                }
            }
        }
    }
}

pub(crate) fn gemm_ends_with_its_activation<D: Device>(subject: &Subject<D>) {
    let Some(architecture) = subject.architecture(Format::F16, 1) else { return };
    for activation in GEMM_ACTIVATIONS {
        let layer = Layer::new(&mut Random(5), Format::F16, [19, 64, 40], [true, true]);
        let specialisation = Specialisation::Gemm { codes: false, activation, tile: 1, wide: false };
        let (mut bench, expected) = (Bench::tokens(subject, 19), layer.expected(false, activation));
        let place = layer.run(&mut bench, specialisation, architecture);
        let found = bench.device.held::<u16>(place, expected.len());
        let checked = subject.functions(Format::F16, &found, &expected);
        checked.unwrap_or_else(|error| panic!("{activation:?}: {error}"));
    }
}

/// Results in f32, of any number of columns, rounded to 16 bits are those that come in 16 bits.
pub(crate) fn wide_gemm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), 1usize..40, 1usize..9, 1usize..70, any::<bool>(), any::<usize>(), any::<u64>());
    cases(10, all, |(format, tokens, k, n, biased, tile, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let tile = tile % Tile::all(architecture).len();
        let layer = Layer::new(&mut Random(seed), format, [tokens, k * 16, n], [biased, false]);
        for codes in [false, true] {
            let specialisation = Specialisation::Gemm { codes, activation: Activation::Identity, tile, wide: true };
            let mut bench = Bench::tokens(subject, tokens);
            let place = layer.run(&mut bench, specialisation, architecture);
            let expected = layer.expected(codes, Activation::Identity);
            let found = format.narrowed(&bench.device.held::<f32>(place, expected.len()));
            if codes {
                prop_assert_eq!(found, expected);
            } else {
                subject.sums(format, &found, &expected)?;
            }
        }
        Ok(())
    });
}

/// Every group of columns has a matrix of its own, whatever the tile; what is beside the columns stays out of it.
pub(crate) fn grouped_gemm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes = (1usize..40, 1usize..6, 1usize..10, 1usize..40);
    cases(12, (formats(), shapes, any::<usize>(), any::<u64>()), |(format, shapes, tile, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let tile = tile % Tile::all(architecture).len();
        let (tokens, groups, eighths, pairs) = shapes;
        let (mut random, n, k) = (Random(seed), 2 * pairs, 8 * eighths);
        let (stride, first) = (groups * k + 16, 8);
        let matrix = random.stored(format, tokens * stride, 1.0);
        let weight = random.stored(format, groups * n * k, 1.0);
        let x: Vec<u16> =
            matrix.chunks(stride).flat_map(|row| row[first..first + groups * k].iter().copied()).collect();
        let expected = grouped_gemm(format, &x, &weight, [groups, n, k]);
        let mut bench = Bench::tokens(subject, tokens);
        let operands = GroupedGemmOperands {
            x: Columns { first: bench.device.hold(&matrix).at(2 * first), stride },
            weight: bench.device.hold(&weight),
            y: bench.device.hold(&vec![0u16; expected.len()]),
            groups,
            n,
            k,
        };
        let kernel = kernel(Specialisation::GroupedGemm { tile }, format, architecture);
        bench.run(&Launch::grouped_gemm(kernel, bench.extent(Rows::Tokens), &operands));
        subject.sums(format, &bench.device.held::<u16>(operands.y, expected.len()), &expected)
    });
}

/// Tokens of sequences whose earlier keys and values are in pages: what the whole sequences give for them.
pub(crate) fn paged_attention_is_its_contract<D: Device>(subject: &Subject<D>) {
    let spans = proptest::collection::vec((0usize..150, 1usize..70), 1..4);
    let shapes = (formats(), prop::sample::select(&WIDTHS[..]), prop_oneof![Just(1usize), Just(4)], 1usize..3);
    let window = prop_oneof![Just(None), (0usize..100).prop_map(Some)];
    cases(12, (shapes, 1usize..3, window, spans, any::<u64>()), |(shapes, group, window, spans, seed)| {
        let (format, head_dim, warps, kv_heads) = shapes;
        let specialisation = attention(head_dim, true, warps);
        let Some(architecture) = subject.able(specialisation, format, seed) else { return Ok(()) };
        let mut random = Random(seed);
        let (heads, lengths) = (kv_heads * group, spans.iter().map(|(past, new)| past + new).collect::<Vec<_>>());
        let (total, widths) = (lengths.iter().sum::<usize>(), [heads * head_dim, kv_heads * head_dim]);
        let [q, k, v] = [widths[0], widths[1], widths[1]].map(|width| random.stored(format, total * width, 2.0));
        let heads_of = |matrix, stride| Heads { matrix, first: 0, stride };
        let scale = 1.0 / (head_dim as f32).sqrt();
        let whole = Attention {
            format,
            q: heads_of(&q, widths[0]),
            k: heads_of(&k, widths[1]),
            v: heads_of(&v, widths[1]),
            heads,
            group,
            head_dim,
            scale,
            soft_cap: None,
            causal: true,
            window,
            distances: None,
            content: None,
            lengths: &lengths,
        };
        let attention = kernel(specialisation, format, architecture);
        let whole = whole.run();
        // Pages of all sequences, the last ones first, with one that is nobody's.
        let counts = lengths.iter().map(|length| length.div_ceil(16));
        let count: usize = counts.clone().sum();
        let pages: Vec<usize> = (0..count).map(|page| count - page).collect();
        let rows = (count + 1) * 16;
        let mut places = Vec::new();
        let mut first_pages = vec![0];
        for (length, count) in lengths.iter().zip(counts) {
            let first = first_pages[first_pages.len() - 1];
            places.extend((0..*length).map(|position| pages[first + position / 16] * 16 + position % 16));
            first_pages.push(first + count);
        }
        let new: Vec<usize> = spans.iter().map(|span| span.1).collect();
        let mut bench = Bench::new(subject, &new, &vec![0; new.len()], 16 * warps);
        let device = &mut bench.device;
        let ints = |values: &[usize]| values.iter().map(|&value| value as i32).collect::<Vec<_>>();
        let caches = [0, 1].map(|_| device.hold(&vec![u16::MAX; rows * widths[1]]));
        // What is old is there already, what is new is brought by the kernel.
        let mut old = [vec![u16::MAX; rows * widths[1]], vec![u16::MAX; rows * widths[1]]];
        let (mut kept, mut begin) = (Vec::new(), 0);
        for (&(past, new), length) in spans.iter().zip(&lengths) {
            for (cache, matrix) in old.iter_mut().zip([&k, &v]) {
                for token in begin..begin + past {
                    let row = &matrix[token * widths[1]..(token + 1) * widths[1]];
                    cache[places[token] * widths[1]..(places[token] + 1) * widths[1]].copy_from_slice(row);
                }
            }
            kept.extend(begin + past..begin + past + new);
            begin += length;
        }
        let of_new = |matrix: &[u16], width: usize| -> Vec<u16> {
            kept.iter().flat_map(|&token| matrix[token * width..(token + 1) * width].iter().copied()).collect()
        };
        for (cache, old) in caches.iter().zip(&old) {
            device.write(*cache, bytemuck::cast_slice(old)).expect("it was just allocated");
        }
        let pasts: Vec<usize> = spans.iter().map(|span| span.0).collect();
        let places: Vec<usize> = kept.iter().map(|&token| places[token]).collect();
        let cache = CachePointers {
            pasts: device.hold(&ints(&pasts)),
            first_pages: device.hold(&ints(&first_pages)),
            pages: device.hold(&ints(&pages)),
            places: device.hold(&ints(&places)),
        };
        let [q, k, v] = [(&q, widths[0]), (&k, widths[1]), (&v, widths[1])]
            .map(|(matrix, width)| Columns { first: device.hold(&of_new(matrix, width)), stride: width });
        let expected = of_new(&whole, widths[0]);
        let y = Columns { first: device.hold(&vec![0u16; expected.len()]), stride: widths[0] };
        bench.batch.cache = cache;
        let append = kernel(Specialisation::Append, format, architecture);
        bench.run(&Launch::append(append, bench.capacity, &bench.batch, [k, v], caches, widths[1]));
        let [k, v] = caches.map(|first| Columns { first, stride: widths[1] });
        let operands = AttentionOperands {
            q,
            k,
            v,
            y,
            heads,
            group,
            head_dim,
            scale,
            causal: true,
            window,
            ..AttentionOperands::default()
        };
        bench.run(&Launch::attention(attention, bench.capacity, &bench.batch, &operands));
        subject.functions(format, &bench.device.held::<u16>(y.first, expected.len()), &expected)
    });
}

/// Widths of heads: those of tiles and others.
const WIDTHS: [usize; 10] = [8, 24, 32, 48, 64, 80, 96, 112, 128, 256];

fn attention(head_dim: usize, paged: bool, warps: usize) -> Specialisation {
    let head_dim = head_tile(head_dim).expect("a width that there is a tile for");
    Specialisation::Attention { head_dim, content: false, paged, warps }
}

/// Scores of content and position, of sequences next to each other and of one of them alone.
pub(crate) fn content_attention_is_its_contract<D: Device>(subject: &Subject<D>) {
    let lengths = proptest::collection::vec(1usize..150, 1..4);
    let shapes =
        (formats(), prop_oneof![Just(8usize), Just(32), Just(64)], prop_oneof![Just(1usize), Just(4)], 1usize..4);
    let scores = (0usize..90, 1usize..40, prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])]);
    cases(12, (shapes, scores, lengths, any::<u64>()), |(shapes, (farthest, buckets, terms), lengths, seed)| {
        let (format, head_dim, warps, heads) = shapes;
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, tokens) = (Random(seed), lengths.iter().sum::<usize>());
        let (width, columns) = (heads * head_dim, heads * buckets);
        let matrix = random.stored(format, tokens * 3 * width, 2.0);
        let tables = terms.map(|there| there.then(|| random.stored(format, tokens * columns, 4.0)));
        let bucket_of = random.ids(2 * farthest + 1, buckets);
        let scale = 1.0 / (3.0 * head_dim as f32).sqrt();
        let run = |first: usize, lengths: &[usize]| {
            let count: usize = lengths.iter().sum();
            let rows = |matrix: &[u16], width: usize| matrix[first * width..(first + count) * width].to_vec();
            let (matrix, tables) = (rows(&matrix, 3 * width), tables.clone().map(|t| t.map(|t| rows(&t, columns))));
            let [q, k, v] = [0, width, 2 * width].map(|first| Heads { matrix: &matrix, first, stride: 3 * width });
            let [by_query, by_key] = [0, 1].map(|term: usize| tables[term].as_deref());
            let content = Some(contract::ContentScores { by_query, by_key, buckets, bucket_of: &bucket_of });
            let (group, soft_cap, causal, window, distances) = (1, None, false, None, None);
            let expected = Attention {
                format,
                q,
                k,
                v,
                heads,
                group,
                head_dim,
                scale,
                soft_cap,
                causal,
                window,
                distances,
                content,
                lengths,
            };
            let mut bench = Bench::new(subject, lengths, &vec![0; lengths.len()], 16 * warps);
            let device = &mut bench.device;
            let held = device.hold(&matrix);
            let [q, k, v] = [0, width, 2 * width].map(|first| Columns { first: held.at(first * 2), stride: 3 * width });
            let y = Columns { first: device.hold(&vec![0u16; count * width]), stride: width };
            let [by_query, by_key] =
                [by_query, by_key].map(|rows| rows.map_or(Pointer::NULL, |rows| device.hold(rows)));
            let bucket_of = device.hold(&bucket_of);
            let content = ContentScores { by_query, by_key, buckets, bucket_of, farthest };
            let operands = AttentionOperands {
                q,
                k,
                v,
                y,
                heads,
                group,
                head_dim,
                scale,
                content,
                ..AttentionOperands::default()
            };
            let specialisation =
                Specialisation::Attention { head_dim: CONTENT_HEAD_DIM, content: true, paged: false, warps };
            let kernel = kernel(specialisation, format, architecture);
            bench.run(&Launch::attention(kernel, bench.capacity, &bench.batch, &operands));
            (bench.device.held::<u16>(y.first, count * width), expected.run())
        };
        let (found, expected) = run(0, &lengths);
        subject.functions(format, &found, &expected)?;
        let last = lengths[lengths.len() - 1];
        let (alone, _) = run(tokens - last, &[last]);
        prop_assert_eq!(&found[(tokens - last) * width..], &alone[..]);
        Ok(())
    });
}

/// Attention of sequences next to each other, and of one of them alone: the same bits.
pub(crate) fn attention_is_its_contract<D: Device>(subject: &Subject<D>) {
    let lengths = proptest::collection::vec(1usize..220, 1..4);
    let shapes =
        (formats(), prop::sample::select(&WIDTHS[..]), prop_oneof![Just(1usize), Just(4)], 1usize..3, 1usize..3);
    let windows = prop_oneof![Just(None), (0usize..100).prop_map(Some)];
    let farthest = prop_oneof![Just(None), (0usize..90).prop_map(Some)];
    let positions = (any::<bool>(), windows, farthest, prop_oneof![Just(None), Just(Some(1.5f32))]);
    cases(
        16,
        (shapes, positions, lengths, any::<u64>()),
        |(shapes, (causal, window, farthest, soft_cap), lengths, seed)| {
            let (format, head_dim, warps, kv_heads, group) = shapes;
            let specialisation = attention(head_dim, false, warps);
            let Some(architecture) = subject.able(specialisation, format, seed) else { return Ok(()) };
            let kernel = kernel(specialisation, format, architecture);
            let mut random = Random(seed);
            let heads = kv_heads * group;
            let tokens: usize = lengths.iter().sum();
            // One matrix of queries, keys and values, as the merged projection yields it.
            let stride = (heads + 2 * kv_heads) * head_dim;
            let matrix = random.stored(format, tokens * stride, 2.0);
            let columns = [0, heads * head_dim, (heads + kv_heads) * head_dim];
            let scale = 1.0 / (head_dim as f32).sqrt();
            let scores = farthest.map(|farthest| random.floats(heads * (2 * farthest + 1), 2.0));
            let run = |first: usize, lengths: &[usize]| {
                let matrix = &matrix[first * stride..];
                let [q, k, v] = columns.map(|first| Heads { matrix, first, stride });
                let table = scores.as_deref();
                let contract = Attention {
                    format,
                    q,
                    k,
                    v,
                    heads,
                    group,
                    head_dim,
                    scale,
                    soft_cap,
                    causal,
                    window,
                    distances: table,
                    content: None,
                    lengths,
                };
                let mut bench = Bench::new(subject, lengths, &vec![0; lengths.len()], 16 * warps);
                let tokens: usize = lengths.iter().sum();
                let held = bench.device.hold(&matrix[..tokens * stride]);
                let [q, k, v] = columns.map(|first| Columns { first: held.at(first * 2), stride });
                let results = tokens * heads * head_dim;
                let y = Columns { first: bench.device.hold(&vec![0u16; results]), stride: heads * head_dim };
                let distances = Distances {
                    table: table.map_or(Pointer::NULL, |table| bench.device.hold(table)),
                    farthest: farthest.unwrap_or(0),
                };
                let operands = AttentionOperands {
                    q,
                    k,
                    v,
                    y,
                    heads,
                    group,
                    head_dim,
                    scale,
                    soft_cap,
                    causal,
                    window,
                    distances,
                    content: ContentScores::default(),
                };
                bench.run(&Launch::attention(kernel, bench.capacity, &bench.batch, &operands));
                (bench.device.held::<u16>(y.first, results), contract.run())
            };
            let (found, expected) = run(0, &lengths);
            subject.functions(format, &found, &expected)?;
            let last = lengths[lengths.len() - 1];
            let (alone, _) = run(tokens - last, &[last]);
            prop_assert_eq!(&found[(tokens - last) * heads * head_dim..], &alone[..]);
            Ok(())
        },
    );
}

pub(crate) fn pool_is_its_contract<D: Device>(subject: &Subject<D>) {
    let lengths = proptest::collection::vec((1usize..9, 0usize..4), 1..4);
    let all = (formats(), prop::sample::select(&POOLINGS[..]), lengths, 1usize..60, any::<bool>(), any::<u64>());
    cases(18, all, |(format, pooling, lengths, eighths, normalised, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (lengths, mut pool_from): (Vec<usize>, Vec<usize>) = lengths.into_iter().unzip();
        if pooling == Pooling::Token {
            pool_from.iter_mut().zip(&lengths).for_each(|(token, length)| *token = (*token).min(length - 1));
        }
        let (width, tokens) = (eighths * 8, lengths.iter().sum::<usize>());
        let x = Random(seed).stored(format, tokens * width, 2.0);
        let normalise = normalised.then_some(1e-12);
        let (lengths, pool_from) = (&lengths[..], &pool_from[..]);
        let expected = pool(&Pool { format, pooling, x: &x, width, lengths, pool_from, normalise });
        let mut bench = Bench::new(subject, lengths, pool_from, 16);
        let y = bench.device.hold(&vec![0f32; expected.len()]);
        let kernel = kernel(Specialisation::Pool(pooling), format, architecture);
        let x = bench.device.hold(&x);
        let places = [x, bench.batch.pool_from, y];
        bench.run(&Launch::pool(kernel, bench.capacity, &bench.batch, places, width, normalise));
        prop_assert_eq!(bench.device.held::<f32>(y, expected.len()), expected);
        Ok(())
    });
}

pub(crate) fn dense_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), any::<bool>(), 1usize..4, 1usize..60, 1usize..9, any::<bool>(), any::<u64>());
    cases(12, all, |(format, per_sequence, rows, eighths, n, biased, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, k) = (Random(seed), eighths * 8);
        let x = random.floats(rows * k, 1.0);
        let (weight, bias) = (random.stored(format, n * k, 1.0), random.floats(n, 1.0));
        for activation in [Activation::Identity, Activation::Relu] {
            let held = biased.then_some(&bias[..]);
            let expected = Dense { format, x: &x, weight: &weight, bias: held, k, n, activation }.run();
            let (lengths, kind) =
                if per_sequence { (vec![2; rows], Rows::Sequences) } else { (vec![rows], Rows::Tokens) };
            let mut bench = Bench::new(subject, &lengths, &vec![0; lengths.len()], 16);
            let device = &mut bench.device;
            let operands = DenseOperands {
                x: device.hold(&x),
                weight: device.hold(&weight),
                bias: held.map_or(Pointer::NULL, |bias| device.hold(bias)),
                y: device.hold(&vec![0f32; rows * n]),
                n,
                k,
                activation,
            };
            let kernel = kernel(Specialisation::Dense, format, architecture);
            bench.run(&Launch::dense(kernel, bench.extent(kind), &operands));
            prop_assert_eq!(bench.device.held::<f32>(operands.y, rows * n), expected);
        }
        Ok(())
    });
}

pub(crate) fn widen_is_exact<D: Device>(subject: &Subject<D>) {
    for format in [Format::F16, Format::Bf16] {
        let Some(architecture) = subject.architecture(format, 0) else { continue };
        // Every pattern of bits: numbers, subnormal ones, infinities and NaN.
        let x: Vec<u16> = (0..=u16::MAX).collect();
        let mut bench = Bench::tokens(subject, 64);
        let places = [bench.device.hold(&x), bench.device.hold(&vec![0f32; x.len()])];
        let kernel = kernel(Specialisation::Widen, format, architecture);
        bench.run(&Launch::widen(kernel, bench.extent(Rows::Tokens), places, x.len() / 64));
        let found: Vec<f32> = bench.device.held(places[1], x.len());
        for (bits, found) in x.iter().zip(found) {
            let expected = format.widen(*bits);
            assert!(found == expected || (found.is_nan() && expected.is_nan()), "{bits:04x}");
        }
    }
}

pub(crate) fn wide_norm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let Some(architecture) = subject.architecture(Format::F16, 1) else { return };
    cases(8, (1usize..9, 1usize..300, any::<bool>(), any::<u64>()), |(rows, width, by_square, seed)| {
        let mut random = Random(seed);
        let (x, gamma) = (random.floats(rows * width, 2.0), random.floats(width, 1.5));
        let beta = (!by_square).then(|| random.floats(width, 0.5));
        let affine = Affine { gamma: &gamma, beta: beta.as_deref(), epsilon: 1e-5 };
        let mut bench = Bench::new(subject, &vec![2; rows], &vec![0; rows], 16);
        let device = &mut bench.device;
        let operands = WideNormOperands {
            x: device.hold(&x),
            gamma: device.hold(&gamma),
            beta: beta.as_ref().map_or(Pointer::NULL, |beta| device.hold(beta)),
            y: device.hold(&vec![0f32; x.len()]),
            width,
            epsilon: 1e-5,
        };
        let kernel = kernel(Specialisation::WideNorm, Format::F16, architecture);
        bench.run(&Launch::wide_norm(kernel, bench.extent(Rows::Sequences), &operands));
        prop_assert_eq!(bench.device.held::<f32>(operands.y, x.len()), wide_norm(&x, width, &affine));
        Ok(())
    });
}

pub(crate) fn gate_is_its_contract<D: Device>(subject: &Subject<D>) {
    const FUNCTIONS: [Activation; 5] =
        [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::QuickGelu];
    let all = (formats(), prop::sample::select(&FUNCTIONS[..]), 1usize..9, 1usize..70, any::<bool>(), any::<u64>());
    cases(12, all, |(format, activation, tokens, eighths, gated, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let width = 8 * eighths;
        // Both halves of one matrix, as the merged projection yields it.
        let matrix = Random(seed).stored(format, tokens * 2 * width, 3.0);
        let [a, b] = [0, width].map(|first| -> Vec<u16> {
            matrix.chunks(2 * width).flat_map(|row| row[first..first + width].iter().copied()).collect()
        });
        let mut bench = Bench::tokens(subject, tokens);
        let held = bench.device.hold(&matrix);
        let [left, right] = [0, width].map(|first| Columns { first: held.at(2 * first), stride: 2 * width });
        let y = bench.device.hold(&vec![0u16; tokens * width]);
        let kernel = kernel(Specialisation::Gate, format, architecture);
        let right = gated.then_some(right);
        bench.run(&Launch::gate(kernel, bench.extent(Rows::Tokens), left, right, y, width, activation));
        let expected = gate(format, &a, gated.then_some(&b[..]), activation);
        subject.functions(format, &bench.device.held::<u16>(y, tokens * width), &expected)
    });
}

pub(crate) fn rotary_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes = (prop_oneof![Just(32usize), Just(64), Just(128)], 1usize..4, 1usize..9, any::<bool>());
    cases(12, (formats(), shapes, 1usize..33, any::<u64>()), |(format, shapes, quarters, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (head_dim, heads, tokens, interleaved) = shapes;
        let rotated = head_dim.min(4 * quarters);
        let (mut random, stride, first) = (Random(seed), (heads + 1) * head_dim, head_dim);
        let matrix = random.stored(format, tokens * stride, 2.0);
        let (table, positions) = (random.floats(20 * rotated, 1.0), random.ids(tokens, 20));
        let x = Heads { matrix: &matrix, first, stride };
        let positions = &positions[..];
        let contract = Rotary { format, x, positions, table: &table, rotated, interleaved, heads, head_dim };
        let mut bench = Bench::tokens(subject, tokens);
        let device = &mut bench.device;
        let operands = RotaryOperands {
            x: Columns { first: device.hold(&matrix).at(2 * first), stride },
            positions: device.hold(positions),
            table: device.hold(&table),
            y: device.hold(&vec![0u16; tokens * heads * head_dim]),
            heads,
            head_dim,
            rotated,
        };
        let kernel = kernel(Specialisation::Rotary { interleaved }, format, architecture);
        bench.run(&Launch::rotary(kernel, bench.extent(Rows::Tokens), &operands));
        prop_assert_eq!(bench.device.held::<u16>(operands.y, tokens * heads * head_dim), contract.run());
        Ok(())
    });
}

pub(crate) fn select_is_its_contract<D: Device>(subject: &Subject<D>) {
    cases(6, (1usize..20, 1usize..60, any::<u64>()), |(tokens, eighths, seed)| {
        let Some(architecture) = subject.architecture(Format::F16, seed) else { return Ok(()) };
        let width = 8 * eighths;
        let x = Random(seed).stored(Format::F16, tokens * width, 2.0);
        let places: Vec<i32> = (0..tokens as i32).step_by(3).collect();
        let mut bench = Bench::tokens(subject, tokens);
        let y = bench.device.hold(&vec![0u16; places.len() * width]);
        let operands = [bench.device.hold(&x), bench.batch.selected, y];
        let kernel = kernel(Specialisation::Select, Format::F16, architecture);
        bench.run(&Launch::select(kernel, bench.extent(Rows::Selected), operands, width));
        prop_assert_eq!(bench.device.held::<u16>(y, places.len() * width), select(&x, &places, width));
        Ok(())
    });
}

pub(crate) fn head_norm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), prop_oneof![Just(8usize), Just(64), Just(96)], 1usize..4, 1usize..9, any::<u64>());
    cases(8, all, |(format, head_dim, heads, tokens, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, stride, first) = (Random(seed), (heads + 1) * head_dim, head_dim);
        let matrix = random.stored(format, tokens * stride, 2.0);
        let gamma = random.floats(head_dim, 1.5);
        let x = Heads { matrix: &matrix, first, stride };
        let expected = HeadNorm { format, x, gamma: &gamma, epsilon: 1e-6, heads }.run();
        let mut bench = Bench::tokens(subject, tokens);
        let device = &mut bench.device;
        let operands = HeadNormOperands {
            x: Columns { first: device.hold(&matrix).at(2 * first), stride },
            gamma: device.hold(&gamma),
            y: device.hold(&vec![0u16; expected.len()]),
            heads,
            head_dim,
            epsilon: 1e-6,
        };
        let kernel = kernel(Specialisation::HeadNorm, format, architecture);
        bench.run(&Launch::head_norm(kernel, bench.extent(Rows::Tokens), &operands));
        prop_assert_eq!(bench.device.held::<u16>(operands.y, expected.len()), expected);
        Ok(())
    });
}
