//! The receipt in each of its forms.

use centuple_receipt::Rung;
use centuple_receipt::report::{Paired, Receipt, ReceiptError, SearchPoint, Shape};
use centuple_receipt::search::{Evaluation, Layer, Limits, search};
use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};
use unicode_width::UnicodeWidthStr;

use crate::sample;

/// The page as XML: it is well-formed, or this fails.
fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn elements<'a>(document: &'a Document<'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    document.descendants().filter(move |node| node.has_tag_name(name))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|node| node.is_text().then(|| node.text()).flatten()).collect()
}

/// The ids of the sections, in order.
fn sections(document: &Document<'_>) -> Vec<String> {
    elements(document, "section").filter_map(|section| section.attribute("id").map(str::to_owned)).collect()
}

/// What every page must be.
fn check_page(page: &str) {
    let document = parse(page);
    let policies: Vec<_> = elements(&document, "meta")
        .filter(|meta| meta.attribute("http-equiv") == Some("Content-Security-Policy"))
        .filter_map(|meta| meta.attribute("content"))
        .collect();
    assert_eq!(policies.len(), 1);
    assert!(policies[0].starts_with("default-src 'none'; style-src 'unsafe-inline'"), "{policies:?}");
    let mut ids = Vec::new();
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        let loads = ["script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "image", "use"];
        assert!(!loads.contains(&name), "<{name}>");
        for attribute in node.attributes() {
            let name = attribute.name();
            assert!(!name.starts_with("on") && !["href", "src", "style"].contains(&name), "{name}");
        }
        ids.extend(node.attribute("id").map(str::to_owned));
        if node.attribute("role") == Some("img") {
            assert!(node.attribute("aria-label").is_some_and(|label| !label.is_empty()), "a plot without words");
        }
        let numbers = ["x", "y", "x1", "x2", "y1", "y2", "width", "height", "points", "r", "cx", "cy"];
        for number in numbers.into_iter().filter_map(|name| node.attribute(name)) {
            assert!(!number.contains("NaN") && !number.contains("inf"), "<{name}> at {number}");
        }
    }
    for shape in document.descendants() {
        let lengths = ["width", "height", "r"].into_iter().filter_map(|name| shape.attribute(name));
        assert!(lengths.into_iter().all(|length| !length.starts_with('-')), "a negative length");
    }
    let count = ids.len();
    for section in elements(&document, "section") {
        let title = section.attribute("aria-labelledby").expect("a title");
        assert!(ids.iter().any(|id| id == title), "{title}");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id is used twice");
    for table in elements(&document, "table") {
        let width = |row: Node<'_, '_>| row.children().filter(Node::is_element).count();
        let mut widths: Vec<usize> = table.descendants().filter(|node| node.has_tag_name("tr")).map(width).collect();
        widths.dedup();
        assert_eq!(widths.len(), 1, "rows of unequal length");
    }
    let sheet: String = elements(&document, "style").map(text).collect();
    assert!(!sheet.contains("url(") && !sheet.contains("@import"), "the style sheet loads something");
}

#[test]
fn tables() {
    let tables = sample::all().into_iter().map(|(name, receipt)| format!("--- {name}\n{}", receipt.table(80)));
    insta::assert_snapshot!(tables.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_narrow_table() {
    insta::assert_snapshot!(sample::met().table(0));
}

#[test]
fn pages_are_well_formed_and_load_nothing() {
    for (_, receipt) in sample::all() {
        check_page(&receipt.to_html());
    }
}

#[test]
fn a_full_page_has_every_section_and_a_mark_for_every_figure() {
    let receipt = sample::met();
    let page = receipt.to_html();
    let document = parse(&page);
    let expected = ["verdict", "trade-off", "latency", "layers", "memory", "method", "all-layers"];
    assert_eq!(sections(&document), expected);
    let titles = |section: &str| {
        let section = elements(&document, "section").find(|node| node.attribute("id") == Some(section)).unwrap();
        section.descendants().filter(|node| node.has_tag_name("title")).map(text).collect::<Vec<_>>()
    };
    assert_eq!(titles("trade-off").len(), receipt.findings.search.len() + 1, "all that was tried, and f32");
    assert_eq!(titles("latency").len(), receipt.measured.timings.len());
    assert_eq!(titles("latency")[..2], ["1×16: 0.980 ms, 2.7× faster", "1×16: 0.360 ms, 2.7× faster"]);
    assert_eq!(titles("memory").len(), 6);
    assert_eq!(titles("layers")[0], "encoder.layer.0.attention.self.qkv: 34.0 dB, w8a7");
    let rows =
        elements(&document, "table").last().unwrap().descendants().filter(|node| node.has_tag_name("tr")).count();
    assert_eq!(rows, receipt.findings.layers.len() + 1);
}

#[test]
fn what_is_not_known_has_no_section() {
    let mut receipt = sample::unlabelled();
    let page = receipt.to_html();
    assert_eq!(sections(&parse(&page)), ["verdict", "layers", "method", "all-layers"]);
    receipt.findings.layers.clear();
    receipt.findings.dataset = None;
    let page = receipt.to_html();
    check_page(&page);
    assert_eq!(sections(&parse(&page)), ["verdict", "method"]);
    assert!(page.contains("No examples were given to judge by."));
}

#[test]
fn hostile_names_are_shown_as_text() {
    let receipt = sample::hostile();
    let page = receipt.to_html();
    let document = parse(&page);
    let heading = text(elements(&document, "h1").next().unwrap());
    assert!(heading.starts_with("</title></style><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"));
    for face in [page.clone(), receipt.table(80)] {
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!face.chars().any(steers));
    }
}

#[test]
fn json_is_read_back_as_it_was() {
    for (_, receipt) in sample::all() {
        let json = receipt.to_json().unwrap();
        assert_eq!(Receipt::from_json(&json).unwrap(), receipt);
    }
}

#[test]
fn json_of_a_small_receipt() {
    let mut receipt = sample::met();
    receipt.findings.layers.drain(2..20);
    receipt.findings.layers.truncate(2);
    receipt.findings.search.truncate(1);
    receipt.measured.timings.truncate(1);
    insta::assert_snapshot!(receipt.to_json().unwrap());
}

#[test]
fn another_format_is_named() {
    let mut receipt = sample::met();
    receipt.findings.format = 2;
    let error = Receipt::from_json(&receipt.to_json().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "receipt of format 2; this version reads format 1");
}

#[test]
fn what_json_cannot_hold_is_refused() {
    let mut receipt = sample::met();
    receipt.findings.layers[3].sqnr_db = Some(f64::INFINITY);
    let Err(error @ ReceiptError::Json(_)) = receipt.to_json() else { panic!("written") };
    assert_eq!(error.to_string(), "receipt: a figure is not finite");
}

#[test]
fn text_that_is_no_receipt_is_refused() {
    for text in ["", "{}", "[]", r#"{"findings": {"format": 1}}"#, r#"{"findings": {"format": -1}}"#] {
        assert!(Receipt::from_json(text).is_err(), "{text}");
    }
    for text in ["", "8", "x", "8x", "ax3", "8x-1", "8x1x2"] {
        assert!(text.parse::<Shape>().is_err(), "{text}");
    }
}

#[test]
fn few_examples_are_worth_a_warning() {
    let [few, enough] = [sample::over(), sample::met()].map(|receipt| receipt.findings.dataset.unwrap().warning());
    assert_eq!(few.unwrap(), "the verdict rests on 400 examples; with fewer than 500 the interval is wide");
    assert_eq!(enough, None);
}

#[test]
fn a_search_becomes_points() {
    let layers = [0.1, 1.0, 0.1].map(|damage| Layer::new(Rung::Int8Chained, 1.0, damage));
    let evaluate = |assignment: &[Rung]| {
        let drop = assignment.iter().zip(&layers).map(|(&rung, layer)| layer.damages[rung as usize]).sum();
        Ok::<_, String>(Evaluation { drop, error: drop / 10.0 })
    };
    let points = SearchPoint::all(&search(&layers, &Limits::new(0.5), evaluate).unwrap());
    assert_eq!(points[0].rungs, [0, 3, 0, 0, 0]);
    assert_eq!(
        points.iter().filter(|point| point.chosen).map(|point| point.rungs).collect::<Vec<_>>(),
        [[0, 2, 0, 1, 0]]
    );
    let refused = SearchPoint::all(&search(&layers, &Limits::new(-1.0), evaluate).unwrap());
    assert!(refused.iter().all(|point| !point.chosen));
}

/// Any figure, the ones that break arithmetic included.
fn figures() -> impl Strategy<Value = f64> {
    prop_oneof![-1e3..1e3f64, prop::num::f64::ANY, Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a receipt holds, its faces can be made: pages are well-formed, lines of text fit.
    #[test]
    fn no_receipt_breaks_its_faces(
        name in ".*", figure in prop::collection::vec(figures(), 10), place in 0usize..20, width in 0usize..160
    ) {
        let mut receipt = if place % 2 == 0 { sample::met() } else { sample::over() };
        let findings = &mut receipt.findings;
        findings.model.id = name.clone();
        findings.precision.chosen = name.clone();
        findings.layers[place].name = name.clone();
        findings.layers[place].sqnr_db = Some(figure[0]);
        findings.layers[place].cosine = figure[1];
        findings.max_drop = Some(figure[2]);
        let point = place % findings.search.len();
        (findings.search[point].cost, findings.search[point].drop) = (figure[3], figure[4]);
        if let Some(accuracy) = &mut findings.accuracy {
            accuracy.metric = name.clone();
            accuracy.paired = Paired { difference: figure[5], low: figure[6], high: figure[7] };
        }
        let timing = place % receipt.measured.timings.len();
        receipt.measured.timings[timing].median_ms = figure[8];
        receipt.measured.timings[timing].tokens_per_second = figure[9];
        check_page(&receipt.to_html());
        for line in receipt.table(width).lines() {
            prop_assert!(line.width() <= width.max(40), "{line}");
        }
        if let Ok(json) = receipt.to_json() {
            prop_assert_eq!(Receipt::from_json(&json).unwrap(), receipt);
        }
    }
}
