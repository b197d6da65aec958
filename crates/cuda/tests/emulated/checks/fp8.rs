//! Linear layers of 8-bit floats.

use centuple_cuda::contract::{Codes, Epilogue, Matmul as Product, Scaling as Scales, from_e4m3};
use centuple_cuda::{
    Activation, Architecture, CodePointers, CodeType, Device, EpilogueOperands, GEMM_ACTIVATIONS, Launch, Matmul,
    Operation, Pointer, Rows, Scaling, Specialisation,
};
use proptest::prelude::*;

use super::{Bench, Hold, Random, Subject, cases, close, formats, kernel};

pub(crate) fn epilogue_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), 1usize..9, 1usize..80, 0..GEMM_ACTIVATIONS.len(), any::<[bool; 3]>(), any::<u64>());
    cases(24, all, |(format, tokens, eighths, of_activation, [codes, bias, residual], seed)| {
        let activation = GEMM_ACTIVATIONS[of_activation];
        let specialisation = Specialisation::Epilogue { activation, codes };
        let Some(architecture) = subject.able(specialisation, format, seed) else { return Ok(()) };
        let (mut random, mut bench, n) = (Random(seed), Bench::tokens(subject, tokens), eighths * 8);
        let sums = random.stored(format, tokens * n, 50.0);
        let (x_scales, weight_scales) = (random.floats(tokens, 0.5), random.floats(n, 0.2));
        let bias = bias.then(|| random.floats(n, 1.0));
        let residual = residual.then(|| random.stored(format, tokens * n, 1.0));
        let contract = Epilogue {
            format,
            sums: &sums,
            x_scales: &x_scales,
            weight_scales: &weight_scales,
            bias: bias.as_deref(),
            activation,
            residual: residual.as_deref(),
        };
        let expected = contract.run();

        let device = &mut bench.device;
        let mut operands = EpilogueOperands {
            y: device.hold(&sums),
            x_scales: device.hold(&x_scales),
            weight_scales: device.hold(&weight_scales),
            bias: bias.map_or(Pointer::NULL, |bias| device.hold(&bias)),
            residual: residual.map_or(Pointer::NULL, |residual| device.hold(&residual)),
            codes: CodePointers::default(),
            n,
        };
        if codes {
            operands.codes = bench.space_for_codes(tokens, n, CodeType::E4m3);
        }
        let kernel = kernel(specialisation, format, architecture);
        bench.run(&Launch::epilogue(kernel, bench.extent(Rows::Tokens), &operands));
        let exact = matches!(activation, Activation::Identity | Activation::Relu);
        let found = bench.device.held::<u16>(operands.y, tokens * n);
        if !codes {
            let expected = format.narrowed(&expected);
            if exact {
                prop_assert_eq!(found, expected);
                return Ok(());
            }
            return subject.functions(format, &found, &expected);
        }
        prop_assert_eq!(found, sums, "the sums stay as they are");
        let (found, expected) = (bench.held_codes(operands.codes, tokens, n), Codes::e4m3(&expected, n));
        if exact {
            prop_assert_eq!(found, expected);
            return Ok(());
        }
        let value = |codes: &Codes, place: usize| from_e4m3(codes.codes[place]) * codes.scales[place / n];
        for place in 0..tokens * n {
            let (step, [found, expected]) =
                (found.scales[place / n] / 512.0, [&found, &expected].map(|codes| value(codes, place)));
            // A function's last bits may lead to the neighbouring code.
            let distance = (found - expected).abs();
            prop_assert!(distance <= 1.01 * step + 0.126 * expected.abs(), "{found} instead of {expected} at {place}");
        }
        Ok(())
    });
}

/// A library's products of all codes, and their rows with fewer others.
pub(crate) fn matmul_is_its_contract<D: Device>(subject: &Subject<D>) {
    let all = (formats(), 17usize..200, 1usize..9, 1usize..20, any::<[bool; 2]>(), any::<u64>());
    cases(12, all, |(format, rows, n, k, [scaled, biased], seed)| {
        let widest = Specialisation::Quantise { codes: CodeType::E4m3 };
        let Some(architecture) = subject.able(widest, format, seed) else { return Ok(()) };
        let (mut random, mut bench, n, k) = (Random(seed), Bench::tokens(subject, 1), n * 16, k * 16);
        // Every code but the two that are no number.
        let mut codes = |count| -> Vec<u8> {
            random.ids(count, 254).into_iter().map(|id| if id < 127 { id as u8 } else { id as u8 + 1 }).collect()
        };
        let (mut x, weight) = (codes(rows * k), codes(n * k));
        // What a batch has no token for may be no number.
        x[(rows - 1) * k..].fill(0xff);
        let factor = 1.0 / 4096.0;
        let (x_scales, weight_scales) = (random.floats(rows, 0.5), random.floats(n, 0.2));
        let bias = biased.then(|| random.stored(format, n, 1.0));
        let scaled = scaled && architecture >= Architecture::of(9, 0);
        let scales = Scales { x: &x_scales, weight: &weight_scales, bias: bias.as_deref() };
        let product = Product { format, x: &x, weight: &weight, k, n, factor, scaling: scaled.then_some(scales) };
        let expected = product.run();

        let device = &mut bench.device;
        let scaling = Scaling {
            x: device.hold(&x_scales),
            weight: device.hold(&weight_scales),
            bias: bias.as_ref().map_or(Pointer::NULL, |bias| device.hold(bias)),
        };
        let matmul = Matmul {
            format,
            x: device.hold(&x),
            weight: device.hold(&weight),
            y: device.hold(&vec![0u16; rows * n]),
            rows,
            n,
            k,
            factor,
            scaling: scaled.then_some(scaling),
        };
        bench.operate(&Operation::Matmul(matmul));
        let found = bench.device.held::<u16>(matmul.y, rows * n);
        let (last, before) = (&found[(rows - 1) * n..], (rows - 1) * n);
        prop_assert!(last.iter().all(|&bits| format.widen(bits).is_nan()), "nothing hides what is no number");
        let (found, expected) = (&found[..before], &expected[..before]);
        match subject.sums {
            Some(steps) => {
                // Sums of a tensor core are as exact as the largest of their products.
                let squares = expected.iter().map(|&bits| format.widen(bits).powi(2)).sum::<f32>();
                close(format, steps, (squares / before as f32).sqrt(), found, expected)?;
            }
            None => prop_assert_eq!(found, expected),
        }
        for fewer in [16, 1] {
            let y = bench.device.hold(&vec![0u16; fewer * n]);
            bench.operate(&Operation::Matmul(Matmul { rows: fewer, y, ..matmul }));
            prop_assert_eq!(&bench.device.held::<u16>(y, fewer * n)[..], &found[..fewer * n], "{} rows", fewer);
        }
        Ok(())
    });
}
