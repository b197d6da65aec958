//! Graphs that a file brings ready-made, as ONNX files do: which output is meant, and what it means.

use centuple_graph::{Graph, NodeId, Op};
use centuple_tensor::{Dim, Symbol};
use serde_json::{Value, json};

use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::onnx::OnnxFile;
use crate::checkpoint::sentence_transformers::{Composition, HeadModule, Pooling};
use crate::checkpoint::{Checkpoint, SentenceTransformer};
use crate::config::Config;
use crate::heads::{
    COLBERT, Head, Meaning, OUTPUT, late_interaction, pooled_logits, ranks_by_logit, sentence_embedding,
};
use crate::load::{Description, Model, Purpose};

/// Longest sequence of models of which nothing says how much they take.
const MAX_TOKENS: usize = 512;
/// Fields of configurations that hold the same thing in different families, the first one that is there counts.
const WIDTH: [&str; 4] = ["hidden_size", "d_model", "dim", "n_embd"];
const LAYERS: [&str; 4] = ["num_hidden_layers", "n_layers", "num_layers", "n_layer"];
const POSITIONS: [&str; 3] = ["max_position_embeddings", "n_positions", "max_sequence_length"];
/// Names that exporters give to the last hidden state.
const FEATURES: [&str; 3] = ["token_embeddings", "last_hidden_state", "hidden_states"];
/// Name that sentence-transformers gives to the vector of a text.
const EMBEDDING: &str = "sentence_embedding";

/// A graph that a file brings, and what the file says of it.
#[derive(Debug)]
pub struct Foreign {
    /// Its inputs are `input_ids` and `token_type_ids` `[Tokens]`; its outputs, under the file's own names, have rows of
    /// tokens or of sequences.
    pub graph: Graph,
    /// Number of token ids, where the file says it.
    pub vocabulary: Option<usize>,
}

/// An output of the file.
struct Output {
    name: String,
    id: NodeId,
    /// Whether it has a row for each token; else for each sequence.
    of_tokens: bool,
    width: usize,
}

/// Makes a model of a graph, with what lies beside its file: configuration and sentence-transformers modules.
///
/// # Errors
/// A file beside it is damaged or asks for what is not supported, or no output of the graph is one that a task needs.
pub fn adopt(file: &OnnxFile, foreign: Foreign, purpose: Purpose) -> Result<Model, ModelError> {
    let sentence_transformer = SentenceTransformer::open(&file.folder)?;
    let folder = sentence_transformer.as_ref().map_or(&file.folder, |modules| &modules.transformer);
    let checkpoint = Checkpoint::beside(folder)?;
    let config = Config { value: checkpoint.config(), path: checkpoint.config_path() };
    let mut builder = Builder::new(&checkpoint, "", "");
    builder.graph = foreign.graph;
    let outputs = outputs(&mut builder)?;
    let choice = Choice { config, outputs: &outputs, vocabulary: foreign.vocabulary };
    let head = match (purpose, &sentence_transformer) {
        (Purpose::TokenFeatures, _) => choice.token_features(&mut builder)?,
        (Purpose::Own, Some(modules)) => choice.composed(&modules.composition, &mut builder)?,
        (Purpose::Own, None) => choice.own(&mut builder)?,
    };
    let number = |names: &[&str]| names.iter().find_map(|name| config.value.get(name)?.as_u64()).map(|n| n as usize);
    let description = Description {
        architecture: config.architecture().unwrap_or("ONNX").to_owned(),
        head,
        vocabulary: foreign.vocabulary.or(number(&["vocab_size"])).unwrap_or(u32::MAX as usize),
        type_vocabulary: number(&["type_vocab_size"]).unwrap_or(1),
        width: number(&WIDTH).unwrap_or(0),
        layers: number(&LAYERS).unwrap_or(0),
        max_tokens: number(&POSITIONS).filter(|&most| most > 0).unwrap_or(MAX_TOKENS),
        ranks_by_logit: ranks_by_logit(config)?,
    };
    let graph = builder.graph;
    Ok(Model { graph, encoder: None, description, sentence_transformer })
}

impl Checkpoint {
    /// The configuration beside an ONNX file, which needs none, and no weights.
    fn beside(folder: &std::path::Path) -> Result<Checkpoint, ModelError> {
        match crate::checkpoint::read_config(folder) {
            Ok((config, path)) => Ok(Checkpoint::without_weights(config, path)),
            Err(crate::checkpoint::CheckpointError::MissingFile { .. }) => {
                Ok(Checkpoint::without_weights(json!({}), folder.join("config.json")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes the outputs that have rows of a known width; numbers without a row of their own get one.
fn outputs(builder: &mut Builder) -> Result<Vec<Output>, ModelError> {
    let mut outputs = Vec::new();
    for (name, id) in builder.graph.take_outputs() {
        let shape = builder.graph.node(id).fact.shape.clone();
        let of_tokens = shape.first() == Some(&Dim::from(Symbol::Tokens));
        let of_sequences = shape.first() == Some(&Dim::from(Symbol::Sequences));
        let (id, width) = match shape.as_slice() {
            [_, width] => (id, width.constant()),
            [rows] => {
                let op = Op::Reshape { shape: vec![rows.clone(), 1.into()] };
                (builder.graph.push(format!("{name}.rows"), op, &[id])?, Some(1))
            }
            _ => (id, None),
        };
        if let Some(width) = width.filter(|_| of_tokens || of_sequences) {
            outputs.push(Output { name, id, of_tokens, width });
        }
    }
    Ok(outputs)
}

/// What there is to choose from.
struct Choice<'a> {
    config: Config<'a>,
    outputs: &'a [Output],
    vocabulary: Option<usize>,
}

impl<'a> Choice<'a> {
    fn named(&self, names: &[&str]) -> Option<&'a Output> {
        names.iter().find_map(|name| self.outputs.iter().find(|output| output.name == *name))
    }

    /// The last hidden state: by its name, or the only output, unless that is of a head.
    fn features(&self) -> Option<&'a Output> {
        let sole = || match self.outputs {
            [only] if self.meaning_by_class().is_none() && only.name != "logits" => Some(only),
            _ => None,
        };
        self.named(&FEATURES).or_else(sole).filter(|output| output.of_tokens)
    }

    /// What the architecture's class says of its logits.
    fn meaning_by_class(&self) -> Option<Meaning> {
        let class = self.config.architecture()?;
        [
            ("ForSequenceClassification", Meaning::Classification),
            ("ForTokenClassification", Meaning::TokenClassification),
            ("ForQuestionAnswering", Meaning::QuestionAnswering),
            ("ForMaskedLM", Meaning::MaskedLm),
        ]
        .into_iter()
        .find_map(|(suffix, meaning)| class.ends_with(suffix).then_some(meaning))
    }

    fn none(&self, wanted: &str) -> ModelError {
        let rows = |output: &Output| if output.of_tokens { "tokens" } else { "sequences" };
        let found: Vec<String> = self
            .outputs
            .iter()
            .map(|output| format!("`{}` ({} numbers for {})", output.name, output.width, rows(output)))
            .collect();
        let found =
            if found.is_empty() { "none with rows of tokens or sequences".to_owned() } else { found.join(", ") };
        self.config.error(format!("the ONNX file beside it has no output that is {wanted}; it has {found}"))
    }

    fn token_features(&self, builder: &mut Builder) -> Result<Head, ModelError> {
        let features = self.features().ok_or_else(|| self.none("the last hidden state of tokens"))?;
        builder.graph.output(OUTPUT, features.id);
        Ok(Head::TokenFeatures { dimension: features.width })
    }

    /// What the modules of the folder make of an output.
    fn composed(&self, composition: &Composition, builder: &mut Builder) -> Result<Head, ModelError> {
        match (composition, self.features()) {
            (Composition::Embedding { pooling, head }, Some(features)) => {
                sentence_embedding(pooling, head, self.config, builder, features.id)
            }
            (Composition::Embedding { pooling, head }, None) => self.embedding(Some((pooling, head)), builder),
            (Composition::LateInteraction(layers), Some(features)) => late_interaction(layers, builder, features.id),
            (Composition::Sparse(pooling), _) => match self.logits() {
                Some(logits) if logits.of_tokens => pooled_logits(*pooling, self.config, builder, logits.id),
                _ => Err(self.none("logits of the vocabulary")),
            },
            (Composition::LateInteraction(_), None) => Err(self.none("the last hidden state of tokens")),
        }
    }

    /// The vector of a text that the file computes itself.
    fn embedding(
        &self,
        modules: Option<(&Pooling, &Vec<HeadModule>)>,
        builder: &mut Builder,
    ) -> Result<Head, ModelError> {
        let sole = || self.outputs.first().filter(|_| self.outputs.len() == 1);
        let output = self.named(&[EMBEDDING]).or_else(sole).filter(|output| !output.of_tokens);
        let output = output.ok_or_else(|| self.none("an embedding or the last hidden state"))?;
        builder.graph.output(OUTPUT, output.id);
        let (mut pooling, mut normalised) = (vec!["own".to_owned()], false);
        if let Some((known, head)) = modules {
            pooling = known.modes.iter().map(ToString::to_string).collect();
            normalised = matches!(head.last(), Some(HeadModule::Normalize));
        }
        Ok(Head::SentenceEmbedding { dimension: output.width, pooling, normalised, include_prompt: true })
    }

    /// The output of a head.
    fn logits(&self) -> Option<&'a Output> {
        let by_name = |part: &str| self.outputs.iter().find(|output| output.name.contains(part));
        let sole = || self.outputs.first().filter(|_| self.outputs.len() == 1);
        self.named(&["logits"]).or_else(|| by_name("logits")).or_else(|| by_name("score")).or_else(sole)
    }

    /// What the file and its configuration say.
    fn own(&self, builder: &mut Builder) -> Result<Head, ModelError> {
        if let (Some(start), Some(end)) = (self.named(&["start_logits"]), self.named(&["end_logits"])) {
            let spans = builder.graph.push("spans", Op::Concat { axis: 1 }, &[start.id, end.id])?;
            builder.graph.output(OUTPUT, spans);
            return Meaning::QuestionAnswering.head(self.config, builder.width(spans));
        }
        if self.named(&[EMBEDDING]).is_some() {
            return self.embedding(None, builder);
        }
        if let Some(features) = self.features() {
            builder.graph.output(OUTPUT, features.id);
            return Ok(match self.config.architecture() {
                Some(COLBERT) => Head::LateInteraction { dimension: features.width },
                _ => Head::TokenFeatures { dimension: features.width },
            });
        }
        let Some(logits) = self.logits() else { return Err(self.none("logits or a hidden state")) };
        let Some(meaning) = self.meaning(logits) else { return self.embedding(None, builder) };
        let mut id = logits.id;
        if meaning == Meaning::MaskedLm {
            id = builder.graph.push("selected", Op::Select, &[id])?;
        }
        builder.graph.output(OUTPUT, id);
        meaning.head(self.config, logits.width)
    }

    /// What logits mean; `None` where they are none.
    fn meaning(&self, logits: &Output) -> Option<Meaning> {
        let labels = self.config.value.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        let by_class = self.meaning_by_class();
        match logits.of_tokens {
            false if logits.name == "logits" || labels == Some(logits.width) => Some(Meaning::Classification),
            false => by_class.filter(|meaning| *meaning == Meaning::Classification),
            true => match by_class {
                Some(meaning) if meaning != Meaning::Classification => Some(meaning),
                _ if labels == Some(logits.width) => Some(Meaning::TokenClassification),
                _ if self.vocabulary == Some(logits.width) => Some(Meaning::MaskedLm),
                _ => Some(Meaning::TokenClassification),
            },
        }
    }
}
