//! The messages of ONNX, made of `proto/onnx.proto`.

#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
