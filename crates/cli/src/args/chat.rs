//! Flags of `chat`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Generation, Machine, number};

/// Talk with a model: it answers each line of standard input as it comes, and keeps in mind what was said.
///
/// /reset forgets it, /system TEXT begins anew with a system message, /exit ends. Ctrl-C stops an answer; a second one, or
/// Ctrl-D, ends. Lines may come from a pipe too; a line that can't be answered makes the exit code 1 then.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// A folder, an .onnx file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Have the model go on with the text itself, for models that have no chat template.
    #[arg(long)]
    pub(crate) no_template: bool,
    /// Most tokens of an answer; by default as many as there is room for, and 128 with --no-template.
    #[arg(long, value_name = "N", value_parser = number(1..=1 << 32))]
    pub(crate) max_new_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    #[command(flatten)]
    pub(crate) generation: Generation,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// How tokens are chosen, where it isn't as the model's generation_config.json says.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// Divides logits before a draw; 0 always takes the likeliest token.
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f32>,
    /// Draw among so many of the likeliest tokens.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have this probability.
    #[arg(long, value_name = "SHARE")]
    top_p: Option<f32>,
    /// Draw among tokens with this part of the likeliest one's probability.
    #[arg(long, value_name = "SHARE")]
    min_p: Option<f32>,
    /// Tokens that came before become unlikelier by this factor.
    #[arg(long, value_name = "FACTOR")]
    repetition_penalty: Option<f32>,
    /// Where draws come from: with the same seed the same answers.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Sampling {
    /// The parameters that these flags set.
    pub(crate) fn parameters(&self) -> Map<String, Value> {
        let greedy = self.temperature == Some(0.0);
        let numbers = [
            ("temperature", json!(self.temperature.filter(|_| !greedy))),
            ("top_k", json!(self.top_k)),
            ("top_p", json!(self.top_p)),
            ("min_p", json!(self.min_p)),
            ("repetition_penalty", json!(self.repetition_penalty)),
            ("seed", json!(self.seed)),
            ("do_sample", json!(greedy.then_some(false))),
        ];
        numbers
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}
