//! Each place of settings before the next, and what is wrong with them.

use super::*;
use crate::args::{Command as Chosen, Serve};

/// Reads `serve` with arguments, variables and a file.
fn settings(arguments: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<(Serve, String), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("centuple.toml");
    let mut all: Vec<OsString> = vec!["centuple".into(), "serve".into()];
    if let Some(text) = file {
        std::fs::write(&path, text).expect("a file");
        all.extend(["--config".into(), path.clone().into()]);
    }
    all.extend(arguments.iter().map(OsString::from));
    let variable = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let (arguments, printed) = read(all, variable).map_err(|error| error.to_string())?;
    let Chosen::Serve(serve) = arguments.command else { panic!("that is not serve") };
    Ok((*serve, printed.unwrap_or_default()))
}

fn port(arguments: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> u16 {
    settings(arguments, environment, file).expect("good settings").0.port
}

#[test]
fn each_place_comes_before_the_next() {
    let (flag, variable, file) = (&["--port", "1"][..], &[("CENTUPLE_PORT", "2")][..], Some("port = 3"));
    assert_eq!(port(flag, variable, file), 1);
    assert_eq!(port(flag, variable, None), 1);
    assert_eq!(port(flag, &[], file), 1);
    assert_eq!(port(&[], variable, file), 2);
    assert_eq!(port(&[], variable, None), 2);
    assert_eq!(port(&[], &[], file), 3);
    assert_eq!(port(flag, &[], None), 1);
    assert_eq!(port(&[], &[], None), 8080);
}

#[test]
fn every_kind_of_setting_can_come_from_anywhere() {
    let file = "models = [\"a\", \"b\"]\nauto_truncate = false\naccept-over-budget = true\nheader-timeout = 0.5\nshadow = 0.25\n";
    let (serve, _) = settings(&[], &[], Some(file)).expect("good settings");
    assert_eq!(serve.models, ["a", "b"]);
    assert!(!serve.auto_truncate && serve.accept_over_budget);
    assert_eq!((serve.network.header_timeout.as_millis(), serve.shadow), (500, Some(0.25)));
    let variables =
        [("CENTUPLE_MODELS", "c, d"), ("CENTUPLE_ACCEPT_OVER_BUDGET", "false"), ("CENTUPLE_AUTO_TRUNCATE", "true")];
    let (serve, _) = settings(&[], &variables, Some(file)).expect("good settings");
    assert_eq!(serve.models, ["c", "d"]);
    assert!(serve.auto_truncate && !serve.accept_over_budget);
    let (serve, _) = settings(&["e"], &variables, Some(file)).expect("good settings");
    assert_eq!(serve.models, ["e"]);
    // A model is never taken for a flag.
    let (serve, _) = settings(&[], &[], Some("models = [\"--accept-over-budget\"]")).expect("good settings");
    assert_eq!((serve.models, serve.accept_over_budget), (vec!["--accept-over-budget".to_owned()], false));
}

#[test]
fn what_one_flag_needs_may_come_from_elsewhere() {
    let (serve, _) = settings(&["--tls-cert", "a.pem"], &[("CENTUPLE_TLS_KEY", "a.key")], None).expect("good settings");
    assert!(serve.network.config().tls.is_some());
    let error = settings(&["--tls-cert", "a.pem"], &[], Some("port = 1")).unwrap_err();
    assert!(error.contains("--tls-key"), "{error}");
}

#[test]
fn errors_say_where_a_value_comes_from() {
    type Case = (&'static [(&'static str, &'static str)], Option<&'static str>, &'static [&'static str]);
    let cases: [Case; 11] = [
        (&[], Some("port = 70000"), &["70000", "`port` in ", "centuple.toml"]),
        (&[], Some("port = [1, 2]"), &["takes one value, 2 are given", "`port` in "]),
        (&[], Some("port = { a = 1 }"), &["`port` in ", "must be text, a number"]),
        (&[], Some("prot = 1"), &["`prot` in ", "is no setting; is `port` meant?"]),
        (&[], Some("zzzzzz = 1"), &["`zzzzzz` in ", "--help"]),
        (&[], Some("config = \"x\""), &["`config` in ", "is no setting"]),
        (&[], Some("port = "), &["is no TOML"]),
        (&[], Some("max-inputs = 1\nmax_inputs = 2"), &["twice"]),
        (&[], Some("accept-over-budget = \"maybe\""), &["is true or false"]),
        (&[("CENTUPLE_PORT", "x")], Some("port = 1"), &["CENTUPLE_PORT in the environment"]),
        (&[("CENTUPLE_PORT", "tcp://10.0.0.1:80")], None, &["CENTUPLE_PORT", "enableServiceLinks: false"]),
    ];
    for (environment, file, parts) in cases {
        let error = settings(&[], environment, file).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let error = settings(&[], &[("CENTUPLE_CONFIG", "/no/such.toml")], None).unwrap_err();
    assert!(error.contains("cannot read /no/such.toml"), "{error}");
}

#[test]
fn what_is_printed_means_the_same_and_holds_no_secret() {
    let environment = [("CENTUPLE_API_KEY", "open sesame"), ("CENTUPLE_HOST", "0.0.0.0")];
    let flags = ["--print-config", "--port", "9", "some/model", "--accept-over-budget"];
    let (_, printed) = settings(&flags, &environment, Some("max-inputs = 5\nlog = \"json\"")).expect("good settings");
    assert!(!printed.contains("sesame"), "{printed}");
    for line in [
        "models = [\"some/model\"] # the command line",
        "host = \"0.0.0.0\" # CENTUPLE_HOST in the environment",
        "port = 9 # the command line",
        "max-streams = 256 # the default",
        "# api-key is set and not shown: CENTUPLE_API_KEY in the environment",
        "accept-over-budget = true # the command line",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    assert!(printed.contains("max-inputs = 5 # `max-inputs` in "), "{printed}");
    let (_, again) = settings(&["--print-config"], &[], Some(&printed)).expect("what was printed can be read");
    let values = |text: &str| text.parse::<toml::Table>().expect("TOML");
    assert_eq!(values(&printed), values(&again));
}

#[test]
fn every_flag_has_a_name_of_its_own() {
    let mut command = Arguments::command();
    command.build();
    let serve = command.find_subcommand("serve").expect("a command");
    let mut names: Vec<_> = serve.get_arguments().map(variable).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}
