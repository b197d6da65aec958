//! Parts that families are made of. A block takes properties, never a family's name.

mod feed_forward;
mod self_attention;

pub(crate) use feed_forward::FeedForward;
pub(crate) use self_attention::SelfAttention;
