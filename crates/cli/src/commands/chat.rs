//! `centuple chat`: a conversation in the terminal, or with lines from a pipe.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context;
use centuple::tasks::text_generation::{self, Answer, FinishReason, Request, TextGenerator};
use centuple::tasks::{OneOrMany, TaskError};
use serde_json::{Map, Value, json};

use crate::args::Chat;
use crate::lines::read_line;

/// Whose requests all turns are, so that what was said before is computed once.
const CLIENT: u64 = 0;
/// New tokens where there is no template, and so mostly no end.
const TOKENS_WITHOUT_END: usize = 128;

const HELP: &str =
    "/reset forgets what was said, /system TEXT begins anew with a system message, /exit ends; Ctrl-C stops an answer.";

/// Talks.
pub(crate) fn chat(command: &Chat) -> anyhow::Result<ExitCode> {
    let host = command.machine.host()?;
    let options = command.generation.options();
    let loaded = super::load_generating(&host, &command.model, &command.machine.load_options(), &options)?;
    let generator = loaded.start().context("cannot start a thread")?;
    let mut talk = Talk::new(command, &generator)?;
    let turn = Arc::new(Turn::default());
    turn.listen()?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if terminal {
        eprintln!("{} is ready. {HELP}", generator.model.card.id);
    }
    let mut input = io::stdin().lock();
    let mut failed = false;
    loop {
        match next(&mut input, terminal)? {
            None => break,
            Some(line) if line.trim().is_empty() => {}
            Some(line) => match talk.take(line.trim_end_matches(['\r', '\n']), &turn) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if is_closed(&error) => return Ok(ExitCode::FAILURE),
                Err(error) => {
                    failed = true;
                    eprintln!("error: {}", crate::explain(&error));
                }
            },
        }
    }
    // A mistake of somebody who types was seen and mended.
    Ok(if failed && !terminal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The next line; none at the end.
fn next(input: &mut impl BufRead, terminal: bool) -> anyhow::Result<Option<String>> {
    if terminal {
        let mut out = io::stdout();
        out.write_all(b"> ").and_then(|()| out.flush()).context("cannot write to standard output")?;
    }
    let line = read_line(input).context("cannot read standard input")?;
    if terminal && line.is_none() {
        println!();
    }
    let line = line.transpose().map_err(anyhow::Error::msg)?;
    line.map(|line| String::from_utf8(line).context("standard input is not UTF-8")).transpose()
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether an answer is being given.
#[derive(Default)]
struct Turn(AtomicU8);

impl Turn {
    const WAITS: u8 = 0;
    const ANSWERS: u8 = 1;
    const STOPS: u8 = 2;

    /// From now on Ctrl-C stops an answer, and where there is none the process.
    fn listen(self: &Arc<Self>) -> anyhow::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let turn = Arc::clone(self);
        let work = move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    let state = (Self::ANSWERS, Self::STOPS);
                    if turn.0.compare_exchange(state.0, state.1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                        println!();
                        // What a shell expects of whom SIGINT ends.
                        std::process::exit(130);
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(())
    }

    fn begin(&self) {
        self.0.store(Self::ANSWERS, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::ANSWERS
    }

    fn end(&self) {
        self.0.store(Self::WAITS, Ordering::SeqCst);
    }
}

/// What was said, and how it goes on.
struct Talk<'a> {
    generator: &'a TextGenerator,
    parameters: Map<String, Value>,
    /// The system message.
    system: Option<String>,
    said: Said,
}

enum Said {
    /// What the model's template writes.
    Messages(text_generation::Chat),
    /// A text that simply goes on.
    Text(String),
}

impl<'a> Talk<'a> {
    fn new(command: &Chat, generator: &'a TextGenerator) -> anyhow::Result<Talk<'a>> {
        let templates = generator.model.tokenizer.chat_templates();
        anyhow::ensure!(
            command.no_template || !templates.is_empty(),
            "model `{}` has no chat template, so it was hardly trained to talk; with --no-template it goes on with your text",
            generator.model.card.id
        );
        let said = if command.no_template {
            Said::Text(String::new())
        } else {
            Said::Messages(text_generation::Chat::default())
        };
        let mut parameters = command.sampling.parameters();
        let most = command.max_new_tokens.or(command.no_template.then_some(TOKENS_WITHOUT_END));
        parameters.insert("max_new_tokens".to_owned(), json!(most));
        parameters.insert("max_length".to_owned(), json!(most.is_none().then(|| generator.longest(1))));
        let mut talk = Talk { generator, parameters, system: command.system.clone(), said };
        talk.reset();
        Ok(talk)
    }

    /// Forgets all but the system message.
    fn reset(&mut self) {
        match &mut self.said {
            Said::Messages(chat) => {
                *chat = text_generation::Chat::default();
                self.system.iter().for_each(|system| chat.say("system", system));
            }
            Said::Text(text) => *text = self.system.clone().unwrap_or_default(),
        }
    }

    /// Takes a line; false at the end.
    fn take(&mut self, line: &str, turn: &Turn) -> anyhow::Result<bool> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "/exit" | "/quit" | "/bye" => return Ok(false),
            "/help" | "/?" => eprintln!("{HELP}"),
            "/reset" => self.reset(),
            "/system" => {
                self.system = Some(rest.trim().to_owned()).filter(|system| !system.is_empty());
                self.reset();
            }
            command if command.starts_with('/') && command.trim_start_matches('/').chars().all(char::is_alphabetic) => {
                anyhow::bail!("there is no command {command}; {HELP}");
            }
            _ => self.answer(line, turn)?,
        }
        Ok(true)
    }

    /// Answers what somebody said, word by word.
    fn answer(&mut self, line: &str, turn: &Turn) -> anyhow::Result<()> {
        let before = match &mut self.said {
            Said::Messages(chat) => {
                chat.say("user", line);
                None
            }
            Said::Text(text) => {
                let before = text.clone();
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(line);
                Some(before)
            }
        };
        turn.begin();
        let told = self.generate(|fresh| {
            tell(fresh)?;
            Ok(turn.goes_on())
        });
        turn.end();
        let ended = told.and_then(|answer| {
            tell("\n")?;
            Ok(answer)
        });
        match (ended, &mut self.said) {
            (Ok(answer), said) => {
                match said {
                    Said::Messages(chat) => chat.say("assistant", &answer.text),
                    Said::Text(text) => text.push_str(&answer.text),
                }
                if answer.finish == Some(FinishReason::Length)
                    && self.parameters.get("max_new_tokens").is_none_or(Value::is_null)
                {
                    eprintln!("(there is no room for more; /reset makes some)");
                }
                Ok(())
            }
            (Err(error), Said::Messages(chat)) => {
                chat.pop();
                Err(error)
            }
            (Err(error), Said::Text(text)) => {
                *text = before.unwrap_or_default();
                Err(error)
            }
        }
    }

    /// Has the model go on with what was said.
    fn generate(&self, mut tell: impl FnMut(&str) -> io::Result<bool>) -> anyhow::Result<Answer> {
        let (text, verbatim) = match &self.said {
            Said::Messages(chat) => (chat.write(&self.generator.model)?, true),
            Said::Text(text) => (text.clone(), false),
        };
        let parameters = text_generation::Parameters::from_map(self.parameters.clone());
        let parameters = parameters.map_err(|error| TaskError::from(centuple::generation::Refusal::from(error)))?;
        let request = Request { inputs: OneOrMany::one(text), verbatim, parameters, stream: true };
        let prepared = self.generator.prepare(request, false, Some(CLIENT))?;
        let running = self.generator.submit(prepared)?;
        let mut written = Ok(());
        let answer = running.tell(|fresh| match tell(fresh) {
            Ok(goes_on) => goes_on,
            Err(error) => {
                written = Err(error);
                false
            }
        })?;
        written?;
        Ok(answer)
    }
}

/// Writes at once.
fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
