//! Vectors in a temporary file: of each its cluster and its numbers in 16-bit floats.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Bytes that are kept before they are written.
const TAIL_BYTES: usize = 1 << 20;

/// What a vector belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Name of its leader.
    pub(crate) label: u64,
    /// Number of its leader's vector.
    pub(crate) leader: u64,
}

/// Bytes of a cluster.
const CLUSTER_BYTES: usize = 2 * size_of::<u64>();

/// Vectors of length 1 and their clusters, by number in the order in which they came.
pub(crate) struct Vectors {
    file: File,
    /// Bytes in the file.
    written: u64,
    /// What comes behind them.
    tail: Vec<u8>,
    halves: Vec<f16>,
    numbers: Vec<f32>,
    record: Vec<u8>,
}

impl Vectors {
    /// None yet, of that many numbers. The file has no name, so it vanishes with the process, however that ends.
    pub(crate) fn new(dimension: usize) -> io::Result<Vectors> {
        Ok(Vectors {
            file: tempfile::tempfile()?,
            written: 0,
            tail: Vec::new(),
            halves: vec![f16::ZERO; dimension],
            numbers: vec![0.0; dimension],
            record: vec![0; CLUSTER_BYTES + 2 * dimension],
        })
    }

    /// Adds a vector.
    pub(crate) fn push(&mut self, cluster: Cluster, vector: &[f32]) -> io::Result<()> {
        self.halves.convert_from_f32_slice(vector);
        self.tail.extend_from_slice(bytemuck::bytes_of(&[cluster.label, cluster.leader]));
        self.tail.extend_from_slice(bytemuck::cast_slice(&self.halves));
        if self.tail.len() >= TAIL_BYTES {
            self.file.seek(SeekFrom::Start(self.written))?;
            self.file.write_all(&self.tail)?;
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(())
    }

    /// The cluster of the vector of a number, and its scalar product with another vector.
    pub(crate) fn compare(&mut self, number: u64, vector: &[f32]) -> io::Result<(Cluster, f32)> {
        let length = self.record.len();
        let start = number * length as u64;
        if let Some(start) = start.checked_sub(self.written) {
            let start = start as usize;
            self.record.copy_from_slice(&self.tail[start..start + length]);
        } else {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(&mut self.record)?;
        }
        let (cluster, halves) = self.record.split_at(CLUSTER_BYTES);
        bytemuck::cast_slice_mut(&mut self.halves).copy_from_slice(halves);
        self.halves.convert_to_f32_slice(&mut self.numbers);
        let product: f64 = self.numbers.iter().zip(vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let [label, leader] = bytemuck::pod_read_unaligned(cluster);
        Ok((Cluster { label, leader }, product as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_from_file_and_tail() -> io::Result<()> {
        let vector = |number: u64| [(number % 100) as f32 / 100.0, 0.5, -0.25];
        let mut vectors = Vectors::new(3)?;
        let count = 3 * TAIL_BYTES as u64 / 22 + 5;
        for number in 0..count {
            vectors.push(Cluster { label: number * number, leader: number / 2 }, &vector(number))?;
        }
        assert!(vectors.written > 0 && !vectors.tail.is_empty());
        for number in (0..count).step_by(997).chain([0, count - 1]) {
            let (cluster, product) = vectors.compare(number, &[1.0, 0.0, 1.0])?;
            assert_eq!(cluster, Cluster { label: number * number, leader: number / 2 });
            assert!((product - (vector(number)[0] - 0.25)).abs() < 5e-4, "{number}: {product}");
        }
        Ok(())
    }
}
