//! What the fuzz targets share: folders to put files in, weights that fit a configuration, and what tokenizers must hold to,
//! and models without weights.

mod models;
mod text;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use centuple_testkit::Golden;
use tempfile::TempDir;

pub use models::models;
pub use text::tokenise;
pub use weights::fitting_weights;

/// A folder in memory, where the system has one, for the files of one process.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn new() -> Folder {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Folder(TempDir::new_in(parent).expect("temporary folders can be made"))
    }

    /// A folder with a case of the golden values.
    pub fn of_case(name: &str) -> Folder {
        let folder = Folder::new();
        let golden = Golden::open().expect("the fixtures are there");
        golden.case(name).expect("a known case").assemble(folder.path()).expect("the fixtures are there");
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, or removes it if there is no content.
    pub fn put(&self, file: &str, content: Option<&[u8]>) {
        let path: PathBuf = self.path().join(file);
        match content {
            Some(content) => {
                let parent = path.parent().expect("a file lies in a folder");
                fs::create_dir_all(parent).expect("temporary folders can be written");
                fs::write(&path, content).expect("temporary folders can be written");
            }
            None => {
                // It may not be there.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}
