//! `centuple bench`: one row per shape.

use serde_json::Value;

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

#[test]
fn bench_prints_an_object_per_shape() {
    let model = Tiny::new("bert-tiny");
    let flags = ["--shapes", "1x16,3x64", "--repeat", "3", "--json", "--threads", "2", "--isa", "portable"];
    let finished = finish(centuple("bench").arg(model.path()).args(flags), b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let rows: Vec<Value> = finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2);
    for (row, shape) in rows.iter().zip(["1x16", "3x64"]) {
        let said = |name: &str| row[name].as_str().map(str::to_owned);
        assert_eq!(said("shape").as_deref(), Some(shape));
        assert_eq!(said("precision").as_deref(), Some("f32"));
        assert_eq!(said("isa").as_deref(), Some("portable"));
        assert_eq!((row["threads"].as_u64(), row["repeat"].as_u64()), (Some(2), Some(3)));
        let times = ["min_ms", "median_ms", "p99_ms"].map(|name| row[name].as_f64().expect("a number"));
        assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
    }
}

#[test]
fn bench_refuses_what_the_model_cannot_take() {
    let model = Tiny::new("bert-tiny");
    let finished = finish(centuple("bench").arg(model.path()).args(["--shapes", "1x65", "--json"]), b"");
    assert!(finished.failure(1).contains("at most 64"));
}
