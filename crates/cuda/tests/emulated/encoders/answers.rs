//! A decoder behind an encoder.

use centuple_cuda::{CacheRoom, Capacity, Device, Format, Session, Target, lower, lower_encoder};
use centuple_graph::{Attention, CrossAttention, Graph, NodeId, Op, PositionScores};
use centuple_passes::optimize;
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Layout, Source, Span, Symbol, Tensor};
use centuple_testkit::{Random, distance};

use super::{Builder, Failure, Input, Maker, SMALL};

const ROOM: CacheRoom = CacheRoom { pages: 12, positions: 48 };
/// Tokens of each text and its pages; of each answer, and the text that it answers.
const TEXTS: [(usize, &[u32]); 3] = [(37, &[7, 0, 11]), (5, &[3]), (16, &[9])];
const ANSWERS: [(usize, usize); 5] = [(2, 1), (40, 0), (1, 2), (1, 0), (17, 2)];

/// The keys and values of texts, as an encoder yields them; and the same where attention keeps them, for the reference.
fn reading() -> Result<[Graph; 2], Failure> {
    let (mut builder, x) = Builder::encoder(SMALL, None)?;
    let hidden = SMALL.hidden;
    let [k, v] = [builder.linear("cross.k", x, [hidden; 2])?, builder.linear("cross.v", x, [hidden; 2])?];
    let mut kept = builder.graph.clone();
    builder.graph.output("keys", k);
    builder.graph.output("values", v);
    let head_dim = hidden / SMALL.heads;
    let keeping = Op::Attention(Attention {
        heads: SMALL.heads,
        kv_heads: SMALL.heads,
        head_dim,
        scale: 1.0,
        soft_cap: None,
        causal: true,
        window: None,
        position: PositionScores::None,
        cache: Some(0),
    });
    let kept_by: NodeId = kept.push("keeping", keeping, &[k, k, v])?;
    kept.output("kept", kept_by);
    Ok([builder.graph, kept])
}

/// Logits of all tokens of answers, which look at nothing but their texts.
fn writing() -> Result<Graph, Failure> {
    let mut builder = Builder { graph: Graph::new(), random: Random::new(31), sizes: SMALL };
    let ids = builder.graph.input("input_ids", DType::I64, vec![Dim::from(Symbol::Tokens)])?;
    let words = builder.weight("words", &[SMALL.vocabulary, SMALL.hidden], 1.0)?;
    let x = builder.graph.push("embedding", Op::Embedding, &[words, ids])?;
    let q = builder.linear("cross.q", x, [SMALL.hidden; 2])?;
    let (heads, head_dim) = (SMALL.heads, SMALL.hidden / SMALL.heads);
    let attention = CrossAttention { heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), slot: 0 };
    let seen = builder.graph.push("cross", Op::CrossAttention(attention), &[q])?;
    let x = builder.sum(x, seen)?;
    let x = builder.rms_norm("norm", x)?;
    let selected = builder.graph.push("selected", Op::Select, &[x])?;
    let logits = builder.linear("logits", selected, [SMALL.vocabulary, SMALL.hidden])?;
    builder.graph.output("logits", logits);
    Ok(builder.graph)
}

/// Answers of any length to texts in pages that lie anywhere, two of them to the same text, are the reference's; each has the same bits alone,
/// whatever was read together.
pub(crate) fn are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let ([encoder, kept], decoder) = (reading()?, writing()?);
    let [optimised, of_encoder] = [optimize(&decoder)?.0, optimize(&encoder)?.0];
    let target = Target { architecture: maker.architecture, multiprocessors: 6 };
    let capacity = Capacity { tokens: 80, sequences: 5 };
    let start = || -> Result<Session<D>, Failure> {
        let session = Session::new((maker.make)(), lower(&optimised, Format::F16)?, target, capacity, ROOM)?;
        Ok(session.with_encoder(lower_encoder(&of_encoder, Format::F16, false)?, target, capacity)?)
    };
    let text = |number: usize| Span { tokens: TEXTS[number].0, pages: TEXTS[number].1.to_vec(), ..Span::default() };
    // The answers' own pages are there, though no attention of this decoder has them.
    let answer = |(place, (tokens, text)): (usize, (usize, usize))| Span {
        tokens,
        pages: [[1].as_slice(), &[2, 4, 5], &[6], &[8], &[10, 1]][place].to_vec(),
        selected: (0..tokens as u32).collect(),
        source: Some(Source { tokens: TEXTS[text].0, pages: TEXTS[text].1.to_vec() }),
        ..Span::default()
    };
    let asked: Vec<Span> = ANSWERS.into_iter().enumerate().map(answer).collect();
    let texts = Input::new(&TEXTS.map(|(tokens, _)| tokens), 21)?;
    let ids = Input::new(&ANSWERS.map(|(tokens, _)| tokens), 22)?;
    let read = |session: &mut Session<D>, numbers: &[usize]| -> Result<(), Failure> {
        let rows = |of: &[i64]| -> Vec<i64> {
            let row = |&number: &usize| &texts.layout.spans()[number];
            numbers.iter().map(row).flat_map(|span| &of[span.start..span.start + span.tokens]).copied().collect()
        };
        let layout = Layout::new(numbers.iter().map(|&number| text(number)).collect())?;
        Ok(session.encode(&layout, &[("input_ids", &rows(&texts.ids)), ("token_type_ids", &rows(&texts.types))])?)
    };

    let mut session = start()?;
    read(&mut session, &[0, 1, 2])?;
    let layout = Layout::new(asked.clone())?;
    let together = session.run(&layout, &[("input_ids", &ids.ids)])?.remove(0).data;
    let mut other = start()?;
    for number in [2, 0, 1] {
        read(&mut other, &[number])?;
    }
    for span in layout.spans() {
        let own = span.start..span.start + span.tokens;
        let lone = Layout::new(vec![span.clone()])?;
        let alone = other.run(&lone, &[("input_ids", &ids.ids[own.clone()])])?.remove(0).data;
        let width = SMALL.vocabulary;
        assert_eq!(alone, together[own.start * width..own.end * width], "company changes nothing");
    }

    let mut cache = Cache::new(1, ROOM.pages);
    let layout_of_texts = Layout::new((0..TEXTS.len()).map(text).collect())?;
    let tensor = |ids: &[i64]| Tensor::from_i64(&[ids.len()], ids);
    let mut batch = Batch { bindings: layout_of_texts.bindings(), layout: &layout_of_texts, cache: &mut cache };
    evaluate(&kept, &[("input_ids", tensor(&texts.ids)?), ("token_type_ids", tensor(&texts.types)?)], &mut batch)?;
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut cache };
    let expected = evaluate(&decoder, &[("input_ids", tensor(&ids.ids)?)], &mut batch)?;
    let distance = distance(&together, expected[0].as_f32()?);
    assert!(distance <= 2e-2, "{distance}");

    let refused = |session: &mut Session<D>, span: Span| -> Result<String, Failure> {
        let ids = vec![1; span.tokens];
        let error = session.run(&Layout::new(vec![span])?, &[("input_ids", &ids)]);
        Ok(error.err().ok_or("it ran")?.to_string())
    };
    let span = &asked[0];
    let source =
        |tokens, pages: &[u32]| Span { source: Some(Source { tokens, pages: pages.to_vec() }), ..span.clone() };
    assert!(refused(&mut session, Span { source: None, ..span.clone() })?.contains("none was given"));
    assert!(refused(&mut session, source(0, &[]))?.contains("none was given"));
    assert!(refused(&mut session, source(3, &[12]))?.contains("page 12"));
    assert!(refused(&mut session, source(3, &[1; 4]))?.contains("3 tokens in 4 pages"));
    let mut without = Session::new((maker.make)(), lower(&optimised, Format::F16)?, target, capacity, ROOM)?;
    assert!(read(&mut without, &[0]).is_err(), "there is no encoder");
    let narrow = lower_encoder(&optimize(&embedded()?)?.0, Format::F16, false)?;
    assert!(without.with_encoder(narrow, target, capacity).is_err(), "other keys");
    Ok(())
}

/// Keys and values of fewer columns than the decoder's.
fn embedded() -> Result<Graph, Failure> {
    let (mut builder, x) = Builder::encoder(SMALL, None)?;
    let k = builder.linear("k", x, [8, SMALL.hidden])?;
    builder.graph.output("keys", k);
    builder.graph.output("values", k);
    Ok(builder.graph)
}
