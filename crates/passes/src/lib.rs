//! Optimisation: passes from [`Graph`](centuple_graph::Graph) to `Graph`, one a file, in one ordered list.
//!
//! A pass knows no file format, no model family and no kernel. After each one the graph is verified.

mod byte_activations;
mod compensation;
mod constant_folding;
mod dead_code;
mod embedding_sum;
mod gate;
mod group_codes;
mod half_weights;
mod joined;
mod linear_activation;
mod linear_residual;
mod norm_residual;
mod pipeline;
mod qkv_merge;
mod quantize;
mod raise;
mod refinement;
mod rewrite;
mod segments;
mod work;

pub use byte_activations::byte_activations;
pub use compensation::Moments;
pub use half_weights::halve_weights;
pub use pipeline::{PassError, fold_constants, optimize};
pub use quantize::{
    Channels, LayerPrecision, Observations, Quantization, Quantizer, RoundedWeights, layer_precisions, observed_values,
    quantizable_layers, quantize,
};
pub use raise::{RaiseOptions, longest_sequence, raise};
pub use rewrite::{Refusal, Report};
pub use segments::{Segment, segment_value, segments};
