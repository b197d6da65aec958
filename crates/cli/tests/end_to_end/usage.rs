//! Help, and misuse: exit code 2 and a hint.

use crate::process::{Process, centuple, finish};
use crate::tiny::Tiny;

const COMMANDS: [&str; 7] = ["serve", "run", "chat", "optimize", "bench", "inspect", "pull"];

#[test]
fn every_command_has_help() {
    let all = finish(&mut centuple("--help"), b"");
    assert_eq!(all.code, Some(0));
    for name in COMMANDS {
        assert!(all.text().contains(&format!("  {name} ")), "{name} is not listed");
        let help = finish(centuple(name).arg("--help"), b"");
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        assert!(help.text().contains(&format!("Usage: centuple {name}")) && help.text().contains("MODEL"));
    }
    let version = finish(&mut centuple("--version"), b"");
    assert_eq!((version.code, version.text().trim_end()), (Some(0), concat!("centuple ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn misuse_is_told_from_failure() {
    let misuses: [(&str, &[&str]); 14] = [
        ("nonsense", &[]),
        ("run", &[]),
        ("run", &["feature-extraction"]),
        ("run", &["no-such-task", "model"]),
        ("run", &["feature-extraction", "model", "--no-such-flag"]),
        ("inspect", &[]),
        ("inspect", &["model", "--precision", "f7"]),
        ("inspect", &["model", "--isa", "avx9"]),
        ("inspect", &["model", "--threads", "0"]),
        ("inspect", &["model", "--threads", "100000"]),
        ("bench", &["model", "--shapes", "3"]),
        ("bench", &["model", "--shapes", "1048576x1048576"]),
        ("bench", &["model", "--repeat", "0"]),
        ("serve", &["model", "--port", "65536"]),
    ];
    for (command, arguments) in misuses {
        let finished = finish(centuple(command).args(arguments), b"");
        assert_eq!(finished.code, Some(2), "{command} {arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("--help"), "{}", finished.stderr);
    }
    let bare = Process::spawn(&mut std::process::Command::new(env!("CARGO_BIN_EXE_centuple"))).wait();
    assert_eq!(bare.code(), Some(2));
}

#[test]
fn nobody_has_to_read_the_output() {
    let model = Tiny::new("bert-tiny");
    let mut commands = vec![centuple("--help"), centuple("run")];
    commands[1].arg("--help");
    for (name, flags) in [("inspect", &["--explain"][..]), ("pull", &[]), ("bench", &["--shapes", "1x1,1x2", "--json"])]
    {
        let mut command = centuple(name);
        command.arg(model.path()).args(flags);
        commands.push(command);
    }
    for mut command in commands {
        let mut process = Process::spawn(&mut command);
        drop(process.0.stdout.take());
        let errors = process.stderr();
        assert!(process.wait().code().is_some_and(|code| code < 2), "{command:?}");
        assert_eq!(errors.rest(), [""; 0], "{command:?}");
    }
}
