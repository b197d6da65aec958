//! The flags of `serve` from four places, each before the next: the command line, the environment, a file, defaults.
//!
//! What the environment and the file say becomes arguments of the command line for the flags that are not given there.
//! So clap reads and checks all of them alike.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, Error, FromArgMatches};

use crate::args::Arguments;

/// Flags that are about the file itself.
const OWN: [&str; 2] = ["config", "print_config"];
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment(String),
    File { path: PathBuf, key: String },
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::CommandLine => f.write_str("the command line"),
            Source::Environment(name) => write!(f, "{name} in the environment"),
            Source::File { path, key } => write!(f, "`{key}` in {}", path.display()),
            Source::Default => f.write_str("the default"),
        }
    }
}

/// The arguments of this process. Ends it where they are wrong, or where only help or the settings were asked for.
pub(crate) fn arguments() -> Arguments {
    match read(std::env::args_os().collect(), |name| std::env::var_os(name)) {
        Ok((arguments, None)) => arguments,
        Ok((_, Some(settings))) => {
            // That nobody reads any more is no failure.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), settings.as_bytes());
            std::process::exit(0)
        }
        Err(error) => error.exit(),
    }
}

/// What arguments and environment say, and the settings as text if that was asked for.
fn read(
    mut arguments: Vec<OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<(Arguments, Option<String>), Error> {
    let mut command = Arguments::command();
    command.build();
    let Some(serve) = command.find_subcommand("serve").filter(|_| arguments.get(1).is_some_and(|name| name == "serve"))
    else {
        let matches = command.try_get_matches_from(arguments)?;
        return Ok((Arguments::from_arg_matches(&matches)?, None));
    };
    let serve = serve.clone();
    let given = given(&command, &arguments)?;
    let path = given.get_one::<PathBuf>("config").cloned();
    let path = path.or_else(|| environment("CENTUPLE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let mut file = match path {
        Some(path) => Some(File::read(&path, &command, &serve)?),
        None => None,
    };
    let (mut flags, mut positionals, mut sources) = (Vec::new(), Vec::new(), BTreeMap::new());
    for arg in serve.get_arguments().filter(|arg| is_setting(arg)) {
        let id = arg.get_id().as_str();
        if given.value_source(id) == Some(ValueSource::CommandLine) {
            sources.insert(id, Source::CommandLine);
            continue;
        }
        let in_file =
            file.as_mut().and_then(|file| file.values.remove(name(arg)).map(|found| (file.path.clone(), found)));
        let variable = variable(arg);
        let (values, source) = match (environment(&variable), in_file) {
            (Some(value), _) => (split(arg, value), Source::Environment(variable)),
            (None, Some((path, (key, values)))) => (values, Source::File { path, key }),
            (None, None) => continue,
        };
        add(arg, values, &mut flags, &mut positionals).map_err(|message| {
            serve.clone().error(ErrorKind::InvalidValue, format!("{message}; it comes from {source}"))
        })?;
        sources.insert(id, source);
    }
    arguments.splice(2..2, flags);
    if !positionals.is_empty() {
        if !arguments.iter().any(|argument| argument == "--") {
            arguments.push("--".into());
        }
        arguments.extend(positionals);
    }
    let matches = command.try_get_matches_from_mut(arguments).map_err(|error| located(error, &serve, &sources))?;
    let parsed = Arguments::from_arg_matches(&matches)?;
    let printed = matches.subcommand_matches("serve").filter(|matches| matches.get_flag("print_config"));
    Ok((parsed, printed.map(|matches| print(&serve, matches, &sources))))
}

/// What the command line alone gives to `serve`. What it lacks may come from elsewhere.
fn given(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, Error> {
    let matches = match command.clone().try_get_matches_from(arguments) {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            command.clone().ignore_errors(true).try_get_matches_from(arguments)
        }
        other => other,
    };
    matches.map(|mut matches| matches.remove_subcommand().map(|(_, serve)| serve).unwrap_or_default())
}

fn is_setting(arg: &Arg) -> bool {
    !OWN.contains(&arg.get_id().as_str())
        && !matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong)
}

/// What a setting is called in a file.
fn name(arg: &Arg) -> &str {
    arg.get_long().unwrap_or(arg.get_id().as_str())
}

/// What a setting is called in the environment.
fn variable(arg: &Arg) -> String {
    format!("CENTUPLE_{}", name(arg).replace('-', "_").to_ascii_uppercase())
}

/// Whether a setting's value must not be shown.
fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set()
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A variable's values: a list has commas between them, unless they are secrets.
fn split(arg: &Arg, value: OsString) -> Vec<OsString> {
    match value.to_str() {
        Some(text) if is_list(arg) && !is_secret(arg) => text.split(',').map(|part| part.trim().into()).collect(),
        Some(_) | None => vec![value],
    }
}

/// Turns a setting's values into arguments.
fn add(
    arg: &Arg,
    values: Vec<OsString>,
    flags: &mut Vec<OsString>,
    positionals: &mut Vec<OsString>,
) -> Result<(), String> {
    if values.len() > 1 && !is_list(arg) {
        return Err(format!("`{}` takes one value, {} are given", name(arg), values.len()));
    }
    for value in values {
        match arg.get_long() {
            None => positionals.push(value),
            Some(long) if matches!(arg.get_action(), ArgAction::SetTrue) => match value.to_str() {
                Some("true" | "1") => flags.push(format!("--{long}").into()),
                Some("false" | "0") => {}
                Some(_) | None => return Err(format!("`{long}` is true or false")),
            },
            Some(long) => {
                let mut flag = OsString::from(format!("--{long}="));
                flag.push(value);
                flags.push(flag);
            }
        }
    }
    Ok(())
}

/// An error that tells where the value comes from.
fn located(error: Error, serve: &Command, sources: &BTreeMap<&str, Source>) -> Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return error };
    let arg = serve.get_arguments().find(|arg| arg.to_string() == *shown);
    match arg.and_then(|arg| sources.get(arg.get_id().as_str())) {
        Some(source @ (Source::Environment(_) | Source::File { .. })) => {
            let text = error.to_string();
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let value = error.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
            let hint = match source {
                // As Kubernetes does for containers beside a Service of that name.
                Source::Environment(_) if value.starts_with("tcp://") => {
                    "; Kubernetes sets it where a Service is called centuple: set `enableServiceLinks: false` in the pod"
                }
                Source::Environment(_) | Source::File { .. } | Source::CommandLine | Source::Default => "",
            };
            serve.clone().error(error.kind(), format!("{message}; it comes from {source}{hint}"))
        }
        Some(Source::CommandLine | Source::Default) | None => error,
    }
}

/// The settings as a file that means the same; secrets are left out.
fn print(serve: &Command, matches: &ArgMatches, sources: &BTreeMap<&str, Source>) -> String {
    let mut text = String::new();
    for arg in serve.get_arguments().filter(|arg| is_setting(arg)) {
        let id = arg.get_id().as_str();
        let source = sources.get(id).unwrap_or(&Source::Default);
        let Some(values) = matches.get_raw(id) else { continue };
        if is_secret(arg) {
            text += &format!("# {} is set and not shown: {source}\n", name(arg));
            continue;
        }
        let mut values = values.map(scalar);
        let value = match is_list(arg) {
            true => format!("[{}]", values.collect::<Vec<_>>().join(", ")),
            false => values.next().unwrap_or_default(),
        };
        text += &format!("{} = {value} # {source}\n", name(arg));
    }
    text
}

/// A value as TOML has it.
fn scalar(value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let plain = format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"));
    match plain {
        Some(plain @ (toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_)))
            if plain.to_string() == text =>
        {
            text.into_owned()
        }
        Some(_) | None => toml::Value::String(text.into_owned()).to_string(),
    }
}

/// A file of settings: for each name the key that it has there, and its values.
struct File {
    path: PathBuf,
    values: BTreeMap<String, (String, Vec<OsString>)>,
}

impl File {
    fn read(path: &Path, command: &Command, serve: &Command) -> Result<File, Error> {
        let failed = |message: String| serve.clone().error(ErrorKind::Io, message);
        let shown = path.display();
        let text = bounded(path).map_err(|error| failed(format!("cannot read {shown}: {error}")))?;
        let table: toml::Table = text.parse().map_err(|error| failed(format!("{shown} is no TOML: {error}")))?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let wanted = key.replace('_', "-");
            let arg = serve.get_arguments().filter(|arg| is_setting(arg)).find(|arg| name(arg) == wanted);
            let arg = arg.ok_or_else(|| failed(unknown(path, &key, command)))?;
            let found = plain(&value).ok_or_else(|| {
                failed(format!("`{key}` in {shown} must be text, a number, true or false, or a list of these"))
            })?;
            if values.insert(name(arg).to_owned(), (key, found)).is_some() {
                return Err(failed(format!("{shown} has `{wanted}` twice, once with `_` and once with `-`")));
            }
        }
        Ok(File { path: path.to_owned(), values })
    }
}

fn bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// The values of a key, unless they are no plain ones.
fn plain(value: &toml::Value) -> Option<Vec<OsString>> {
    match value {
        toml::Value::String(text) => Some(vec![text.into()]),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(vec![value.to_string().into()])
        }
        toml::Value::Array(values) => {
            let parts = values.iter().map(|value| if value.is_array() { None } else { plain(value) });
            parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// What is said of a key that is no flag; clap knows which flags are near.
fn unknown(path: &Path, key: &str, command: &Command) -> String {
    let tried = command.clone().try_get_matches_from(["centuple".into(), "serve".into(), format!("--{key}=x")]);
    let near = tried.err().and_then(|error| match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(near)) => Some(near.trim_start_matches("--").split(' ').next()?.to_owned()),
        Some(_) | None => None,
    });
    let shown = path.display();
    match near {
        Some(near) => format!("`{key}` in {shown} is no setting; is `{near}` meant?"),
        None => format!("`{key}` in {shown} is no setting; settings are the flags of `centuple serve --help`"),
    }
}

#[cfg(test)]
mod tests;
