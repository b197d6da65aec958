//! Every type against what the Python package gguf makes of the same blocks (`scripts/goldens/make.py gguf`).

use std::fs;
use std::path::Path;

use centuple_gguf::{Header, TensorType};

#[test]
fn blocks_mean_what_the_reference_makes_of_them() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/gguf/types.gguf");
    let file = fs::read(path)?;
    let header = Header::read(&file)?;
    let values = |name: &str| {
        let tensor = header.tensors.get(name).ok_or_else(|| format!("no {name}"))?;
        let mut values = vec![0.0; tensor.elements()];
        tensor.kind.dequantize(&file[tensor.range.clone()], &mut values);
        Ok::<_, String>((tensor.kind, values))
    };
    for kind in TensorType::ALL {
        let (stored, found) = values(kind.name())?;
        let (plain, expected) = values(&format!("{kind}.expected"))?;
        assert_eq!((stored, plain), (*kind, TensorType::F32));
        assert_eq!(found.len(), 3 * 256);
        assert!(found.iter().any(|value| value.abs() > 0.5), "{kind} is hardly tested");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        assert!(bits(&found) == bits(&expected), "{kind}");
    }
    Ok(())
}
