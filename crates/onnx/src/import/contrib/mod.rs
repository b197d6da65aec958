//! Operators of ONNX Runtime (`com.microsoft`).

mod attention;
mod blocks;
mod fused;
mod norm;
mod quantized;
mod relative;

use super::ops::Table;

pub(super) const TABLES: &[Table] =
    &[attention::OPS, blocks::OPS, fused::OPS, norm::OPS, quantized::OPS, relative::OPS];
