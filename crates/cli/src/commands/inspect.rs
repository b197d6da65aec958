//! `centuple inspect`

use std::io::{self, Write};
use std::process::ExitCode;

use centuple::tasks::{Engine, Head};
use centuple::{Compiled, Host, Loaded};

use super::{compile, unless_closed};
use crate::args::Inspect;

/// Shows what a model is, what it became and what it needs.
pub(crate) fn inspect(command: &Inspect) -> anyhow::Result<ExitCode> {
    let host = command.machine.host()?;
    let compiled = compile(&host, &command.model, &command.machine.load_options())?;
    let loaded = host.start(&compiled)?;
    let mut out = io::stdout().lock();
    let written = summary(&mut out, &host, &loaded, &compiled)
        .and_then(|()| if command.explain { explain(&mut out, &compiled) } else { Ok(()) });
    unless_closed(written)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(out: &mut impl Write, host: &Host, loaded: &Loaded, compiled: &Compiled) -> io::Result<()> {
    let card = &loaded.model.card;
    let (description, limits, memory) = (&compiled.description, loaded.engine.limits(), loaded.engine.memory());
    writeln!(out, "model         {}", card.id)?;
    writeln!(out, "architecture  {}", card.architecture)?;
    writeln!(out, "tasks         {}", card.offers())?;
    writeln!(out, "output        {}", describe(&card.head))?;
    writeln!(out, "layers        {}, {} wide", description.layers, description.width)?;
    writeln!(out, "vocabulary    {} tokens", description.vocabulary)?;
    writeln!(
        out,
        "longest text  {} tokens (the model takes {})",
        loaded.model.tokenizer.max_tokens(),
        limits.max_tokens_per_sequence
    )?;
    writeln!(out, "precision     {}", card.dtype)?;
    let (plan, gpus) = (&compiled.plan, loaded.engine.gpus());
    if gpus.is_empty() {
        writeln!(out, "plan          {} stages in {} phases, {}", plan.stages(), plan.phases(), plan.isa())?;
        writeln!(out, "threads       {}", host.threads())?;
    }
    for gpu in gpus {
        writeln!(out, "GPU {:<9} {}", gpu.number, gpu.name)?;
    }
    writeln!(out, "weights       {}", mebibytes(memory.weights))?;
    let batch = limits.max_tokens_per_batch;
    let peak = memory.arena + memory.workers;
    writeln!(out, "activations   at most {}, for batches of {batch} tokens", mebibytes(peak))
}

fn describe(head: &Head) -> String {
    match head {
        Head::TokenFeatures { dimension } => format!("{dimension} features per token"),
        Head::SentenceEmbedding(embedding) => {
            let normalised = if embedding.normalised { ", normalised" } else { "" };
            format!("embedding of {} numbers, {} pooling{normalised}", embedding.dimension, embedding.pooling)
        }
        Head::Classification { labels, problem } => format!("{problem:?}: {}", labels.join(", ")),
        Head::TokenClassification { labels } => format!("a label per token: {}", labels.join(", ")),
        Head::QuestionAnswering => "start and end of an answer".to_owned(),
        Head::MaskedLm { vocabulary } => format!("masked tokens out of {vocabulary}"),
        Head::CausalLm { vocabulary } | Head::Seq2SeqLm { vocabulary } => format!("the next token out of {vocabulary}"),
        Head::SparseEmbedding { vocabulary } => format!("sparse embedding, weights of {vocabulary} tokens"),
        Head::LateInteraction { dimension } => format!("late interaction, {dimension} numbers per token"),
    }
}

fn explain(out: &mut impl Write, compiled: &Compiled) -> io::Result<()> {
    if !compiled.notes.is_empty() {
        writeln!(out, "\nimported\n")?;
        compiled.notes.iter().try_for_each(|note| writeln!(out, "{note}"))?;
    }
    if let Some(plain) = &compiled.plain {
        writeln!(out, "\nplain graph\n\n{plain}")?;
        writeln!(out, "passes\n")?;
    }
    for report in &compiled.passes {
        writeln!(out, "{:22} changed {}", report.pass, report.applied)?;
        for refusal in &report.refused {
            writeln!(out, "{:22} left `{}` alone: {}", "", refusal.node, refusal.reason)?;
        }
    }
    writeln!(out, "\ncompiled graph\n\n{}", compiled.graph)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
