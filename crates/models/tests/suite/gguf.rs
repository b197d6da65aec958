//! GGUF files that are no models: each is an error that names the file and what is wrong with it.

use std::error::Error;
use std::fs;
use std::path::Path;

use centuple_models::checkpoint::gguf::Gguf;
use centuple_models::{Purpose, generation_config_of_gguf, load_gguf};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/gguf").join(name);
    fs::read(path).expect("the fixture")
}

fn load(bytes: &[u8]) -> Result<centuple_models::Model, Box<dyn Error>> {
    let file = Gguf::from_bytes(bytes)?;
    generation_config_of_gguf(&file)?;
    Ok(load_gguf(&file, Purpose::Own)?)
}

/// A file with the bytes of a text changed to others of the same length, at its first place.
fn changed(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = fixture(name);
    assert_eq!(from.len(), to.len());
    let place = bytes.windows(from.len()).position(|window| window == from).expect("the text is there");
    bytes[place..place + to.len()].copy_from_slice(to);
    bytes
}

fn refused(bytes: &[u8], words: &str) {
    match load(bytes) {
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("(memory)") && error.contains(words), "{error} doesn't say {words:?}");
        }
        Ok(_) => panic!("a file is a model that should be refused for {words:?}"),
    }
}

#[test]
fn what_changes_the_numbers_is_refused_by_name() {
    for (from, to, words) in [
        (&b"llama"[..], &b"lloma"[..], "`general.architecture`: \"lloma\" is not supported; llama, "),
        (b"general.architecture", b"general.orchitecture", "`general.architecture` is missing"),
        (b"llama.block_count", b"llama.block_caunt", "`llama.block_count` is missing"),
        (b"llama.attention.layer_norm_rms_epsilon", b"llama.attention.layer_norm_rms_epsilan", "_epsilon` is missing"),
        (b"llama.context_length", b"llama.residual_scale", "`llama.residual_scale` is not supported"),
        (b"token_embd.weight", b"token_ombd.weight", "there is no table `token_embd.weight`"),
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_ub.weight", "the tensor `blk.1.ffn_ub.weight` is none"),
        (b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"),
    ] {
        refused(&changed("llama-causal.gguf", from, to), words);
    }
    refused(
        &changed("llama-linear.gguf", b"linear", b"lineal"),
        "`llama.rope.scaling.type` \"lineal\" is not supported",
    );
    refused(
        &changed("llama-yarn.gguf", b"llama.rope.scaling.factor", b"llama.rope.scaling.foctor"),
        "factor` is missing",
    );
    refused(
        &changed("llama-llama3.gguf", b"rope_freqs.weight", b"rope_frecs.weight"),
        "the tensor `rope_frecs.weight`",
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    // The value follows the key and the number of its type.
    let set = |key: &str, value: [u8; 4]| {
        let mut bytes = fixture("llama-causal.gguf");
        let place = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect("the key is there");
        bytes[place + key.len() + 4..][..4].copy_from_slice(&value);
        bytes
    };
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.feed_forward_length",
        "llama.rope.dimension_count",
        "llama.context_length",
    ] {
        for value in [0u32, 3, 1 << 20, u32::MAX] {
            // Any number of positions will do, and a model of no layers is one.
            let sound = key == "llama.context_length" || (key == "llama.block_count" && value == 0);
            assert!(sound || load(&set(key, value.to_le_bytes())).is_err(), "{key}: {value}");
        }
    }
    for value in [f32::NAN, -1.0, f32::INFINITY] {
        assert!(load(&set("llama.rope.freq_base", value.to_le_bytes())).is_err(), "{value}");
    }
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let file = fixture("gpt2-causal.gguf");
    assert!(load(&file).is_ok());
    for length in (0..file.len() - 64).step_by(7 * 61) {
        assert!(load(&file[..length]).is_err(), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_headers_make_no_panic(changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..4)) {
        for name in ["llama-llama3.gguf", "gemma3-causal.gguf"] {
            let mut bytes = fixture(name);
            changes.iter().for_each(|(place, byte)| bytes[*place] = *byte);
            let _ = load(&bytes);
        }
    }
}
