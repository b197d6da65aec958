//! Activation functions in f64.

use centuple_graph::Activation;

/// The activation of one element.
pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Gauss error function to f64 precision.
///
/// For small `x` the Maclaurin series, else the continued fraction of `erfc`
/// (Abramowitz & Stegun 7.1.5 and 7.1.14).
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return a;
    }
    if a > 6.0 {
        return x.signum();
    }
    let two_over_sqrt_pi = std::f64::consts::FRAC_2_SQRT_PI;
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        return x.signum() * two_over_sqrt_pi * sum;
    }
    let mut fraction = 0.0;
    for k in (1..120).rev() {
        fraction = 0.5 * f64::from(k) / (a + fraction);
    }
    x.signum() * (1.0 - 0.5 * two_over_sqrt_pi * (-a * a).exp() / (a + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_known_values() {
        // Values from A&S table 7.1.
        for (x, expected) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
            assert!((erf(x) - expected).abs() < 1e-10, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf(2.4999999) - erf(2.5)).abs() < 1e-9);
    }
}
