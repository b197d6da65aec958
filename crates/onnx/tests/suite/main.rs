//! ONNX files in and out.

mod agreement;
mod export;
mod hostile;
mod operators;
