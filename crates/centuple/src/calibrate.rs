//! Calibration: which magnitudes the channels of a model take on real texts.

use std::collections::HashMap;
use std::sync::Arc;

use centuple_graph::{Graph, NodeId, Op};
use centuple_passes::{Channels, Moments, Observations, observed_values};
use centuple_runtime::{Batch, InputData, KvCache, Plan, RuntimeError, Session, lower};
use centuple_tensor::{Bindings, Layout, PAGE_TOKENS, Source, Span};
use centuple_text::{Encoding, Text, TextError, Tokenizer, Truncation};

use crate::error::Error;
use crate::generate::encoder::SourceEncoder;
use crate::host::Host;
use centuple_kernels::KvPrecision;

/// Sentences of many kinds and lengths, one a line.
const TEXTS: &str = include_str!("calibration.txt");
/// Most tokens of the shipped texts, and most of the caller's own, that are looked at.
const TOKENS: usize = 2048;
/// Tokens that are run together; every observed value of them is kept.
const BATCH: usize = 128;
/// Of so many tokens one is selected, where the graph computes on for selected ones only.
const SELECTED_EVERY: usize = 5;

/// Runs the shipped texts, and `own` ones, through a packed graph and records magnitudes of each channel that feeds a linear
/// layer, and if wanted their products, which weights in groups are rounded by. A decoder behind an `encoder` writes each text
/// while it reads it.
///
/// # Errors
/// A text cannot be tokenised, or the graph cannot be run.
pub(crate) fn observe<'a>(
    host: &Host,
    graph: &Graph,
    encoder: Option<&Graph>,
    tokenizer: &Tokenizer,
    own: impl Iterator<Item = &'a str>,
    moments: bool,
) -> Result<Observations, Error> {
    let values = observed_values(graph);
    let mut observed = graph.clone();
    for (index, &value) in values.iter().enumerate() {
        observed.output(&format!("observed.{index}"), value);
    }
    let first = graph.outputs().len();
    let encodings = [encodings(tokenizer, TEXTS.lines(), TOKENS)?, encodings(tokenizer, own, TOKENS)?].concat();
    let longest = encodings.iter().map(|encoding| encoding.ids.len()).max().unwrap_or(0);
    let tokens = BATCH.max(longest);
    let selects = graph.nodes().iter().any(|node| node.op == Op::Select);
    let capacity = Bindings { tokens, sequences: tokens, selected: tokens, sequence: tokens, ..Bindings::default() };
    let capacity = Bindings { past: encoder.map_or(0, |_| tokens), ..capacity };
    let plan = Arc::new(lower(&observed, host.isa)?);
    let mut sources = match encoder {
        Some(encoder) => Some(Sources::new(host, encoder, &plan, tokens)?),
        None => None,
    };
    let mut session = Session::new(plan, Arc::clone(&host.pool), capacity)?;
    let mut observations = Observations::new();
    let mut seen: HashMap<NodeId, usize> = HashMap::new();
    let mut rest = encodings.as_slice();
    while !rest.is_empty() {
        let mut left = tokens;
        let count = rest.iter().take_while(|encoding| fits(&mut left, encoding.ids.len())).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        run(&mut session, sources.as_mut(), batch, selects)?;
        for (index, &value) in values.iter().enumerate() {
            let rows = session.output(first + index).ok_or(RuntimeError::Unbound("observed".to_owned()))?;
            *seen.entry(value).or_default() += rows.rows();
            let nothing = || vec![0.0; rows.columns()];
            let products = || if moments { Moments::new(rows.columns()) } else { Moments::default() };
            let nothing = || Channels { largest: nothing(), mean: nothing(), square: nothing(), moments: products() };
            let Channels { largest, mean: sum, square, moments: products } =
                observations.entry(value).or_insert_with(nothing);
            for row in (0..rows.rows()).map(|row| rows.row(row)) {
                let sums = largest.iter_mut().zip(sum.iter_mut()).zip(square.iter_mut());
                for (((channel, sum), square), value) in sums.zip(row) {
                    *channel = channel.max(value.abs());
                    *sum += value;
                    *square += value * value;
                }
                if moments {
                    products.add(row);
                }
            }
        }
    }
    for (value, channels) in &mut observations {
        let rows = seen.get(value).copied().unwrap_or(0).max(1) as f32;
        channels.mean.iter_mut().chain(&mut channels.square).for_each(|sum| *sum /= rows);
    }
    Ok(observations)
}

/// Takes `tokens` of what is left, if there are as many.
pub(crate) fn fits(left: &mut usize, tokens: usize) -> bool {
    let enough = tokens <= *left;
    *left = left.saturating_sub(tokens);
    enough
}

/// What a decoder looks at while it is observed: the texts, as the encoder has read them.
struct Sources {
    encoder: SourceEncoder,
    decoder: Arc<Plan>,
}

/// Texts that an encoder has read.
struct Read {
    cache: KvCache,
    /// Pages to write each text to, and what was read of it.
    texts: Vec<(Vec<u32>, Source)>,
}

impl Sources {
    /// For batches of so many tokens.
    fn new(host: &Host, encoder: &Graph, decoder: &Arc<Plan>, tokens: usize) -> Result<Sources, RuntimeError> {
        let encoder = SourceEncoder::new(host, &Arc::new(lower(encoder, host.isa)?), tokens)?;
        Ok(Sources { encoder, decoder: Arc::clone(decoder) })
    }

    fn read(&mut self, batch: &[Arc<Encoding>]) -> Result<Read, RuntimeError> {
        let mut next = 0;
        let mut pages = |tokens: usize| {
            let first = next;
            next += tokens.div_ceil(PAGE_TOKENS) as u32;
            (first..next).collect::<Vec<u32>>()
        };
        let texts: Vec<_> = batch
            .iter()
            .map(|text| centuple_generate::Encoding { ids: text.ids.clone(), pages: pages(text.ids.len()) })
            .collect();
        let used: usize = texts.iter().map(|text| text.pages.len()).sum();
        let mut cache = KvCache::new(self.decoder.cache_slots(), KvPrecision::F32, 2 * used)?;
        self.encoder.encode(&texts, &mut cache)?;
        let of = |text: centuple_generate::Encoding| {
            let tokens = text.ids.len();
            (pages(tokens), Source { tokens, pages: text.pages })
        };
        Ok(Read { cache, texts: texts.into_iter().map(of).collect() })
    }
}

/// Runs texts as one packed batch, some of whose tokens are selected.
fn run(
    session: &mut Session,
    sources: Option<&mut Sources>,
    batch: &[Arc<Encoding>],
    selects: bool,
) -> Result<(), Error> {
    let ids: Vec<i64> = batch.iter().flat_map(|encoding| encoding.ids.iter().map(|&id| id.into())).collect();
    let types: Vec<i64> = batch.iter().flat_map(|encoding| encoding.type_ids.iter().map(|&id| id.into())).collect();
    let (cache, texts) = match sources {
        Some(sources) => {
            let Read { cache, texts } = sources.read(batch)?;
            (Some(cache), texts)
        }
        None => (None, Vec::new()),
    };
    let layout = layout(batch, selects, &mut texts.into_iter())?;
    let inputs = [("input_ids", InputData::I64(&ids)), ("token_type_ids", InputData::I64(&types))];
    let bindings = layout.bindings();
    session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: cache.as_ref() })?;
    Ok(())
}

/// Texts as one packed batch, some of whose tokens are selected; each with its pages and what an encoder has read of it, where
/// there is one.
pub(crate) fn layout(
    batch: &[Arc<Encoding>],
    selects: bool,
    read: &mut dyn Iterator<Item = (Vec<u32>, Source)>,
) -> Result<Layout, RuntimeError> {
    let span = |encoding: &Arc<Encoding>| {
        let tokens = encoding.ids.len();
        let (pages, source) = read.next().unzip();
        let every = |token: &u32| selects && (*token as usize) % SELECTED_EVERY == SELECTED_EVERY / 2;
        let selected = (0..tokens as u32).filter(every).collect();
        Span { tokens, selected, pages: pages.unwrap_or_default(), source, ..Span::default() }
    };
    let layout = Layout::new(batch.iter().map(span).collect());
    layout.map_err(|error| RuntimeError::Unbound(error.to_string()))
}

/// Texts as tokens, as far as there are no more of these.
pub(crate) fn encodings<'a>(
    tokenizer: &Tokenizer,
    texts: impl Iterator<Item = &'a str>,
    tokens: usize,
) -> Result<Vec<Arc<Encoding>>, Error> {
    let mut encodings = Vec::new();
    let mut left = tokens;
    for text in texts {
        let encoding = match tokenizer.encode(Text::Single(text), Truncation::Right) {
            // Of a vocabulary that lacks every character of it.
            Err(TextError::Empty) => continue,
            encoding => encoding?,
        };
        if !fits(&mut left, encoding.ids.len()) {
            break;
        }
        encodings.push(encoding);
    }
    Ok(encodings)
}
