//! Latency by batch, in f32 and optimised, on a logarithmic axis.

use super::super::figures::{grouped, significant, times};
use super::super::measured::TimingPair;
use super::super::{Findings, Measured};
use super::markup::{Element, element};
use super::plot::{self, figures, mark};
use super::scale::{Scale, logarithmic_ticks, percent};
use super::{card as section, lead};

/// Labels that fit beside each other on a phone.
const LABELS: usize = 8;

pub(super) fn card(findings: &Findings, measured: &Measured) -> Option<Element> {
    let mut pairs = measured.pairs();
    pairs.retain(|pair| [pair.float, pair.optimised].iter().all(|timing| timing.median_ms > 0.0));
    let chosen = &findings.precision.chosen;
    let groups: Vec<&[TimingPair]> =
        pairs.chunk_by(|a, b| (a.float.threads, &a.float.isa) == (b.float.threads, &b.float.isa)).collect();
    let drawings: Vec<Element> = groups.iter().filter_map(|group| drawing(group, chosen)).collect();
    if drawings.is_empty() {
        return None;
    }
    let lead = lead("Median time of a batch; the figure above says how many times faster the optimised model is.");
    let legend = plot::legend("round", [("float", "f32".to_owned()), ("optimised", chosen.clone())]);
    let section = section("latency", "Latency");
    let section = if drawings.len() > 1 { section.class("card wide") } else { section };
    let drawings = element("div").class("drawings").children(drawings);
    Some(section.child(lead).child(drawings).child(legend).child(behind(&pairs, chosen)))
}

/// The batches of one number of threads and one instruction set.
fn drawing(pairs: &[TimingPair], chosen: &str) -> Option<Element> {
    let times = || pairs.iter().flat_map(|pair| [pair.float.median_ms, pair.optimised.median_ms]);
    let ticks = logarithmic_ticks(times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max) * 1.05);
    let (bottom, top) = (*ticks.first()?, *ticks.last()?);
    let height = Scale::logarithmic(top, if bottom < top { bottom } else { top / 2.0 });
    let mut plot = plot::area("tall", &format!("median milliseconds of {} batches in f32 and {chosen}", pairs.len()));
    for tick in &ticks {
        let y = height.percent(*tick);
        plot = plot.child(plot::across("grid", y)).child(plot::left_label(y, &tick_label(*tick)));
    }
    plot = plot.child(plot::top_label("ms")).children(lines(pairs, &height));
    plot = plot.children((0..pairs.len()).flat_map(|place| marks(pairs, place, &height)));
    let float = pairs.first()?.float;
    let threads = if float.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", float.threads) };
    let axis = format!("tokens per sequence, below them sequences per batch; {threads}, {}", float.isa);
    Some(plot::framed(plot, &axis))
}

fn tick_label(milliseconds: f64) -> String {
    if milliseconds < 1000.0 { milliseconds.to_string() } else { grouped(milliseconds) }
}

/// The middle of a batch's column, in percent.
fn middle(place: usize, count: usize) -> f64 {
    100.0 * (place as f64 + 0.5) / count as f64
}

/// Lines through the batches of equally many sequences, their names, and what parts them.
fn lines(pairs: &[TimingPair], height: &Scale) -> Vec<Element> {
    let x = |place| middle(place, pairs.len());
    let mut elements = Vec::new();
    let mut first = 0;
    for batch in pairs.chunk_by(|a, b| a.float.shape.sequences == b.float.shape.sequences) {
        let last = first + batch.len() - 1;
        let through = |of: fn(&TimingPair) -> f64| -> Vec<(f64, f64)> {
            (first..).zip(batch).map(|(place, pair)| (x(place), height.percent(of(pair)))).collect()
        };
        elements.push(plot::path("float", &through(|pair| pair.float.median_ms)));
        elements.push(plot::path("optimised", &through(|pair| pair.optimised.median_ms)));
        if first > 0 {
            elements.push(plot::down("grid", (x(first - 1) + x(first)) / 2.0));
        }
        let sequences = batch[0].float.shape.sequences;
        let is_wide = 5 * batch.len() >= pairs.len();
        let label = if is_wide { format!("batch {sequences}") } else { sequences.to_string() };
        elements.push(plot::bottom_label((x(first) + x(last)) / 2.0, 2, &label));
        first = last + 1;
    }
    elements
}

/// Both times of a batch, and how many times faster the second is.
fn marks(pairs: &[TimingPair], place: usize, height: &Scale) -> Vec<Element> {
    let (pair, x) = (&pairs[place], middle(place, pairs.len()));
    let (shape, ratio) = (pair.float.shape, times(pair.ratio()));
    let point = |class, time: f64| {
        let tooltip = format!("{shape}: {} ms, {ratio} faster", significant(time));
        let shapes = [plot::circle(12.0).class("reach"), plot::circle(5.0)];
        mark(class, (x, height.percent(time)), &tooltip, shapes)
    };
    let mut elements = vec![point("float", pair.float.median_ms), point("optimised", pair.optimised.median_ms)];
    if place.is_multiple_of(pairs.len().div_ceil(LABELS)) {
        let y = height.percent(pair.float.median_ms.max(pair.optimised.median_ms));
        let words = plot::text(percent(x), percent(y), "middle", &ratio);
        elements.push(words.with("dy", "-0.9em").class("strong"));
        elements.push(plot::bottom_label(x, 1, &shape.tokens.to_string()));
    }
    elements
}

fn behind(pairs: &[TimingPair], chosen: &str) -> Element {
    let row = |pair: &TimingPair| {
        let TimingPair { float, optimised } = pair;
        vec![
            float.shape.to_string(),
            significant(float.median_ms),
            significant(optimised.median_ms),
            times(pair.ratio()),
            grouped(optimised.tokens_per_second),
            float.threads.to_string(),
            float.isa.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = pairs.iter().map(row).collect();
    let headings = ["batch", "f32 ms", &format!("{chosen} ms"), "faster", "tokens/s", "threads", "isa"];
    figures("Median time of a batch", &headings, &rows)
}
