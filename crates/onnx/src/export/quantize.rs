//! Weights in 8 bits: a scale for each output channel, or row of a table.

use centuple_graph::NodeId;
use centuple_tensor::{DType, Tensor};

use super::Weights;
use super::emitter::Content;
use super::lower::{Exporter, Result};
use crate::proto::tensor_proto::DataType;

/// Names of a quantised matrix `[N, K]`.
#[derive(Clone)]
pub(super) struct Codes {
    /// The codes, `[N, K]` where the matrix is a table, else `[K, N]`.
    codes: String,
    /// `[N]` f32.
    scales: String,
}

/// Largest magnitude of a code.
const LARGEST: f32 = 127.0;

impl Exporter<'_> {
    /// Codes `[K, N]` and scales `[N]` of a linear layer's weight `[N, K]`.
    pub(super) fn quantized_matrix(&mut self, weight: NodeId) -> Result<[String; 2]> {
        let Some(tensor) = self.graph.constant_of(weight) else { return Ok([String::new(), String::new()]) };
        let is_table = self.is_quantized_table(tensor);
        let Codes { codes, scales } = self.codes(&self.graph.node(weight).name, tensor)?;
        if !is_table {
            return Ok([codes, scales]);
        }
        let columns = self.shared(&format!("{codes}.transposed"), |exporter| exporter.permuted(&codes, &[1, 0]));
        Ok([columns, scales])
    }

    /// Codes and scales of a table's rows, where tables are quantised.
    pub(super) fn quantized_table(&mut self, table: NodeId) -> Result<Option<[String; 2]>> {
        let tensor = self.graph.constant_of(table).filter(|tensor| tensor.dtype() == DType::F32);
        let Some(tensor) = tensor.filter(|_| self.is_dynamic()) else { return Ok(None) };
        let Codes { codes, scales } = self.codes(&self.graph.node(table).name, tensor)?;
        Ok(Some([codes, scales]))
    }

    fn is_dynamic(&self) -> bool {
        matches!(self.options.weights, Weights::Dynamic)
    }

    /// Whether codes are written as rows of a table.
    fn is_quantized_table(&self, tensor: &Tensor) -> bool {
        self.is_dynamic() && self.tables.contains(&tensor.identity())
    }

    fn codes(&mut self, name: &str, tensor: &Tensor) -> Result<Codes> {
        let key = (tensor.identity(), tensor.shape().to_vec());
        if let Some(known) = self.codes.get(&key) {
            return Ok(known.clone());
        }
        let (rows, columns) = match tensor.shape() {
            &[rows, columns] => (rows, columns),
            _ => (1, tensor.len()),
        };
        let is_table = self.is_quantized_table(tensor);
        let values = tensor.as_f32()?;
        let meets_unsigned = self.is_dynamic() && self.matrices.contains(&tensor.identity());
        let (mut codes, mut scales) = (vec![0u8; values.len()], Vec::with_capacity(rows));
        for (index, row) in values.chunks_exact(columns.max(1)).enumerate() {
            let scale = scale_of(row, meets_unsigned);
            for (column, value) in row.iter().enumerate() {
                let at = if is_table { index * columns + column } else { column * rows + index };
                codes[at] = ((value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8).cast_unsigned();
            }
            scales.push(scale);
        }
        let dims = if is_table { vec![rows, columns] } else { vec![columns, rows] };
        let content = Content::Computed { data_type: DataType::Int8, dims, bytes: codes };
        let codes = self.emitter.fresh(&format!("{name}_quantized"), content);
        let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let content = Content::Computed { data_type: DataType::Float, dims: vec![rows], bytes };
        let scales = self.emitter.fresh(&format!("{name}_scale"), content);
        let made = Codes { codes, scales };
        self.codes.insert(key, made.clone());
        Ok(made)
    }
}

/// What a code of 1 stands for.
///
/// Where activations are unsigned, AVX2 adds the products of two neighbours in 16 bits with saturation; so the magnitudes of
/// two neighbours' codes add up to at most 128.
fn scale_of(row: &[f32], meets_unsigned: bool) -> f32 {
    let largest =
        row.chunks(if meets_unsigned { 2 } else { 1 }).map(|pair| pair.iter().map(|value| value.abs()).sum::<f32>());
    let largest = largest.fold(0.0, f32::max);
    if largest > 0.0 && largest.is_finite() { largest / LARGEST } else { 1.0 }
}
