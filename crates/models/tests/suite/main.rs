//! Checkpoints of every kind, read and refused.

mod checkpoint_hub;
mod checkpoint_pytorch;
mod checkpoint_sentence_transformers;
mod checkpoint_weights;
mod families;
mod gguf;
mod model_type;
