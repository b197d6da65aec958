//! The error of each layer: as a plot over the model, and as a table.

use super::super::figures::{decimal, significant};
use super::super::{Findings, Layer};
use super::markup::{Element, element};
use super::plot::{self, circle, mark};
use super::scale::{Scale, linear_ticks, percent};
use super::{card as section, lead, typeset};
use crate::Rung;

/// Labels that fit beside each other on a phone.
const LABELS: usize = 10;
/// A table of more layers is folded.
const UNFOLDED: usize = 36;
/// Columns that the plot has room for at least: few layers don't become slabs.
const LEAST_SPAN: f64 = 8.0;
/// Space between blocks, in columns.
const GAP: f64 = 0.7;

/// A column for each layer, in the order of the model: the higher, the closer to f32.
pub(super) fn chart(findings: &Findings) -> Option<Element> {
    let layers = &findings.layers;
    let highest = layers.iter().filter_map(|layer| layer.sqnr_db).filter(|sqnr| sqnr.is_finite()).fold(10.0, f64::max);
    let height = Scale::linear(highest * 1.05, 0.0);
    let columns = Columns::new(layers);
    let mut plot = plot::area("tall", &format!("signal over error of {} layers, in decibels", layers.len()));
    for tick in linear_ticks(0.0, highest * 1.05, 4) {
        let y = height.percent(tick);
        plot = plot.child(plot::across("grid", y)).child(plot::left_label(y, &decimal(tick, 0)));
    }
    plot = plot.child(plot::top_label("dB"));
    plot = plot.children(layers.iter().enumerate().map(|(place, layer)| column(layer, &columns, place, &height)));
    plot = plot.children(columns.labels().into_iter().map(|(x, label)| plot::bottom_label(x, 1, &label)));
    let used = Rung::ALL.into_iter().filter(|rung| layers.iter().any(|layer| layer.rung == *rung));
    let entries = used.map(|rung| (rung.name(), format!("{}: {}", rung.name(), rung.meaning())));
    let promoted = (findings.promoted() > 0).then(|| ("promoted", "promoted by the search".to_owned()));
    let legend = plot::legend("square", entries.chain(promoted));
    let drawing = plot::framed(plot, if columns.numbered { "block" } else { "layer" });
    let section = section("layers", "Error per layer")
        .class("card wide")
        .child(lead(&summary(findings)))
        .child(drawing)
        .child(legend);
    (!layers.is_empty()).then_some(section)
}

fn summary(findings: &Findings) -> String {
    let known = findings.layers.iter().filter_map(|layer| Some((layer.sqnr_db?, layer)));
    let worst = known.min_by(|a, b| a.0.total_cmp(&b.0));
    let lowest = worst.map_or_else(String::new, |(sqnr, layer)| {
        format!(" The largest error is {} dB below the signal, in {}.", typeset(&decimal(sqnr, 1)), layer.name)
    });
    format!(
        "Power of a layer's output over the power of its error, on {} layers; higher is closer to f32.{lowest}",
        findings.layers.len()
    )
}

fn column(layer: &Layer, columns: &Columns, place: usize, height: &Scale) -> Element {
    let (left, width) = (columns.left(place), columns.width());
    let sqnr = layer.sqnr_db.filter(|sqnr| sqnr.is_finite());
    let top = sqnr.map_or(0.0, |sqnr| height.percent(sqnr));
    let rect = |x: f64, y: f64, width: f64| {
        let rect = element("rect").with("x", percent(x)).with("y", percent(y));
        rect.with("width", percent(width)).with("height", percent(100.0 - y))
    };
    let bar = rect(left, top, width).class(if sqnr.is_some() { "bar" } else { "bar exact" }).with("rx", 1.5);
    let promoted = layer
        .promoted_from
        .map(|_| mark("promoted", (left + width / 2.0, top), "promoted", [circle(3.5).with("cy", -8)]));
    element("g")
        .class(format!("mark {}", layer.rung.name()))
        .child(element("title").text(describe(layer)))
        .child(rect(left - 0.2 * width, 0.0, 1.4 * width).class("reach"))
        .child(bar)
        .children(promoted)
}

fn describe(layer: &Layer) -> String {
    let from = layer.promoted_from.map_or_else(String::new, |rung| format!(", promoted from {}", rung.name()));
    format!("{}: {}, {}{from}", layer.name, typeset(&sqnr(layer)), layer.rung.name())
}

fn sqnr(layer: &Layer) -> String {
    layer.sqnr_db.map_or_else(|| "exact".to_owned(), |sqnr| format!("{} dB", decimal(sqnr, 1)))
}

/// Where columns stand: layers of one block together, with gaps between blocks.
struct Columns {
    /// Column of each layer, gaps counted.
    places: Vec<f64>,
    /// Width of the whole, in columns.
    span: f64,
    /// Whether blocks have numbers; without, each layer counts as one.
    numbered: bool,
    /// Label of each group, its first and last layer.
    groups: Vec<(String, usize, usize)>,
}

impl Columns {
    fn new(layers: &[Layer]) -> Columns {
        let blocks: Vec<Option<&str>> = layers.iter().map(|layer| block(&layer.name)).collect();
        let numbered = blocks.iter().any(Option::is_some);
        let mut columns = Columns { places: Vec::new(), span: 0.0, numbered, groups: Vec::new() };
        let mut next = 0.0;
        for (place, block) in blocks.iter().enumerate() {
            let begins = place == 0 || !numbered || *block != blocks[place - 1];
            if begins {
                next += if numbered && place > 0 { GAP } else { 0.0 };
                let label = if numbered { block.unwrap_or("").to_owned() } else { (place + 1).to_string() };
                columns.groups.push((label, place, place));
            } else if let Some(group) = columns.groups.last_mut() {
                group.2 = place;
            }
            columns.places.push(next);
            next += 1.0;
        }
        columns.span = next.max(LEAST_SPAN);
        let spare = (columns.span - next) / 2.0;
        columns.places.iter_mut().for_each(|place| *place += spare);
        columns
    }

    fn left(&self, place: usize) -> f64 {
        100.0 * (self.places[place] + 0.1) / self.span
    }

    fn width(&self) -> f64 {
        80.0 / self.span
    }

    /// Labels under the groups, as many as fit.
    fn labels(&self) -> Vec<(f64, String)> {
        let middle = |first: usize, last: usize| (self.left(first) + self.left(last) + self.width()) / 2.0;
        let step = self.groups.len().div_ceil(LABELS);
        let shown = self
            .groups
            .iter()
            .enumerate()
            .filter(|(place, (label, ..))| place.is_multiple_of(step) && !label.is_empty());
        shown.map(|(_, (label, first, last))| (middle(*first, *last), label.clone())).collect()
    }
}

/// The number of the block that a layer belongs to: the first number in its dotted name.
fn block(name: &str) -> Option<&str> {
    name.split('.').find(|part| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Every layer with its figures; on phones each row becomes two lines, so roles are spelled out.
pub(super) fn table(findings: &Findings) -> Option<Element> {
    let headings = ["layer", "shape", "runs as", "SQNR", "cosine", "damage"];
    let heading = |text: &&str| element("th").with("role", "columnheader").with("scope", "col").text(text);
    let head = element("tr").with("role", "row").children(headings.iter().map(heading));
    let highest = findings.layers.iter().filter_map(|layer| layer.sqnr_db).fold(1.0, f64::max);
    let rows = findings.layers.iter().map(|layer| row(layer, highest));
    let table = element("table").class("layers").with("role", "table").with("aria-labelledby", "all-layers-title");
    let table = table
        .child(element("thead").with("role", "rowgroup").child(head))
        .child(element("tbody").with("role", "rowgroup").children(rows));
    let mut folded = element("details");
    if findings.layers.len() <= UNFOLDED {
        folded = folded.with("open", "open");
    }
    let summary = element("summary").text(format!("{} layers", findings.layers.len()));
    let table = folded.child(summary).child(table);
    let lead = lead(
        "SQNR is the power of the output over the power of its error; damage is what the layer alone does to the \
         model's output, as 1 − cosine.",
    );
    (!findings.layers.is_empty()).then(|| section("all-layers", "All layers").child(lead).child(table))
}

fn row(layer: &Layer, highest: f64) -> Element {
    let cell = |label: &str| element("td").with("role", "cell").with("data-label", label);
    let rung = element("span").class(format!("rung {}", layer.rung.name())).text(layer.rung.name());
    let from = layer.promoted_from.map(|from| element("span").class("muted").text(format!(" from {}", from.name())));
    let share = layer.sqnr_db.map_or(100.0, |sqnr| (100.0 * sqnr / highest).clamp(0.0, 100.0));
    let bar = element("rect").class(if layer.sqnr_db.is_some() { "bar" } else { "bar exact" });
    let bar = bar.with("width", percent(share)).with("height", "100%").with("rx", 2);
    let bar = element("svg").class(format!("inline {}", layer.rung.name())).with("aria-hidden", "true").child(bar);
    element("tr")
        .with("role", "row")
        .child(element("th").with("role", "rowheader").with("scope", "row").text(&layer.name))
        .child(cell("shape").text(format!("{} × {}", layer.shape[0], layer.shape[1])))
        .child(cell("runs as").child(rung).children(from))
        .child(cell("SQNR").child(bar).text(typeset(&sqnr(layer))))
        .child(cell("cosine").text(typeset(&decimal(layer.cosine, 5))))
        .child(cell("damage").text(typeset(&significant(layer.damage))))
}
