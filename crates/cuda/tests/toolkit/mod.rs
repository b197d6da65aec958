//! NVIDIA's compiler and disassembler, which a script of the project installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the tools are.
pub(crate) struct Toolkit {
    /// The folder of libnvrtc.
    pub(crate) nvrtc: PathBuf,
    /// The disassembler.
    pub(crate) nvdisasm: PathBuf,
}

/// The tools, installed on first use.
pub(crate) fn toolkit() -> &'static Toolkit {
    static TOOLKIT: OnceLock<Toolkit> = OnceLock::new();
    TOOLKIT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/gpu/toolkit.py");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-toolkit");
        let output = Command::new("python3").arg(&script).arg(&folder).output();
        let output = output.unwrap_or_else(|error| panic!("python3 doesn't run ({error}); install python3 with venv"));
        let remedy = "it installs the packages of scripts/gpu/requirements.txt and needs a Python package index";
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} fails; {remedy}:\n{said}", script.display());
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = printed.lines().map(PathBuf::from);
        match (lines.next(), lines.next()) {
            (Some(nvrtc), Some(nvdisasm)) => Toolkit { nvrtc, nvdisasm },
            _ => panic!("{} prints {printed:?}", script.display()),
        }
    })
}
