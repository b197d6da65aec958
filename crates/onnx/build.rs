//! The messages of ONNX, from `proto/`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(["onnx.proto"])?;
    // Weights share the memory that the file was read into.
    prost_build::Config::new()
        .bytes([".onnx.TensorProto.raw_data"])
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .boxed(".onnx.AttributeProto.tp")
        .compile_fds(compiler.file_descriptor_set())?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
