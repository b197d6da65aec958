//! Gemma 3's text model, whose classes are named unlike those of [`gemma`](super::gemma).

use super::{Family, gemma};

pub(super) const FAMILY: Family = Family {
    names: &[("gemma3_text", "Gemma3")],
    base: "TextModel",
    brings_code: false,
    prefix: "model.",
    probe: "embed_tokens.weight",
    dimensions: gemma::dimensions,
    build: gemma::build,
    heads: gemma::heads,
};
