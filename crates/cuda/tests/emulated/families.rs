//! Every family: what transformers answers.

use centuple::tasks::{Engine, Output, Sequence};
use centuple::{Device, LoadOptions};
use centuple_cuda::{Architecture, CONTENT_HEAD_DIM, Format, Kernel, Specialisation};
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput};

use crate::driver::Machine;
use crate::encoders::Failure;
use crate::engine::{cosine, host};

/// Least cosine of a case's outputs to those of transformers in f32.
const LEAST: f64 = 0.999_98;

/// Cases that are run: of all families, and of those whose attention is of a kind of its own.
const USUAL: [&str; 4] = ["base", "sequence", "causal", "masked"];
const OF_DEBERTAS: [&str; 6] = ["c2p", "p2c", "span", "no-buckets", "own-keys", "absolute-types"];

/// Why a fixture isn't lowered: heads that are narrower than any published ones.
const REFUSALS: [&str; 4] = ["heads of 4 columns", "heads of 12 columns", "of heads of width 12", "2 rotated columns"];

/// The inputs of a case.
fn sequences(family: &FamilyGolden, case: &FamilyCase) -> Vec<Sequence> {
    let of = |FamilyInput { ids, type_ids, masked: selected, .. }| Sequence {
        ids,
        type_ids,
        selected,
        ..Sequence::default()
    };
    family.inputs_of(case).into_iter().map(of).collect()
}

/// Kernels of floats for narrow models.
fn specialisations() -> Vec<Specialisation> {
    let is_needed = |specialisation: &Specialisation| match *specialisation {
        Specialisation::Gemm { codes, .. } => !codes,
        Specialisation::Norm { room, codes } => room == 256 && codes.is_none(),
        Specialisation::Attention { head_dim, content, paged, .. } => {
            !paged && head_dim == if content { CONTENT_HEAD_DIM } else { 32 }
        }
        Specialisation::Quantise { .. } | Specialisation::Epilogue { .. } | Specialisation::Append => false,
        Specialisation::GroupedGemm { .. }
        | Specialisation::Pool(_)
        | Specialisation::Dense
        | Specialisation::Widen
        | Specialisation::WideNorm
        | Specialisation::HeadNorm
        | Specialisation::Gate
        | Specialisation::Rotary { .. }
        | Specialisation::Select => true,
    };
    Kernel::all(Architecture::OLDEST).iter().map(|kernel| kernel.specialisation).filter(is_needed).collect()
}

/// Each case is lowered; those that are run are run in company and alone.
#[test]
fn outputs_equal_transformers() -> Result<(), Failure> {
    let (machine, host) = (Machine::of(Architecture::OLDEST, Format::F16, &specialisations())?, host()?);
    let options = LoadOptions {
        device: Device::Cuda(None),
        cuda: machine.files(),
        max_batch_tokens: 128,
        ..LoadOptions::default()
    };
    let (mut compared, mut lowered) = (0, 0);
    for family in FamilyGolden::all()? {
        let is_deberta = family.name.starts_with("deberta");
        for case in family.cases.iter().filter(|case| case.refuse.is_none()) {
            let folder = tempfile::tempdir()?;
            family.assemble(case, folder.path())?;
            let name = format!("{} {}", family.name, case.name);
            let mut engine = match host.load_folder(folder.path(), "model", &options) {
                Ok(loaded) => loaded.engine,
                Err(error) => {
                    let error = error.to_string();
                    assert!(REFUSALS.iter().any(|reason| error.contains(reason)), "{name}: {error}");
                    continue;
                }
            };
            lowered += 1;
            let case_name = case.name.as_str();
            if !(USUAL.contains(&case_name) || is_deberta && OF_DEBERTAS.contains(&case_name)) {
                continue;
            }
            let sequences = sequences(&family, case);
            let together = engine.run(&sequences.iter().collect::<Vec<_>>())?;
            for (sequence, together) in sequences.iter().zip(&together) {
                assert_eq!(&engine.run(&[sequence])?[0], together, "{name}: company matters");
            }
            let (expected, columns) = family.output(case).ok_or("no output")?;
            let all = |data: Vec<f32>| Output { rows: data.len() / columns, columns, data };
            let (found, expected) = (all(together.into_iter().flat_map(|output| output.data).collect()), all(expected));
            assert_eq!((found.rows, found.is_consistent()), (expected.rows, true), "{name}");
            let cosine = cosine(&found, &expected);
            assert!(cosine > LEAST, "{name}: cosine {cosine}");
            compared += 1;
        }
    }
    assert!(lowered > 120 && compared > 40, "{lowered} cases are lowered, {compared} compared");
    println!("{lowered} cases are lowered, {compared} compared");
    Ok(())
}
