//! The verdict: in words, as an interval against the budget, and with the figures behind it.

use super::super::figures::{change, interval, points};
use super::super::{Accuracy, Estimate, Findings, Verdict};
use super::markup::{Element, element};
use super::plot::{self, figures};
use super::scale::{Scale, percent};
use super::typeset;

pub(super) fn card(findings: &Findings) -> Element {
    let class = match findings.verdict {
        Verdict::Met => "met",
        Verdict::Over => "over",
        Verdict::Unlabelled => "unlabelled",
    };
    let heading =
        element("h2").with("id", "verdict-title").child(icon(findings.verdict)).text(findings.verdict.headline());
    let section = element("section").with("id", "verdict").class(format!("card verdict {class}"));
    let warning = |text: &String| element("li").text(text);
    let warnings = element("ul").class("warnings").children(findings.warnings.iter().map(warning));
    section
        .with("aria-labelledby", "verdict-title")
        .child(heading)
        .child(element("p").text(typeset(&findings.sentence())))
        .children(findings.accuracy.as_ref().map(|accuracy| interval_plot(accuracy, findings.max_drop)))
        .children((!findings.warnings.is_empty()).then_some(warnings))
        .children(findings.accuracy.as_ref().map(|accuracy| estimates(findings, accuracy)))
}

/// A tick, a cross or a dash.
fn icon(verdict: Verdict) -> Element {
    let path = match verdict {
        Verdict::Met => "M5.5 10.5l3 3 6-7",
        Verdict::Over => "M6.5 6.5l7 7m0-7l-7 7",
        Verdict::Unlabelled => "M6 10h8",
    };
    let icon = element("svg").class("icon").with("viewBox", "0 0 20 20").with("aria-hidden", "true");
    icon.child(element("circle").with("cx", 10).with("cy", 10).with("r", 10)).child(element("path").with("d", path))
}

/// The change with its interval, no change and the budget on one axis; losses are on the left.
fn interval_plot(accuracy: &Accuracy, max_drop: Option<f64>) -> Element {
    let paired = &accuracy.paired;
    let budget = max_drop.map(|drop| -drop);
    let values = [paired.difference, paired.low, paired.high, 0.0].into_iter().chain(budget);
    let (low, high) = values.fold((0f64, 0f64), |(low, high), value| (low.min(value), high.max(value)));
    let margin = 0.1 * (high - low).max(1e-6);
    let scale = Scale::linear(low - margin, high + margin);
    let at = |value: f64| scale.percent(value);
    let words = format!("change {} points, {}", change(paired.difference), interval(paired));
    let mut plot = plot::area("interval", &words);
    if let Some(budget) = budget {
        let beyond = element("rect").class("beyond").with("width", percent(at(budget))).with("height", "100%");
        plot = plot.child(beyond).child(plot::down("budget", at(budget)));
        plot = plot
            .child(edge_label(at(budget), &format!("budget {}", change(budget))).with("dy", "1.4em").with("y", "100%"));
    }
    let width = (at(paired.high) - at(paired.low)).max(0.0);
    let bar = element("rect").with("x", percent(at(paired.low))).with("y", "50%").with("width", percent(width));
    let bar = bar.with("height", 10).with("rx", 5).with("transform", "translate(0 -5)");
    let bar = element("g").class("mark range").child(element("title").text(typeset(&words))).child(bar);
    let dot = plot::mark("value", (at(paired.difference), 50.0), &words, [plot::circle(7.0)]);
    let zero = edge_label(at(0.0), "no change").with("dy", "-0.6em");
    element("div").class("box").child(
        plot.child(plot::across("axis", 50.0)).child(plot::down("zero", at(0.0))).child(zero).child(bar).child(dot),
    )
}

/// A label that stays inside the plot near its edges.
fn edge_label(x: f64, label: &str) -> Element {
    let anchor = if x < 15.0 {
        "start"
    } else if x > 85.0 {
        "end"
    } else {
        "middle"
    };
    element("text").with("x", percent(x)).with("text-anchor", anchor).text(typeset(label))
}

fn estimates(findings: &Findings, accuracy: &Accuracy) -> Element {
    let row = |name: &str, estimate: &Estimate| {
        let Estimate { value, low, high } = estimate;
        vec![name.to_owned(), points(*value), points(*low), points(*high)]
    };
    let paired = &accuracy.paired;
    let difference = [paired.difference, paired.low, paired.high].map(change);
    let mut rows = vec![
        row("f32", &accuracy.baseline),
        row(&findings.precision.chosen, &accuracy.optimised),
        vec!["change".to_owned()],
    ];
    rows[2].extend(difference);
    figures(&accuracy.metric, &["", "value", "95 % from", "to"], &rows)
}
