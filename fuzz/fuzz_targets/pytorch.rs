//! A file of `torch.save` is read or refused, and every tensor that it lists can be asked for.
//!
//! A mutated archive hardly ever has the right checksums, so an input that is none is also taken for the pickle of one.

#![no_main]

use std::io::{Cursor, Write};

use centuple_models::checkpoint::Weights;
use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|data: &[u8]| {
    check(data);
    if !data.starts_with(b"PK") {
        check(&archive(data));
    }
});

fn check(file: &[u8]) {
    let Ok(weights) = Weights::from_pytorch_bytes(file) else { return };
    for name in weights.names() {
        let shape = weights.shape(name).expect("a listed tensor has a shape").to_vec();
        if let Ok(tensor) = weights.tensor(name, &shape) {
            assert_eq!(tensor.shape(), shape);
            let values = tensor.as_f32().expect("weights are read as f32");
            assert_eq!(values.len(), shape.iter().product::<usize>());
            assert!(values.len() <= file.len(), "a tensor has no more numbers than the file has bytes");
        }
        assert!(weights.tensor(name, &[&shape[..], &[2]].concat()).is_err());
    }
}

/// An archive with this pickle and the storages `0`, `1` and `2` of 24, 8 and 48 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let storages = [("archive/data/0", 24), ("archive/data/1", 8), ("archive/data/2", 48)];
    let records = storages.map(|(name, length)| (name, vec![7; length]));
    for (name, content) in records.iter().map(|(name, content)| (*name, &content[..])).chain([("archive/data.pkl", pickle)]) {
        writer.start_file(name, options).expect("a name that zip takes");
        writer.write_all(content).expect("memory can be written");
    }
    writer.finish().expect("memory can be written").into_inner()
}
