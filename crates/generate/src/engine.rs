//! The narrow door between the scheduler and whatever computes: steps in, rows of logits out.

/// Keys and values of a page that are copied to another before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page that is copied, whole.
    pub from: u32,
    /// The page that it is copied to.
    pub to: u32,
}

/// A text that an encoder reads, once per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The encoder's tokens.
    pub ids: Vec<u32>,
    /// Pages for what the decoder's cross-attention needs of them.
    pub pages: Vec<u32>,
}

/// What a decoder's cross-attention looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Tokens of the encoder's input.
    pub tokens: usize,
    /// Pages that an [`Encoding`] has filled.
    pub pages: Vec<u32>,
}

/// The tokens of one sequence in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSpan {
    /// Its next tokens; at least one.
    pub ids: Vec<u32>,
    /// Tokens before them, which are in the pages.
    pub past: usize,
    /// Pages for past and new tokens, in order of position. No other span writes to places that this one reads.
    pub pages: Vec<u32>,
    /// The tokens whose logits are wanted, as indices into `ids`, ascending. Often none or the last.
    pub selected: Vec<u32>,
    /// For decoders with cross-attention.
    pub source: Option<Source>,
}

/// What to compute at once: first the copies, then the encodings, then the spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Pages to copy. No page is both copied and copied to.
    pub copies: Vec<PageCopy>,
    /// Texts to encode.
    pub encodings: Vec<Encoding>,
    /// Tokens to compute. May be empty if there are encodings.
    pub spans: Vec<StepSpan>,
}

impl Step {
    /// Number of rows of logits.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|span| span.selected.len()).sum()
    }

    /// Number of new tokens of all spans.
    pub fn tokens(&self) -> usize {
        self.spans.iter().map(|span| span.ids.len()).sum()
    }
}

/// What a step gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// `[rows, vocabulary]`.
    pub values: Vec<f32>,
    /// Of each row, where an engine finds it sooner than the scheduler would. May be shorter.
    pub peaks: Vec<Option<Peak>>,
}

/// What is asked first of a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// First token of the largest logit.
    pub token: u32,
    /// Natural logarithm of the sum of the exponentials of all logits.
    pub log_sum: f64,
}

impl Logits {
    /// Leaves nothing, and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.peaks.clear();
    }

    /// Moves the rows of others, which have their peaks as these have, behind these.
    pub fn append(&mut self, others: &mut Logits) {
        self.values.append(&mut others.values);
        self.peaks.append(&mut others.peaks);
    }
}

impl From<Vec<f32>> for Logits {
    fn from(values: Vec<f32>) -> Self {
        Self { values, peaks: Vec::new() }
    }
}

/// What an engine takes; it never changes while the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens per page of the cache.
    pub page_tokens: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Most tokens of a sequence (the model's positions).
    pub positions: usize,
    /// Most tokens that an encoder reads; 0 without an encoder.
    pub source_positions: usize,
    /// Most tokens of a step, at which prompts are cut. An encoder's input, which can't be cut, may be longer if it comes first.
    pub tokens_per_step: usize,
    /// Most sequences of a step.
    pub sequences_per_step: usize,
    /// Number of token ids.
    pub vocabulary: usize,
}

/// Runs steps of one loaded model.
///
/// A row of logits must depend on the tokens of its sequence (and source) alone: not on how they were cut into steps, on the pages they
/// lie in, or on the other spans.
pub trait StepEngine: Send {
    /// What [`run`](Self::run) accepts.
    fn limits(&self) -> StepLimits;

    /// Computes a step and writes the logits of its rows, in the order of spans and their selected tokens. What `logits` held
    /// before is lost.
    ///
    /// # Errors
    /// What went wrong; the requests of the step end with it.
    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError>;
}

/// Why an engine could not compute a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StepError(pub String);
