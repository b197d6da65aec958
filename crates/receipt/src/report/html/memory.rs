//! Memory and files, in f32 and optimised.

use super::super::figures::{bytes, times};
use super::super::{Findings, Measured, Size};
use super::card as section;
use super::markup::{Element, element};
use super::plot::{self, figures};
use super::scale::percent;

/// Share of the width that the longest bar takes, in percent; the rest is for the label beside it.
const LONGEST: f64 = 74.0;

pub(super) fn card(findings: &Findings, measured: &Measured) -> Option<Element> {
    let rows = measured.sizes.rows();
    let most = rows.iter().map(|(_, size)| size.f32.max(size.optimised)).max()?.max(1);
    let chosen = &findings.precision.chosen;
    let bars = rows.iter().map(|(name, size)| bars(name, *size, most, chosen));
    let legend = plot::legend("square", [("float", "f32".to_owned()), ("optimised", chosen.clone())]);
    let cells = |(name, size): &(&str, Size)| {
        vec![(*name).to_owned(), bytes(size.f32), bytes(size.optimised), times(size.ratio())]
    };
    let table: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let behind = figures("Memory and files", &["", "f32", chosen, "smaller"], &table);
    Some(section("memory", "Memory").children(bars).child(legend).child(behind))
}

fn bars(name: &str, size: Size, most: u64, chosen: &str) -> Element {
    let label = format!("{name}: {} in f32, {} in {chosen}", bytes(size.f32), bytes(size.optimised));
    let mut plot = plot::area("bars", &label);
    plot = plot.child(plot::text("0", "1em", "start", name));
    plot = plot.child(plot::text("100%", "1em", "end", &format!("{} smaller", times(size.ratio()))).class("strong"));
    for (class, count, y) in [("float", size.f32, 24), ("optimised", size.optimised, 44)] {
        let width = LONGEST * count as f64 / most as f64;
        let bar =
            element("rect").class(class).with("y", y).with("width", percent(width)).with("height", 14).with("rx", 3);
        let bar = bar.child(element("title").text(bytes(count)));
        plot = plot.child(bar).child(plot::text(percent(width), y + 11, "start", &bytes(count)).with("dx", 8));
    }
    element("div").class("box").child(plot)
}
