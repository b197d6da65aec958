//! Cases of attention and of what stands around it: rotations, position scores, caches.

use centuple_graph::{Activation, Attention, CrossAttention, Graph, NodeId, Op, PositionScores};
use centuple_tensor::{DType, Layout, PAGE_TOKENS, Source, Span, Symbol, Tensor};

use crate::cases::{LENGTHS, Result, case, packed};
use crate::{Case, Random, Step};

const PLAIN: Op = Op::Linear { bias: false, activation: None, residual: false };

/// Both terms of disentangled attention.
const DISENTANGLED: PositionScores =
    PositionScores::Disentangled { content_to_position: true, position_to_content: true };

/// An attention and what stands around it.
#[derive(Clone)]
struct Setting {
    attention: Attention,
    /// Largest distance that position scores tell apart.
    distance: usize,
    /// Columns of a head that are rotated.
    rotated: usize,
    interleaved: bool,
    /// Whether the heads of queries and keys are normed.
    normed: bool,
    /// Whether keys and values are projections of another value than the queries.
    cross: bool,
}

impl Setting {
    fn new(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> Setting {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (window, position, cache) = (None, PositionScores::None, None);
        let attention = Attention { heads, kv_heads, head_dim, scale, soft_cap: None, causal, window, position, cache };
        Setting { attention, distance: 0, rotated: 0, interleaved: false, normed: false, cross: false }
    }

    fn window(mut self, window: usize) -> Setting {
        self.attention.window = Some(window);
        self
    }

    fn capped(mut self, cap: f32) -> Setting {
        self.attention.soft_cap = Some(cap);
        self
    }

    fn normed(self) -> Setting {
        Setting { normed: true, ..self }
    }

    fn position(mut self, position: PositionScores, distance: usize) -> Setting {
        self.attention.position = position;
        Setting { distance, ..self }
    }

    fn rotated(self, rotated: usize, interleaved: bool) -> Setting {
        Setting { rotated, interleaved, ..self }
    }

    fn name(&self) -> String {
        let Attention { heads, kv_heads, head_dim, soft_cap, causal, window, position, .. } = &self.attention;
        let mut name = format!("attention {heads}/{kv_heads}x{head_dim} causal {causal}");
        window.inspect(|window| name += &format!(" window {window}"));
        if *position != PositionScores::None {
            name += &format!(" {position:?} up to {}", self.distance);
        }
        if self.rotated > 0 {
            name += &format!(" rotated {} interleaved {}", self.rotated, self.interleaved);
        }
        soft_cap.inspect(|cap| name += &format!(" capped at {cap}"));
        if self.normed {
            name += " normed";
        }
        if self.cross { name + " cross" } else { name }
    }

    /// Appends projections of `x` and attention over them.
    fn build(&self, graph: &mut Graph, x: NodeId, width: usize) -> Result<NodeId> {
        let mut random = Random::new(17);
        let Attention { heads, kv_heads, head_dim, position, .. } = self.attention;
        let other = if self.cross { graph.push("other", Op::Activation(Activation::Silu), &[x])? } else { x };
        let mut inputs = Vec::new();
        for (name, source, heads) in [("query", x, heads), ("key", other, kv_heads), ("value", other, kv_heads)] {
            let weight = graph.constant(name, random.tensor(&[heads * head_dim, width], 0.6)?)?;
            let mut projection = graph.push(name, PLAIN, &[source, weight])?;
            if self.normed && name != "value" {
                let gamma = graph.constant("gamma", random.tensor(&[head_dim], 1.0)?)?;
                projection = graph.push("normed", Op::HeadNorm { heads, epsilon: 1e-5 }, &[projection, gamma])?;
            }
            if self.rotated > 0 && name != "value" {
                let positions = graph.push("positions", Op::Positions { offset: 0, padding: None }, &[])?;
                let angles = graph.constant("angles", angles(140, self.rotated)?)?;
                let op = Op::Rotary { heads, head_dim, interleaved: self.interleaved };
                projection = graph.push("rotated", op, &[projection, positions, angles])?;
            }
            inputs.push(projection);
        }
        let distances = 2 * self.distance + 1;
        match position {
            PositionScores::None => {}
            PositionScores::Bias => {
                inputs.push(graph.constant("bias", random.tensor(&[heads, distances], 2.0)?)?);
            }
            PositionScores::Disentangled { content_to_position, position_to_content } => {
                let side = self.distance.div_ceil(2).max(1);
                for (wanted, name, operand) in [(content_to_position, "c2p", 0), (position_to_content, "p2c", 1)] {
                    if wanted {
                        let weight = graph.constant(name, random.tensor(&[heads, 2 * side, head_dim], 0.6)?)?;
                        inputs.push(graph.push(
                            name,
                            Op::GroupedLinear { groups: heads },
                            &[inputs[operand], weight],
                        )?);
                    }
                }
                inputs.push(graph.constant("buckets", buckets(self.distance, side)?)?);
            }
        }
        Ok(graph.push("attention", Op::Attention(self.attention.clone()), &inputs)?)
    }

    fn case(&self) -> Result<Case> {
        let (mut graph, x) = packed(24)?;
        let out = self.build(&mut graph, x, 24)?;
        case(self.name(), graph, 24, out)
    }

    /// Two steps, of which the second sees the keys and values of the first in cache pages.
    fn case_with_a_past(mut self) -> Result<Case> {
        self.attention.cache = Some(0);
        let (mut graph, x) = packed(16)?;
        let out = self.build(&mut graph, x, 16)?;
        graph.output("output", out);
        let mut random = Random::new(19);
        let mut steps = Vec::new();
        for (past, tokens) in [([0, 0], [21, 5]), ([21, 5], [1, 13])] {
            let pages = [vec![4, 0, 2], vec![1, 3]];
            let spans = (0..2).map(|index| Span {
                tokens: tokens[index],
                past: past[index],
                pages: pages[index].clone(),
                ..Span::default()
            });
            let layout = Layout::new(spans.collect())?;
            let x = random.tensor(&[layout.tokens(), 16], 2.0)?;
            steps.push(Step { inputs: vec![("x", x)], bindings: layout.bindings(), layout });
        }
        let name = format!("two steps with a past in pages of {PAGE_TOKENS}: {}", self.name());
        Ok(Case { name, graph, steps, cache_pages: 5, tolerance: 2e-5 })
    }
}

/// Two steps: in the first, attention fills pages; in the second, other sequences attend to those, or to nothing.
fn cross_attention(heads: usize, head_dim: usize) -> Result<Case> {
    let (mut graph, x) = packed(16)?;
    let setting = Setting::new(heads, heads, head_dim, true);
    let filling = Setting { attention: Attention { cache: Some(0), ..setting.attention.clone() }, ..setting };
    let filled = filling.build(&mut graph, x, 16)?;
    let weight = graph.constant("cross.query", Random::new(23).tensor(&[heads * head_dim, 16], 0.6)?)?;
    let q = graph.push("cross.query", PLAIN, &[x, weight])?;
    let attention = CrossAttention { heads, head_dim, scale: 0.3, slot: 0 };
    let seen = graph.push("cross", Op::CrossAttention(attention), &[q])?;
    graph.output("filled", filled);
    graph.output("output", seen);
    let mut random = Random::new(29);
    let mut steps = Vec::new();
    let source = |tokens, pages: &[u32]| Some(Source { tokens, pages: pages.to_vec() });
    let sources = [source(21, &[4, 0]), source(5, &[1]), source(16, &[0, 4]), None];
    let first = vec![(21, vec![4, 0], None), (5, vec![1], None)];
    let second = [(2, vec![2]), (40, vec![3, 5, 6]), (1, vec![7]), (1, vec![8])].into_iter().zip(sources);
    let second = second.map(|((tokens, pages), source)| (tokens, pages, source)).collect();
    for spans in [first, second] {
        let span = |(tokens, pages, source)| Span { tokens, pages, source, ..Span::default() };
        let layout = Layout::new(spans.into_iter().map(span).collect())?;
        let x = random.tensor(&[layout.tokens(), 16], 2.0)?;
        steps.push(Step { inputs: vec![("x", x)], bindings: layout.bindings(), layout });
    }
    let name = format!("cross attention {heads}x{head_dim} to pages that the step before has filled");
    Ok(Case { name, graph, steps, cache_pages: 9, tolerance: 2e-5 })
}

/// Cosines and sines of the positions.
fn angles(positions: usize, columns: usize) -> Result<Tensor> {
    let pairs = columns / 2;
    let angle = |position: usize, pair: usize| position as f32 * 0.01f32.powf(pair as f32 / pairs as f32);
    let row = |position: usize| {
        let cosines = (0..pairs).map(move |pair| angle(position, pair).cos());
        cosines.chain((0..pairs).map(move |pair| angle(position, pair).sin()))
    };
    Ok(Tensor::from_f32(&[positions, columns], &(0..positions).flat_map(row).collect::<Vec<f32>>())?)
}

/// Buckets of the distances: one for each near 0, for every four together further off.
fn buckets(distance: usize, side: usize) -> Result<Tensor> {
    let (side, near) = (side as i64, (side / 2) as i64);
    let distance = distance as i64;
    let bucket = |d: i64| {
        let away = if d.abs() <= near { d.abs() } else { near + (d.abs() - near + 3) / 4 };
        (d.signum() * away + side).clamp(0, 2 * side - 1)
    };
    let buckets: Vec<i64> = (-distance..=distance).map(bucket).collect();
    Ok(Tensor::from_i64(&[buckets.len()], &buckets)?)
}

pub(crate) fn cases() -> Result<Vec<Case>> {
    let setting = Setting::new;
    let [c2p, p2c] =
        [true, false].map(|c2p| PositionScores::Disentangled { content_to_position: c2p, position_to_content: !c2p });
    let settings = [
        setting(3, 3, 8, false),
        setting(4, 2, 32, false),
        setting(2, 1, 20, true),
        setting(1, 1, 64, true),
        setting(2, 2, 8, false).window(0),
        setting(2, 1, 20, false).window(5),
        setting(2, 2, 16, true).window(9),
        setting(2, 1, 36, false).window(64),
        setting(3, 3, 8, false).position(PositionScores::Bias, 0),
        setting(4, 2, 16, false).position(PositionScores::Bias, 7),
        setting(2, 2, 16, true).position(PositionScores::Bias, 40).window(30),
        setting(2, 2, 16, false).position(PositionScores::Bias, 200),
        setting(3, 3, 8, false).position(DISENTANGLED, 130),
        setting(2, 2, 20, true).position(DISENTANGLED, 12),
        setting(2, 2, 16, false).position(c2p, 70).window(40),
        setting(2, 2, 16, false).position(p2c, 70),
        setting(1, 1, 8, false).position(p2c, 0),
        setting(3, 3, 8, false).rotated(8, false),
        setting(4, 2, 32, false).rotated(32, true),
        setting(2, 2, 20, true).rotated(6, false).window(12),
        setting(2, 2, 20, false).rotated(6, true),
        setting(2, 2, 20, false).capped(0.5),
        setting(4, 2, 16, true).capped(2.0).window(9),
        setting(3, 1, 20, true).normed(),
        setting(4, 2, 32, false).normed().rotated(32, false),
        Setting { cross: true, ..setting(2, 2, 16, false) },
        Setting { cross: true, ..setting(4, 2, 8, false).position(PositionScores::Bias, 20) },
    ];
    let cached = setting(2, 1, 12, true);
    let with_a_past = [
        cached.clone(),
        cached.clone().window(6),
        cached.clone().window(18).position(PositionScores::Bias, 4),
        cached.clone().position(PositionScores::Bias, 33),
        cached.clone().position(c2p, 30),
        cached.clone().rotated(8, false),
        cached.clone().capped(1.0).window(7),
        cached.normed().rotated(12, false),
        setting(6, 2, 12, true),
        setting(6, 2, 20, true).window(11),
    ];
    let mut all = settings.iter().map(Setting::case).collect::<Result<Vec<Case>>>()?;
    for (heads, head_dim) in [(1, 12), (3, 20), (2, 32)] {
        all.push(cross_attention(heads, head_dim)?);
    }
    all.extend(with_a_past.into_iter().map(Setting::case_with_a_past).collect::<Result<Vec<Case>>>()?);
    for (groups, n, k) in [(1, 1, 1), (3, 7, 5), (4, 40, 16), (7, 16, 3)] {
        all.push(grouped_linear(groups, n, k)?);
    }
    for (heads, head_dim, rotated, interleaved) in [
        (1, 2, 2, false),
        (3, 20, 14, false),
        (2, 64, 64, false),
        (1, 2, 2, true),
        (3, 20, 14, true),
        (2, 64, 64, true),
    ] {
        all.push(rotary(heads, head_dim, rotated, interleaved)?);
    }
    Ok(all)
}

fn grouped_linear(groups: usize, n: usize, k: usize) -> Result<Case> {
    let (mut graph, x) = packed(groups * k)?;
    let weight = graph.constant("weight", Random::new(59).tensor(&[groups, n, k], 0.8)?)?;
    let out = graph.push("grouped", Op::GroupedLinear { groups }, &[x, weight])?;
    case(format!("grouped_linear {groups}x{n}x{k}"), graph, groups * k, out)
}

/// Columns of a wider value are rotated by positions that are given.
fn rotary(heads: usize, head_dim: usize, rotated: usize, interleaved: bool) -> Result<Case> {
    let width = heads * head_dim + 3;
    let (mut graph, x) = packed(width)?;
    let tokens = LENGTHS.iter().sum();
    let positions = graph.input("positions", DType::I64, vec![Symbol::Tokens.into()])?;
    let angles = graph.constant("angles", angles(50, rotated)?)?;
    let columns = graph.push("columns", Op::Slice { axis: 1, start: 2, end: width - 1 }, &[x])?;
    let out = graph.push("rotary", Op::Rotary { heads, head_dim, interleaved }, &[columns, positions, angles])?;
    let name = format!("rotary {heads}x{head_dim} rotated {rotated} interleaved {interleaved}");
    let mut case = case(name, graph, width, out)?;
    case.steps[0].inputs.push(("positions", Random::new(61).ids(&[tokens], 50)?));
    Ok(case)
}
