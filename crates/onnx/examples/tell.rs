//! Imports a file and says what became of it: `cargo run --release -p centuple-onnx --example tell -- model.onnx`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, import};

fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        let start = Instant::now();
        let file = File::open(&path)?;
        let read = start.elapsed();
        let imported = import(&file, &ImportOptions::default())?;
        let nodes = imported.graph.nodes().len();
        println!("{}: read in {read:?}, imported in {:?}, {nodes} nodes", path.display(), start.elapsed() - read);
        println!("  {} opset {}", imported.producer, imported.opset);
        println!("  words {:?}, types {:?}, longest {:?}", imported.vocabulary, imported.token_types, imported.longest);
        for output in &imported.outputs {
            println!("  {output:?}");
        }
        for note in &imported.notes {
            println!("  {note}");
        }
        if std::env::var_os("GRAPH").is_some() {
            println!("{}", imported.graph);
        }
    }
    Ok(())
}
