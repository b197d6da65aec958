//! `centuple inspect`: what a model is, and what it became.

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

#[test]
fn a_model_is_explained() {
    let model = Tiny::new("bert-tiny");
    let finished =
        finish(centuple("inspect").arg(model.path()).args(["--explain", "--isa", "portable", "--threads", "2"]), b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    // Sizes of memory and plan follow the kernels' blocking; the graphs are what this is about.
    let varies = ["plan ", "weights ", "activations "];
    let steady = finished.text().lines().filter(|line| !varies.iter().any(|start| line.starts_with(start)));
    insta::assert_snapshot!(steady.collect::<Vec<_>>().join("\n"));
    for start in varies {
        assert!(finished.text().lines().any(|line| line.starts_with(start)), "{start}is not shown");
    }
}

#[test]
fn every_kind_of_model_is_summed_up() {
    let mut shown = String::new();
    for name in
        ["bert-tiny-bf16-sharded", "classify", "regression", "sentence-all", "sentence-dense", "sentence-prompt"]
    {
        let model = Tiny::new(name);
        let finished = finish(centuple("inspect").arg(model.path()), b"");
        assert_eq!(finished.code, Some(0));
        let parts = ["model ", "architecture ", "tasks ", "output ", "longest text "];
        let told = finished.text().lines().filter(|line| parts.iter().any(|part| line.starts_with(part)));
        shown.extend(told.flat_map(|line| [line, "\n"]));
    }
    insta::assert_snapshot!(shown);
}
