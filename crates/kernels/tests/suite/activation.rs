//! Activation functions against f64.

use centuple_kernels::Activation;
use centuple_kernels::primitive::Unary;

use crate::support::all_kernels;

fn erf(x: f64) -> f64 {
    // Taylor series near 0, continued fraction of erfc beyond.
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = 0.0;
    for i in (1..60).rev() {
        fraction = f64::from(i) / 2.0 / (x.abs() + fraction);
    }
    let tail = (-x * x).exp() / ((x.abs() + fraction) * std::f64::consts::PI.sqrt());
    (1.0 - tail).copysign(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn expected(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
    }
}

/// Many values in [-limit, limit], dense near 0 and 1.
fn samples(limit: f32) -> Vec<f32> {
    let grid = (-40_003..=40_003i32).map(|i| i as f32 / 40_003.0);
    grid.clone().map(|x| x * limit).chain(grid.map(|x| x * x * x)).collect()
}

#[test]
fn activations_match_f64() {
    for kernels in all_kernels() {
        let isa = kernels.isa();
        for activation in Activation::ALL {
            let xs = samples(12.0);
            let mut ys = xs.clone();
            kernels.activate(activation, &mut ys);
            for (x, y) in xs.iter().zip(&ys) {
                let want = expected(activation, f64::from(*x));
                let bound = 2.6e-7 + 3e-7 * want.abs();
                let error = (f64::from(*y) - want).abs();
                assert!(error <= bound, "{isa} {activation:?}({x}) = {y}, want {want}");
            }
        }
    }
}

#[test]
fn exp_and_erf_match_f64() {
    for kernels in all_kernels() {
        let isa = kernels.isa();
        let xs = samples(86.9);
        let mut ys = xs.clone();
        kernels.unary(Unary::Exp, &mut ys);
        for (x, y) in xs.iter().zip(&ys) {
            let ratio = f64::from(*y) / f64::from(*x).exp();
            assert!((ratio - 1.0).abs() <= 1.6e-7, "{isa} exp({x}) = {y}, ratio {ratio}");
        }
        let xs = samples(6.0);
        let mut ys = xs.clone();
        kernels.unary(Unary::Erf, &mut ys);
        for (x, y) in xs.iter().zip(&ys) {
            let error = (f64::from(*y) - erf(f64::from(*x))).abs();
            assert!(error <= 3e-7 * f64::from(x.abs()).min(1.0), "{isa} erf({x}) = {y}");
        }
    }
}

#[test]
fn extremes_stay_sound() {
    for kernels in all_kernels() {
        let isa = kernels.isa();
        for activation in Activation::ALL {
            let mut values = [f32::NAN, 1e30, -1e30, 0.0, f32::INFINITY];
            kernels.activate(activation, &mut values);
            assert!(values[0].is_nan(), "{isa} {activation:?}");
            assert!(values[1] == 1e30 || values[1] == 1.0, "{isa} {activation:?}");
            assert!(values[2].abs() < 2e-7 || values[2] == -1.0, "{isa} {activation:?}");
            assert!(values[3] == 0.0 || values[3] == 0.5, "{isa} {activation:?}");
            assert!(values[4] == f32::INFINITY || values[4] == 1.0, "{isa} {activation:?}");
        }
        let mut values = [f32::NEG_INFINITY, -88.0, 0.0, f32::INFINITY, 88.6, f32::NAN];
        kernels.unary(Unary::Exp, &mut values);
        assert_eq!(values[..4], [0.0, 0.0, 1.0, f32::INFINITY], "{isa}");
        assert!(values[4].is_finite() && values[5].is_nan(), "{isa}");
    }
}
