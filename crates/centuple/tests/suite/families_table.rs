//! `docs/families.md` says what the code loads and what it was tested against. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use centuple_models::{Architecture, architectures};
use centuple_testkit::FamilyGolden;

const HEAD: &str = "# Families

Every class that Centuple loads, with what its outputs were compared with. This table is made from the code and the golden
values by `UPDATE_DOCS=1 cargo test --workspace --test suite families_table`; the test fails where it is out of date.

- **recorded**: tiny random checkpoints of that class, in as many configurations, whose outputs for ragged batches were
  recorded from transformers 4.57.6 (`nomic_bert`: from a PyTorch module of its own, as that version doesn't have it); f32
  has to agree within 1e-4.
- **precisions**: those in which every configuration loads and runs, with results that depend neither on the batch nor on
  the number of threads.
- `text-classification` models answer `zero-shot-classification` too where a label means entailment, and `text-ranking`.
  Every model answers `feature-extraction` where the folder is a sentence-transformers, SPLADE or ColBERT model.
- `text-generation` models keep keys and values in a cache. Their logits are also compared token by token and with the prompt
  cut into chunks, and 64 tokens of greedy search with what `generate` of transformers finds.
- `text2text-generation` models have an encoder, which reads a text once, and a decoder that answers it. They are compared in the
  same way, with greedy search, beams, and beams with forced tokens; NLLB is `m2m_100`.

| model_type | class | task | precisions | recorded |
|---|---|---|---|---|
";

const TAIL: &str = "
Real models that tests or scripts compare with PyTorch:

| model | class | inputs | where |
|---|---|---|---|
| all-MiniLM-L6-v2 | BertModel | 200 texts | `crates/centuple/tests/suite/real_model.rs` |
| rxnfp, pretrained | BertForMaskedLM | 220 reactions | `crates/centuple/tests/suite/reaction_models.rs` |
| rxnfp, 50 classes | BertForSequenceClassification | 220 reactions | the same |
| rxnmapper | AlbertForMaskedLM | 220 reactions | the same |
| SmolLM2-135M-Instruct | LlamaForCausalLM | 20 prompts, 64 tokens each | `crates/centuple/tests/suite/real_generation.rs` |
";

/// Number of configurations of a class that were recorded.
fn recorded(families: &[FamilyGolden], architecture: &Architecture) -> usize {
    let cases = families.iter().flat_map(|family| &family.cases).filter(|case| case.refuse.is_none());
    let of_class = |config: &serde_json::Value| {
        let class = config["architectures"].get(0).and_then(serde_json::Value::as_str);
        let model_type = config["model_type"].as_str();
        class == Some(architecture.class.as_str()) && model_type == Some(architecture.model_type)
    };
    cases.filter(|case| of_class(&case.config)).count()
}

#[test]
fn the_table_is_what_the_code_does() {
    let mut families = FamilyGolden::all().expect("fixtures");
    families.extend(FamilyGolden::seq2seq().expect("fixtures"));
    let mut table = HEAD.to_owned();
    for architecture in architectures().expect("families take their own defaults") {
        let Architecture { model_type, class, task } = &architecture;
        let recorded = recorded(&families, &architecture);
        writeln!(table, "| {model_type} | {class} | {task} | f32, f16, int8 | {recorded} |").expect("strings grow");
    }
    table += TAIL;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/families.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &table).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == table, "docs/families.md is out of date; run this test with UPDATE_DOCS=1");
}
