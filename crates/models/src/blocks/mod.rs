//! Parts that families are made of. A block takes properties, never a family's name.

mod disentangled;
mod embeddings;
mod feed_forward;
mod frequencies;
mod heads;
mod post_norm;
mod relative_bias;
mod rotary;
mod self_attention;
mod stack;

pub(crate) use disentangled::Disentangled;
pub(crate) use embeddings::{Table, embeddings};
pub(crate) use feed_forward::FeedForward;
pub(crate) use frequencies::{Base, Frequencies};
pub(crate) use heads::Heads;
pub(crate) use post_norm::{PostNorm, Sizes};
pub(crate) use relative_bias::RelativeBias;
pub(crate) use rotary::{MOST_POSITIONS, Rotary};
pub(crate) use self_attention::{HeadNorms, SelfAttention};
pub(crate) use stack::{Memory, Order, Stack, UNTIED, most_places};
