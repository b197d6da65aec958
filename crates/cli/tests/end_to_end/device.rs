//! `--device`: what isn't there is one clear error before anything is loaded, whether or not this machine has a GPU.

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

/// A GPU that no machine has.
const NONE: [&str; 2] = ["--device", "cuda:99"];

#[test]
fn missing_gpu_is_one_error() {
    let model = Tiny::new("bert-tiny");
    for command in [&["bench"][..], &["inspect"], &["serve"], &["run", "feature-extraction"]] {
        let finished = finish(centuple(command[0]).args(&command[1..]).arg(model.path()).args(NONE), b"");
        let error = finished.failure(1);
        assert!(error.contains("no CUDA device 99") || error.contains("install NVIDIA's driver"), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}

#[test]
fn missing_gpu_is_one_error_of_eval() {
    let model = Tiny::new("bert-tiny");
    let texts = model.beside("texts.txt");
    std::fs::write(&texts, "a happy person\n").expect("a temporary folder");
    let finished = finish(centuple("eval").arg(model.path()).arg(&texts).args(NONE), b"");
    let error = finished.failure(1);
    assert!(error.contains("no CUDA device 99") || error.contains("install NVIDIA's driver"), "{error}");
}

/// The model is too narrow for the kernels that there are, so that the CPU computes on a machine with GPUs too.
#[test]
fn fastest_device_is_told() {
    let model = Tiny::new("bert-tiny");
    let commands =
        [vec!["inspect"], vec!["bench", "--shapes", "1x4", "--repeat", "1"], vec!["run", "feature-extraction"]];
    for arguments in commands {
        let finished = finish(
            centuple(arguments[0]).args(&arguments[1..]).arg(model.path()).args(["--device", "fastest"]),
            b"{\"inputs\": \"a happy person\"}\n",
        );
        let told = &finished.stderr;
        assert!(finished.code == Some(0) && told.starts_with("cpu computes: "), "{finished:?}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    }
}

#[test]
fn some_precisions_need_a_gpu() {
    let model = Tiny::new("bert-tiny");
    let commands = [&["bench"][..], &["inspect"], &["serve"], &["run", "feature-extraction"]];
    let asked =
        [("fp8", "8.9"), ("bf16", "8.0")].into_iter().flat_map(|asked| commands.map(|command| (command, asked)));
    for (command, (precision, capability)) in asked {
        let finished =
            finish(centuple(command[0]).args(&command[1..]).arg(model.path()).args(["--precision", precision]), b"");
        let error = finished.failure(1);
        assert!(error.contains(&format!("{precision} runs on GPUs")) && error.contains(capability), "{error}");
        assert!(error.contains("--device cuda") && error.trim_end().lines().count() == 1, "{error}");
    }
}

#[test]
fn devices_have_names() {
    let model = Tiny::new("bert-tiny");
    for device in ["gpu", "cuda:x", "cuda:-1", ""] {
        let finished = finish(centuple("bench").arg(model.path()).arg(format!("--device={device}")), b"");
        assert!(finished.code == Some(2) && finished.stderr.contains("for '--device <DEVICE>'"), "{finished:?}");
    }
    let finished = finish(centuple("inspect").arg(model.path()).args(["--device", "auto"]), b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert!(finished.text().contains("threads"), "the CPU computes");
}
