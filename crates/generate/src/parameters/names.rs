//! Names of parameters that transformers has and [`Parameters`] doesn't.

use serde_json::{Map, Value, json};

use super::Parameters;
use crate::ParameterError;

/// What changes no token: how transformers computes, and what it returns beside tokens.
const WITHOUT_EFFECT: [&str; 25] = [
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "return_dict_in_generate",
    "return_legacy_cache",
    "target_lookbehind",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
    "use_model_defaults",
    "_attn_implementation",
];

/// What would change tokens, and the value at which it doesn't.
fn without_support(name: &str) -> Option<Value> {
    match name {
        "assistant_early_exit"
        | "constraints"
        | "dola_layers"
        | "force_words_ids"
        | "max_time"
        | "watermarking_config" => Some(Value::Null),
        "diversity_penalty" | "penalty_alpha" => Some(json!(0.0)),
        "guidance_scale" => Some(json!(1.0)),
        "num_beam_groups" => Some(json!(1)),
        "token_healing" => Some(json!(false)),
        _ => None,
    }
}

/// Whether a parameter of this name is read, here or by transformers.
pub(super) fn is_known(name: &str) -> bool {
    WITHOUT_EFFECT.contains(&name) || without_support(name).is_some() || is_ours(name)
}

fn is_ours(name: &str) -> bool {
    serde_json::to_value(Parameters::default()).is_ok_and(|all| all.get(name).is_some())
}

/// The values that [`Parameters`] has fields for.
pub(super) fn supported(given: &Map<String, Value>) -> Result<Vec<(&String, &Value)>, ParameterError> {
    let mut found = Vec::with_capacity(given.len());
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        if let Some(harmless) = without_support(name) {
            let equal = harmless == *value || harmless.as_f64().is_some_and(|number| value.as_f64() == Some(number));
            if !equal {
                return Err(ParameterError::Unsupported { name: name.clone(), value: value.to_string() });
            }
        } else if is_ours(name) {
            found.push((name, value));
        } else if !WITHOUT_EFFECT.contains(&name.as_str()) {
            return Err(ParameterError::Unknown(name.clone()));
        }
    }
    Ok(found)
}
