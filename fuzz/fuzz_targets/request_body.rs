//! A request body is refused with words, or it makes a job whose reply is JSON.

#![no_main]

use centuple_fuzz::models;
use centuple_serve::EmbeddingsRequest;
use centuple_tasks::{Job, Model, Output, Request, Sequence, Task, TaskError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(&EmbeddingsRequest::parse(data).map(|_| ()));
    for model in models() {
        let parsed = Task::ALL.map(|task| Request::parse(task, data));
        for request in parsed.into_iter().chain([Request::parse_for(model, data)]) {
            check(&request.and_then(|request| answer(model, request)));
        }
    }
});

/// Answers a request with numbers out of the air.
fn answer(model: &Model, request: Request) -> Result<(), TaskError> {
    let job = Job::prepare(model, request)?;
    job.sequences.iter().for_each(|sequence| model.limits.check(sequence).expect("a job fits the model"));
    let head = &model.card.head;
    let output = |sequence: &Sequence| {
        let (rows, columns) = (head.rows(sequence), head.columns());
        // Labels, starts and ends that change from token to token.
        let data = (0..rows * columns).map(|value| (value * 7 % 11) as f32 - 5.0).collect();
        Output { rows, columns, data }
    };
    let outputs = job.sequences.iter().map(output).collect();
    let reply = job.finish.reply(model, outputs)?;
    serde_json::from_slice::<serde_json::Value>(&reply.to_json()).expect("a reply is JSON");
    Ok(())
}

/// An error must say something, and say it in one piece.
fn check(outcome: &Result<(), TaskError>) {
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
        let _ = (error.category(), error.field());
    }
}
