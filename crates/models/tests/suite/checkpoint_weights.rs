//! Opening checkpoints: sound ones, damaged ones, and random damage.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use centuple_models::checkpoint::{Checkpoint, CheckpointError, Weights};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const VALUES: [f32; 6] = [0.0, 1.0, -2.5, 0.15625, 65504.0, -0.000_061_035_156];

fn le_bytes<const N: usize>(each: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    VALUES.iter().flat_map(|&value| each(value)).collect()
}

/// A file with the same values as `full` (F32), `half` (F16), `brain` (BF16), `double` (F64), and an I64 `positions`.
fn sound_file() -> Result<Vec<u8>, Box<dyn Error>> {
    let full = le_bytes(f32::to_le_bytes);
    let half = le_bytes(|value| f16::from_f32(value).to_le_bytes());
    let brain = le_bytes(|value| bf16::from_f32(value).to_le_bytes());
    let double = le_bytes(|value| f64::from(value).to_le_bytes());
    let positions: Vec<u8> = (0..4i64).flat_map(i64::to_le_bytes).collect();
    let shape = || vec![2, 3];
    let tensors = BTreeMap::from([
        ("full", TensorView::new(Dtype::F32, shape(), &full)?),
        ("half", TensorView::new(Dtype::F16, shape(), &half)?),
        ("brain", TensorView::new(Dtype::BF16, shape(), &brain)?),
        ("double", TensorView::new(Dtype::F64, shape(), &double)?),
        ("positions", TensorView::new(Dtype::I64, vec![4], &positions)?),
    ]);
    Ok(safetensors::serialize(tensors, None)?)
}

/// A file from its header's text and its data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[track_caller]
fn assert_says<T: Debug>(result: Result<T, CheckpointError>, expected: &str) {
    let message = result.expect_err("must be refused").to_string();
    assert!(message.contains(expected), "{message}");
}

fn folder_with(files: &[(&str, &[u8])]) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        fs::write(path, content)?;
    }
    Ok(folder)
}

#[test]
fn widens_every_float_type() -> Outcome {
    let checkpoint = Checkpoint::from_bytes(json!({}), &sound_file()?)?;
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["brain", "double", "full", "half", "positions"]);
    assert_eq!(checkpoint.tensor("full", &[2, 3])?.as_f32()?, VALUES);
    assert_eq!(checkpoint.tensor("double", &[2, 3])?.as_f32()?, VALUES);
    let half = VALUES.map(|value| f16::from_f32(value).to_f32());
    assert_eq!(checkpoint.tensor("half", &[2, 3])?.as_f32()?, half);
    let brain = VALUES.map(|value| bf16::from_f32(value).to_f32());
    assert_eq!(checkpoint.tensor("brain", &[2, 3])?.as_f32()?, brain);
    Ok(())
}

#[test]
fn a_refused_tensor_is_named_with_what_was_expected_and_found() -> Outcome {
    let weights = Weights::from_bytes(&sound_file()?)?;
    assert_says(weights.tensor("absent", &[1]), "tensor `absent` is missing from `(memory)`, which holds 5 tensors");
    assert_says(
        weights.tensor("full", &[3, 2]),
        "tensor `full` in `(memory)` has the shape [2, 3], but the configuration asks for [3, 2]",
    );
    assert_says(
        weights.tensor("positions", &[4]),
        "tensor `positions` in `(memory)` has the dtype I64; F32, F16, BF16 and F64 are read",
    );
    Ok(())
}

#[test]
fn damaged_headers_are_refused() {
    let entry = r#"{"dtype":"F32","shape":[2],"data_offsets":"#;
    assert_says(Weights::from_bytes(&[1, 2, 3]), "it has 3 bytes, fewer than its length field");
    assert_says(
        Weights::from_bytes(&(1u64 << 60).to_le_bytes()),
        "it claims a header of 1152921504606846976 bytes, more than the format's 100000000",
    );
    assert_says(Weights::from_bytes(&99u64.to_le_bytes()), "it claims a header of 99 bytes, but ends after 0");
    assert_says(Weights::from_bytes(&file("[]", &[])), "in its header: invalid type");
    let beyond = file(&format!(r#"{{"a":{entry}[0,8]}}}}"#), &[0; 4]);
    assert_says(Weights::from_bytes(&beyond), "its tensors take 8 bytes, but 4 follow the header");
    let backwards = file(&format!(r#"{{"a":{entry}[8,0]}}}}"#), &[0; 8]);
    assert_says(Weights::from_bytes(&backwards), "invalid offset for tensor `a`");
    let overlapping = file(&format!(r#"{{"a":{entry}[0,8]}},"b":{entry}[4,12]}}}}"#), &[0; 12]);
    assert_says(Weights::from_bytes(&overlapping), "invalid offset for tensor `b`");
    let twice = file(&format!(r#"{{"a":{entry}[0,8]}},"a":{entry}[8,16]}}}}"#), &[0; 16]);
    assert_says(Weights::from_bytes(&twice), "invalid offset for tensor `a`");
}

/// Tensors whose ends add up to the largest number there is.
#[test]
fn sizes_that_overflow_are_refused() {
    let step = 1u64 << 60;
    let entries: Vec<String> = (0..16)
        .map(|i| {
            let (start, end) = (i * step, if i == 15 { u64::MAX } else { (i + 1) * step });
            format!(r#""t{i:02}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
        })
        .collect();
    let bytes = file(&format!("{{{}}}", entries.join(",")), &[]);
    assert_says(Weights::from_bytes(&bytes), "18446744073709551615 bytes");
}

#[test]
fn folders_without_readable_weights_say_what_is_missing() -> Outcome {
    let nothing = folder_with(&[])?;
    assert_says(Checkpoint::open(&nothing.path().join("absent")), "is not a folder");
    assert_says(Checkpoint::open(nothing.path()), "has no config.json");
    let config = folder_with(&[("config.json", b"{}")])?;
    assert_says(Checkpoint::open(config.path()), "has no model.safetensors");
    let broken = folder_with(&[("config.json", b"{\"a\": ")])?;
    assert_says(Checkpoint::open(broken.path()), "config.json` cannot be understood: EOF");
    let pickle = folder_with(&[("config.json", b"{}"), ("pytorch_model.bin", b"")])?;
    assert_says(
        Checkpoint::open(pickle.path()),
        "pytorch_model.bin` cannot be read as weights of PyTorch: it is neither a zip archive nor a pickle",
    );
    let directory = folder_with(&[("config.json", b"{}"), ("model.safetensors/x", b"")])?;
    assert_says(Checkpoint::open(directory.path()), "not a regular file");
    Ok(())
}

fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    file(&header, &1.5f32.to_le_bytes())
}

fn sharded(weight_map: &Value) -> Result<TempDir, Box<dyn Error>> {
    let index = json!({"metadata": {"total_size": 8}, "weight_map": weight_map}).to_string();
    folder_with(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index.as_bytes()),
        ("one.safetensors", &shard("a")),
        ("two.safetensors", &shard("b")),
    ])
}

#[test]
fn shards_are_found_by_the_index() -> Outcome {
    let folder = sharded(&json!({"a": "one.safetensors", "b": "two.safetensors"}))?;
    let checkpoint = Checkpoint::open(folder.path())?;
    assert!(checkpoint.contains("a") && checkpoint.contains("b"));
    assert_eq!(checkpoint.tensor("b", &[1])?.as_f32()?, [1.5]);
    Ok(())
}

#[test]
fn shards_outside_of_the_folder_or_without_their_tensor_are_refused() -> Outcome {
    for outside in ["../one.safetensors", "/one.safetensors", "x/../../one.safetensors"] {
        let folder = sharded(&json!({"a": outside}))?;
        assert_says(Checkpoint::open(folder.path()), "outside of the model's folder");
    }
    let swapped = sharded(&json!({"a": "two.safetensors"}))?;
    assert_says(Checkpoint::open(swapped.path()), "`a` has no such tensor");
    let absent = sharded(&json!({"a": "three.safetensors"}))?;
    assert_says(Checkpoint::open(absent.path()), "three.safetensors");
    Ok(())
}

/// The tensors of a mapped file are those of the file that is read.
#[test]
#[cfg(unix)]
fn a_large_file_is_mapped() -> Outcome {
    use std::os::unix::fs::FileExt;
    // A sparse file: one large tensor of zeros, then a small one.
    let large = centuple_models::checkpoint::READ_LIMIT as usize;
    let header = format!(
        r#"{{"a":{{"dtype":"U8","shape":[{large}],"data_offsets":[0,{large}]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":[{large},{}]}}}}"#,
        large + 4
    );
    let folder = folder_with(&[("model.safetensors", &file(&header, &[]))])?;
    let path: &Path = &folder.path().join("model.safetensors");
    let sparse = fs::OpenOptions::new().write(true).open(path)?;
    sparse.write_all_at(&1.5f32.to_le_bytes(), (8 + header.len() + large) as u64)?;
    assert_eq!(Weights::open(folder.path())?.tensor("b", &[1])?.as_f32()?, [1.5]);
    Ok(())
}

/// Asks for every tensor in its own shape.
fn read_everything(bytes: &[u8]) {
    if let Ok(weights) = Weights::from_bytes(bytes) {
        for name in weights.names() {
            let shape = weights.shape(name).expect("a named tensor has a shape");
            let _ = weights.tensor(name, shape);
        }
    }
}

proptest! {
    #[test]
    fn damage_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), truncate: bool) {
        let mut bytes = sound_file().expect("the fixture serialises");
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_everything(&bytes);
    }

    #[test]
    fn arbitrary_headers_never_panic(shape in prop::collection::vec(any::<u64>(), 0..4), start: u64, end: u64, length in 0usize..64, dtype in "F32|F16|BF16|I64|F4|F6_E2M3|X") {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}}}"#);
        read_everything(&file(&header, &vec![7; length]));
    }
}
