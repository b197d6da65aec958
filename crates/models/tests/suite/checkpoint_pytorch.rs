//! Files of `torch.save`: those that torch writes are read bit by bit, all others are refused with words.

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use centuple_models::checkpoint::{CheckpointError, Weights};
use centuple_testkit::fixtures;
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

type Outcome = Result<(), Box<dyn Error>>;

const CASES: [&str; 10] = [
    "module",
    "parameters",
    "tied",
    "views",
    "numbers",
    "protocol4",
    "legacy",
    "legacy_views",
    "legacy_numbers",
    "many",
];

fn fixture(name: &str) -> PathBuf {
    fixtures().join("pytorch").join(name)
}

fn read(case: &str) -> Vec<u8> {
    fs::read(fixture(&format!("{case}.bin"))).expect("fixture")
}

#[track_caller]
fn assert_says<T: Debug>(result: Result<T, CheckpointError>, expected: &str) {
    let message = result.expect_err("must be refused").to_string();
    assert!(message.contains(expected), "`{expected}` is not in: {message}");
}

/// Every tensor of `expected` is in `found`, bit by bit; what `found` has more is no floating point tensor.
fn assert_equal(found: &Weights, expected: &Weights) -> Outcome {
    for name in expected.names() {
        let shape = expected.shape(name).ok_or("a listed tensor has a shape")?;
        assert_eq!(found.shape(name), Some(shape), "{name}");
        let bits = |weights: &Weights| -> Result<Vec<u32>, Box<dyn Error>> {
            Ok(weights.tensor(name, shape)?.as_f32()?.iter().map(|value| value.to_bits()).collect())
        };
        assert_eq!(bits(found)?, bits(expected)?, "{name}");
    }
    for name in found.names().filter(|name| !expected.contains(name)) {
        let shape = found.shape(name).ok_or("a listed tensor has a shape")?;
        assert_says(found.tensor(name, shape), "F32, F16, BF16 and F64 are read");
    }
    Ok(())
}

#[test]
fn what_torch_writes_is_read_bit_by_bit() -> Outcome {
    for case in CASES {
        let found = Weights::from_pytorch_bytes(&read(case)).map_err(|error| format!("{case}: {error}"))?;
        let expected = Weights::from_bytes(&fs::read(fixture(&format!("{case}.safetensors")))?)?;
        assert!(expected.names().count() > 0);
        assert_equal(&found, &expected)?;
    }
    Ok(())
}

#[test]
fn tied_tensors_share_their_bytes() -> Outcome {
    for (case, names) in [("tied", ["embeddings", "decoder"]), ("legacy", ["tied", "again"])] {
        let weights = Weights::from_pytorch_bytes(&read(case))?;
        let [one, other] =
            names.map(|name| weights.tensor(name, &[5, 3]).map(|tensor| tensor.as_f32().map(<[f32]>::to_vec)));
        assert_eq!(one??, other??, "{case}");
    }
    let weights = Weights::from_pytorch_bytes(&read("tied"))?;
    let tensor = |name| weights.tensor(name, &[5, 3]);
    assert_eq!(tensor("embeddings")?.identity(), tensor("decoder")?.identity());
    Ok(())
}

#[test]
fn shards_are_found_by_the_index() -> Outcome {
    let found = Weights::open(&fixture("sharded"))?;
    assert_equal(&found, &Weights::from_bytes(&fs::read(fixture("sharded.safetensors"))?)?)?;
    assert_eq!(found.names().collect::<Vec<_>>(), ["a.bias", "a.weight", "b.weight"]);
    Ok(())
}

#[test]
fn safetensors_come_before_pickles() -> Outcome {
    let folder = tempfile::tempdir()?;
    let copy = |from: &str, to: &str| fs::copy(fixture(from), folder.path().join(to));
    copy("tied.bin", "pytorch_model.bin")?;
    assert!(Weights::open(folder.path())?.contains("embeddings"));
    copy("module.safetensors", "model.safetensors")?;
    assert!(Weights::open(folder.path())?.contains("first.weight"));
    Ok(())
}

/// An archive as torch writes it, with these records below `archive/`.
fn archive(records: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in records {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("archive/{name}"), options).expect("a name that zip takes");
        writer.write_all(content).expect("memory can be written");
    }
    writer.finish().expect("memory can be written").into_inner()
}

/// An archive of a pickle and the storage `0` of six f32.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    let records = [("data.pkl", pickle), ("byteorder", b"little"), ("data/0", &[0; 24]), ("version", b"3\n")];
    archive(&records, CompressionMethod::Stored)
}

fn refused(pickle: &[u8], expected: &str) {
    assert_says(Weights::from_pytorch_bytes(&with_pickle(pickle)), expected);
}

fn text(text: &str) -> Vec<u8> {
    [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

fn integer(number: i64) -> Vec<u8> {
    [b"\x8a\x08", number.to_le_bytes().as_slice()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

fn sizes(sizes: &[i64]) -> Vec<u8> {
    tuple(&sizes.iter().map(|&size| integer(size)).collect::<Vec<_>>())
}

const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";

/// A pickled tensor over the storage `key`, which claims `count` numbers.
fn tensor(key: &str, count: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let class = b"ctorch\nFloatStorage\n".to_vec();
    let storage = [tuple(&[text("storage"), class, text(key), text("cpu"), integer(count)]), b"Q".to_vec()].concat();
    let arguments = [storage, integer(offset), sizes(shape), sizes(strides), b"\x89".to_vec(), ORDERED_DICT.to_vec()];
    [b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), tuple(&arguments), b"R".to_vec()].concat()
}

/// The pickle of a dict with one entry, `weight`.
fn with_entry(entry: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", text("weight").as_slice(), entry, b"s."].concat()
}

#[test]
fn the_pickles_of_these_tests_are_sound() -> Outcome {
    let bytes = with_pickle(&with_entry(&tensor("0", 6, 1, &[2, 2], &[3, 1])));
    assert_eq!(Weights::from_pytorch_bytes(&bytes)?.tensor("weight", &[2, 2])?.as_f32()?, [0.0; 4]);
    Ok(())
}

#[test]
fn code_is_refused_by_its_name() {
    let call = |global: &str, argument: &str| {
        [b"\x80\x02c", global.as_bytes(), b"\n", text(argument).as_slice(), b"\x85R."].concat()
    };
    for (global, name) in [
        ("posix\nsystem", "posix.system"),
        ("nt\nsystem", "nt.system"),
        ("os\nsystem", "os.system"),
        ("subprocess\nPopen", "subprocess.Popen"),
        ("__builtin__\neval", "__builtin__.eval"),
        ("builtins\nexec", "builtins.exec"),
        ("builtins\ngetattr", "builtins.getattr"),
        ("collections\nOrderedDict.__init__", "collections.OrderedDict.__init__"),
        ("collections.abc\nOrderedDict", "collections.abc.OrderedDict"),
        ("torchx\nFloatStorage", "torchx.FloatStorage"),
    ] {
        refused(&call(global, "id > /tmp/x"), &format!("`{name}` is not allowed: the file would run code"));
        // As an entry of a state dict, after a sound one.
        let entry = [b"c", global.as_bytes(), b"\n", text("id").as_slice(), b"\x85R"].concat();
        refused(&with_entry(&entry), &format!("`{name}` is not allowed"));
    }
    for name in ["load", "hub.load", "nn.Module", "ops.load_library", "QInt8Storage", "Storage"] {
        refused(&call(&format!("torch\n{name}"), "x"), &format!("`torch.{name}` is not allowed"));
    }
    refused(&call("torch.storage\n_load_from_bytes", "x"), "`torch.storage._load_from_bytes` is not allowed");
    refused(&call("torch._utils\n_rebuild_qtensor", "x"), "`torch._utils._rebuild_qtensor` is not allowed");
    // The same by the opcode of protocol 4.
    refused(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "`posix.system` is not allowed");
    // What Python runs while it unpickles an object: INST, OBJ, NEWOBJ, EXT.
    refused(b"\x80\x02(X\x02\0\0\0idiposix\nsystem\n.", "the opcode INST is not allowed");
    refused(b"\x80\x02(ccollections\nOrderedDict\no.", "the opcode OBJ is not allowed");
    refused(b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the opcode NEWOBJ is not allowed");
    refused(b"\x80\x02\x82\x01.", "the opcode EXT1 is not allowed");
    refused(b"\x80\x02P1\n.", "the opcode PERSID is not allowed");
    refused(b"\x80\x02\xff.", "0xff is no opcode of a state dict");
    refused(b"\x80\x05N.", "protocol 5 is not read");
    let long = format!("c{}\nname\n.", "x".repeat(900));
    refused(long.as_bytes(), &format!("`{}…` is not allowed", "x".repeat(100)));
    refused(format!("c{}\nname\n.", "x".repeat(5000)).as_bytes(), "a name does not end");
    refused(b"c\x1b[2Jposix\nsystem\n.", "`\\u{1b}[2Jposix.system` is not allowed");
}

#[test]
fn build_sets_nothing_but_the_metadata_of_a_dict() -> Outcome {
    let build = |object: &[u8], state: &[u8]| [b"\x80\x02", object, state, b"b."].concat();
    let attribute = |name: &str| [b"}", text(name).as_slice(), b"Ns"].concat();
    Weights::from_pytorch_bytes(&with_pickle(&build(ORDERED_DICT, &attribute("_metadata"))))?;
    refused(&build(ORDERED_DICT, &attribute("__class__")), "the attribute `__class__` of a dict is not allowed");
    refused(&build(ORDERED_DICT, b"N"), "BUILD with None is not allowed");
    refused(&build(b"}", &attribute("_metadata")), "BUILD of a dict is not allowed");
    refused(&build(b"ccollections\nOrderedDict\n", b"}"), "BUILD of a class or function is not allowed");
    refused(&build(&tensor("0", 6, 0, &[1], &[1]), b"}"), "BUILD of a tensor is not allowed");
    Ok(())
}

#[test]
fn calls_take_just_the_arguments_of_torch() {
    let entry = |entry: &[u8], expected: &str| refused(&with_entry(entry), expected);
    entry(b"ctorch\nFloatStorage\n)R", "it makes a storage of its own");
    entry(b"ccollections\nOrderedDict\n]\x85R", "OrderedDict with 1 arguments");
    entry(b"ctorch._utils\n_rebuild_tensor_v2\n)R", "RebuildTensor with 0 arguments");
    entry(b"ctorch._utils\n_rebuild_parameter\n(N\x89}tR", "a parameter is made of None");
    entry(b"ctorch._utils\n_rebuild_parameter\n(N\x89}K\x01NstR", "backward hooks, which are code");
    entry(b"NNR", "it calls None");
    entry(b"ccollections\nOrderedDict\nNR", "it calls something with None");
    entry(
        b"(X\x06\0\0\0modulectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ",
        "a persistent id of `module`",
    );
    entry(b"NQ", "a persistent id is None");
    entry(b"(X\x07\0\0\0storageNX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ", "the class of a storage is None");
    entry(
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06(K\x01K\x02ttQ",
        "a part of another storage",
    );
}

#[test]
fn only_a_dict_of_tensors_is_a_state_dict() {
    refused(b"\x80\x02N.", "it holds None, not a state dict");
    refused(b"\x80\x02].", "it holds a list, not a state dict");
    refused(&[b"\x80\x02", tensor("0", 6, 0, &[1], &[1]).as_slice(), b"."].concat(), "it holds a tensor");
    refused(&with_entry(b"K\x01"), "its entry `weight` is an integer, not a tensor");
    refused(&with_entry(b"}"), "its entry `weight` is a dict, not a tensor");
    refused(b"\x80\x02}K\x01Ns.", "a key of its dict is an integer");
}

#[test]
fn a_tensor_stays_inside_of_its_storage() {
    let refuse = |entry: Vec<u8>, expected: &str| refused(&with_entry(&entry), expected);
    let beyond = |offset, shape: &[i64], strides: &[i64]| {
        refuse(tensor("0", 6, offset, shape, strides), "reaches beyond its storage of 6 numbers");
    };
    beyond(0, &[7], &[1]);
    beyond(1, &[6], &[1]);
    beyond(7, &[0], &[1]);
    beyond(0, &[2, 2], &[5, 1]);
    beyond(0, &[2], &[i64::MAX]);
    beyond(0, &[3, 3], &[i64::MAX, i64::MAX]);
    beyond(i64::MAX, &[1], &[1]);
    beyond(0, &[i64::MAX], &[1]);
    beyond(0, &[1 << 32, 1 << 32], &[0, 0]);
    // A tensor that repeats one number without end would take memory that the file doesn't have.
    beyond(0, &[1 << 40], &[0]);
    refuse(tensor("0", 7, 0, &[1], &[1]), "its storage `0` should have 28 bytes, but has 24");
    refuse(tensor("0", i64::MAX, 0, &[1], &[1]), "its storage claims 9223372036854775807 numbers");
    refuse(tensor("0", -1, 0, &[1], &[1]), "-1 is no size");
    refuse(tensor("0", 6, -1, &[1], &[1]), "-1 is no size");
    refuse(tensor("0", 6, 0, &[-1], &[1]), "-1 is no size");
    refuse(tensor("0", 6, 5, &[2], &[-1]), "-1 is no size");
    refuse(tensor("0", 6, 0, &[1, 1], &[1]), "2 dimensions, but 1 strides");
    refuse(tensor("0", 6, 0, &[1; 9], &[1; 9]), "a tensor has 9 dimensions");
    for key in ["1", "../data.pkl", "/etc/passwd", "../../0", ""] {
        refuse(tensor(key, 6, 0, &[1], &[1]), &format!("its storage `{key}` is not in the archive"));
    }
}

#[test]
fn work_and_memory_are_bounded() {
    let deep = [b"\x80\x02".as_slice(), &b"(".repeat(1 << 20), b"."].concat();
    refused(&deep, "more than 32 marks, deeper than any state dict");
    // Tuples in tuples, a million deep; and a list that is in itself.
    let nested = [b"\x80\x02)".as_slice(), &b"\x85".repeat(1_000_000), b"."].concat();
    refused(&nested, "it holds a tuple, not a state dict");
    refused(b"\x80\x02]q\0h\0a.", "it holds a list");
    // Each list has the one before it twice: the billion laughs.
    let laughs: Vec<u8> =
        (0..200u8).flat_map(|place| [b']', b'q', place + 1, b'h', place, b'a', b'h', place, b'a']).collect();
    refused(&[b"\x80\x02]q\0".as_slice(), &laughs, b"."].concat(), "it ends with 201 values");
    refused(&[b"\x80\x02".as_slice(), &b"]".repeat((1 << 20) + 1), b"."].concat(), "more than 1048576 values");
    refused(&[b"\x80\x02]q\0".as_slice(), &b"h\0".repeat(1 << 20), b"."].concat(), "its stack has more than 1048576");
    let memo: Vec<u8> = (0..=1u32 << 20).flat_map(|place| [[b'r'].as_slice(), &place.to_le_bytes()].concat()).collect();
    refused(&[b"\x80\x02]".as_slice(), &memo, b"."].concat(), "its memo has more than 1048576 entries");
    refused(b"\x80\x02]r\xff\xff\xff\xff.", "it holds a list");
    // Lengths that nobody has.
    refused(b"\x80\x02X\xff\xff\xff\xffabc.", "4294967295 bytes are needed, but 4 are left");
    refused(b"\x80\x02\x8a\xff.", "a number of 255 bytes");
    let huge = vec![b'N'; (16 << 20) + 1];
    refused(&huge, "its pickle has 16777217 bytes, more than 16777216");
}

#[test]
fn a_stack_that_does_not_fit_is_refused() {
    for pickle in
        [&b"."[..], b"t.", b"R.", b"b.", b"s.", b"u.", b"a.", b"e.", b"Q.", b"q\0.", b"h\0.", b"\x93.", b"\x85."]
    {
        assert!(Weights::from_pytorch_bytes(&with_pickle(&[b"\x80\x02", pickle].concat())).is_err(), "{pickle:?}");
    }
    refused(b"\x80\x02N(\x85.", "its stack is empty");
    refused(b"\x80\x02}(K\x01u.", "a key has no value");
    refused(b"\x80\x02](K\x01K\x02u.", "it sets items of a list");
    refused(b"\x80\x02}K\x01a.", "it appends to a dict");
    refused(b"\x80\x02NN.", "it ends with 2 values");
    refused(b"\x80\x02N(.", "1 open marks");
    refused(b"\x80\x02}", "1 bytes are needed, but 0 are left");
    refused(b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8");
}

#[test]
fn damaged_and_foreign_archives_are_refused() -> Outcome {
    let says = |bytes: &[u8], expected: &str| assert_says(Weights::from_pytorch_bytes(bytes), expected);
    let whole = read("module");
    says(&[], "neither a zip archive nor a pickle");
    says(b"<!DOCTYPE html>", "neither a zip archive nor a pickle");
    says(&whole[..whole.len() - 1], "the file is cut off or damaged");
    says(&whole[..whole.len() / 2], "the file is cut off or damaged");
    says(&[&whole[..], b"x"].concat(), "the file is cut off or damaged");
    let pickle = with_entry(&tensor("0", 6, 0, &[6], &[1]));
    let sound = with_pickle(&pickle);
    let place = sound.windows(24).position(|window| window == [0; 24]).ok_or("the storage is there")?;
    let mut damaged = sound.clone();
    damaged[place] = 1;
    says(&damaged, "the record `archive/data/0` of its archive has the checksum");
    let deflated = archive(&[("data.pkl", &pickle), ("data/0", &[0; 1 << 20])], CompressionMethod::Deflated);
    says(&deflated, "is compressed, which torch never does");
    for name in ["../escaped", "data/../../../escaped", "/escaped", "data\\0", "./0"] {
        says(&archive_named(name), "leads out of the archive");
    }
    let of = |records: &[(&str, &[u8])]| archive(records, CompressionMethod::Stored);
    says(&of(&[("version", b"3")]), "its archive has no data.pkl");
    says(&of(&[("data.pkl", &pickle)]), "its tensor `weight`: its storage `0` is not in the archive");
    says(&of(&[("data.pkl", &pickle), ("byteorder", b"big")]), "big-endian");
    says(&of(&[("data.pkl", &pickle), ("constants.pkl", b"")]), "a TorchScript program");
    Ok(())
}

/// An archive whose only record has this name; zip's own writer would mend it.
fn archive_named(name: &str) -> Vec<u8> {
    let length = (name.len() as u16).to_le_bytes();
    let header = [&b"PK\x03\x04"[..], &[0; 22], &length, &[0; 2], name.as_bytes()].concat();
    let entry = [&b"PK\x01\x02"[..], &[0; 24], &length, &[0; 16], name.as_bytes()].concat();
    let (size, start) = ((entry.len() as u32).to_le_bytes(), (header.len() as u32).to_le_bytes());
    [&header, &entry, &b"PK\x05\x06"[..], &[0; 4], &[1, 0, 1, 0], &size, &start, &[0; 2]].concat()
}

#[test]
fn damaged_streams_of_old_torch_are_refused() -> Outcome {
    let says = |bytes: &[u8], expected: &str| assert_says(Weights::from_pytorch_bytes(bytes), expected);
    let whole = read("legacy");
    says(&whole[..whole.len() - 1], "is cut off");
    says(&[&whole[..], b"x"].concat(), "1 bytes follow its last storage");
    says(b"\x80\x02K\x01.", "a pickle, but not one of `torch.save`");
    says(&whole[..14], "1 bytes are needed");
    says(&[&whole[..15], b"\x80\x02K\x01."].concat(), "its version is not the only one there was");
    let place = whole.windows(13).position(|window| window == b"little_endian").ok_or("the note is there")?;
    let mut big = whole.clone();
    // Between the name and its value, the name is put into the memo.
    assert_eq!(big[place + 15], 0x88);
    big[place + 15] = 0x89;
    says(&big, "big-endian");
    let system = [&whole[..place + 15], b"cposix\nsystem\n"].concat();
    says(&system, "`posix.system` is not allowed: the file would run code");
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    says(&tar, "a tar archive");
    Ok(())
}

/// Asks for every tensor in its own shape.
fn read_everything(bytes: &[u8]) {
    if let Ok(weights) = Weights::from_pytorch_bytes(bytes) {
        for name in weights.names() {
            let shape = weights.shape(name).expect("a named tensor has a shape");
            if let Ok(tensor) = weights.tensor(name, shape) {
                assert_eq!(tensor.shape(), shape);
            }
        }
    }
}

proptest! {
    #[test]
    fn damage_never_panics(case in prop::sample::select(&CASES), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), truncate: bool) {
        let mut bytes = read(case);
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
    fn any_pickle_is_read_or_refused(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), tail in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut pickle = with_entry(&tensor("0", 6, 0, &[2, 3], &[3, 1]));
        for (place, value) in edits {
            let place = place.index(pickle.len());
            pickle[place] = value;
        }
        pickle.extend(tail);
        read_everything(&with_pickle(&pickle));
    }

    /// Whatever its offset, shape and strides: a view is refused, or has the numbers that it names.
    #[test]
    fn views_are_copied_right(offset in 0usize..8, dims in prop::collection::vec((0usize..4, 0usize..5), 0..4)) {
        let values: Vec<u8> = (0..24u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        let signed = |pick: fn(&(usize, usize)) -> usize| dims.iter().map(|dim| pick(dim) as i64).collect::<Vec<_>>();
        let pickle = with_entry(&tensor("0", 24, offset as i64, &signed(|dim| dim.0), &signed(|dim| dim.1)));
        let bytes = archive(&[("data.pkl", &pickle), ("data/0", &values)], CompressionMethod::Stored);
        let mut expected = vec![offset];
        for &(size, stride) in &dims {
            expected = expected.iter().flat_map(|start| (0..size).map(move |index| start + index * stride)).collect();
        }
        let sound = expected.len() <= 24 && expected.iter().all(|&place| place < 24);
        let weights = Weights::from_pytorch_bytes(&bytes);
        prop_assert_eq!(weights.is_ok(), sound);
        if let Ok(weights) = weights {
            let shape: Vec<usize> = dims.iter().map(|dim| dim.0).collect();
            let found = weights.tensor("weight", &shape).expect("its own shape");
            let expected: Vec<f32> = expected.iter().map(|&place| place as f32).collect();
            prop_assert_eq!(found.as_f32().expect("f32"), &expected[..]);
        }
    }
}
