//! Decoders behind encoders: what they write on the CPU.

use std::path::Path;

use centuple::{Choice, Device, LoadOptions, Precision};
use centuple_cuda::{Architecture, CodeType, Format, Kernel, Specialisation};
use centuple_testkit::FamilyGolden;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::driver::Machine;
use crate::encoders::Failure;
use crate::engine::{decoder_runs, host, tokens};

const GPU: Device = Device::Cuda(None);

/// Kernels for narrow models, of floats and of 8-bit integers.
fn specialisations() -> Vec<Specialisation> {
    let of_bytes = |codes: CodeType| codes == CodeType::Integer { bits: 8 };
    let is_needed = |specialisation: &Specialisation| match *specialisation {
        Specialisation::Norm { room, codes } => room == 256 && codes.is_none_or(of_bytes),
        Specialisation::Quantise { codes } => of_bytes(codes),
        Specialisation::Attention { head_dim, content, .. } => head_dim == 32 && !content,
        Specialisation::Gemm { .. }
        | Specialisation::Gate
        | Specialisation::Widen
        | Specialisation::Select
        | Specialisation::Append => true,
        Specialisation::Epilogue { .. }
        | Specialisation::GroupedGemm { .. }
        | Specialisation::Pool(_)
        | Specialisation::Dense
        | Specialisation::WideNorm
        | Specialisation::HeadNorm
        | Specialisation::Rotary { .. } => false,
    };
    Kernel::all(Architecture::OLDEST).iter().map(|kernel| kernel.specialisation).filter(is_needed).collect()
}

/// Gives the fixtures of T5 heads of 16 columns, of which there are 3 instead of 4 of 12.
fn widen_heads(folder: &Path) -> Result<(), Failure> {
    let (config, weights) = (folder.join("config.json"), folder.join("model.safetensors"));
    let mut changed: serde_json::Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    (changed["num_heads"], changed["d_kv"]) = (3.into(), 16.into());
    std::fs::write(config, changed.to_string())?;
    let bytes = std::fs::read(&weights)?;
    let stored = SafeTensors::deserialize(&bytes)?;
    let tensors = stored.iter().map(|(name, view)| {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if name.ends_with("relative_attention_bias.weight") {
            let row = data.len() / shape[0];
            data = data.chunks_exact(row).flat_map(|row| &row[..row.len() / 4 * 3]).copied().collect();
            shape[1] = 3;
        }
        (name, view.dtype(), shape, data)
    });
    let tensors: Vec<_> = tensors.collect();
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, Failure>>()?;
    Ok(std::fs::write(weights, safetensors::serialize(views, None)?)?)
}

#[test]
fn answers_to_texts_are_those_of_the_cpu() -> Result<(), Failure> {
    let machine = Machine::of(Architecture::OLDEST, Format::F16, &specialisations())?;
    let text = tokens(37, 8);
    for family in FamilyGolden::seq2seq()? {
        let case = &family.cases[0];
        let folder = tempfile::tempdir()?;
        family.assemble(case, folder.path())?;
        let mut precisions = vec![(None, 0.9999)];
        if family.name == "t5" {
            widen_heads(folder.path())?;
            precisions.push((Some(Precision::Int8), 0.99));
        }
        decoder_runs(&machine, &folder, Some(&text), &precisions)
            .map_err(|error| format!("{}: {error}", family.name))?;
    }
    Ok(())
}

/// The emulator is far slower than the CPU.
#[test]
fn the_fastest_device_reads_and_writes() -> Result<(), Failure> {
    let (machine, folder) = (Machine::of(Architecture::OLDEST, Format::F16, &specialisations())?, tempfile::tempdir()?);
    let families = FamilyGolden::seq2seq()?;
    let family = families.iter().find(|family| family.name == "marian").ok_or("the family is gone")?;
    family.assemble(&family.cases[0], folder.path())?;
    let options = LoadOptions { device: GPU, or_cpu: true, cuda: machine.files(), ..LoadOptions::default() };
    let compiled = host()?.compile_folder(folder.path(), "model", &options)?;
    let Some(Choice::Measured { cpu, other, device: GPU }) = compiled.choice else {
        return Err(format!("not measured: {:?}", compiled.choice).into());
    };
    assert!(other.alone > cpu.alone && other.queued > cpu.queued, "{cpu}, {other}");
    Ok(())
}
