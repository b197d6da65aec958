//! An ONNX file is refused, or imported as a graph that verifies.

#![no_main]

use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, import};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = File::from_bytes("fuzzed", data.to_vec()) else { return };
    let Ok(imported) = import(&file, &ImportOptions::default()) else { return };
    imported.graph.verify().expect("what is imported is sound");
    assert_eq!(imported.outputs.len(), imported.graph.outputs().len());
});
