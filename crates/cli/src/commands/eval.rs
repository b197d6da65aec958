//! `centuple eval`

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use centuple::evaluate::{Evaluated, EvaluatedPrecision};
use centuple::optimize::OptimizeError;
use centuple::receipt::metrics::Metric;
use centuple::{Device, Precision};
use serde_json::{Value, json};

use super::progress::{Bars, INTERRUPTED, listen_for_signals};
use super::unless_closed;
use crate::args::Eval;

/// Prints what each precision of a model is worth on examples.
pub(crate) fn eval(command: &Eval) -> anyhow::Result<ExitCode> {
    listen_for_signals()?;
    let host = command.machine.host()?;
    let bars = Bars::default();
    let evaluated = host.evaluate(&command.model, &command.options(), &bars);
    bars.end();
    let evaluated = match evaluated {
        Err(OptimizeError::Cancelled) => {
            eprintln!("{}", OptimizeError::Cancelled);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        other => other?,
    };
    let text = if command.json { format!("{}\n", to_json(&evaluated)) } else { table(&evaluated) };
    unless_closed(io::stdout().lock().write_all(text.as_bytes()))?;
    if let Some(most) = command.max_drop {
        check(&evaluated, most)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails where a precision but f32 loses more points than so many, or where nobody knows.
fn check(evaluated: &Evaluated, most: f64) -> anyhow::Result<()> {
    let judged: Vec<_> = evaluated.precisions.iter().filter(|one| one.precision != Precision::F32).collect();
    anyhow::ensure!(!judged.is_empty(), "--max-drop has nothing to compare with f32; name another --precision, too");
    for one in judged {
        let drop = one.drop(evaluated.metric);
        let drop = drop.context("--max-drop compares with f32, which has to come first in --precision")?;
        // Not a number is no proof.
        anyhow::ensure!(drop <= most, "{} loses {drop:.4} points of {}, more than {most}", name(one), evaluated.metric);
    }
    Ok(())
}

/// As `--precision` takes it, with the device where that isn't the CPU.
fn name(one: &EvaluatedPrecision) -> String {
    let precision = precision(one);
    match one.device {
        Device::Cpu => precision,
        Device::Cuda(_) => format!("{precision} {}", one.device),
    }
}

/// As `--precision` takes it.
fn precision(one: &EvaluatedPrecision) -> String {
    match one.group {
        Some(group) => format!("{}:{group}", one.precision),
        None => one.precision.to_string(),
    }
}

fn table(evaluated: &Evaluated) -> String {
    let Evaluated { metric, examples, precisions } = evaluated;
    let points = |value: f64| metric.points(value);
    let unit = if metric.unit() == 100.0 { " x100" } else { "" };
    let mut text = format!("{metric}{unit} on {examples} examples, with 95 % intervals\n");
    for one in precisions {
        let [value, low, high] = [one.value.value, one.value.low, one.value.high].map(points);
        let row = format!("{:<9} {value:>10.4}  {low:.2} to {high:.2}", name(one));
        text += &format!("{row:<40} {:>9.1} MB", one.weights as f64 / 1e6);
        if let Some(paired) = &one.difference {
            let [difference, low, high] = [paired.difference, paired.low, paired.high].map(points);
            text += &format!("   {difference:+.4} ({low:+.4} to {high:+.4})");
            if *metric == Metric::Perplexity {
                text += &format!(", {:+.2} %", 100.0 * difference / (value - difference));
            }
        }
        text.push('\n');
    }
    text
}

fn to_json(evaluated: &Evaluated) -> Value {
    let Evaluated { metric, examples, precisions } = evaluated;
    let of = |one: &EvaluatedPrecision| {
        json!({
            "precision": precision(one),
            "device": one.device.to_string(),
            "value": one.value,
            "difference": one.difference,
            "weight_bytes": one.weights,
        })
    };
    json!({ "metric": metric, "examples": examples, "precisions": precisions.iter().map(of).collect::<Vec<_>>() })
}
