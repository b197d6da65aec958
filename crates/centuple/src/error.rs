//! The one error type of this crate.

use std::path::PathBuf;

use centuple_cuda::CudaError;
use centuple_generate::ParameterError;
use centuple_graph::GraphError;
use centuple_models::ModelError;
use centuple_models::checkpoint::hub;
use centuple_passes::PassError;
use centuple_runtime::RuntimeError;
use centuple_tasks::EngineError;
use centuple_text::TextError;

use crate::artefact::ArtefactError;
use crate::precision::Precision;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name leads to no folder.
    #[error(transparent)]
    Hub(#[from] hub::HubError),
    /// The folder is no model that is understood.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An ONNX file cannot be read or imported.
    #[error(transparent)]
    Onnx(#[from] centuple_onnx::OnnxError),
    /// The model answers texts with texts only.
    #[error("`{model}` answers a text with a text and does nothing else; ask it for text2text-generation")]
    OnlyGenerates {
        /// The model's name.
        model: String,
    },
    /// The model consists of two graphs, which only its folder can hold.
    #[error(
        "`{model}` has an encoder and a decoder, of which neither artefacts nor exports are written; load its folder"
    )]
    TwoGraphs {
        /// The model's name.
        model: String,
    },
    /// An artefact cannot be read or written.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// The tokenizer is missing or damaged.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The graph is none.
    #[error(transparent)]
    Graph(Box<GraphError>),
    /// A pass broke the graph.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph could not be compiled.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The model can't be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A GPU can't compute the model.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// What is wanted runs on the CPU only.
    #[error("{what} runs on the CPU only; leave --device cuda out")]
    OnlyCpu {
        /// What is wanted.
        what: String,
    },
    /// The precision runs on GPUs only.
    #[error(
        "{precision} runs on GPUs of compute capability {} or newer only; add --device cuda, or take another precision",
        if *precision == Precision::Bf16 { "8.0" } else { "8.9" }
    )]
    OnlyCuda {
        /// The precision.
        precision: Precision,
    },
    /// The model is made for something else.
    #[error("model `{model}` does not generate text; it does {offers}")]
    NotGenerating {
        /// The model.
        model: String,
        /// What it does.
        offers: String,
    },
    /// What a folder says of how it generates has no meaning.
    #[error("`{}`: {source}", path.display())]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParameterError,
    },
    /// The memory for keys and values doesn't hold a page.
    #[error("{bytes} bytes for keys and values are less than one page, which takes {page}; give more")]
    CacheMemory {
        /// Bytes that it may take.
        bytes: usize,
        /// Bytes of a page.
        page: usize,
    },
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Error {
        Error::Graph(Box::new(error))
    }
}
