//! Weights that a configuration asks for, so that a strange but sound one is built, compiled and run.

use centuple_testkit::Random;
use serde_json::{Map, Value, json};

/// Largest size that weights are made for in each direction; a larger one has to be refused.
const LIMITS: [(&str, u64, u64); 6] = [
    ("vocab_size", 30522, 300),
    ("hidden_size", 768, 80),
    ("num_hidden_layers", 12, 3),
    ("intermediate_size", 3072, 160),
    ("max_position_embeddings", 512, 80),
    ("type_vocab_size", 2, 4),
];

/// A safetensors file with all that a BERT of this configuration needs; `None` if that would be large.
pub fn fitting_weights(config: &Value) -> Option<Vec<u8>> {
    let mut sizes = [0; LIMITS.len()];
    for (size, (field, default, limit)) in sizes.iter_mut().zip(LIMITS) {
        let value = config.get(field).map_or(Some(default), Value::as_u64)?;
        *size = usize::try_from(value).ok().filter(|_| value <= limit)?;
    }
    let [vocabulary, width, layers, inner, positions, types] = sizes;
    let labels = config.get("id2label").and_then(Value::as_object).map_or(2, Map::len);
    let mut file = File { header: Map::new(), data: Vec::new(), random: Random::new(7) };
    for (name, rows) in [("word", vocabulary), ("position", positions), ("token_type", types)] {
        file.tensor(format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
    }
    file.norm("embeddings.LayerNorm", width);
    for layer in (0..layers).map(|layer| format!("encoder.layer.{layer}")) {
        for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            file.linear(format!("{layer}.{name}"), [width, width]);
        }
        file.norm(&format!("{layer}.attention.output.LayerNorm"), width);
        file.linear(format!("{layer}.intermediate.dense"), [inner, width]);
        file.linear(format!("{layer}.output.dense"), [width, inner]);
        file.norm(&format!("{layer}.output.LayerNorm"), width);
    }
    file.linear("pooler.dense".to_owned(), [width, width]);
    file.linear("classifier".to_owned(), [labels.min(64), width]);
    Some(file.finish())
}

struct File {
    header: Map<String, Value>,
    data: Vec<u8>,
    random: Random,
}

impl File {
    fn tensor(&mut self, name: String, shape: &[usize]) {
        let start = self.data.len();
        let values = (0..shape.iter().product()).map(|_| 0.3 * self.random.float());
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.data.extend_from_slice(&bytes);
        let offsets = [start, self.data.len()];
        self.header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
    }

    fn linear(&mut self, name: String, [outputs, inputs]: [usize; 2]) {
        self.tensor(format!("{name}.weight"), &[outputs, inputs]);
        self.tensor(format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.tensor(format!("{name}.weight"), &[width]);
        self.tensor(format!("{name}.bias"), &[width]);
    }

    fn finish(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()
    }
}
