//! MODEL arguments: folders, hub ids in caches, and downloads from a hub on loopback.

mod server;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use centuple_models::checkpoint::hub::{DEFAULT_MODEL, HubError, HubOptions, resolve};
use tempfile::TempDir;

use self::server::{COMMIT, Fault, Server};

type Outcome = Result<(), Box<dyn Error>>;

const ID: &str = "org/name";

/// A model's files by path, and some that are not needed.
fn model_files() -> BTreeMap<String, Vec<u8>> {
    let header = br#"{"a":{"dtype":"F32","shape":[64],"data_offsets":[0,256]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &[0; 256]].concat();
    let modules = br#"[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]"#;
    let files: [(&str, &[u8]); 9] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("modules.json", modules),
        ("1_Pooling/config.json", b"{}"),
        ("model.safetensors", &weights),
        ("README.md", b"not needed"),
        ("pytorch_model.bin", b"not needed"),
        ("onnx/config.json", b"not needed"),
        ("onnx/model.safetensors", b"not needed"),
    ];
    files.into_iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

/// Empty caches, and a hub that is not there.
struct Home {
    folder: TempDir,
    options: HubOptions,
}

impl Home {
    fn new() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let options = HubOptions {
            hub_cache: folder.path().join("hub"),
            cache: folder.path().join("own"),
            endpoint: Some("http://127.0.0.1:1".to_string()),
            offline: false,
            progress: false,
        };
        Ok(Self { folder, options })
    }

    fn with_hub(server: &Server) -> Result<Self, Box<dyn Error>> {
        let mut home = Self::new()?;
        home.options.endpoint = Some(server.address.clone());
        Ok(home)
    }

    fn repository(&self) -> PathBuf {
        self.options.hub_cache.join("models--org--name")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    fn resolve(&self) -> Result<PathBuf, HubError> {
        resolve(ID, &self.options)
    }

    /// Nothing but the lock is left of a download.
    #[track_caller]
    fn assert_clean(&self) {
        let entries = fs::read_dir(self.options.hub_cache.join(".locks/models--org--name"));
        let names: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["centuple.lock"]);
    }
}

fn write_files(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Outcome {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, content)?;
    }
    Ok(())
}

fn files_below(folder: &Path, prefix: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path(), &format!("{name}/"))?);
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

#[track_caller]
fn assert_says(result: Result<PathBuf, HubError>, parts: &[&str]) {
    let message = result.expect_err("must be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn folders_and_files_of_models_are_themselves_and_other_files_are_refused() -> Outcome {
    let home = Home::new()?;
    let folder = home.folder.path().to_string_lossy();
    assert_eq!(resolve(&folder, &home.options)?, home.folder.path());
    let file = home.folder.path().join("model.onnx");
    assert_says(resolve(&file.to_string_lossy(), &home.options), &["there is no file", "model.onnx"]);
    fs::write(&file, b"")?;
    assert_eq!(resolve(&file.to_string_lossy(), &home.options)?, file);
    let file = home.folder.path().join("model.gguf");
    fs::write(&file, b"")?;
    assert_eq!(resolve(&file.to_string_lossy(), &home.options)?, file);
    let file = home.folder.path().join("model.bin");
    fs::write(&file, b"")?;
    assert_says(resolve(&file.to_string_lossy(), &home.options), &["model.bin` is a file"]);
    Ok(())
}

#[test]
fn what_is_neither_folder_nor_id_is_told_both() -> Outcome {
    let home = Home::new()?;
    for model in ["", "name", "./org/name", "/no/such/folder", "../name", "org/na me"] {
        assert_says(resolve(model, &home.options), &["neither a model folder", "nor a hub id org/name[@revision]"]);
    }
    Ok(())
}

#[test]
fn a_cached_model_is_found_by_branch_and_commit() -> Outcome {
    let mut home = Home::new()?;
    home.options.offline = true;
    let mut files = model_files();
    files.remove("pytorch_model.bin");
    write_files(&home.snapshot(), &files)?;
    assert_says(home.resolve(), &["no snapshot", "HF_HUB_OFFLINE"]);
    assert_eq!(resolve(&format!("{ID}@{COMMIT}"), &home.options)?, home.snapshot());
    fs::create_dir_all(home.repository().join("refs/refs/pr"))?;
    fs::write(home.repository().join("refs/main"), format!("{COMMIT}\n"))?;
    fs::write(home.repository().join("refs/refs/pr/1"), COMMIT)?;
    assert_eq!(home.resolve()?, home.snapshot());
    assert_eq!(resolve(&format!("{ID}@refs/pr/1"), &home.options)?, home.snapshot());
    for file in ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"] {
        let path = home.snapshot().join(file);
        fs::rename(&path, path.with_extension("aside"))?;
        assert_says(home.resolve(), &[&format!("no {file}"), "unset HF_HUB_OFFLINE"]);
        fs::rename(path.with_extension("aside"), &path)?;
    }
    Ok(())
}

#[test]
fn every_shard_is_needed() -> Outcome {
    let mut home = Home::new()?;
    home.options.offline = true;
    let mut files = model_files();
    files.remove("model.safetensors");
    files.insert("model.safetensors.index.json".into(), br#"{"weight_map": {"a": "model-1.safetensors"}}"#.to_vec());
    write_files(&home.snapshot(), &files)?;
    let model = format!("{ID}@{COMMIT}");
    assert_says(resolve(&model, &home.options), &["no model-1.safetensors"]);
    fs::write(home.snapshot().join("model-1.safetensors"), b"")?;
    assert_eq!(resolve(&model, &home.options)?, home.snapshot());
    Ok(())
}

#[test]
fn a_download_brings_what_is_needed_into_the_hub_cache() -> Outcome {
    let server = Server::start(model_files())?;
    let home = Home::with_hub(&server)?;
    assert_eq!(home.resolve()?, home.snapshot());
    let expected = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"];
    assert_eq!(files_below(&home.snapshot(), "")?, expected);
    assert_eq!(fs::read_to_string(home.repository().join("refs/main"))?, COMMIT);
    for file in expected {
        assert_eq!(fs::read(home.snapshot().join(file))?, server.state().files[file]);
    }
    home.assert_clean();
    let requests = server.state().requests.len();
    assert_eq!(home.resolve()?, home.snapshot());
    assert_eq!(server.state().requests.len(), requests, "a cached model needs no request");
    assert_eq!(resolve(&format!("{ID}@v1"), &home.options)?, home.snapshot());
    assert_eq!(fs::read_to_string(home.repository().join("refs/v1"))?, COMMIT);
    Ok(())
}

#[test]
fn onnx_files_are_downloaded_where_there_are_no_other_weights() -> Outcome {
    let weightless = || {
        let mut files = model_files();
        files.retain(|name, _| !name.ends_with(".safetensors") && !name.ends_with(".bin"));
        files
    };
    let common = ["1_Pooling/config.json", "config.json", "modules.json", "tokenizer.json"];
    for (there, taken) in [
        (
            &["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_q4.onnx"][..],
            &["onnx/model.onnx", "onnx/model.onnx_data"][..],
        ),
        (&["onnx/model_q4.onnx"], &["onnx/model_q4.onnx"]),
    ] {
        let mut files = weightless();
        files.extend(there.iter().map(|name| ((*name).to_string(), b"an ONNX file".to_vec())));
        let server = Server::start(files)?;
        let home = Home::with_hub(&server)?;
        assert_eq!(home.resolve()?, home.snapshot());
        let mut expected = [&common[..], taken].concat();
        expected.sort_unstable();
        assert_eq!(files_below(&home.snapshot(), "")?, expected);
        home.assert_clean();
    }
    Ok(())
}

/// A file of this folder's fixtures.
fn pytorch(file: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(fs::read(centuple_testkit::fixtures().join("pytorch").join(file))?)
}

#[test]
fn weights_of_pytorch_are_downloaded_where_there_are_no_others() -> Outcome {
    let mut files = model_files();
    files.remove("model.safetensors");
    files.insert("pytorch_model.bin".into(), pytorch("tied.bin")?);
    files.insert("onnx/pytorch_model.bin".into(), b"not needed".to_vec());
    files.insert("training_args.bin".into(), b"not needed".to_vec());
    let server = Server::start(files.clone())?;
    let home = Home::with_hub(&server)?;
    assert_eq!(home.resolve()?, home.snapshot());
    let mut expected = ["1_Pooling/config.json", "config.json", "modules.json", "pytorch_model.bin", "tokenizer.json"];
    assert_eq!(files_below(&home.snapshot(), "")?, expected);
    assert_eq!(home.resolve()?, home.snapshot());
    home.assert_clean();
    // The same with a transformer in a folder of its own.
    let modules =
        br#"[{"path": "0_Transformer", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]"#;
    for file in ["config.json", "tokenizer.json", "pytorch_model.bin"] {
        let content = files.remove(file).ok_or("a file of the model")?;
        files.insert(format!("0_Transformer/{file}"), content);
    }
    files.insert("modules.json".into(), modules.to_vec());
    let server = Server::start(files)?;
    let home = Home::with_hub(&server)?;
    assert_eq!(home.resolve()?, home.snapshot());
    expected = [
        "0_Transformer/config.json",
        "0_Transformer/pytorch_model.bin",
        "0_Transformer/tokenizer.json",
        "1_Pooling/config.json",
        "modules.json",
    ];
    assert_eq!(files_below(&home.snapshot(), "")?, expected);
    Ok(())
}

#[test]
fn shards_of_pytorch_are_downloaded_by_their_index() -> Outcome {
    let names =
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"];
    let mut files = model_files();
    files.remove("model.safetensors");
    files.remove("pytorch_model.bin");
    for name in names {
        files.insert(name.into(), pytorch(&format!("sharded/{name}"))?);
    }
    let server = Server::start(files)?;
    let home = Home::with_hub(&server)?;
    assert_eq!(home.resolve()?, home.snapshot());
    for name in names {
        assert!(home.snapshot().join(name).is_file(), "{name}");
    }
    fs::remove_file(home.snapshot().join(names[1]))?;
    assert_eq!(home.resolve()?, home.snapshot());
    assert!(home.snapshot().join(names[1]).is_file(), "a shard that was missing is fetched");
    server.state().files.remove(names[0]);
    fs::remove_dir_all(home.repository())?;
    assert_says(home.resolve(), &["`org/name` has no pytorch_model-00001-of-00002.bin"]);
    Ok(())
}

#[test]
#[cfg(unix)]
fn a_download_is_readable_for_others() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(model_files())?;
    let home = Home::with_hub(&server)?;
    fs::create_dir(home.folder.path().join("plain"))?;
    let plain = fs::metadata(home.folder.path().join("plain"))?.permissions().mode();
    assert_eq!(fs::metadata(home.resolve()?)?.permissions().mode(), plain);
    Ok(())
}

#[test]
fn a_partial_snapshot_is_completed_and_leftovers_are_removed() -> Outcome {
    let server = Server::start(model_files())?;
    let home = Home::with_hub(&server)?;
    fs::create_dir_all(home.snapshot().join("1_Pooling"))?;
    fs::write(home.snapshot().join("config.json"), b"{\"mine\": 1}")?;
    fs::create_dir_all(home.options.hub_cache.join(".locks/models--org--name/incomplete-old/model"))?;
    assert_eq!(home.resolve()?, home.snapshot());
    assert_eq!(fs::read(home.snapshot().join("config.json"))?, b"{\"mine\": 1}");
    assert!(home.snapshot().join("1_Pooling/config.json").is_file());
    home.assert_clean();
    Ok(())
}

#[test]
fn a_failed_download_leaves_nothing_and_can_be_repeated() -> Outcome {
    let server = Server::start(model_files())?;
    let home = Home::with_hub(&server)?;
    for (file, fault, reason) in [
        ("model.safetensors", Fault::Cut, "did not deliver"),
        ("tokenizer.json", Fault::Status(500), "500"),
        ("config.json", Fault::Status(403), "403"),
    ] {
        server.state().fault = Some((file, fault));
        assert_says(home.resolve(), &[reason, &server.address, "HF_ENDPOINT"]);
        assert!(!home.repository().exists(), "after a fault in {file}");
        home.assert_clean();
    }
    server.state().fault = None;
    assert_eq!(home.resolve()?, home.snapshot());
    Ok(())
}

#[test]
fn damaged_or_unsuitable_repositories_are_refused() -> Outcome {
    let mut files = model_files();
    files.insert("model.safetensors".into(), b"garbage in the place of weights".to_vec());
    let server = Server::start(files)?;
    let home = Home::with_hub(&server)?;
    assert_says(home.resolve(), &["damaged", "model.safetensors"]);
    server.state().files.remove("model.safetensors");
    assert_says(home.resolve(), &["damaged", "pytorch_model.bin", "neither a zip archive nor a pickle"]);
    server.state().files.remove("pytorch_model.bin");
    assert_says(home.resolve(), &["`org/name` has no model.safetensors"]);
    assert!(!home.repository().exists());
    assert_says(
        resolve("org/other", &home.options),
        &["there is no folder `org/other`", "does not exist, or is private"],
    );
    assert_says(resolve("org/name@v2", &home.options), &["Revision not found: v2"]);
    Ok(())
}

#[test]
fn a_hostile_hub_cannot_write_elsewhere() -> Outcome {
    let mut files = model_files();
    files.insert("0_x/../../../../../escaped.json".into(), b"{}".to_vec());
    let server = Server::start(files)?;
    let home = Home::with_hub(&server)?;
    home.resolve()?;
    assert!(files_below(home.folder.path(), "")?.iter().all(|path| !path.contains("escaped")));
    Ok(())
}

#[test]
fn several_at_once_download_once() -> Outcome {
    let server = Server::start(model_files())?;
    let home = Home::with_hub(&server)?;
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| home.resolve())).collect();
        threads.into_iter().map(|thread| thread.join().expect("resolving never panics")).collect()
    });
    for result in results {
        assert_eq!(result?, home.snapshot());
    }
    let weights = format!("GET /org/name/resolve/{COMMIT}/model.safetensors");
    assert_eq!(server.state().requests.iter().filter(|request| **request == weights).count(), 1);
    Ok(())
}

#[test]
fn an_absent_hub_is_named_with_the_remedies() -> Outcome {
    let home = Home::new()?;
    assert_says(
        home.resolve(),
        &["no folder `org/name`", "http://127.0.0.1:1", "refused", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE=1"],
    );
    assert!(!home.options.hub_cache.exists());
    Ok(())
}

#[test]
fn the_default_model_is_found_in_the_own_cache() -> Outcome {
    let mut home = Home::new()?;
    home.options.offline = true;
    let folder = home.options.cache.join("models--sentence-transformers--all-MiniLM-L6-v2");
    assert_says(resolve(DEFAULT_MODEL, &home.options), &["HF_HUB_OFFLINE"]);
    write_files(&folder, &model_files())?;
    assert_eq!(resolve(DEFAULT_MODEL, &home.options)?, folder);
    assert_says(resolve(&format!("{DEFAULT_MODEL}@{COMMIT}"), &home.options), &["HF_HUB_OFFLINE"]);
    Ok(())
}
