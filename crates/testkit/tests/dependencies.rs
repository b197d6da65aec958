//! Rules of the workspace: which crate imports which, and under which licences dependencies come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What cargo prints.
fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
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
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_slice(&metadata).expect("metadata is JSON");
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
    // Not `cargo metadata`: it also lists what only other systems' features would build.
    let tree = ["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{l}|{p}"];
    let tree = String::from_utf8(cargo(&tree)).expect("names are UTF-8");
    let packages: BTreeSet<&str> = tree.lines().filter(|line| line.contains('|')).collect();
    assert!(packages.len() > 100, "the tree was not understood");
    for package in packages {
        let (licence, name) = package.split_once('|').expect("lines without it were left out");
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{name}: `{licence}`: {error}"));
        let fits = expression.evaluate(|requirement| allowed.contains(&requirement.to_string()));
        assert!(fits, "{name} comes under {licence}, which deny.toml does not allow");
    }
}
