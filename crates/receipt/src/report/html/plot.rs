//! What plots are made of.

use super::markup::{Element, element};
use super::scale::percent;
use super::typeset;

/// The area between the axes; `label` is what it says to those who don't see it. Text outside of it is shown.
pub(super) fn area(class: &str, label: &str) -> Element {
    element("svg").class(format!("plot {class}")).with("role", "img").with("aria-label", typeset(label))
}

/// A text at a place; `anchor` is `start`, `middle` or `end`.
pub(super) fn text(x: impl ToString, y: impl ToString, anchor: &str, text: &str) -> Element {
    let element = element("text").with("x", x).with("y", y).with("text-anchor", anchor);
    element.text(typeset(text))
}

/// A line across the plot at the height `y`.
pub(super) fn across(class: &str, y: f64) -> Element {
    let line = element("line").class(class).with("x1", "0").with("x2", "100%");
    line.with("y1", percent(y)).with("y2", percent(y))
}

/// A line from top to bottom at `x`.
pub(super) fn down(class: &str, x: f64) -> Element {
    let line = element("line").class(class).with("x1", percent(x)).with("x2", percent(x));
    line.with("y1", "0").with("y2", "100%")
}

/// The label of a horizontal grid line, left of the plot.
pub(super) fn left_label(y: f64, label: &str) -> Element {
    text("-8", percent(y), "end", label).with("dy", "0.35em")
}

/// The unit of the left labels, above them.
pub(super) fn top_label(unit: &str) -> Element {
    text("-8", "-1.2em", "start", unit)
}

/// A label under the plot; `line` counts from 1.
pub(super) fn bottom_label(x: f64, line: u8, label: &str) -> Element {
    let dy = format!("{:.1}em", 0.2 + 1.3 * f64::from(line));
    text(percent(x), "100%", "middle", label).with("dy", dy)
}

/// Lines through points given in percent.
pub(super) fn path(class: &str, points: &[(f64, f64)]) -> Element {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
    let line =
        element("polyline").class(class).with("points", points.join(" ")).with("vector-effect", "non-scaling-stroke");
    element("svg").with("viewBox", "0 0 100 100").with("preserveAspectRatio", "none").class("through").child(line)
}

/// A mark at a place given in percent, drawn in pixels around it, with a tooltip.
pub(super) fn mark(
    class: &str,
    (x, y): (f64, f64),
    tooltip: &str,
    shapes: impl IntoIterator<Item = Element>,
) -> Element {
    let group = element("g").class(format!("mark {class}")).child(element("title").text(typeset(tooltip)));
    let place = element("svg").class("at").with("x", percent(x)).with("y", percent(y));
    place.child(group.children(shapes))
}

/// A circle around the place of a mark.
pub(super) fn circle(radius: f64) -> Element {
    element("circle").with("r", radius)
}

/// A plot with the title of its lower axis.
pub(super) fn framed(plot: Element, axis: &str) -> Element {
    let title = element("p").class("axis-title").with("aria-hidden", "true").text(typeset(axis));
    element("div").class("box").child(plot).child(title)
}

/// What the colours of a plot mean: classes of swatches and words. `shape` is `round` for points, `square` for bars.
pub(super) fn legend<'a>(shape: &str, entries: impl IntoIterator<Item = (&'a str, String)>) -> Element {
    let entry = |(class, words): (&str, String)| {
        let swatch = element("span").class(format!("swatch {class}")).with("aria-hidden", "true");
        element("li").child(swatch).text(words)
    };
    element("ul").class(format!("legend {shape}")).children(entries.into_iter().map(entry))
}

/// A table; the first cell of each row names it.
pub(super) fn table(caption: &str, headings: &[&str], rows: &[Vec<String>]) -> Element {
    let heading = |text: &&str| element("th").with("scope", "col").text(typeset(text));
    let head = element("thead").child(element("tr").children(headings.iter().map(heading)));
    let row = |cells: &Vec<String>| {
        let cell = |(place, text): (usize, &String)| match place {
            0 => element("th").with("scope", "row").text(typeset(text)),
            _ => element("td").text(typeset(text)),
        };
        element("tr").children(cells.iter().enumerate().map(cell))
    };
    let caption = element("caption").text(caption);
    element("table").child(caption).child(head).child(element("tbody").children(rows.iter().map(row)))
}

/// The table behind a plot, folded.
pub(super) fn figures(caption: &str, headings: &[&str], rows: &[Vec<String>]) -> Element {
    let scrolling = element("div").class("scroll").with("tabindex", "0").with("role", "region");
    let scrolling = scrolling.with("aria-label", caption).child(table(caption, headings, rows));
    element("details").child(element("summary").text("Figures")).child(scrolling)
}
