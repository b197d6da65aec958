//! The `centuple` command: a table of contents.

mod args;
mod commands;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Serve(command) => commands::serve(command),
        Command::Run(command) => commands::run(command),
        Command::Bench(command) => commands::bench(command),
        Command::Inspect(command) => commands::inspect(command),
        Command::Pull(command) => commands::pull(command),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
