//! Whole models: files and checkpoints in, what tasks answer out.

mod artefact;
mod company;
mod families;
mod families_table;
mod gate;
mod generation;
mod generator;
mod gguf;
mod goldens;
mod hard_model;
mod onnx;
mod onnx_real;
mod pipelines;
mod quantization;
mod reaction_models;
mod real_generation;
mod real_model;
mod seq2seq;
mod shared_weights;
mod support;
mod text_to_text;
mod untrusted;
