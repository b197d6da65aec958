//! Weights and tables whose codes share scales by blocks. They become f32.

use centuple_tensor::{DType, Tensor};

use super::super::Importer;
use super::super::attributes::Call;
use super::super::dims;
use super::super::elementwise::Arithmetic;
use super::super::ops::Table;
use super::super::problem::{Problem, Result, problem};
use super::super::value::Value;
use crate::file::{Constant, Element, filled};

pub(super) const OPS: Table = &[("MatMulNBits", matmul_n_bits), ("GatherBlockQuantized", gather_block_quantized)];

/// Rows of packed codes, each row in blocks.
struct Blocks<'a> {
    rows: usize,
    columns: usize,
    block: usize,
    bits: usize,
    codes: &'a [u8],
    /// Bytes from one row to the next, and from one block to the next.
    stride: [usize; 2],
    scales: &'a [f32],
    zeros: Zeros<'a>,
}

enum Zeros<'a> {
    Same(f32),
    Packed(&'a [u8]),
    Bytes(&'a [u8]),
    Numbers(&'a [f32]),
}

impl Blocks<'_> {
    /// `bits` bits of packed codes, the first in the lowest.
    fn code(&self, bytes: &[u8], start: usize, index: usize) -> Option<f32> {
        let byte = *bytes.get(start + index * self.bits / 8)?;
        let code = byte >> (index * self.bits % 8);
        Some(f32::from(if self.bits == 8 { code } else { code & ((1 << self.bits) - 1) }))
    }

    fn zero(&self, row: usize, block: usize) -> Option<f32> {
        let blocks = self.columns.div_ceil(self.block);
        match self.zeros {
            Zeros::Same(zero) => Some(zero),
            Zeros::Packed(bytes) => self.code(bytes, row * (blocks * self.bits).div_ceil(8), block),
            Zeros::Bytes(bytes) => bytes.get(row * blocks + block).map(|&zero| f32::from(zero)),
            Zeros::Numbers(numbers) => numbers.get(row * blocks + block).copied(),
        }
    }

    /// The numbers `[rows, columns]`.
    fn numbers(&self) -> Result<Tensor> {
        let blocks = self.columns.div_ceil(self.block);
        let mut complete = true;
        let tensor = filled(DType::F32, &[self.rows, self.columns], |out: &mut [f32]| {
            for (row, out) in out.chunks_exact_mut(self.columns.max(1)).enumerate() {
                for (block, out) in out.chunks_mut(self.block).enumerate() {
                    let scale = self.scales.get(row * blocks + block).copied();
                    let (Some(scale), Some(zero)) = (scale, self.zero(row, block)) else {
                        complete = false;
                        return;
                    };
                    let start = row * self.stride[0] + block * self.stride[1];
                    for (index, out) in out.iter_mut().enumerate() {
                        match self.code(self.codes, start, index) {
                            Some(code) => *out = (code - zero) * scale,
                            None => complete = false,
                        }
                    }
                }
            }
        })?;
        if complete { Ok(tensor) } else { Err(problem("fewer codes, scales or zero points than its sizes need")) }
    }
}

/// A constant operand.
fn fixed<'a>(call: &'a Call, index: usize) -> Result<Option<&'a Constant>> {
    match call.optional(index) {
        None => Ok(None),
        Some(Value::Constant(constant)) => Ok(Some(constant)),
        Some(_) => Err(Problem(format!("operand {index} is not fixed"))),
    }
}

fn size_of_bits(call: &Call) -> Result<usize> {
    match call.int("bits", 4) {
        bits @ (2 | 4 | 8) => Ok(bits as usize),
        bits => Err(Problem(format!("codes of {bits} bits"))),
    }
}

/// Operands: `A [.., K]`, codes `[N, blocks, bytes]`, scales, zero points, the order of groups, a bias.
fn matmul_n_bits(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (rows, columns, block) = (call.count("N")?, call.count("K")?, call.count("block_size")?);
    let bits = size_of_bits(call)?;
    let x = importer.node(call.operand(0)?)?;
    if importer.width(x)? != columns {
        return Err(Problem(format!("rows that are not of width {columns}")));
    }
    if call.optional(4).is_some() {
        return Err(problem("groups in an order of their own"));
    }
    let missing = || problem("codes or scales are missing");
    let codes = fixed(call, 1)?.ok_or_else(missing)?;
    let scales = fixed(call, 2)?.ok_or_else(missing)?.to_float()?;
    let zeros = match fixed(call, 3)? {
        None => Zeros::Same((1u32 << (bits - 1)) as f32),
        Some(zeros) if zeros.element == Element::Float => Zeros::Numbers(zeros.floats()),
        Some(zeros) => Zeros::Packed(zeros.bytes()),
    };
    let bytes = block.checked_mul(bits).map(|bits| bits.div_ceil(8)).ok_or_else(|| problem("blocks too large"))?;
    let stride = [columns.div_ceil(block).saturating_mul(bytes), bytes];
    // So that sizes the codes can't have are refused before memory is taken for them.
    if codes.element != Element::U8 || rows.checked_mul(stride[0]) != Some(codes.len()) {
        return Err(problem("another number of codes than its sizes need"));
    }
    importer.reserve(&[rows, columns], Element::Float)?;
    let blocks = Blocks { rows, columns, block, bits, codes: codes.bytes(), stride, scales: scales.floats(), zeros };
    let weight = Constant::new(Element::Float, blocks.numbers()?).named(codes.name.clone());
    importer.note("weights of 4 bits are computed with in f32".to_owned());
    let product = Value::Node(importer.linear(x, &weight)?, Element::Float);
    match call.optional(5) {
        None => Ok(vec![product]),
        Some(bias) => Ok(vec![importer.combine(Arithmetic::Add, &product, bias)?]),
    }
}

/// Operands: codes of a table, indices, scales, zero points.
fn gather_block_quantized(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let missing = || problem("codes or scales are missing");
    let codes = fixed(call, 0)?.ok_or_else(missing)?.clone();
    let scales = fixed(call, 2)?.ok_or_else(missing)?.to_float()?;
    let zeros = fixed(call, 3)?.cloned();
    let block = call.count("block_size")?;
    let rank = codes.shape().len();
    let gathered = dims::axis(call.int("gather_axis", 0), rank)?;
    let quantized = dims::axis(call.int("quantize_axis", 1), rank)?;
    let bits = size_of_bits(call)?;
    let [rows, last] = *codes.shape() else { return Err(problem("a table that is no matrix")) };
    if gathered != 0 || quantized != 1 {
        return Err(problem("a table that is not looked up by rows with blocks along them"));
    }
    // Types of 4 bits have been read as one byte each; codes in bytes are packed.
    let packed = codes.element == Element::U8
        && scales.shape().last().is_some_and(|&blocks| {
            bits < 8 && last.saturating_mul(8 / bits).div_ceil(block) == blocks && last.div_ceil(block) != blocks
        });
    let columns = if packed { last.saturating_mul(8 / bits) } else { last };
    importer.reserve(&[rows, columns], Element::Float)?;
    let tensor = if codes.element == Element::I8 {
        signed_rows(&codes, &scales, zeros.as_ref(), block)?
    } else {
        let width = if packed { bits } else { 8 };
        let zero = match &zeros {
            None if packed || bits == 8 => Zeros::Same((1u32 << (bits - 1)) as f32),
            None => Zeros::Same(0.0),
            Some(zeros) if packed => Zeros::Packed(zeros.bytes()),
            Some(zeros) => Zeros::Bytes(zeros.bytes()),
        };
        let stride = [last, block.saturating_mul(width).div_ceil(8)];
        let table = Blocks {
            rows,
            columns,
            block,
            bits: width,
            codes: codes.bytes(),
            stride,
            scales: scales.floats(),
            zeros: zero,
        };
        table.numbers()?
    };
    let table = Value::Constant(Constant::new(Element::Float, tensor).named(codes.name.clone()));
    let indices = importer.settled(call.operand(1)?)?;
    if let Value::Node(node, _) = indices {
        importer.looked_up(&table, node, 0)?;
    }
    Ok(vec![importer.gather(&table, &indices, 0)?])
}

/// Rows of signed codes, one byte each.
fn signed_rows(codes: &Constant, scales: &Constant, zeros: Option<&Constant>, block: usize) -> Result<Tensor> {
    let [rows, columns] = *codes.shape() else { return Err(problem("a table that is no matrix")) };
    let blocks = columns.div_ceil(block);
    if rows.checked_mul(blocks) != Some(scales.len()) || zeros.is_some_and(|zeros| zeros.len() != scales.len()) {
        return Err(problem("another number of scales or zero points than its sizes need"));
    }
    let source = codes.tensor.as_i8()?;
    Ok(filled(DType::F32, &[rows, columns], |out: &mut [f32]| {
        for (place, (out, &code)) in out.iter_mut().zip(source).enumerate() {
            let at = place / columns.max(1) * blocks + place % columns.max(1) / block;
            let zero = zeros.and_then(|zeros| zeros.integer(at)).unwrap_or(0) as f32;
            *out = (f32::from(code) - zero) * scales.floats()[at];
        }
    })?)
}
