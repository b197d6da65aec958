//! What matters most, in large digits.

use super::super::figures::{bytes, change, points, times};
use super::super::measured::TimingPair;
use super::super::{Findings, Measured, Receipt};
use super::markup::{Element, element};
use super::typeset;

/// A large figure, what it is of, and where it comes from.
struct Tile {
    title: String,
    value: String,
    unit: String,
    detail: String,
}

/// The tiles of what is known.
pub(super) fn row(receipt: &Receipt) -> Option<Element> {
    let Receipt { findings, measured } = receipt;
    let tiles = [accuracy(findings), speed(measured), memory(measured), layers(findings)];
    let mut tiles = tiles.iter().flatten().map(tile).peekable();
    tiles.peek().is_some().then(|| element("div").class("tiles").children(tiles))
}

fn tile(tile: &Tile) -> Element {
    let value = element("p").class("value").text(typeset(&tile.value)).text(" ");
    element("div")
        .class("card tile")
        .child(element("p").class("eyebrow").text(&tile.title))
        .child(value.child(element("span").text(&tile.unit)))
        .child(element("p").class("muted").text(typeset(&tile.detail)))
}

fn accuracy(findings: &Findings) -> Option<Tile> {
    let accuracy = findings.accuracy.as_ref()?;
    Some(Tile {
        title: accuracy.metric.clone(),
        value: change(accuracy.paired.difference),
        unit: "points".to_owned(),
        detail: format!("{} → {}", points(accuracy.baseline.value), points(accuracy.optimised.value)),
    })
}

fn speed(measured: &Measured) -> Option<Tile> {
    let mut ratios: Vec<f64> = measured.pairs().iter().map(TimingPair::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios.first()?, ratios.last()?);
    let detail = match ratios.len() {
        1 => "one batch".to_owned(),
        count if times(*least) == times(*most) => format!("on each of {count} batches"),
        count => format!("{} to {} over {count} batches", times(*least), times(*most)),
    };
    let median = times(ratios[ratios.len() / 2]);
    Some(Tile { title: "Speed".to_owned(), value: median, unit: "faster".to_owned(), detail })
}

fn memory(measured: &Measured) -> Option<Tile> {
    let sizes = &measured.sizes;
    let known = [("Weights", sizes.weights), ("Resident memory", sizes.resident), ("Weights on disk", sizes.file)];
    let (title, size) = known.into_iter().find_map(|(name, size)| Some((name, size?)))?;
    Some(Tile {
        title: title.to_owned(),
        value: times(size.ratio()),
        unit: "smaller".to_owned(),
        detail: format!("{} → {}", bytes(size.f32), bytes(size.optimised)),
    })
}

fn layers(findings: &Findings) -> Option<Tile> {
    (!findings.layers.is_empty()).then(|| Tile {
        title: "Layers promoted".to_owned(),
        value: findings.promoted().to_string(),
        unit: format!("of {}", findings.layers.len()),
        detail: findings.rungs(),
    })
}
