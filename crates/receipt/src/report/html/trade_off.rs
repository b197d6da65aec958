//! Speed against accuracy: what the search tried, what it chose, and the budget.

use super::super::figures::{change, decimal, points, rung_counts, significant, times};
use super::super::{Findings, SearchPoint};
use super::markup::{Element, element};
use super::plot::{self, figures, mark};
use super::scale::{Scale, linear_ticks, percent};
use super::{card as section, lead};

pub(super) fn card(findings: &Findings) -> Option<Element> {
    let search: Vec<&SearchPoint> = findings.search.iter().filter(|point| point.cost > 0.0).collect();
    let axes = Axes::new(&search, findings.max_drop)?;
    let lead = lead(
        "Each point is a choice of precisions that was tried: speed of the linear layers by a static table, change of \
         the metric on the examples of the search.",
    );
    let marks = [("chosen", "chosen"), ("within", "within budget"), ("tried", "over budget")];
    let is_used = |class: &str| search.iter().any(|point| class_of(point, findings.max_drop) == class);
    let used = marks.into_iter().filter(|(class, _)| is_used(class)).chain([("float", "f32")]);
    let legend = plot::legend("round", used.map(|(class, words)| (class, words.to_owned())));
    let drawing = plot::framed(drawing(&search, &axes, findings.max_drop), "speed of the linear layers, f32 = 1x");
    Some(
        section("trade-off", "Speed against accuracy").child(lead).child(drawing).child(legend).child(behind(findings)),
    )
}

/// Speed to the right, change of the metric upwards: the best is at the top right.
struct Axes {
    speed: Scale,
    change: Scale,
    /// The largest speed, the least and the largest change that are shown.
    ends: [f64; 3],
}

impl Axes {
    /// Changes far beyond the budget are not shown to scale, or nothing else could be told apart.
    fn new(search: &[&SearchPoint], max_drop: Option<f64>) -> Option<Axes> {
        let drops = || search.iter().map(|point| point.drop);
        let (least, most) =
            drops().fold((f64::INFINITY, 0f64), |(least, most), drop| (least.min(drop), most.max(drop)));
        let chosen = search.iter().find(|point| point.chosen).map_or(0.0, |point| point.drop);
        let telling = max_drop.map_or(most, |drop| (4.0 * drop).max(1.5 * chosen).max(1.25 * least));
        let (bottom, top) = (-most.min(telling), (-least).max(0.0));
        let bottom = bottom.min(-1.25 * max_drop.unwrap_or(0.0).max(0.0));
        let margin = 0.06 * (top - bottom).max(1e-3);
        let speed = search.iter().map(|point| 1.0 / point.cost).fold(1.5, f64::max) * 1.04;
        let ends = [speed, bottom - margin, top + margin];
        let usable = !search.is_empty() && ends.iter().all(|end| end.is_finite());
        usable.then(|| Axes { speed: Scale::linear(0.9, speed), change: Scale::linear(ends[2], ends[1]), ends })
    }

    fn place(&self, cost: f64, drop: f64) -> (f64, f64) {
        (self.speed.percent(1.0 / cost), self.change.percent(-drop))
    }
}

fn drawing(search: &[&SearchPoint], axes: &Axes, max_drop: Option<f64>) -> Element {
    let [fastest, bottom, top] = axes.ends;
    let label = format!("{} choices tried, from 1x to {} the speed of f32", search.len(), times(fastest / 1.04));
    let mut plot = plot::area("tall", &label);
    if let Some(drop) = max_drop {
        let y = axes.change.percent(-drop);
        let beyond = element("rect").class("beyond").with("y", percent(y)).with("width", "100%");
        plot = plot.child(beyond.with("height", percent(100.0 - y)));
    }
    for tick in linear_ticks(bottom, top, 5) {
        let y = axes.change.percent(tick);
        plot = plot.child(plot::across("grid", y)).child(plot::left_label(y, &tick_label(tick)));
    }
    for tick in linear_ticks(1.0, fastest, 4) {
        let x = axes.speed.percent(tick);
        plot = plot.child(plot::down("grid", x)).child(plot::bottom_label(x, 1, &format!("{}x", short(tick))));
    }
    plot = plot.child(plot::top_label("points"));
    if let Some(drop) = max_drop {
        let y = axes.change.percent(-drop);
        let words = plot::text("6", percent(y), "start", &format!("budget {}", change(-drop)));
        plot = plot.child(plot::across("budget", y)).child(words.with("dy", "1.4em").class("strong"));
    }
    let best: Vec<(f64, f64)> = frontier(search, bottom).iter().map(|&(cost, drop)| axes.place(cost, drop)).collect();
    let float = mark("float", axes.place(1.0, 0.0), "f32: speed 1x, no change", [plot::circle(5.0)]);
    let mut ordered: Vec<&&SearchPoint> = search.iter().collect();
    ordered.sort_by_key(|point| point.chosen);
    plot.child(plot::path("frontier", &best))
        .child(float)
        .children(ordered.into_iter().map(|point| point_mark(point, axes, max_drop)))
}

fn class_of(point: &SearchPoint, max_drop: Option<f64>) -> &'static str {
    let is_within = max_drop.is_none_or(|most| point.drop <= most);
    match (point.chosen, is_within) {
        (true, _) => "chosen",
        (false, true) => "within",
        (false, false) => "tried",
    }
}

fn point_mark(point: &SearchPoint, axes: &Axes, max_drop: Option<f64>) -> Element {
    let (speed, drop) = (times(1.0 / point.cost), change(-point.drop));
    let place = axes.place(point.cost, point.drop);
    let tooltip = format!("{speed} the speed, {drop} points: {}", rung_counts(point.rungs));
    let class = class_of(point, max_drop);
    let reach = plot::circle(12.0).class("reach");
    if -point.drop < axes.ends[1] {
        let arrow = element("path").with("d", "M-5 -10h10l-5 8z");
        return mark(class, place, &format!("{tooltip} (off the scale)"), [reach, arrow]);
    }
    let radius = if point.chosen { 7.5 } else { 4.5 };
    mark(class, place, &tooltip, [reach, plot::circle(radius)])
}

/// Cost and drop of the points that no other beats in both, with f32 at their end; what is off the scale left out.
fn frontier(search: &[&SearchPoint], bottom: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = search.iter().map(|point| (point.cost, point.drop)).collect();
    points.push((1.0, 0.0));
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut least = f64::INFINITY;
    points.retain(|&(_, drop)| {
        let better = drop < least;
        least = least.min(drop);
        better && -drop >= bottom
    });
    points
}

/// A tick with no more digits than it needs.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn tick_label(value: f64) -> String {
    if value > 1e-9 { format!("+{}", short(value)) } else { short(value) }
}

fn behind(findings: &Findings) -> Element {
    let row = |point: &SearchPoint| {
        let chosen = if point.chosen { " (chosen)" } else { "" };
        vec![
            format!("{}{chosen}", rung_counts(point.rungs)),
            decimal(point.cost, 3),
            points(point.drop),
            significant(point.error),
        ]
    };
    let rows: Vec<Vec<String>> = findings.search.iter().map(row).collect();
    figures("What the search tried, in order", &["layers", "time, f32 = 1", "points lost", "1 − cosine"], &rows)
}
