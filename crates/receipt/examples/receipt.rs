//! Writes example receipts as HTML, text and JSON into a folder.

#[path = "../tests/suite/sample/mod.rs"]
mod sample;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: receipt FOLDER")?;
    fs::create_dir_all(&folder)?;
    for (name, receipt) in sample::all() {
        fs::write(folder.join(name).with_extension("html"), receipt.to_html())?;
        fs::write(folder.join(name).with_extension("json"), receipt.to_json()?)?;
        fs::write(folder.join(name).with_extension("txt"), receipt.table(80))?;
    }
    Ok(())
}
