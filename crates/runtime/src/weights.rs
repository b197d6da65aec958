//! All weights of a plan in one buffer, and that buffer as a file.
//!
//! The file is safetensors: a header that names every part, then the buffer as it lies in memory. What a header must say
//! follows from the graph, so reading one is comparing.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::mem::{Discriminant, discriminant};
use std::ops::Range;
use std::sync::Arc;

use centuple_kernels::{
    ActivationBits, Int4Weight, Int8Weight, Matrix, RowCodes, UnpackedInt4, int8_table_columns, pack, pack_half,
    pack_int4, pack_int8, pack_right, pack_table, packed_half_len, packed_int4_len, packed_int8_len, packed_len,
    unpack, unpack_int4, unpack_int8, unpack_table,
};
use centuple_tensor::{Buffer, DType, Tensor, TensorError};

use crate::error::{Result, RuntimeError};
use crate::plan::{Packed, PackedCodes, PackedNibbles};
use crate::store::Weights;

/// Weights start on a cache line.
pub(crate) const LINE: usize = 16;
/// Matrices start on a page, in floats: with 16 tokens a product is up to a fifth slower where its panels don't.
pub(crate) const PAGE: usize = 1024;

/// Collects weights, each once, and lays them out behind each other.
#[derive(Default)]
pub(crate) struct WeightsBuilder {
    length: usize,
    parts: Vec<Part>,
    /// Offset of a tensor that was added before: by identity, shape and form.
    known: HashMap<Key, usize>,
    names: HashSet<String>,
}

/// A tensor's identity, shape and form.
type Key = ((usize, usize), Vec<usize>, FormKey);

struct Part {
    name: String,
    offset: usize,
    length: usize,
    tensor: Tensor,
    form: Form,
}

/// How a tensor is laid out.
enum Form {
    /// As it lies.
    Floats,
    /// Integers, none negative, as the bits of as many words.
    Indices,
    /// Matrices for the GEMM behind each other.
    PackedGroups { n: usize, k: usize },
    /// A matrix for the GEMM that lies the other way round, `[k, n]`.
    PackedRight { n: usize, k: usize },
    /// A matrix for the GEMM.
    Packed { n: usize, k: usize, half: bool },
    /// A matrix of codes for the integer GEMM.
    PackedCodes { n: usize, k: usize, bits: ActivationBits, scales: Tensor },
    /// A matrix of 4-bit codes for the integer GEMM, in groups.
    PackedNibbles { n: usize, k: usize, group: usize, scales: Tensor, zero_points: Option<Tensor> },
    /// Codes by row, each row with its scale.
    Table { columns: usize, scales: Tensor },
}

/// What tells the forms of a tensor apart: the kind, the rows that codes go with, the addresses of their scales and zero
/// points.
type FormKey = (Discriminant<Form>, Option<RowCodes>, [Option<(usize, usize)>; 2]);

impl Form {
    fn key(&self) -> FormKey {
        let (rows, tensors) = match self {
            Form::Floats
            | Form::Indices
            | Form::Packed { .. }
            | Form::PackedRight { .. }
            | Form::PackedGroups { .. } => (None, [None, None]),
            Form::PackedCodes { bits, scales, .. } => (Some(RowCodes::Whole(*bits)), [Some(scales), None]),
            Form::PackedNibbles { group, scales, zero_points, .. } => {
                (Some(RowCodes::Groups(*group)), [Some(scales), zero_points.as_ref()])
            }
            Form::Table { scales, .. } => (None, [Some(scales), None]),
        };
        (discriminant(self), rows, tensors.map(|tensor| tensor.map(Tensor::identity)))
    }
}

impl WeightsBuilder {
    /// Adds a tensor as it lies; returns its first float.
    pub(crate) fn floats(&mut self, name: &str, tensor: &Tensor) -> Result<usize> {
        expect(tensor, &[DType::F32])?;
        Ok(self.add(name, tensor, Form::Floats, tensor.len()))
    }

    /// Adds a tensor of integers that are not negative; returns its first word.
    pub(crate) fn indices(&mut self, name: &str, tensor: &Tensor) -> Result<usize> {
        expect(tensor, &[DType::I64])?;
        Ok(self.add(name, tensor, Form::Indices, tensor.len()))
    }

    /// Adds matrices `[groups, n, k]`, each in packed form; returns the first.
    pub(crate) fn packed_groups(&mut self, name: &str, tensor: &Tensor) -> Result<Packed> {
        expect(tensor, &[DType::F32])?;
        let (groups, n, k) = (tensor.shape()[0], tensor.shape()[1], tensor.shape()[2]);
        let length = packed_len(n, k).saturating_mul(groups);
        Ok(Packed { offset: self.add(name, tensor, Form::PackedGroups { n, k }, length), n, k, half: false })
    }

    /// Adds a matrix `[n, k]` in packed form.
    pub(crate) fn packed(&mut self, name: &str, tensor: &Tensor) -> Result<Packed> {
        expect(tensor, &[DType::F32, DType::F16, DType::BF16])?;
        let (n, k) = (tensor.shape()[0], tensor.shape()[1]);
        let half = tensor.dtype() == DType::F16;
        let length = if half { packed_half_len(n, k) } else { packed_len(n, k) };
        Ok(Packed { offset: self.add(name, tensor, Form::Packed { n, k, half }, length), n, k, half })
    }

    /// Adds a matrix `[k, n]` in packed form.
    pub(crate) fn packed_right(&mut self, name: &str, tensor: &Tensor) -> Result<Packed> {
        expect(tensor, &[DType::F32])?;
        let (k, n) = (tensor.shape()[0], tensor.shape()[1]);
        let form = Form::PackedRight { n, k };
        Ok(Packed { offset: self.add(name, tensor, form, packed_len(n, k)), n, k, half: false })
    }

    /// Adds a matrix `[n, k]` of codes with a scale per row, in packed form.
    pub(crate) fn codes(
        &mut self,
        name: &str,
        codes: &Tensor,
        scales: &Tensor,
        bits: ActivationBits,
    ) -> Result<PackedCodes> {
        expect(codes, &[DType::I8])?;
        let (n, k) = (codes.shape()[0], codes.shape()[1]);
        let form = Form::PackedCodes { n, k, bits, scales: scales.clone() };
        Ok(PackedCodes { offset: self.add(name, codes, form, packed_int8_len(n, k)), n, k, bits })
    }

    /// Adds a matrix `[n, k]` of 4-bit codes with scales `[n, groups]` and zero points likewise, in packed form.
    pub(crate) fn nibbles(
        &mut self,
        name: &str,
        codes: &Tensor,
        scales: &Tensor,
        zero_points: Option<&Tensor>,
        group: usize,
    ) -> Result<PackedNibbles> {
        expect(codes, &[DType::I8])?;
        let (n, k) = (codes.shape()[0], codes.shape()[1]);
        let length = packed_int4_len(n, k, group, zero_points.is_some());
        let form = Form::PackedNibbles { n, k, group, scales: scales.clone(), zero_points: zero_points.cloned() };
        let offset = self.add(name, codes, form, length);
        Ok(PackedNibbles { offset, n, k, group, zero_points: zero_points.is_some() })
    }

    /// Adds a table `[rows, columns]` of codes with a scale per row.
    pub(crate) fn table(&mut self, name: &str, codes: &Tensor, scales: &Tensor) -> Result<usize> {
        expect(codes, &[DType::I8])?;
        let (rows, columns) = (codes.shape()[0], codes.shape()[1]);
        let length = rows.saturating_mul(int8_table_columns(columns));
        Ok(self.add(name, codes, Form::Table { columns, scales: scales.clone() }, length))
    }

    fn add(&mut self, name: &str, tensor: &Tensor, form: Form, length: usize) -> usize {
        let key = (tensor.identity(), tensor.shape().to_vec(), form.key());
        if let Some(&offset) = self.known.get(&key) {
            return offset;
        }
        let start = match form {
            Form::Packed { .. }
            | Form::PackedRight { .. }
            | Form::PackedGroups { .. }
            | Form::PackedCodes { .. }
            | Form::PackedNibbles { .. } => PAGE,
            Form::Floats | Form::Indices | Form::Table { .. } => LINE,
        };
        let offset = self.length.checked_next_multiple_of(start).unwrap_or(usize::MAX);
        let end = length.checked_next_multiple_of(LINE).and_then(|length| offset.checked_add(length));
        self.length = end.unwrap_or(usize::MAX);
        let mut name = name.to_owned();
        while !self.names.insert(name.clone()) {
            name.push('+');
        }
        self.parts.push(Part { name, offset, length, tensor: tensor.clone(), form });
        self.known.insert(key, offset);
        offset
    }

    /// Every part with what lies between it and the next one, as the file's header names it.
    pub(crate) fn parts(&self) -> Vec<StoredPart> {
        let ends = self.parts.iter().skip(1).map(|next| next.offset).chain([self.length]);
        let part = |(part, end): (&Part, usize)| {
            let (dtype, size) = match &part.form {
                Form::Floats
                | Form::Packed { half: false, .. }
                | Form::PackedRight { .. }
                | Form::PackedGroups { .. } => ("F32", 4),
                Form::Indices => ("U32", 4),
                Form::Packed { half: true, .. } => ("F16", 2),
                Form::PackedCodes { .. } | Form::PackedNibbles { .. } | Form::Table { .. } => ("U8", 1),
            };
            let bytes = end.saturating_sub(part.offset).saturating_mul(4);
            StoredPart { name: part.name.clone(), dtype, elements: bytes / size, bytes, length: part.length }
        };
        self.parts.iter().zip(ends).map(part).collect()
    }

    /// Memory for everything.
    fn allocate(&self) -> Result<Buffer> {
        let bytes = self.length.checked_mul(4);
        bytes.and_then(Buffer::try_zeroed).ok_or(RuntimeError::Memory { floats: self.length })
    }

    /// Takes everything from a file that [`write`] has written, to its end.
    pub(crate) fn read(&self, file: &mut dyn Read) -> Result<Buffer> {
        let expected = header(&self.parts());
        let mut found = vec![0; expected.len()];
        file.read_exact(&mut found).map_err(|source| RuntimeError::Weights(source.to_string()))?;
        if found != expected {
            return Err(RuntimeError::Weights("its header is not the one that the graph asks for".to_owned()));
        }
        let mut buffer = self.allocate()?;
        let bytes = &mut buffer.as_bytes_mut()[..4 * self.length];
        file.read_exact(bytes).map_err(|source| RuntimeError::Weights(source.to_string()))?;
        match file.read(&mut [0]) {
            Ok(0) => Ok(buffer),
            Ok(_) => Err(RuntimeError::Weights("it is longer than its header says".to_owned())),
            Err(source) => Err(RuntimeError::Weights(source.to_string())),
        }
    }

    /// The tensors that were added, with the elements that a buffer holds of them.
    pub(crate) fn unpacked(&self, buffer: &Buffer) -> Result<Unpacked> {
        let mut unpacked = Unpacked::default();
        for part in &self.parts {
            part.unpack(&buffer.as_f32()[part.offset..part.offset + part.length], &mut unpacked)?;
        }
        Ok(unpacked)
    }

    /// Copies and packs everything.
    pub(crate) fn finish(self) -> Result<Buffer> {
        let mut buffer = self.allocate()?;
        for part in self.parts {
            let target = &mut buffer.as_f32_mut()[part.offset..part.offset + part.length];
            match part.form {
                Form::Floats => target.copy_from_slice(part.tensor.as_f32()?),
                Form::Indices => {
                    for (word, &index) in target.iter_mut().zip(part.tensor.as_i64()?) {
                        // What is negative or beyond 32 bits is in no table; the kernel that looks it up says so.
                        *word = f32::from_bits(u32::try_from(index).unwrap_or(u32::MAX));
                    }
                }
                Form::PackedGroups { n, k } => {
                    let groups = part.tensor.as_f32()?.chunks_exact((n * k).max(1));
                    for (group, target) in groups.zip(target.chunks_exact_mut(packed_len(n, k).max(1))) {
                        pack(Matrix::contiguous(group, n, k)?, target)?;
                    }
                }
                Form::PackedRight { n, k } => pack_right(Matrix::contiguous(part.tensor.as_f32()?, k, n)?, target)?,
                Form::Packed { n, k, half } => {
                    let floats = part.tensor.to_f32()?;
                    let matrix = Matrix::contiguous(&floats, n, k)?;
                    if half { pack_half(matrix, target)? } else { pack(matrix, target)? }
                }
                Form::PackedCodes { n, k, bits, scales } => {
                    let (codes, scales) = (part.tensor.as_i8()?, scales.as_f32()?);
                    pack_int8(&Int8Weight { codes, scales, n, k, bits }, target)?;
                }
                Form::PackedNibbles { n, k, group, scales, zero_points } => {
                    let (codes, scales) = (part.tensor.as_i8()?, scales.as_f32()?);
                    let zero_points = zero_points.as_ref().map(Tensor::as_i8).transpose()?;
                    pack_int4(&Int4Weight { codes, scales, zero_points, n, k, group }, target)?;
                }
                Form::Table { columns, scales } => pack_table(part.tensor.as_i8()?, scales.as_f32()?, columns, target)?,
            }
        }
        Ok(buffer)
    }
}

/// Tensors by what they were declared as.
#[derive(Default)]
pub(crate) struct Unpacked(HashMap<((usize, usize), Vec<usize>), Tensor>);

impl Unpacked {
    /// The elements of a tensor, where a part has them.
    pub(crate) fn get(&self, declared: &Tensor) -> Option<&Tensor> {
        self.0.get(&(declared.identity(), declared.shape().to_vec()))
    }

    fn insert(&mut self, declared: &Tensor, tensor: Tensor) {
        self.0.insert((declared.identity(), declared.shape().to_vec()), tensor);
    }

    /// Codes with their scales.
    fn insert_codes(&mut self, [codes, scales]: [&Tensor; 2], found: &[i8], found_scales: &[f32]) -> Result<()> {
        self.insert(codes, Tensor::from_i8(codes.shape(), found)?);
        self.insert(scales, Tensor::from_f32(scales.shape(), found_scales)?);
        Ok(())
    }
}

impl Part {
    /// Takes the tensors back out of the part's floats.
    fn unpack(&self, floats: &[f32], to: &mut Unpacked) -> Result<()> {
        let shape = self.tensor.shape();
        let tensor = match &self.form {
            Form::Floats => Tensor::from_f32(shape, floats)?,
            Form::Indices => {
                let indices: Vec<i64> = floats.iter().map(|word| word.to_bits().into()).collect();
                Tensor::from_i64(shape, &indices)?
            }
            Form::PackedGroups { n, k } => {
                let mut matrices = Vec::with_capacity(self.tensor.len());
                for group in floats.chunks_exact(packed_len(*n, *k).max(1)) {
                    matrices.extend(unpack(group, *n, *k)?);
                }
                Tensor::from_f32(shape, &matrices)?
            }
            Form::PackedRight { n, k } => {
                let columns = unpack(floats, *n, *k)?;
                let right: Vec<f32> = (0..n * k).map(|at| columns[at % n * k + at / n]).collect();
                Tensor::from_f32(shape, &right)?
            }
            Form::Packed { n, k, half: false } => Tensor::from_f32(shape, &unpack(floats, *n, *k)?)?,
            Form::Packed { n, k, half: true } => {
                let halves: Vec<u16> = unpack(bytemuck::cast_slice(floats), *n, *k)?;
                let mut buffer = Buffer::zeroed(2 * halves.len());
                buffer.as_bytes_mut()[..2 * halves.len()].copy_from_slice(bytemuck::cast_slice(&halves));
                Tensor::from_shared(DType::F16, shape, Arc::new(buffer), 0..2 * halves.len())?
            }
            Form::PackedCodes { n, k, scales, .. } => {
                let (codes, found) = unpack_int8(floats, *n, *k)?;
                return to.insert_codes([&self.tensor, scales], &codes, &found);
            }
            Form::PackedNibbles { n, k, group, scales, zero_points } => {
                let UnpackedInt4 { codes, scales: found, zero_points: points } =
                    unpack_int4(floats, [*n, *k, *group], zero_points.is_some())?;
                if let Some(declared) = zero_points {
                    to.insert(declared, Tensor::from_i8(declared.shape(), &points)?);
                }
                return to.insert_codes([&self.tensor, scales], &codes, &found);
            }
            Form::Table { columns, scales } => {
                let (codes, found) = unpack_table(floats, *columns);
                return to.insert_codes([&self.tensor, scales], &codes, &found);
            }
        };
        to.insert(&self.tensor, tensor);
        Ok(())
    }
}

/// A part of the weights, as the file's header names it.
#[derive(Clone, Debug)]
pub(crate) struct StoredPart {
    name: String,
    dtype: &'static str,
    elements: usize,
    /// Bytes up to the next part.
    bytes: usize,
    /// Floats of its own.
    length: usize,
}

impl StoredPart {
    /// Each part with the place of its floats.
    pub(crate) fn places(parts: &[StoredPart]) -> impl Iterator<Item = (&StoredPart, Range<usize>)> {
        let mut end = 0;
        parts.iter().map(move |part| {
            let start = end;
            end += part.bytes / 4;
            (part, start..start + part.length)
        })
    }

    /// Number of its floats.
    pub(crate) fn floats(&self) -> usize {
        self.length
    }

    /// Whether the floats of equal parts mean the same.
    pub(crate) fn is_like(&self, other: &StoredPart) -> bool {
        (self.dtype, self.length) == (other.dtype, other.length)
    }
}

/// The file's first bytes: their number, then for each part its type, shape and place, then spaces up to a cache line.
fn header(parts: &[StoredPart]) -> Vec<u8> {
    let (mut json, mut end) = (String::from("{"), 0usize);
    for part in parts {
        let start = end;
        end = end.saturating_add(part.bytes);
        let comma = if start == 0 { "" } else { "," };
        let StoredPart { name, dtype, elements, .. } = part;
        let name = serde_json::Value::from(name.as_str());
        json += &format!(r#"{comma}{name}:{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[{start},{end}]}}"#);
    }
    json.push('}');
    let length = (8 + json.len()).next_multiple_of(4 * LINE) - 8;
    let padding = " ".repeat(length - json.len());
    [&(length as u64).to_le_bytes(), json.as_bytes(), padding.as_bytes()].concat()
}

/// Writes the parts, each with zeros up to the next.
pub(crate) fn write(parts: &[StoredPart], weights: &Weights, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&header(parts))?;
    for (part, place) in StoredPart::places(parts) {
        let floats = weights.get(place).ok_or_else(|| io::Error::other("a part of the weights is missing"))?;
        let bytes: &[u8] = bytemuck::cast_slice(floats);
        out.write_all(bytes)?;
        out.write_all(&vec![0; part.bytes - bytes.len()])?;
    }
    Ok(())
}

fn expect(tensor: &Tensor, dtypes: &[DType]) -> Result<()> {
    match dtypes.iter().find(|dtype| **dtype == tensor.dtype()) {
        Some(_) => Ok(()),
        None => Err(TensorError::Type { expected: dtypes[0], found: tensor.dtype() }.into()),
    }
}
