//! The messages of gRPC, from `proto/`; and clients of its services, for tests.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(["open_inference.proto", "text_embeddings.proto"])?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let clients = out.join("clients");
    fs::create_dir_all(&clients)?;
    for (folder, with_clients) in [(out, false), (clients, true)] {
        tonic_prost_build::configure()
            .build_server(false)
            .build_client(with_clients)
            .build_transport(false)
            .bytes(".inference")
            .out_dir(folder)
            .compile_fds(compiler.file_descriptor_set())?;
    }
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
