//! How the figures came about.

use super::super::figures::grouped;
use super::super::{FORMAT, Receipt};
use super::card as section;
use super::markup::{Element, element};

pub(super) fn card(receipt: &Receipt) -> Element {
    let Receipt { findings, measured } = receipt;
    let mut list = Facts(Vec::new());
    list.add("Model", &findings.model.id).hash(&findings.model.sha256);
    if let Some(dataset) = &findings.dataset {
        list.add("Examples", &findings.dataset_words().unwrap_or_default()).hash(&dataset.sha256);
    } else {
        list.add("Examples", "none were given");
    }
    if findings.accuracy.is_some() {
        let resamples = grouped(findings.resamples as f64);
        list.add("Interval", &format!("paired bootstrap, {resamples} resamples, seed {}", findings.seed));
    }
    let tried = match findings.search.len() {
        0 => "none was made".to_owned(),
        1 => "one choice of precisions was tried".to_owned(),
        count => format!("{count} choices of precisions were tried"),
    };
    list.add("Search", &tried);
    if let Some(machine) = &measured.machine {
        list.add("Machine", &format!("{}, {} cores, {}", machine.processor, machine.cores, machine.system));
    }
    let missing = [("latency", measured.pairs().is_empty()), ("memory", measured.sizes.rows().is_empty())];
    let missing: Vec<&str> = missing.into_iter().filter_map(|(name, missing)| missing.then_some(name)).collect();
    if !missing.is_empty() {
        list.add("Not measured", &missing.join(", "));
    }
    list.add("Centuple", &format!("{}, receipt of format {FORMAT}", findings.version));
    section("method", "How this was measured").child(element("dl").children(list.0))
}

/// Terms and their descriptions.
struct Facts(Vec<Element>);

impl Facts {
    fn add(&mut self, term: &str, description: &str) -> &mut Facts {
        self.0.push(element("dt").text(term));
        self.0.push(element("dd").text(description));
        self
    }

    fn hash(&mut self, sha256: &str) {
        self.0.push(element("dd").class("hash").text(format!("sha256 {sha256}")));
    }
}
