//! How a model is loaded.

use std::path::{Path, PathBuf};

use centuple_models::Purpose;
use centuple_models::checkpoint::gguf::is_gguf;
use centuple_models::checkpoint::hub;
use centuple_models::checkpoint::onnx::OnnxFile;
use centuple_passes::Quantization;

use crate::cuda;
use crate::device::{CudaFiles, Device};
use crate::error::Error;
use crate::precision::Precision;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What the model is wanted for.
    pub purpose: Purpose,
    /// What computes it.
    pub device: Device,
    /// Whether the CPU takes the place of `device` where it answers sooner, or where the device can't compute the model.
    pub or_cpu: bool,
    /// Files for GPUs.
    pub cuda: CudaFiles,
    /// The numbers that it computes with; by default an artefact's own, and f32 for everything else (f16 on GPUs).
    pub precision: Option<Precision>,
    /// How it is quantised, where the precision asks for it.
    pub quantization: Quantization,
    /// Most tokens that are computed together; raised to the model's longest sequence where it is smaller.
    pub max_batch_tokens: usize,
    /// Memory for recently tokenised texts in bytes; 0 switches the cache off.
    pub token_cache_bytes: u64,
    /// Whether ops are fused; without it, measurements show what that brings. An artefact stays as it was made.
    pub fusion: bool,
    /// Where names are looked up; by default where the environment says.
    pub hub: Option<hub::HubOptions>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            purpose: Purpose::Own,
            device: Device::Cpu,
            or_cpu: false,
            cuda: CudaFiles::default(),
            precision: None,
            quantization: Quantization::default(),
            max_batch_tokens: 4096,
            token_cache_bytes: 32 << 20,
            fusion: true,
            hub: None,
        }
    }
}

impl LoadOptions {
    /// Refuses what can't be computed here: on a device that isn't there, or in a precision that it doesn't have.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Device::Cuda(number) = self.device {
            cuda::probe(number, &self.cuda)?;
        }
        self.precision.map_or(Ok(()), |precision| self.device.takes(precision))
    }

    /// The folder of a model by folder or hub id, or the ONNX or GGUF file that is named.
    ///
    /// # Errors
    /// The name leads to no model.
    pub fn find(&self, name: &str) -> Result<PathBuf, Error> {
        Ok(match &self.hub {
            Some(hub) => hub::resolve(name, hub)?,
            None => hub::resolve(name, &hub::HubOptions::from_env()?)?,
        })
    }

    /// The folder of a model by folder or hub id, and the id that it is loaded under.
    ///
    /// # Errors
    /// As for [`LoadOptions::find`].
    pub fn locate(&self, name: &str) -> Result<(PathBuf, String), Error> {
        let folder = self.find(name)?;
        let id = id_of(name, &folder);
        Ok((folder, id))
    }
}

/// The id that clients use: the hub id without its revision, the folder's name, or that of an ONNX or GGUF file which is
/// called otherwise than `model`.
pub(crate) fn id_of(name: &str, folder: &Path) -> String {
    if folder.is_file()
        && is_gguf(folder)
        && let Some(stem) = folder.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "model")
    {
        return stem.to_owned();
    }
    let place = match OnnxFile::find(folder) {
        Ok(Some(file)) if folder.is_file() => match file.path.file_stem().and_then(|stem| stem.to_str()) {
            Some(stem) if stem != "model" => return stem.to_owned(),
            Some(_) | None => file.folder,
        },
        Ok(_) | Err(_) => folder.to_owned(),
    };
    let folder = &place;
    if Path::new(name).exists() {
        let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        return absolute.file_name().map_or_else(|| name.to_owned(), |last| last.to_string_lossy().into_owned());
    }
    name.split('@').next().unwrap_or(name).to_owned()
}

/// What is to compute a model, and the files that it takes for that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) device: Device,
    pub(crate) cuda: CudaFiles,
}

impl Target {
    pub(crate) fn of(options: &LoadOptions) -> Target {
        Target { device: options.device, cuda: options.cuda.clone() }
    }
}
