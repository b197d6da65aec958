//! The families by which the document is ordered.

/// What a reader looks routes up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Tag {
    Tasks,
    TextEmbeddings,
    OpenAi,
    Cohere,
    Infinity,
    SageMaker,
    OpenInference,
    Operations,
}

impl Tag {
    /// All, in the order in which they are shown.
    pub(super) const ALL: [Tag; 8] = [
        Tag::Tasks,
        Tag::TextEmbeddings,
        Tag::OpenAi,
        Tag::Cohere,
        Tag::Infinity,
        Tag::SageMaker,
        Tag::OpenInference,
        Tag::Operations,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Tag::Tasks => "Hugging Face tasks",
            Tag::TextEmbeddings => "text-embeddings-inference",
            Tag::OpenAi => "OpenAI",
            Tag::Cohere => "Cohere",
            Tag::Infinity => "Infinity",
            Tag::SageMaker => "SageMaker",
            Tag::OpenInference => "Open Inference Protocol",
            Tag::Operations => "Operations",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Tag::Tasks => "The routes of the Hugging Face hub: every task of every model.",
            Tag::TextEmbeddings => "Embeddings, classes, rankings and tokens, as text-embeddings-inference has them.",
            Tag::OpenAi => "Embeddings and the list of models, as clients of OpenAI ask for them.",
            Tag::Cohere => "Rankings, as clients of Cohere ask for them.",
            Tag::Infinity => {
                "What clients of Infinity send elsewhere than those of OpenAI. Its rankings are `/rerank`."
            }
            Tag::SageMaker => "What a container of SageMaker answers.",
            Tag::OpenInference => {
                "Version 2 of the protocol of KServe and Triton. Tensors may also follow the JSON as bytes. Shared \
                 memory, tracing and logging are left out: their paths answer 501."
            }
            Tag::Operations => "For those who run the server, and pages for people.",
        }
    }
}
