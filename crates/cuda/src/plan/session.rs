//! A plan on a device: weights, arena, and one captured graph per size of batches.

use centuple_tensor::{Layout, PAGE_TOKENS, Span};

use super::arena::{self, Arena};
use super::batch::{BatchLayout, CacheRoom};
use super::launches::{Addresses, Target, attention_warps};
use super::{Plan, unsupported};
use crate::device::{Device, GraphId, Operation};
use crate::driver::CudaDevice;
use crate::error::{CudaError, Result};
use crate::launch::{Capacity, Pointer, Rows};

/// Tokens of the smallest bucket.
const SMALLEST: usize = 16;

/// An output of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOutput {
    /// Its name.
    pub name: String,
    /// What it has a row for.
    pub rows: Rows,
    /// Columns of a row.
    pub columns: usize,
    /// `[rows, columns]`.
    pub data: Vec<f32>,
}

/// Batches of up to that size, and the graph that runs them.
struct Bucket {
    capacity: Capacity,
    batch: BatchLayout,
    graph: GraphId,
}

/// A plan on a device: its weights, its memory, and a graph for each size of batches.
struct Program {
    plan: Plan,
    weight_bytes: usize,
    arena: Arena,
    arena_at: Pointer,
    batch_bytes: usize,
    batch_at: Pointer,
    buckets: Vec<Bucket>,
}

impl Program {
    /// Brings weights to the device and captures a graph for each bucket: 16, 32, 64, ... tokens, up to the capacity.
    fn new<D: Device>(
        device: &mut D,
        mut plan: Plan,
        slots: &[[Pointer; 2]],
        target: Target,
        capacity: Capacity,
        cache: CacheRoom,
    ) -> Result<Program> {
        let mut weights = Vec::with_capacity(plan.weights.len());
        let weight_bytes = plan.weight_bytes();
        for bytes in std::mem::take(&mut plan.weights) {
            let pointer = device.allocate(bytes.len())?;
            device.write(pointer, &bytes)?;
            weights.push(pointer);
        }
        let (arena, batch_bytes) = (arena::place(&plan, capacity), BatchLayout::new(&plan, capacity, cache).bytes());
        let (arena_at, batch_at) = (device.allocate(arena.bytes)?, device.allocate(batch_bytes)?);
        let mut buckets = Vec::new();
        // The largest one first, as `prepare_matmul` wants it.
        for capacity in bucket_sizes(capacity).into_iter().rev() {
            let batch = BatchLayout::new(&plan, capacity, cache);
            let (plan, arena, weights) = (&plan, &arena, &weights[..]);
            let addresses = Addresses { plan, arena, arena_at, weights, slots, batch: &batch, batch_at };
            let operations = addresses.operations(target, capacity)?;
            for operation in &operations {
                match operation {
                    Operation::Launch(launch) => device.prepare(launch.kernel)?,
                    Operation::Matmul(matmul) => device.prepare_matmul(matmul)?,
                }
            }
            buckets.push(Bucket { capacity, batch, graph: device.capture(&operations)? });
        }
        buckets.reverse();
        Ok(Program { plan, weight_bytes, arena, arena_at, batch_bytes, batch_at, buckets })
    }

    /// Brings a batch to the device; the graph that runs it.
    fn write<D: Device>(
        &self,
        device: &mut D,
        cache: CacheRoom,
        layout: &Layout,
        inputs: &[(&str, &[i64])],
    ) -> Result<GraphId> {
        let (tokens, sequences) = (layout.tokens(), layout.spans().len());
        let fits = |bucket: &&Bucket| bucket.capacity.tokens >= tokens && bucket.capacity.sequences >= sequences;
        let Some(bucket) = self.buckets.iter().find(fits) else {
            return Err(CudaError::Batch(format!(
                "{tokens} tokens of {sequences} sequences are more than it has room for"
            )));
        };
        let has_sources = self.plan.has_sources();
        layout.spans().iter().try_for_each(|span| self.check_span(cache, has_sources, span))?;
        let queries = 16 * attention_warps(bucket.capacity);
        let words = bucket.batch.words(&self.plan, layout, inputs, queries)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        device.write(self.batch_at, &bytes)?;
        Ok(bucket.graph)
    }

    /// Whether a sequence's keys and values have their places, and what an encoder has left is there where it is looked at.
    fn check_span(&self, cache: CacheRoom, has_sources: bool, span: &Span) -> Result<()> {
        if self.plan.slots.is_empty() && span.past > 0 {
            return Err(CudaError::Batch("the model has no cache for a past".to_owned()));
        }
        match (has_sources, &span.source) {
            (false, None) => {}
            (true, Some(source)) if source.tokens > 0 => cache.check(source.tokens, &source.pages)?,
            (true, _) => return Err(CudaError::Batch("the model answers a text, and none was given".to_owned())),
            (false, Some(_)) => return Err(CudaError::Batch("the model has no encoder".to_owned())),
        }
        if self.plan.slots.is_empty() { Ok(()) } else { cache.check(span.past + span.tokens, &span.pages) }
    }
}

/// A model that is ready to run. After it is made, nothing is allocated on the device.
pub struct Session<D> {
    device: D,
    model: Program,
    encoder: Option<Program>,
    slots: Vec<[Pointer; 2]>,
    cache: CacheRoom,
}

impl<D: Device> Session<D> {
    /// Brings weights to the device and captures a graph for each bucket: 16, 32, 64, ... tokens, up to the capacity.
    ///
    /// # Errors
    /// A kernel can't be had, memory is short, or the driver fails.
    pub fn new(mut device: D, plan: Plan, target: Target, capacity: Capacity, cache: CacheRoom) -> Result<Session<D>> {
        let mut slots = Vec::with_capacity(plan.slots.len());
        for &width in &plan.slots {
            let bytes = page_bytes(width).saturating_mul(cache.pages);
            slots.push([device.allocate(bytes)?, device.allocate(bytes)?]);
        }
        let model = Program::new(&mut device, plan, &slots, target, capacity, cache)?;
        Ok(Session { device, model, encoder: None, slots, cache })
    }

    /// The same behind an encoder, which was lowered by [`lower_encoder`](super::lower_encoder) and reads that much at once.
    ///
    /// # Errors
    /// The encoder's keys and values aren't those of the decoder's slots; or those of [`Session::new`].
    pub fn with_encoder(mut self, plan: Plan, target: Target, capacity: Capacity) -> Result<Session<D>> {
        if plan.slots != self.model.plan.slots {
            return unsupported("an encoder whose keys and values the decoder has no room for");
        }
        let encoder = Program::new(&mut self.device, plan, &self.slots, target, capacity, self.cache)?;
        Ok(Session { encoder: Some(encoder), ..self })
    }

    /// Bytes on the device: weights, what a batch needs, and keys and values.
    pub fn memory(&self) -> [usize; 3] {
        let programs = || std::iter::once(&self.model).chain(&self.encoder);
        let weights = programs().map(|program| program.weight_bytes).sum();
        let batches = programs().map(|program| program.arena.bytes + program.batch_bytes).sum();
        [weights, batches, self.model.plan.page_bytes() * self.cache.pages]
    }

    /// Its room for keys and values.
    pub fn cache(&self) -> CacheRoom {
        self.cache
    }

    /// Copies the keys and values of a page to another.
    ///
    /// # Errors
    /// There is no such page, or the driver fails.
    pub fn copy_page(&mut self, from: u32, to: u32) -> Result<()> {
        self.cache.check_page(from)?;
        self.cache.check_page(to)?;
        for (slot, &width) in self.slots.iter().zip(&self.model.plan.slots) {
            let bytes = page_bytes(width);
            for rows in slot {
                self.device.copy(rows.at(from as usize * bytes), rows.at(to as usize * bytes), bytes)?;
            }
        }
        Ok(())
    }

    /// What its encoder reads at once; nothing without one.
    pub fn encoder_capacity(&self) -> Capacity {
        let largest = self.encoder.as_ref().and_then(|encoder| encoder.buckets.last());
        largest.map_or(Capacity { tokens: 0, sequences: 0 }, |bucket| bucket.capacity)
    }

    /// What it runs on.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The outputs of a batch, whose integer inputs `[Tokens]` have names.
    ///
    /// # Errors
    /// The batch is larger than the capacity, an input is missing or has an id that its table doesn't have, or the driver
    /// fails.
    pub fn run(&mut self, layout: &Layout, inputs: &[(&str, &[i64])]) -> Result<Vec<SessionOutput>> {
        let graph = self.model.write(&mut self.device, self.cache, layout, inputs)?;
        self.device.replay(graph)?;
        let Program { plan, arena, arena_at, .. } = &self.model;
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for output in &plan.outputs {
            let value = plan.values[output.value];
            let rows = match value.rows {
                Rows::Tokens => layout.tokens(),
                Rows::Sequences => layout.spans().len(),
                Rows::Selected => layout.bindings().selected,
            };
            let mut bytes = vec![0u8; rows * value.columns * value.element_bytes];
            self.device.read(arena_at.at(arena.places[output.value]), &mut bytes)?;
            let (floats, _) = bytes.as_chunks::<4>();
            let data = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            outputs.push(SessionOutput { name: output.name.clone(), rows: value.rows, columns: value.columns, data });
        }
        Ok(outputs)
    }

    /// Has the encoder read texts, and fill the pages of each.
    ///
    /// # Errors
    /// There is no encoder; or those of [`Session::run`].
    pub fn encode(&mut self, layout: &Layout, inputs: &[(&str, &[i64])]) -> Result<()> {
        let Some(encoder) = &self.encoder else {
            return Err(CudaError::Batch("the model has no encoder".to_owned()));
        };
        let graph = encoder.write(&mut self.device, self.cache, layout, inputs)?;
        self.device.replay(graph)
    }
}

impl Session<CudaDevice> {
    /// Runs a batch so many times; the microseconds that the GPU took for each, copies left out.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn time(&mut self, layout: &Layout, inputs: &[(&str, &[i64])], repeat: usize) -> Result<Vec<f32>> {
        let graph = self.model.write(&mut self.device, self.cache, layout, inputs)?;
        self.device.time(graph, repeat)
    }
}

/// Bytes of the keys, or of the values, of a page.
pub(super) fn page_bytes(width: usize) -> usize {
    PAGE_TOKENS * width * size_of::<u16>()
}

/// Sizes of batches, ascending, the last of which is the capacity. A bucket has room for as many sequences as tokens.
fn bucket_sizes(capacity: Capacity) -> Vec<Capacity> {
    let doubled = std::iter::successors(Some(SMALLEST), |tokens| tokens.checked_mul(2));
    let smaller = doubled.take_while(|&tokens| tokens < capacity.tokens);
    smaller
        .chain([capacity.tokens])
        .map(|tokens| Capacity { tokens, sequences: capacity.sequences.min(tokens) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_up_to_the_capacity() {
        let of = |tokens, sequences| {
            let sizes = bucket_sizes(Capacity { tokens, sequences });
            sizes.iter().map(|size| [size.tokens, size.sequences]).collect::<Vec<_>>()
        };
        assert_eq!(of(100, 20), [[16, 16], [32, 20], [64, 20], [100, 20]]);
        assert_eq!(of(8, 8), [[8, 8]]);
        assert_eq!(of(32, 1), [[16, 1], [32, 1]]);
    }
}
