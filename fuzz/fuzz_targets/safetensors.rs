//! A weight file is read or refused, and every tensor that it lists can be asked for.

#![no_main]

use centuple_models::checkpoint::Weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(weights) = Weights::from_bytes(data) else { return };
    for name in weights.names() {
        let shape = weights.shape(name).expect("a listed tensor has a shape").to_vec();
        if let Ok(tensor) = weights.tensor(name, &shape) {
            assert_eq!(tensor.shape(), shape);
            let values = tensor.as_f32().expect("weights are read as f32");
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
        assert!(weights.tensor(name, &[&shape[..], &[2]].concat()).is_err());
    }
});
