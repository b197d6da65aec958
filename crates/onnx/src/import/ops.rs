//! The table of operators.

use super::attributes::Call;
use super::value::Value;
use super::{Importer, Result};
use super::{
    attention, cast, contrib, control, einsum, elementwise, functions, gather, marked, matmul, norm, quantized, reduce,
    shape,
};

/// What imports an operator: its results, in order. Trailing ones that nothing can read may be left out.
pub(super) type Import = fn(&mut Importer, &Call) -> Result<Vec<Value>>;

/// Operators of one theme by name.
pub(super) type Table = &'static [(&'static str, Import)];

const ONNX: [Table; 13] = [
    attention::OPS,
    cast::OPS,
    control::OPS,
    einsum::OPS,
    elementwise::OPS,
    functions::OPS,
    gather::OPS,
    marked::OPS,
    matmul::OPS,
    norm::OPS,
    quantized::OPS,
    reduce::OPS,
    shape::OPS,
];

/// What imports the operator of a domain.
pub(super) fn find(domain: &str, name: &str) -> Option<Import> {
    let tables: &[Table] = match domain {
        "" => &ONNX,
        "com.microsoft" => contrib::TABLES,
        _ => return None,
    };
    tables.iter().flat_map(|table| table.iter()).find(|(op, _)| *op == name).map(|(_, import)| *import)
}
