//! A model that generates: each token's likeliest successor is the one whose id is one larger.

#![allow(unreachable_pub)]

use std::{fs, path::Path, sync::mpsc};

use centuple_serve::{Generation, ServedModel};
use centuple_tasks::{
    Head, Model,
    generation::{Logits, Parameters, Step, StepEngine, StepError, StepLimits},
};
use centuple_text::{TextOptions, Tokenizer};
use tempfile::TempDir;

use super::{served, tiny};

const SEP: u32 = 3;

/// Holds its steps up if asked to.
struct Ascending {
    wait: Option<mpsc::Receiver<()>>,
}

impl StepEngine for Ascending {
    fn limits(&self) -> StepLimits {
        StepLimits {
            page_tokens: 4,
            pages: 8,
            positions: 32,
            source_positions: 0,
            tokens_per_step: 8,
            sequences_per_step: 4,
            vocabulary: tiny::LIMITS.vocabulary,
        }
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        // Once the test has dropped its end, nothing waits any more.
        let _ = self.wait.as_ref().map(mpsc::Receiver::recv);
        logits.clear();
        for span in &step.spans {
            for &place in &span.selected {
                let likeliest = (span.ids[place as usize] as usize + 1) % tiny::LIMITS.vocabulary;
                logits
                    .values
                    .extend((0..tiny::LIMITS.vocabulary).map(|token| if token == likeliest { 5.0 } else { 0.0 }));
            }
        }
        Ok(())
    }
}

/// The model; each of its steps waits for leave, if `wait` gives it.
pub fn generating(wait: Option<mpsc::Receiver<()>>) -> ServedModel {
    serve(tiny::model(HEAD), wait)
}

/// The same, with this chat template.
pub fn talking(template: &str) -> ServedModel {
    let folder = TempDir::new().expect("a temporary folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tasks/tests/tokenizer");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(source.join(file), folder.path().join(file)).expect("the fixture is there");
    }
    fs::write(folder.path().join("chat_template.jinja"), template).expect("a temporary folder");
    let tokenizer = Tokenizer::open(folder.path(), &TextOptions::new(16)).expect("the fixture is a tokenizer");
    serve(Model { tokenizer, ..tiny::model(HEAD) }, None)
}

const HEAD: Head = Head::CausalLm { vocabulary: tiny::LIMITS.vocabulary };

fn serve(model: Model, wait: Option<mpsc::Receiver<()>>) -> ServedModel {
    let engine = tiny::Tiny::new(&model);
    let defaults = Parameters { eos_token_id: vec![SEP], ..Parameters::default() };
    let generation =
        Generation { defaults: defaults.into(), engine: Box::new(Ascending { wait }), tokenizer: "none".into() };
    ServedModel { generation: Some(generation), ..served(model, engine) }
}
