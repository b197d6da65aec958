//! The `centuple` command: a table of contents.

mod args;
mod commands;
mod lines;
mod settings;

use std::process::ExitCode;

use args::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = settings::arguments();
    let outcome = match &arguments.command {
        Command::Serve(command) => commands::serve(command),
        Command::Run(command) => commands::run(command),
        Command::Chat(command) => commands::chat(command),
        Command::Dedupe(command) => commands::dedupe(command),
        Command::Optimize(command) => commands::optimize(command),
        Command::Eval(command) => commands::eval(command),
        Command::Export(command) => commands::export(command),
        Command::Bench(command) => commands::bench(command),
        Command::Inspect(command) => commands::inspect(command),
        Command::Pull(command) => commands::pull(command),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line, leaving out a cause that the message before it has already told.
fn explain(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("cannot read `a`: no such file").context("shape 1x1");
        assert_eq!(super::explain(&error), "shape 1x1: cannot read `a`: no such file");
    }
}
