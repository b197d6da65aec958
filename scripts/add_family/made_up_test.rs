//! The made-up family runs, with a head that it didn't have to write.

use std::collections::BTreeMap;
use std::fs;

use centuple::tasks::{Engine, Sequence};
use centuple::{Host, HostOptions, LoadOptions, Precision};
use centuple_testkit::{Random, fixtures};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

const WIDTH: usize = 16;
const VOCABULARY: usize = 273;
const LAYERS: usize = 2;

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn weights(random: &mut Random) -> Weights {
    let mut weights = Weights::new();
    let mut add = |name: String, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|_| random.float()).collect();
        weights.insert(name, (shape.to_vec(), values));
    };
    add("made_up.words.weight".to_owned(), &[VOCABULARY, WIDTH]);
    for layer in 0..LAYERS {
        add(format!("made_up.layers.{layer}.weight"), &[WIDTH, WIDTH]);
        add(format!("made_up.layers.{layer}.bias"), &[WIDTH]);
    }
    add("classifier.weight".to_owned(), &[3, WIDTH]);
    add("classifier.bias".to_owned(), &[3]);
    weights
}

fn linear(weights: &Weights, name: &str, x: &[f64]) -> Vec<f64> {
    let (matrix, bias) = (&weights[&format!("{name}.weight")].1, &weights[&format!("{name}.bias")].1);
    let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
    matrix.chunks_exact(WIDTH).zip(bias).map(|(row, &bias)| dot(row) + f64::from(bias)).collect()
}

/// The logits of every token, by the definition.
fn expected(weights: &Weights, ids: &[u32]) -> Vec<f32> {
    let table = &weights["made_up.words.weight"].1;
    let of = |&id: &u32| {
        let row = &table[id as usize * WIDTH..][..WIDTH];
        let mut x: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        for layer in 0..LAYERS {
            let inner = linear(weights, &format!("made_up.layers.{layer}"), &x);
            x.iter_mut().zip(inner).for_each(|(x, inner)| *x /= 1.0 + (-inner).exp());
        }
        linear(weights, "classifier", &x).into_iter().map(|value| value as f32).collect::<Vec<f32>>()
    };
    ids.iter().flat_map(of).collect()
}

#[test]
fn a_family_is_one_file_and_one_word() {
    let weights = weights(&mut Random::new(7));
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let config = json!({
        "model_type": "made_up", "architectures": ["MadeUpForTokenClassification"],
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    });
    fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    fs::copy(fixtures().join("tokenizer/tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let bytes: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, (shape, values))| (name, (shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())))
        .collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a tensor"))
    });
    let file = safetensors::serialize(views, None).expect("serialises");
    fs::write(folder.path().join("model.safetensors"), file).expect("written");

    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let mut loaded = host.load_folder(folder.path(), "made-up", &LoadOptions::default()).expect("it loads");
    let ids = vec![3, 1, 4, 1, 5, 9, 2, 6];
    let outputs = loaded.engine.run(&[&Sequence::from_ids(ids.clone())]).expect("it runs");
    let distance = centuple_testkit::distance(&outputs[0].data, &expected(&weights, &ids));
    assert!(distance < 1e-5, "off by {distance:e}");

    let int8 = LoadOptions { precision: Some(Precision::Int8), ..LoadOptions::default() };
    let mut loaded = host.load_folder(folder.path(), "made-up", &int8).expect("it is quantised like any other");
    let outputs = loaded.engine.run(&[&Sequence::from_ids(ids.clone())]).expect("it runs");
    let distance = centuple_testkit::distance(&outputs[0].data, &expected(&weights, &ids));
    assert!(distance < 0.1, "off by {distance:e}");
}
