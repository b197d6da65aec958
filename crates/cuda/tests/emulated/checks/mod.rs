//! Kernels on a device against their contract: every layout, index and order of sums, on shapes drawn by chance.
//!
//! The device is the emulator of the tests, or a GPU (`examples/gpu.rs`).

use std::cell::{RefCell, RefMut};

use bytemuck::{AnyBitPattern, NoUninit};
use centuple_cuda::contract::{Attention, Codes, Dense, Gemm, Heads, Norm, Pool, Weight, pool, quantise};
use centuple_cuda::{
    Activation, Architecture, AttentionOperands, BatchPointers, Capacity, CodePointers, Columns, DenseOperands, Device,
    Format, GEMM_ACTIVATIONS, GemmOperands, HEAD_DIMS, Kernel, Launch, NormOperands, POOLINGS, Pointer, Specialisation,
    TILES, attention_blocks,
};
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
        let able: Vec<Architecture> = self
            .architectures
            .iter()
            .copied()
            .filter(|&architecture| Kernel::new(Specialisation::Widen, format, architecture).is_ok())
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
        let mut offsets = vec![0i32];
        lengths.iter().for_each(|&length| offsets.push(offsets[offsets.len() - 1] + length as i32));
        let batch = BatchPointers {
            header: device.hold(&[tokens as i32, lengths.len() as i32, blocks.len() as i32, 0]),
            offsets: device.hold(&offsets),
            blocks: device.hold(&blocks.concat().iter().map(|&x| x as i32).collect::<Vec<_>>()),
            pool_from: device.hold(&pool_from.iter().map(|&x| x as i32).collect::<Vec<_>>()),
        };
        Bench { device, batch, capacity: Capacity { tokens: tokens + 21, sequences: lengths.len() + 2 } }
    }

    fn tokens(subject: &'d Subject<D>, tokens: usize) -> Bench<'d, D> {
        Bench::new(subject, &[tokens], &[0], 16)
    }

    fn hold_codes(&mut self, codes: &Codes) -> CodePointers {
        CodePointers {
            codes: self.device.hold(&codes.codes),
            scales: self.device.hold(&codes.scales),
            zero_points: self.device.hold(&codes.zero_points),
        }
    }

    fn space_for_codes(&mut self, tokens: usize, width: usize) -> CodePointers {
        CodePointers {
            codes: self.device.hold(&vec![0u8; tokens * width]),
            scales: self.device.hold(&vec![0f32; tokens]),
            zero_points: self.device.hold(&vec![0i32; tokens]),
        }
    }

    fn held_codes(&mut self, codes: CodePointers, tokens: usize, width: usize) -> Codes {
        Codes {
            codes: self.device.held(codes.codes, tokens * width),
            scales: self.device.held(codes.scales, tokens),
            zero_points: self.device.held(codes.zero_points, tokens),
        }
    }

    fn run(&mut self, launch: &Launch) {
        let device = &mut *self.device;
        let run = device.prepare(launch.kernel).and_then(|()| device.capture(std::slice::from_ref(launch)));
        run.and_then(|graph| device.replay(graph)).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn kernel(specialisation: Specialisation, format: Format, architecture: Architecture) -> Kernel {
    Kernel::new(specialisation, format, architecture).expect("a kernel")
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::F16), Just(Format::Bf16)]
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

pub(crate) fn norm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes =
        (formats(), prop_oneof![Just(128usize), Just(312), Just(768)], 1usize..9, 0usize..4, any::<[bool; 3]>());
    let all = (shapes, prop_oneof![Just(0u8), Just(7), Just(8)], any::<u64>());
    cases(24, all, |((format, hidden, tokens, tables, [x, residual, norm]), bits, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, mut bench) = (Random(seed), Bench::tokens(subject, tokens));
        let held: Vec<(Vec<u16>, Vec<i32>)> =
            (0..tables).map(|_| (random.stored(format, 10 * hidden, 1.0), random.ids(tokens, 10))).collect();
        let [x, residual] = [x, residual].map(|there| there.then(|| random.stored(format, tokens * hidden, 2.0)));
        let (gamma, beta) = (random.floats(hidden, 1.5), random.floats(hidden, 0.5));
        let factor = random.floats(hidden, 2.0);
        let borrowed: Vec<(&[u16], &[i32])> = held.iter().map(|(table, ids)| (&table[..], &ids[..])).collect();
        let contract = Norm {
            format,
            tokens,
            hidden,
            x: x.as_deref(),
            tables: &borrowed,
            residual: residual.as_deref(),
            affine: norm.then_some([&gamma[..], &beta[..]]),
            epsilon: 1e-5,
            codes: (bits > 0).then_some((&factor[..], bits)),
        };
        let (expected, expected_codes) = contract.run();

        let device = &mut bench.device;
        let mut operands = NormOperands { epsilon: 1e-5, factor: device.hold(&factor), ..NormOperands::default() };
        for (to, (table, ids)) in operands.tables.iter_mut().zip(&held) {
            *to = (device.hold(table), device.hold(ids));
        }
        operands.x = x.map_or(Pointer::NULL, |x| device.hold(&x));
        operands.residual = residual.map_or(Pointer::NULL, |residual| device.hold(&residual));
        if norm {
            (operands.gamma, operands.beta) = (device.hold(&gamma), device.hold(&beta));
        }
        operands.y = device.hold(&vec![0u16; tokens * hidden]);
        operands.codes = bench.space_for_codes(tokens, hidden);
        let kernel = kernel(Specialisation::Norm { hidden, bits }, format, architecture);
        bench.run(&Launch::norm(kernel, bench.capacity, &bench.batch, &operands));
        prop_assert_eq!(bench.device.held::<u16>(operands.y, tokens * hidden), expected);
        if bits > 0 {
            prop_assert_eq!(bench.held_codes(operands.codes, tokens, hidden), expected_codes);
        }
        Ok(())
    });
}

pub(crate) fn quantise_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), 1usize..9, 1usize..80, prop_oneof![Just(7u8), Just(8)], any::<u64>());
    cases(12, all, |(format, tokens, eighths, bits, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, mut bench, width) = (Random(seed), Bench::tokens(subject, tokens), eighths * 8);
        let mut x = random.stored(format, tokens * width, 3.0);
        // A row without a range has codes of nothing.
        x[..width].fill(0);
        let factor = random.floats(width, 2.0);
        let operands = [bench.device.hold(&x), bench.device.hold(&factor)];
        let codes = bench.space_for_codes(tokens, width);
        let kernel = kernel(Specialisation::Quantise { bits }, format, architecture);
        bench.run(&Launch::quantise(kernel, bench.capacity, &bench.batch, operands, codes, width));
        prop_assert_eq!(bench.held_codes(codes, tokens, width), quantise(format, &x, &factor, bits));
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
        let codes = quantise(format, &x, &random.floats(k, 1.0), 8);
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

    fn found<D: Device>(
        &self,
        bench: &mut Bench<D>,
        specialisation: Specialisation,
        architecture: Architecture,
    ) -> Vec<u16> {
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
        operands.y = device.hold(&vec![0u16; results]);
        let kernel = kernel(specialisation, self.format, architecture);
        bench.run(&Launch::gemm(kernel, bench.capacity, &bench.batch, &operands));
        bench.device.held(operands.y, results)
    }
}

/// Every tile, on floats and on codes, gives the bits of the contract: none depends on how the tokens are cut.
pub(crate) fn gemm_is_its_contract<D: Device>(subject: &Subject<D>) {
    let shapes = (1usize..50, 1usize..14, 1usize..11, any::<[bool; 2]>());
    cases(10, (formats(), shapes, 0..TILES.len(), any::<u64>()), |(format, (tokens, k, n, operands), tile, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let mut random = Random(seed);
        // Depths that don't fill the last step, columns that don't fill the last tile.
        let layer = Layer::new(&mut random, format, [tokens, k * 16, n * 8], operands);
        for codes in [false, true] {
            let specialisation = Specialisation::Gemm { codes, activation: Activation::Identity, tile };
            let found = layer.found(&mut Bench::tokens(subject, tokens), specialisation, architecture);
            let expected = layer.expected(codes, Activation::Identity);
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

pub(crate) fn gemm_ends_with_its_activation<D: Device>(subject: &Subject<D>) {
    let Some(architecture) = subject.architecture(Format::F16, 1) else { return };
    for activation in GEMM_ACTIVATIONS {
        let layer = Layer::new(&mut Random(5), Format::F16, [19, 64, 40], [true, true]);
        let specialisation = Specialisation::Gemm { codes: false, activation, tile: 1 };
        let found = layer.found(&mut Bench::tokens(subject, 19), specialisation, architecture);
        let checked = subject.functions(Format::F16, &found, &layer.expected(false, activation));
        checked.unwrap_or_else(|error| panic!("{activation:?}: {error}"));
    }
}

/// Attention of sequences next to each other, and of one of them alone: the same bits.
pub(crate) fn attention_is_its_contract<D: Device>(subject: &Subject<D>) {
    let lengths = proptest::collection::vec(1usize..220, 1..4);
    let shapes =
        (formats(), prop::sample::select(&HEAD_DIMS[..]), prop_oneof![Just(1usize), Just(4)], 1usize..3, 1usize..3);
    cases(10, (shapes, lengths, any::<u64>()), |((format, head_dim, warps, kv_heads, group), lengths, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let mut random = Random(seed);
        let heads = kv_heads * group;
        let tokens: usize = lengths.iter().sum();
        // One matrix of queries, keys and values, as the merged projection yields it.
        let stride = (heads + 2 * kv_heads) * head_dim;
        let matrix = random.stored(format, tokens * stride, 2.0);
        let columns = [0, heads * head_dim, (heads + kv_heads) * head_dim];
        let scale = 1.0 / (head_dim as f32).sqrt();
        let run = |first: usize, lengths: &[usize]| {
            let matrix = &matrix[first * stride..];
            let [q, k, v] = columns.map(|first| Heads { matrix, first, stride });
            let contract = Attention { format, q, k, v, heads, group, head_dim, scale, lengths };
            let mut bench = Bench::new(subject, lengths, &vec![0; lengths.len()], 16 * warps);
            let tokens: usize = lengths.iter().sum();
            let held = bench.device.hold(&matrix[..tokens * stride]);
            let [q, k, v] = columns.map(|first| Columns { first: held.at(first * 2), stride });
            let results = tokens * heads * head_dim;
            let y = Columns { first: bench.device.hold(&vec![0u16; results]), stride: heads * head_dim };
            let kernel = kernel(Specialisation::Attention { head_dim, warps }, format, architecture);
            let operands = AttentionOperands { q, k, v, y, heads, group, scale };
            bench.run(&Launch::attention(kernel, bench.capacity, &bench.batch, &operands));
            (bench.device.held::<u16>(y.first, results), contract.run())
        };
        let (found, expected) = run(0, &lengths);
        subject.functions(format, &found, &expected)?;
        let last = lengths[lengths.len() - 1];
        let (alone, _) = run(tokens - last, &[last]);
        prop_assert_eq!(&found[(tokens - last) * heads * head_dim..], &alone[..]);
        Ok(())
    });
}

pub(crate) fn pool_is_its_contract<D: Device>(subject: &Subject<D>) {
    let lengths = proptest::collection::vec((1usize..9, 0usize..4), 1..4);
    let all = (formats(), prop::sample::select(&POOLINGS[..]), lengths, 1usize..60, any::<bool>(), any::<u64>());
    cases(18, all, |(format, pooling, lengths, eighths, normalised, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (lengths, pool_from): (Vec<usize>, Vec<usize>) = lengths.into_iter().unzip();
        let (width, tokens) = (eighths * 8, lengths.iter().sum::<usize>());
        let x = Random(seed).stored(format, tokens * width, 2.0);
        let normalise = normalised.then_some(1e-12);
        let (lengths, pool_from) = (&lengths[..], &pool_from[..]);
        let expected = pool(&Pool { format, pooling, x: &x, width, lengths, pool_from, normalise });
        let mut bench = Bench::new(subject, lengths, pool_from, 16);
        let y = bench.device.hold(&vec![0f32; expected.len()]);
        let kernel = kernel(Specialisation::Pool(pooling), format, architecture);
        let x = bench.device.hold(&x);
        bench.run(&Launch::pool(kernel, bench.capacity, &bench.batch, [x, y], width, normalise));
        prop_assert_eq!(bench.device.held::<f32>(y, expected.len()), expected);
        Ok(())
    });
}

pub(crate) fn dense_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), any::<bool>(), any::<bool>(), 1usize..4, 1usize..60, 1usize..9, any::<bool>(), any::<u64>());
    cases(12, all, |(format, wide, per_sequence, rows, eighths, n, biased, seed)| {
        let Some(architecture) = subject.architecture(format, seed) else { return Ok(()) };
        let (mut random, k) = (Random(seed), eighths * 8);
        let stored = random.stored(format, rows * k, 1.0);
        let x = format.widened(&stored);
        let (weight, bias) = (random.stored(format, n * k, 1.0), random.floats(n, 1.0));
        for activation in [Activation::Identity, Activation::Relu] {
            let held = biased.then_some(&bias[..]);
            let expected = Dense { format, x: &x, weight: &weight, bias: held, k, n, activation }.run();
            let lengths = if per_sequence { vec![2; rows] } else { vec![rows] };
            let mut bench = Bench::new(subject, &lengths, &vec![0; lengths.len()], 16);
            let device = &mut bench.device;
            let operands = DenseOperands {
                x: if wide { device.hold(&x) } else { device.hold(&stored) },
                weight: device.hold(&weight),
                bias: held.map_or(Pointer::NULL, |bias| device.hold(bias)),
                y: device.hold(&vec![0f32; rows * n]),
                per_sequence,
                n,
                k,
                activation,
            };
            let kernel = kernel(Specialisation::Dense { wide }, format, architecture);
            bench.run(&Launch::dense(kernel, bench.capacity, &bench.batch, &operands));
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
        bench.run(&Launch::widen(kernel, bench.capacity, &bench.batch, places, x.len() / 64));
        let found: Vec<f32> = bench.device.held(places[1], x.len());
        for (bits, found) in x.iter().zip(found) {
            let expected = format.widen(*bits);
            assert!(found == expected || (found.is_nan() && expected.is_nan()), "{bits:04x}");
        }
    }
}
