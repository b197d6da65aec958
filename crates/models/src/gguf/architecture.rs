//! The architectures that are read, and how their tensors are called there and here.

use std::collections::BTreeMap;

use crate::ModelError;
use crate::checkpoint::gguf::{Change, Gguf, Renamed};

use super::keys::failed;

const ARCHITECTURE: &str = "general.architecture";

/// What an architecture of GGUF files is to the families.
pub(super) struct Architecture {
    /// Its name in files, which its keys begin with.
    pub(super) name: &'static str,
    /// The `model_type` of the family.
    pub(super) model_type: &'static str,
    /// The class that generates text.
    pub(super) class: &'static str,
    /// Tensors outside of layers: their names there and here.
    outer: &'static [(&'static str, &'static str)],
    /// What stands before a layer's number here.
    layers: &'static str,
    /// Tensors of a layer: their names there and here.
    inner: &'static [(&'static str, &'static str)],
    /// Whether rows of queries and keys are stored as llama.cpp's rotation wants them.
    turns: bool,
    /// Whether norms' scales are stored greater by one.
    adds_one: bool,
    /// Whether matrices of layers are stored transposed.
    transposes: bool,
}

const OUTER: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
const LLAMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
/// Of the later Gemmas, whose blocks' outputs are normed as well.
const GEMMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const GPT2: &[(&str, &str)] = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

const PLAIN: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    class: "LlamaForCausalLM",
    outer: OUTER,
    layers: "model.layers",
    inner: LLAMA,
    turns: false,
    adds_one: false,
    transposes: false,
};

static ARCHITECTURES: [Architecture; 7] = [
    Architecture { turns: true, ..PLAIN },
    Architecture { name: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", ..PLAIN },
    Architecture { name: "qwen3", model_type: "qwen3", class: "Qwen3ForCausalLM", ..PLAIN },
    Architecture { name: "gemma", model_type: "gemma", class: "GemmaForCausalLM", adds_one: true, ..PLAIN },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        inner: GEMMA,
        adds_one: true,
        ..PLAIN
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        inner: GEMMA,
        adds_one: true,
        ..PLAIN
    },
    Architecture {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        outer: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        layers: "transformer.h",
        inner: GPT2,
        transposes: true,
        ..PLAIN
    },
];

/// Factors on the periods of rotations, which become part of the configuration.
pub(super) const ROTATIONS: &str = "rope_freqs.weight";

impl Architecture {
    /// The architecture that a file names.
    pub(super) fn of(file: &Gguf) -> Result<&'static Architecture, ModelError> {
        let named = file.metadata().text(ARCHITECTURE).map_err(|source| failed(file, source))?;
        let found = ARCHITECTURES.iter().find(|architecture| Some(architecture.name) == named);
        found.ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            let known = known.join(", ");
            let reason = match named {
                Some(name) => format!("`{ARCHITECTURE}`: \"{}\" is not supported; {known} are", name.escape_debug()),
                None => format!("`{ARCHITECTURE}` is missing; a file of one of {known} is needed"),
            };
            ModelError::Config { path: file.path().to_owned(), reason }
        })
    }

    /// The file's tensors under the names of the family; `heads` are those of queries and those of keys.
    ///
    /// # Errors
    /// A tensor isn't known, or heads don't divide one.
    pub(super) fn rename(&self, file: &Gguf, heads: [usize; 2]) -> Result<BTreeMap<String, Renamed>, ModelError> {
        let error = |reason: String| ModelError::Config { path: file.path().to_owned(), reason };
        let mut renamed = BTreeMap::new();
        for (stored, info) in file.tensors().iter().filter(|(name, _)| *name != ROTATIONS) {
            let (name, part) = self.name(stored).ok_or_else(|| {
                let shown = stored.escape_debug();
                error(format!("the tensor `{shown}` is none of a `{}`, so its part in it is not known", self.name))
            })?;
            let mut shape = info.shape.clone();
            let change = self.change(part, &shape, heads);
            match change {
                Change::Transposed => shape.reverse(),
                Change::HeadRows(heads) if heads == 0 || !shape[0].is_multiple_of(heads.saturating_mul(2)) => {
                    let rows = shape[0];
                    return Err(error(format!(
                        "the tensor `{stored}` has {rows} rows, which are not pairs of {heads} heads"
                    )));
                }
                Change::HeadRows(_) | Change::LessOne | Change::None => {}
            }
            renamed.insert(name, Renamed { stored: stored.clone(), shape, change });
        }
        Ok(renamed)
    }

    /// The family's name of a tensor, and the part of the file's name that says which one of a layer it is.
    fn name<'a>(&self, stored: &'a str) -> Option<(String, &'a str)> {
        let (name, kind) = stored.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        let find = |known: &[(&str, &'static str)], name: &str| {
            known.iter().find(|(there, _)| *there == name).map(|(_, here)| *here)
        };
        let Some(inner) = name.strip_prefix("blk.") else {
            return Some((format!("{}.{kind}", find(self.outer, name)?), name));
        };
        let (layer, part) = inner.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        Some((format!("{}.{layer}.{}.{kind}", self.layers, find(self.inner, part)?), part))
    }

    fn change(&self, part: &str, shape: &[usize], [heads, kv_heads]: [usize; 2]) -> Change {
        match part {
            "attn_q" if self.turns && !shape.is_empty() => Change::HeadRows(heads),
            "attn_k" if self.turns && !shape.is_empty() => Change::HeadRows(kv_heads),
            _ if self.adds_one && part.ends_with("norm") => Change::LessOne,
            "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down" if self.transposes && shape.len() == 2 => {
                Change::Transposed
            }
            _ => Change::None,
        }
    }
}
