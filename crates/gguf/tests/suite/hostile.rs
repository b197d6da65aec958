//! Files that lie: each is an error that says where, and none takes memory for what it claims.

use std::fs;
use std::path::Path;

use centuple_gguf::{GgufError, Header, List, TensorType, Value};
use proptest::prelude::*;

/// A file as it is written, piece by piece.
#[derive(Clone, Default)]
struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    fn new(version: u32, tensors: u64, keys: u64) -> Draft {
        Draft::default().raw(b"GGUF").u32(version).u64(tensors).u64(keys)
    }

    fn raw(mut self, bytes: &[u8]) -> Draft {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Draft {
        self.raw(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Draft {
        self.raw(&value.to_le_bytes())
    }

    fn text(self, text: &str) -> Draft {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A key and the number of its type.
    fn key(self, key: &str, kind: u32) -> Draft {
        self.text(key).u32(kind)
    }

    fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Draft {
        let draft = shape.iter().fold(self.text(name).u32(shape.len() as u32), |draft, size| draft.u64(*size));
        draft.u32(kind).u64(offset)
    }

    /// So many bytes from the next multiple of 32 on.
    fn data(mut self, length: usize) -> Draft {
        self.bytes.resize(self.bytes.len().next_multiple_of(32) + length, 0);
        self
    }

    fn read(&self) -> Result<Header, GgufError> {
        Header::read(&self.bytes)
    }

    fn refused(&self, words: &str) {
        match self.read() {
            Err(error) => assert!(error.to_string().contains(words), "{error} doesn't say {words:?}"),
            Ok(_) => panic!("a file is read that should be refused for {words:?}"),
        }
    }
}

#[test]
fn sound_files_are_read() {
    let draft = Draft::new(3, 2, 3)
        .key("one", 4)
        .u32(7)
        .key("list", 9)
        .u32(8)
        .u64(2)
        .text("a")
        .text("")
        .key("general.alignment", 4)
        .u32(32)
        .tensor("x", &[32, 2], 8, 0)
        .tensor("y", &[3], 0, 96)
        .data(108);
    let header = draft.read().expect("a sound file");
    assert_eq!(header.metadata.unsigned("one"), Ok(Some(7)));
    let texts = List::Texts(vec!["a".to_owned(), String::new()]);
    assert_eq!(header.metadata.get("list"), Some(&Value::List(texts)));
    assert!(header.metadata.text("one").is_err());
    assert_eq!(header.metadata.size("another"), Ok(None));
    let [x, y] = ["x", "y"].map(|name| &header.tensors[name]);
    assert_eq!((x.shape.as_slice(), x.kind, x.range.len()), (&[2, 32][..], TensorType::Q8_0, 68));
    assert_eq!(y.range, x.range.start + 96..draft.bytes.len());
}

#[test]
fn claims_beyond_the_file_are_refused() {
    let huge = u64::MAX;
    Draft::default().refused("it ends at byte 0");
    Draft::default().raw(b"GGML").u32(3).refused("doesn't begin with");
    Draft::new(1, 0, 0).refused("its version is 1");
    Draft::default().raw(b"GGUF").raw(&3u32.to_be_bytes()).refused("big-endian");
    for count in [1000, 1 << 40, huge] {
        Draft::new(3, count, 0).refused("tensors");
        Draft::new(3, 0, count).refused("keys");
        Draft::new(3, 0, 1).u64(count).data(8).refused("bytes of text");
        Draft::new(3, 0, 1).key("k", 8).u64(count).data(0).refused("bytes of text");
        Draft::new(3, 0, 1).key("k", 9).u32(8).u64(count).refused("in the value of `k`");
        Draft::new(3, 0, 1).key("k", 9).u32(10).u64(count).refused("values, but");
    }
    Draft::new(3, 0, 1).key("k", 9).u32(9).u64(1).refused("lists of lists");
    Draft::new(3, 0, 1).key("k", 77).data(32).refused("77 is the number of no type");
    Draft::new(3, 0, 1).key("k", 7).raw(&[2]).data(32).refused("no truth value");
    Draft::new(3, 0, 1).u64(2).raw(&[0xff, 0xff]).u32(4).u32(0).refused("no UTF-8");
    Draft::new(3, 0, 2).key("k", 4).u32(0).key("k", 4).u32(0).refused("`k` is there twice");
}

#[test]
fn tensors_lie_in_the_file_and_apart() {
    let one = |shape: &[u64], kind: u32, offset: u64| Draft::new(3, 1, 0).tensor("w", shape, kind, offset).data(256);
    assert!(one(&[64], 0, 0).read().is_ok());
    one(&[65], 0, 0).refused("ends outside of the file");
    one(&[64], 0, 32).refused("ends outside of the file");
    one(&[1 << 62, 4], 0, 0).refused("ends outside of the file");
    one(&[u64::MAX, u64::MAX, 2], 0, 0).refused("ends outside of the file");
    one(&[1], 0, u64::MAX - 31).refused("ends outside of the file");
    one(&[8], 0, 4).refused("doesn't begin at a multiple of 32");
    one(&[33], 8, 0).refused("blocks of 32");
    one(&[128], 12, 0).refused("Q4_K has blocks of 256");
    one(&[1; 5], 0, 0).refused("5 dimensions");
    one(&[32], 10, 0).refused("`w` has the type Q2_K, which isn't read");
    one(&[32], 999, 0).refused("of number 999");
    let two = |second: u64| Draft::new(3, 2, 0).tensor("a", &[16], 0, 0).tensor("b", &[16], 0, second).data(128);
    assert!(two(64).read().is_ok());
    two(32).refused("`a` and `b` take the same bytes");
    two(0).refused("take the same bytes");
    Draft::new(3, 2, 0).tensor("a", &[1], 0, 0).tensor("a", &[1], 0, 32).data(64).refused("`a` is there twice");
    for alignment in [0, 3, 1 << 30] {
        Draft::new(3, 0, 1).key("general.alignment", 4).u32(alignment).data(0).refused("no power of two");
    }
    // Nothing takes nothing, wherever it is.
    assert!(one(&[0, 4], 0, 0).read().is_ok());
}

fn fixture() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/gguf/llama-llama3.gguf");
    fs::read(path).expect("the fixture")
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let file = fixture();
    let end = Header::read(&file).expect("sound").tensors.values().map(|tensor| tensor.range.end).max();
    let end = end.expect("tensors");
    for length in (0..end).step_by(7).chain([end - 1]) {
        assert!(Header::read(&file[..length]).is_err(), "{length} of {end} bytes are taken for a file");
    }
    assert!(Header::read(&file[..end]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_are_refused_or_read(changes in proptest::collection::vec((0usize..1 << 12, any::<u8>()), 1..6)) {
        let mut file = fixture();
        for (place, byte) in changes {
            let place = place % file.len();
            file[place] = byte;
        }
        if let Ok(header) = Header::read(&file) {
            for tensor in header.tensors.values() {
                let mut values = vec![0.0; tensor.elements()];
                tensor.kind.dequantize(&file[tensor.range.clone()], &mut values);
            }
        }
    }
}
