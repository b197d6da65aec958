//! What a `config.json` would say, out of a file's keys.

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::checkpoint::gguf::Gguf;

use super::architecture::ROTATIONS;
use super::keys::Keys;

/// Layers of the largest Gemma 2 and Gemma 3, which scale scores by the width of a head that their embedding would have.
const LARGEST: [(&str, usize); 2] = [("gemma2", 46), ("gemma3", 62)];

/// The configuration of a file.
pub(super) fn of(keys: &Keys) -> Result<Value, ModelError> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("architectures", json!([keys.architecture.class]));
    set("model_type", json!(keys.architecture.model_type));
    set("tie_word_embeddings", json!(!has(keys.file, "output.weight")));
    set("vocab_size", json!(vocabulary(keys)?));
    let own = if keys.architecture.name == "gpt2" { gpt2(keys)? } else { decoder(keys)? };
    if let Value::Object(own) = own {
        fields.extend(own);
    }
    Ok(Value::Object(fields))
}

fn has(file: &Gguf, tensor: &str) -> bool {
    file.tensors().contains_key(tensor)
}

/// Rows of the table of tokens, which may be more than there are tokens.
fn vocabulary(keys: &Keys) -> Result<usize, ModelError> {
    const TABLE: &str = "token_embd.weight";
    let table = keys.file.tensors().get(TABLE);
    let rows = table.filter(|table| table.shape.len() == 2).and_then(|table| table.shape.first());
    rows.copied().ok_or_else(|| ModelError::Config {
        path: keys.file.path().to_owned(),
        reason: format!("there is no table `{TABLE}`; convert the model again with a current llama.cpp"),
    })
}

fn gpt2(keys: &Keys) -> Result<Value, ModelError> {
    Ok(json!({
        "n_positions": keys.size("context_length")?,
        "n_embd": keys.size("embedding_length")?,
        "n_layer": keys.size("block_count")?,
        "n_head": keys.size("attention.head_count")?,
        "n_inner": keys.size("feed_forward_length")?,
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon")?.ok_or_else(|| keys.missing("attention.layer_norm_epsilon"))?,
    }))
}

/// The fields that Llama and its kin and the Gemmas share, then their own.
fn decoder(keys: &Keys) -> Result<Value, ModelError> {
    let heads = keys.size("attention.head_count")?;
    let width = keys.size("embedding_length")?;
    let head_dim = match keys.optional("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && width.is_multiple_of(heads) => width / heads,
        None => return Err(keys.error("embedding_length", "is no multiple of the number of heads")),
    };
    for (name, what) in [("attention.value_length", "values"), ("rope.dimension_count", "rotated columns")] {
        if keys.optional(name)?.is_some_and(|columns| columns != head_dim) {
            return Err(
                keys.error(name, &format!("is not {head_dim}; heads whose {what} differ from it are not supported"))
            );
        }
    }
    let epsilon = "attention.layer_norm_rms_epsilon";
    let mut fields = json!({
        "hidden_size": width,
        "intermediate_size": keys.size("feed_forward_length")?,
        "num_hidden_layers": keys.size("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.optional("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "max_position_embeddings": keys.size("context_length")?,
        "rms_norm_eps": keys.number(epsilon)?.ok_or_else(|| keys.missing(epsilon))?,
        "rope_theta": keys.number("rope.freq_base")?.unwrap_or(10_000.0),
        "rope_scaling": scaling(keys, head_dim)?,
    });
    let own = match keys.architecture.name {
        "gemma" => json!({}),
        "gemma2" | "gemma3" => gemma(keys, [width, heads, head_dim])?,
        _ => llama(keys)?,
    };
    if let (Value::Object(fields), Value::Object(own)) = (&mut fields, own) {
        fields.extend(own);
    }
    Ok(fields)
}

fn llama(keys: &Keys) -> Result<Value, ModelError> {
    let window = keys.optional("attention.sliding_window")?.filter(|window| *window > 0);
    let mut own = json!({
        "attention_bias": has(keys.file, "blk.0.attn_q.bias"),
        "mlp_bias": has(keys.file, "blk.0.ffn_down.bias"),
    });
    match window {
        None => {}
        // What a window makes of a Llama is called Mistral.
        Some(window) if keys.architecture.name == "llama" => {
            own["model_type"] = json!("mistral");
            own["architectures"] = json!(["MistralForCausalLM"]);
            own["sliding_window"] = json!(window);
        }
        Some(_) => {
            return Err(
                keys.error("attention.sliding_window", "is not supported, as it doesn't say for which layers it is")
            );
        }
    }
    Ok(own)
}

fn gemma(keys: &Keys, [width, heads, head_dim]: [usize; 3]) -> Result<Value, ModelError> {
    let name = keys.architecture.name;
    let layers = keys.size("block_count")?;
    let scored = if LARGEST.contains(&(name, layers)) { width / heads.max(1) } else { head_dim };
    let mut own = json!({
        "query_pre_attn_scalar": scored,
        "sliding_window": keys.size("attention.sliding_window")?,
        "attn_logit_softcapping": keys.number("attn_logit_softcapping")?,
        "final_logit_softcapping": keys.number("final_logit_softcapping")?,
    });
    if name == "gemma3" {
        own["rope_local_base_freq"] = json!(keys.number("rope.freq_base_swa")?.unwrap_or(10_000.0));
        own["sliding_window_pattern"] = json!(keys.optional("attention.sliding_window_pattern")?.unwrap_or(6));
    }
    Ok(own)
}

/// The field `rope_scaling`.
fn scaling(keys: &Keys, head_dim: usize) -> Result<Value, ModelError> {
    let kind = keys.text("rope.scaling.type")?;
    let older = keys.number("rope.scale_linear")?;
    if let Some(factors) = rotation_factors(keys, head_dim)? {
        if !matches!((kind, older), (None | Some("none"), None | Some(1.0))) {
            return Err(keys.error("rope.scaling.type", &format!("is not supported beside the tensor `{ROTATIONS}`")));
        }
        // Lengths don't matter: there is one factor for each pair of columns.
        return Ok(json!({
            "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": factors, "long_factor": factors,
        }));
    }
    let factor = || match keys.number("rope.scaling.factor")? {
        Some(factor) => Ok(factor),
        None => Err(keys.missing("rope.scaling.factor")),
    };
    Ok(match (kind, older) {
        (None | Some("none"), None) => Value::Null,
        (None | Some("none"), Some(1.0)) => Value::Null,
        (None | Some("none"), Some(factor)) => json!({"rope_type": "linear", "factor": factor}),
        (Some("linear"), _) => json!({"rope_type": "linear", "factor": factor()?}),
        (Some("yarn"), _) => {
            for name in ["attn_factor", "yarn_ext_factor", "yarn_attn_factor", "yarn_log_multiplier"] {
                let name = format!("rope.scaling.{name}");
                if keys.number(&name)?.is_some_and(|factor| factor != 1.0) {
                    return Err(keys.error(&name, "is not supported where it is not 1"));
                }
            }
            json!({
                "rope_type": "yarn",
                "factor": factor()?,
                "original_max_position_embeddings": keys.optional("rope.scaling.original_context_length")?,
                "beta_fast": keys.number("rope.scaling.yarn_beta_fast")?,
                "beta_slow": keys.number("rope.scaling.yarn_beta_slow")?,
            })
        }
        (Some(other), _) => {
            let reason = format!("\"{}\" is not supported; none, linear and yarn are", other.escape_debug());
            return Err(keys.error("rope.scaling.type", &reason));
        }
    })
}

/// How much longer each pair of columns takes to rotate, where the file says so by a tensor.
fn rotation_factors(keys: &Keys, head_dim: usize) -> Result<Option<Vec<f32>>, ModelError> {
    if !has(keys.file, ROTATIONS) {
        return Ok(None);
    }
    let values = keys.file.values(ROTATIONS)?;
    let factors = values.as_f32();
    let sound = |factor: &f32| *factor > 0.0 && factor.is_finite();
    if factors.len() != head_dim / 2 || !factors.iter().all(sound) {
        let reason = format!("the tensor `{ROTATIONS}` is no list of {} positive numbers", head_dim / 2);
        return Err(ModelError::Config { path: keys.file.path().to_owned(), reason });
    }
    Ok(Some(factors.to_vec()))
}
