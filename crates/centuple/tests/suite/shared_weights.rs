//! Models of one host that are fine-tunes of one base: equal weights take memory once, and answers stay the same.

use std::fs;
use std::path::Path;

use centuple::tasks::{Engine, Output, Sequence};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_testkit::Golden;
use tempfile::TempDir;

const TUNED: &str = "model.safetensors";

fn folder(tuned: bool) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    Golden::open().expect("fixtures").case("classify").expect("the case").assemble(folder.path()).expect("is written");
    if tuned {
        tune(&folder.path().join(TUNED));
    }
    folder
}

/// Changes the classifier and nothing else.
fn tune(path: &Path) {
    let mut bytes = fs::read(path).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let parts: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let place = &parts["classifier.weight"]["data_offsets"];
    let [start, end] = [0, 1].map(|side| 8 + header + place[side].as_u64().expect("an offset") as usize);
    // The sign bit of little-endian floats.
    bytes[start..end].iter_mut().skip(3).step_by(4).for_each(|byte| *byte ^= 0x80);
    fs::write(path, bytes).expect("writable");
}

fn answer(loaded: &mut Loaded) -> Vec<u32> {
    let outputs = loaded.engine.run(&[&Sequence::from_ids(vec![2, 7, 11, 3])]).expect("runs");
    let [Output { data, .. }] = outputs.as_slice() else { panic!("one output") };
    data.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn fine_tunes_share_their_base() {
    let [base, tuned] = [false, true].map(folder);
    for precision in [Precision::F32, Precision::F16] {
        let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
        let host = || Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
        let load = |host: &Host, folder: &TempDir| host.load_folder(folder.path(), "tiny", &options).expect("loads");
        let expected = [&base, &tuned].map(|folder| answer(&mut load(&host(), folder)));
        assert_ne!(expected[0], expected[1]);

        let host = host();
        let mut first = load(&host, &base);
        let mut second = load(&host, &tuned);
        let (alone, beside) = (first.engine.memory(), second.engine.memory());
        assert_eq!(alone.shared_weights, 0);
        assert!(beside.weights < alone.weights / 3, "{beside:?} beside {alone:?}");
        assert!(beside.shared_weights > alone.weights / 2, "{beside:?} beside {alone:?}");
        assert_eq!([answer(&mut first), answer(&mut second)], expected);
        drop(first);
        assert_eq!(answer(&mut second), expected[1]);

        // Loaded again, as when it is served anew: all of it is there.
        let again = load(&host, &tuned);
        assert!(again.engine.memory().weights <= beside.weights, "{again:?}", again = again.engine.memory());
    }
}
