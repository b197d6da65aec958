//! Rules of the workspace: which crate imports which, and under which licences dependencies come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

fn short(name: &str) -> String {
    name.strip_prefix("centuple-").unwrap_or(name).to_owned()
}

/// crate → imports, from the table of ARCHITECTURE.md.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let imports = cells[2].split(',').map(str::trim).filter(|import| *import != "–");
            (cells[0].to_owned(), imports.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn crates_import_what_the_architecture_lists() {
    let metadata = metadata(&["--no-deps"]);
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let normal = |dependency: &&Value| dependency["kind"].is_null() && !dependency["path"].is_null();
        let imports: BTreeSet<String> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(normal)
            .map(|dependency| short(dependency["name"].as_str().expect("a name")))
            .collect();
        found.insert(short(package["name"].as_str().expect("a name")), imports);
    }
    let allowed = allowed();
    assert_eq!(found.keys().collect::<Vec<_>>(), allowed.keys().collect::<Vec<_>>(), "the table lists other crates");
    for (name, imports) in &found {
        let extra: Vec<_> = imports.difference(&allowed[name]).collect();
        assert!(extra.is_empty(), "`{name}` imports {extra:?}, which ARCHITECTURE.md does not list");
        let unused: Vec<_> = allowed[name].difference(imports).collect();
        assert!(unused.is_empty(), "ARCHITECTURE.md lists {unused:?} for `{name}`, which does not import it");
    }
}

/// The licences that deny.toml allows.
fn licences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let list = text.lines().skip_while(|line| !line.starts_with("allow = [")).skip(1);
    list.take_while(|line| !line.starts_with(']')).map(|line| line.trim().trim_matches([',', '"']).to_owned()).collect()
}

#[test]
fn dependencies_come_under_allowed_licences() {
    let allowed = licences();
    assert!(allowed.contains("MIT"), "deny.toml was not understood");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--filter-platform", &target]);
    for package in metadata["packages"].as_array().expect("packages") {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} states no licence"));
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{name}: {licence}: {error}"));
        let fits = expression.evaluate(|requirement| allowed.contains(&requirement.to_string()));
        assert!(fits, "{name} comes under {licence}, which deny.toml does not allow");
    }
}
