//! The receipt as one HTML file that loads nothing: style and plots are part of it.
//!
//! Plots are SVG laid out in percent of their width, with text in pixels: so one drawing fits screens and paper of any
//! width. Colours are variables of the style sheet, one set for light and one for dark. Behind each plot is a table.

mod latency;
mod layers;
mod markup;
mod memory;
mod method;
mod plot;
mod scale;
mod tiles;
mod trade_off;
mod verdict;

use super::{Findings, Receipt};
use markup::{Element, element};

/// Colours, type and layout.
const STYLE: &str = include_str!("style.css");
/// Nothing may be loaded or run; only the file's own style applies.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

impl Receipt {
    /// The receipt as an HTML page that needs no other file, no script and no network.
    #[must_use]
    pub fn to_html(&self) -> String {
        let Receipt { findings, measured } = self;
        let plots = [
            trade_off::card(findings),
            latency::card(findings, measured),
            layers::chart(findings),
            memory::card(findings, measured),
        ];
        let grid = element("div").class("grid").children(plots.into_iter().flatten()).child(method::card(self));
        let main = element("main")
            .child(header(findings))
            .child(verdict::card(findings))
            .children(tiles::row(self))
            .child(grid)
            .children(layers::table(findings));
        let page = element("html").with("lang", "en").child(head(findings)).child(element("body").child(main));
        format!("<!DOCTYPE html>\n{page}\n")
    }
}

fn head(findings: &Findings) -> Element {
    let meta = |name: &'static str, content: &str| element("meta").with("name", name).with("content", content);
    element("head")
        .child(element("meta").with("charset", "utf-8"))
        .child(element("meta").with("http-equiv", "Content-Security-Policy").with("content", POLICY))
        .child(meta("viewport", "width=device-width, initial-scale=1"))
        .child(meta("color-scheme", "light dark"))
        .child(element("title").text(format!("Receipt of {}", findings.model.id)))
        .child(element("style").style(STYLE))
}

fn header(findings: &Findings) -> Element {
    let facts = format!("{} in {}", findings.task, findings.precision_words());
    element("header")
        .child(element("p").class("eyebrow").text("Centuple receipt"))
        .child(element("h1").text(&findings.model.id))
        .child(element("p").class("muted").text(facts))
}

/// A section with a heading.
fn card(id: &'static str, heading: &str) -> Element {
    let title = format!("{id}-title");
    let heading = element("h2").with("id", &title).text(heading);
    element("section").with("id", id).class("card").with("aria-labelledby", title).child(heading)
}

/// A paragraph under a heading.
fn lead(text: &str) -> Element {
    element("p").class("muted").text(text)
}

/// Figures as they are printed: a minus sign before digits and a multiplication sign after them.
fn typeset(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |place: Option<usize>| place.and_then(|place| chars.get(place)).is_some_and(char::is_ascii_digit);
    let set = |(place, &c): (usize, &char)| {
        let before = place.checked_sub(1);
        let begins = before.is_none_or(|before| matches!(chars[before], ' ' | '(' | 'e'));
        match c {
            '-' if begins && is_digit(Some(place + 1)) => '−',
            'x' if is_digit(before) && !chars.get(place + 1).is_some_and(|c| c.is_alphabetic()) => '×',
            other => other,
        }
    };
    chars.iter().enumerate().map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_typeset_and_names_left_alone() {
        let cases = [
            ("-0.12 to +0.05", "−0.12 to +0.05"),
            ("2.6x at 8x128", "2.6× at 8×128"),
            ("1.2e-5", "1.2e−5"),
            ("a-1 x100 0x1f 7xyz", "a-1 x100 0×1f 7xyz"),
            ("- x", "- x"),
        ];
        for (text, expected) in cases {
            assert_eq!(typeset(text), expected);
        }
    }

    /// Relative luminance by WCAG 2.2.
    fn luminance(colour: &str) -> f64 {
        let channel = |place: usize| {
            let value = f64::from(u8::from_str_radix(&colour[place..place + 2], 16).expect("hexadecimal")) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn colours_have_enough_contrast_in_light_and_dark() {
        let sets: Vec<&str> = STYLE.split(":root {").skip(1).map(|set| set.split('}').next().unwrap_or("")).collect();
        assert_eq!(sets.len(), 2, "one set for light and one for dark");
        for set in sets {
            let colour = |name: &str| {
                let line = set.lines().find(|line| line.trim().starts_with(&format!("--{name}:"))).expect(name);
                line.split(['#', ';']).nth(1).map(|digits| format!("#{digits}")).expect(name)
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (luminance(&colour(a)) + 0.05, luminance(&colour(b)) + 0.05);
                a.max(b) / a.min(b)
            };
            for text in ["text", "muted", "met", "over", "unlabelled", "link"] {
                for ground in ["page", "card", "raised"] {
                    assert!(contrast(text, ground) >= 4.5, "{text} on {ground}: {}", contrast(text, ground));
                }
            }
            for mark in ["float", "optimised", "w4a8", "w8a7", "w8a8", "w8a12", "f32"] {
                assert!(contrast(mark, "card") >= 3.0, "{mark}: {}", contrast(mark, "card"));
            }
        }
    }
}
