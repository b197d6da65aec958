//! Receipts to look at and to test with. All figures are made up.

use centuple_receipt::Rung;
use centuple_receipt::report::{
    Accuracy, Dataset, Estimate, FORMAT, Findings, Layer, Machine, Measured, Paired, Precision, Receipt, SearchPoint,
    Shape, Size, Sizes, Source, Timing, Variant, Verdict,
};

/// Every sample with its name.
pub(crate) fn all() -> Vec<(&'static str, Receipt)> {
    vec![("met", met()), ("over", over()), ("unlabelled", unlabelled()), ("large", large()), ("hostile", hostile())]
}

/// A small model within its budget: 24 layers, everything measured.
pub(crate) fn met() -> Receipt {
    let names = ["attention.self.qkv", "attention.output.dense", "intermediate.dense", "output.dense"];
    let mut layers = layers("encoder.layer.", 6, &names, Rung::Int8Chained);
    promote(&mut layers[19], Rung::W8A12);
    promote(&mut layers[6], Rung::Int8);
    promote(&mut layers[10], Rung::Int8);
    let search = [
        ([0, 18, 6, 0, 0], 0.266, 0.93, 2.1e-3, false),
        ([0, 0, 0, 0, 24], 1.0, 0.0, 0.0, false),
        ([0, 0, 21, 3, 0], 0.352, 0.18, 7.2e-4, false),
        ([0, 10, 13, 1, 0], 0.309, 0.27, 9.9e-4, false),
        ([0, 14, 9, 1, 0], 0.291, 0.33, 1.2e-3, false),
        ([0, 17, 7, 0, 0], 0.272, 0.71, 1.8e-3, false),
        ([0, 16, 7, 1, 0], 0.281, 0.31, 1.2e-3, true),
        ([0, 16, 8, 0, 0], 0.274, 0.58, 1.6e-3, false),
        ([0, 17, 6, 1, 0], 0.278, 0.44, 1.3e-3, false),
    ];
    let shapes = [
        (1, 16, 0.98, 0.36),
        (1, 64, 3.01, 1.18),
        (1, 128, 5.84, 2.26),
        (1, 256, 12.41, 4.95),
        (8, 128, 47.51, 18.05),
        (32, 64, 91.14, 33.94),
    ];
    Receipt {
        findings: Findings {
            format: FORMAT,
            version: "0.1.0".to_owned(),
            model: source("sentence-transformers/all-MiniLM-L6-v2"),
            task: "sentence-similarity".to_owned(),
            precision: Precision { asked: "int8".to_owned(), chosen: "int8".to_owned() },
            seed: 17,
            resamples: 10_000,
            dataset: Some(dataset("stsb-test.tsv", 500, 879, true)),
            accuracy: Some(Accuracy {
                metric: "Spearman x100".to_owned(),
                baseline: Estimate { value: 82.047, low: 80.101, high: 83.822 },
                optimised: Estimate { value: 81.983, low: 80.022, high: 83.761 },
                paired: Paired { difference: -0.064, low: -0.187, high: 0.058 },
            }),
            max_drop: Some(0.4),
            verdict: Verdict::Met,
            warnings: Vec::new(),
            layers,
            search: search.into_iter().map(point).collect(),
        },
        measured: Measured {
            timings: timings(&shapes, 2, "avx512vnni"),
            sizes: Sizes {
                file: size(90_868_376, 23_402_112),
                weights: size(90_261_504, 23_126_016),
                resident: size(143_654_912, 71_303_168),
            },
            machine: Some(Machine { processor: "AMD EPYC 9B45".to_owned(), cores: 2, system: "Linux 6.1".to_owned() }),
        },
    }
}

/// A model of 72 layers that no assignment keeps within its budget, judged by few examples.
pub(crate) fn over() -> Receipt {
    let mut receipt = met();
    let names = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp.up", "mlp.down"];
    let findings = &mut receipt.findings;
    findings.model = source("example/classifier-base");
    findings.task = "text-classification".to_owned();
    findings.precision.asked = "auto".to_owned();
    findings.layers = layers("model.layers.", 12, &names, Rung::Int8);
    for layer in &mut findings.layers[50..58] {
        promote(layer, Rung::Float);
    }
    findings.layers.push(Layer { name: "classifier".to_owned(), ..findings.layers[0].clone() });
    findings.accuracy = Some(Accuracy {
        metric: "accuracy, %".to_owned(),
        baseline: Estimate { value: 91.25, low: 88.43, high: 93.71 },
        optimised: Estimate { value: 89.5, low: 86.44, high: 92.31 },
        paired: Paired { difference: -1.75, low: -3.21, high: -0.41 },
    });
    findings.max_drop = Some(0.25);
    findings.verdict = Verdict::Over;
    let dataset = dataset("reviews.jsonl", 200, 400, true);
    findings.warnings = dataset.warning().into_iter().collect();
    findings.warnings.push("the labels `neutral` and `mixed` have fewer than 20 examples each".to_owned());
    findings.dataset = Some(dataset);
    let points = [(72, 0.33, 38.0), (54, 0.5, 2.5), (36, 0.67, 1.5), (18, 0.83, 1.0), (0, 1.0, 0.5)];
    let points = points.map(|(int8, cost, drop)| ([0, 0, int8, 0, 73 - int8], cost, drop, drop / 900.0, false));
    findings.search = points.into_iter().map(point).collect();
    receipt.measured.sizes = Sizes { weights: size(438_000_000, 161_000_000), ..Sizes::default() };
    receipt
}

/// A model without labels, timings, sizes and search.
pub(crate) fn unlabelled() -> Receipt {
    let mut receipt = met();
    receipt.measured = Measured::default();
    let findings = &mut receipt.findings;
    (findings.verdict, findings.accuracy, findings.max_drop) = (Verdict::Unlabelled, None, None);
    findings.search.clear();
    findings.dataset = Some(dataset("queries.txt", 0, 300, false));
    findings.layers.truncate(4);
    findings.layers.iter_mut().for_each(|layer| layer.name = layer.name.replace("encoder.layer.0.", ""));
    receipt
}

/// 144 layers with long names, twelve batches on two numbers of threads, a search of 40 points.
pub(crate) fn large() -> Receipt {
    let mut receipt = met();
    let names = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    let names = [&names[..], &["intermediate.intermediate_dense_with_activation", "output.dense"]].concat();
    let findings = &mut receipt.findings;
    findings.model =
        source("an-organisation-with-a-long-name/a-model-with-a-very-long-name-large-uncased-finetuned-v1.5");
    findings.layers = layers("transformer.text_model.encoder_with_adapters.layer.", 24, &names, Rung::Int8Chained);
    for place in (3..144).step_by(9) {
        promote(&mut findings.layers[place], Rung::ALL[2 + place / 9 % 3]);
    }
    findings.search = (0..40)
        .map(|place| {
            let share = f64::from(place) / 39.0;
            let cost = 0.27 + 0.73 * share * share;
            let drop = 1.4 * (1.0 - share).powi(3) + 0.05 * f64::from(place * 7 % 5);
            point(([0, 144 - place as usize * 3, place as usize * 3, 0, 0], cost, drop, drop / 400.0, place == 15))
        })
        .collect();
    let lengths = [16, 32, 64, 128, 256, 512];
    let shapes: Vec<_> = [1, 8]
        .into_iter()
        .flat_map(|batch| {
            lengths.map(|tokens| (batch, tokens, (batch * tokens) as f64 * 0.31, (batch * tokens) as f64 * 0.11))
        })
        .collect();
    receipt.measured.timings = timings(&shapes, 2, "avx512vnni");
    receipt.measured.timings.extend(timings(&shapes[..1], 1, "avx2"));
    receipt
}

/// Names that try to be markup, terminal commands or another line.
pub(crate) fn hostile() -> Receipt {
    let mut receipt = over();
    let markup = "</title></style><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;";
    let evil = &format!("{markup}\u{1b}[2J\u{0}\u{202e}\u{ffff}\n");
    let findings = &mut receipt.findings;
    for text in [
        &mut findings.model.id,
        &mut findings.model.sha256,
        &mut findings.task,
        &mut findings.version,
        &mut findings.precision.asked,
        &mut findings.precision.chosen,
        &mut findings.warnings[0],
    ] {
        *text = evil.to_owned();
    }
    for place in [0, 40] {
        findings.layers[place].name = evil.to_owned();
    }
    if let Some(dataset) = &mut findings.dataset {
        (dataset.name, dataset.sha256) = (evil.to_owned(), evil.to_owned());
    }
    if let Some(accuracy) = &mut findings.accuracy {
        accuracy.metric = evil.to_owned();
    }
    if let Some(machine) = &mut receipt.measured.machine {
        (machine.processor, machine.system) = (evil.to_owned(), evil.to_owned());
    }
    receipt.measured.timings.iter_mut().for_each(|timing| timing.isa = evil.to_owned());
    receipt
}

fn source(id: &str) -> Source {
    Source { id: id.to_owned(), sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db".to_owned() }
}

fn dataset(name: &str, search_examples: usize, verdict_examples: usize, labelled: bool) -> Dataset {
    let sha256 = "9a2f0b6f6e1c0f3f4f4d7a0b1b8a3f2c5a1e6d7c8b9a0f1e2d3c4b5a69788796".to_owned();
    Dataset { name: name.to_owned(), sha256, search_examples, verdict_examples, labelled }
}

/// Layers whose errors vary from one to the next and grow through the model.
fn layers(prefix: &str, blocks: usize, names: &[&str], start: Rung) -> Vec<Layer> {
    let count = blocks * names.len();
    (0..count)
        .map(|place| {
            let last = place % names.len() == names.len() - 1;
            let wave = (place as f64 * 1.7).sin() * 2.5 - 4.0 * place as f64 / count as f64;
            let rung = if last { Rung::Int8 } else { start };
            let sqnr = 28.0 + wave + 6.0 * f64::from(rung as u8);
            let noise = 10f64.powf(-sqnr / 10.0);
            Layer {
                name: format!("{prefix}{}.{}", place / names.len(), names[place % names.len()]),
                shape: if last { [384, 1536] } else { [1536, 384] },
                rung,
                sqnr_db: Some(sqnr),
                cosine: 1.0 - noise / 2.0,
                damage: noise / 7.0,
                promoted_from: None,
            }
        })
        .collect()
}

fn promote(layer: &mut Layer, rung: Rung) {
    if rung > layer.rung {
        layer.promoted_from = Some(layer.rung);
        layer.sqnr_db = (rung < Rung::Float).then(|| layer.sqnr_db.unwrap_or(30.0) + 4.0 * f64::from(rung as u8 - 1));
        layer.rung = rung;
    }
}

fn point((rungs, cost, drop, error, chosen): ([usize; 5], f64, f64, f64, bool)) -> SearchPoint {
    SearchPoint { rungs, cost, drop, error, chosen }
}

fn size(f32: u64, optimised: u64) -> Option<Size> {
    Some(Size { f32, optimised })
}

fn timings(shapes: &[(usize, usize, f64, f64)], threads: usize, isa: &str) -> Vec<Timing> {
    let timing = |shape: Shape, variant, median_ms: f64| Timing {
        shape,
        variant,
        median_ms,
        tokens_per_second: (shape.sequences * shape.tokens) as f64 / median_ms * 1e3,
        threads,
        isa: isa.to_owned(),
    };
    let both = |&(sequences, tokens, float, optimised): &(usize, usize, f64, f64)| {
        let shape = Shape { sequences, tokens };
        [timing(shape, Variant::F32, float), timing(shape, Variant::Optimised, optimised)]
    };
    shapes.iter().flat_map(both).collect()
}
