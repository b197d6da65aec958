//! What the passes make of a graph.

mod by_turns;
mod raise_attention;
mod raise_onnx;
mod raise_rows;
