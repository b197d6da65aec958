//! What the benches share: aligned operands, and rates beside the ceiling of the same run.
#![allow(dead_code, reason = "each bench uses a part")]

use std::time::{Duration, Instant};

use centuple_kernels::{Isa, KernelError, Kernels, ThreadPool, ceiling};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};

/// A buffer that starts at a cache line.
pub(crate) struct Buffer {
    data: Vec<f32>,
    start: usize,
}

impl Buffer {
    /// `length` small numbers of both signs.
    pub(crate) fn new(length: usize) -> Self {
        let data: Vec<f32> = (0..length + 16).map(|i| (i * 7919 % 101) as f32 * 0.02 - 1.0).collect();
        let start = data.as_ptr().align_offset(64).min(16);
        Self { data, start }
    }

    pub(crate) fn get(&self) -> &[f32] {
        &self.data[self.start..self.data.len() - 16 + self.start]
    }

    pub(crate) fn get_mut(&mut self) -> &mut [f32] {
        let end = self.data.len() - 16 + self.start;
        &mut self.data[self.start..end]
    }
}

/// More words than any cache holds, each an ordinary number as one f32, as two f16 and as four i8: weights
/// that come from memory every time, if each iteration takes a different matrix.
pub(crate) fn cold_weights() -> Buffer {
    let mut words = Buffer::new((256 << 20) / size_of::<f32>());
    words.get_mut().fill(f32::from_bits(0x3C00_3800));
    words
}

/// A criterion group for each instruction set.
pub(crate) fn groups(criterion: &mut Criterion, name: &str, mut bench: impl FnMut(&mut Group<'_>)) {
    let pool = ThreadPool::new(1).expect("no thread is started");
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).expect("the instruction set is available");
        let group = criterion.benchmark_group(format!("{name}/{isa}"));
        let mut group = Group { kernels, group, pool: &pool };
        group.group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
        bench(&mut group);
        group.group.finish();
    }
}

/// The benches of one kernel on one instruction set.
pub(crate) struct Group<'a> {
    pub(crate) kernels: Kernels,
    group: BenchmarkGroup<'a, WallTime>,
    pool: &'a ThreadPool,
}

impl Group<'_> {
    /// Benches `work`, which does `macs` multiply-accumulates of f32, and prints its best rate beside the
    /// ceiling measured just after.
    pub(crate) fn bench_macs(&mut self, name: &str, macs: usize, work: impl FnMut()) {
        self.bench_beside(ceiling::giga_macs_per_second, name, macs, work);
    }

    /// The same for multiply-accumulates of int8.
    pub(crate) fn bench_int8_macs(&mut self, name: &str, macs: usize, work: impl FnMut()) {
        self.bench_beside(ceiling::giga_int8_macs_per_second, name, macs, work);
    }

    fn bench_beside(
        &mut self,
        ceiling: fn(Kernels, &ThreadPool) -> Result<f64, KernelError>,
        name: &str,
        macs: usize,
        mut work: impl FnMut(),
    ) {
        let mut best = f64::INFINITY;
        self.group.throughput(Throughput::Elements(macs as u64));
        self.group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let start = Instant::now();
                    work();
                    let time = start.elapsed();
                    best = best.min(time.as_secs_f64());
                    total += time;
                }
                total
            });
        });
        if best.is_infinite() {
            return; // Filtered out.
        }
        let limit = ceiling(self.kernels, self.pool).expect("no worker panics");
        let rate = macs as f64 / best / 1e9;
        println!("  best {rate:.1} GMAC/s, ceiling {limit:.1} GMAC/s: {:.0} %", 100.0 * rate / limit);
    }

    /// Benches `work`, which produces that many elements.
    pub(crate) fn bench_elements(&mut self, name: &str, elements: usize, mut work: impl FnMut()) {
        self.group.throughput(Throughput::Elements(elements as u64));
        self.group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(&mut work));
    }
}
