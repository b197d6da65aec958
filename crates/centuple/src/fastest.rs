//! The CPU or GPUs, whichever answers sooner: each is measured when a model is loaded, and that is decided once. Both round
//! otherwise, so with a choice for each batch the bits of an answer would depend on the load.

use std::fmt;
use std::path::Path;

use crate::device::Device;
use crate::error::Error;
use crate::host::Host;
use crate::load::Compiled;
use crate::optimize::Runner;
use crate::options::LoadOptions;

/// Milliseconds that a device takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// For one short sequence, or for one token that follows on others.
    pub alone: f64,
    /// For a full batch, which is what requests in a queue wait for.
    pub queued: f64,
}

impl Latency {
    /// Whether requests are answered sooner than by another device. How many come together isn't known when a model is
    /// loaded, so one alone and a queue count alike, each by its ratio. Not where something is no number, or all is equal.
    fn is_less_than(self, other: Latency) -> bool {
        (self.alone / other.alone) * (self.queued / other.queued) < 1.0
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms alone and {:.3} ms for a full batch", self.alone, self.queued)
    }
}

/// Why the CPU or a GPU computes a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// Both were measured.
    Measured {
        /// What the CPU takes.
        cpu: Latency,
        /// What the other device takes.
        other: Latency,
        /// That device.
        device: Device,
    },
    /// The other device can't compute the model, for this reason.
    OnlyCpu(String),
}

impl Choice {
    /// What computes the model.
    pub fn device(&self) -> Device {
        match self {
            Choice::Measured { cpu, other, device } if other.is_less_than(*cpu) => *device,
            Choice::Measured { .. } | Choice::OnlyCpu(_) => Device::Cpu,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} computes: ", self.device())?;
        match self {
            Choice::Measured { cpu, other, device } => write!(f, "cpu {cpu}, {device} {other}"),
            Choice::OnlyCpu(reason) => f.write_str(reason),
        }
    }
}

impl Host {
    /// Compiles a model folder for the device of the options or for the CPU, whichever answers sooner.
    pub(crate) fn compile_fastest(&self, folder: &Path, id: &str, options: &LoadOptions) -> Result<Compiled, Error> {
        let on = |device| LoadOptions { device, or_cpu: false, ..options.clone() };
        let compile = |device| self.compile_folder(folder, id, &on(device));
        let other = compile(options.device).and_then(|compiled| Ok((self.latency(&compiled)?, compiled)));
        let cpu = compile(Device::Cpu)?;
        let (choice, other) = match other {
            Ok((latency, other)) => {
                let choice = Choice::Measured { cpu: self.latency(&cpu)?, other: latency, device: options.device };
                (choice, Some(other))
            }
            Err(Error::OnlyCpu { what }) => (Choice::OnlyCpu(format!("{what} runs there only")), None),
            Err(error) => (Choice::OnlyCpu(error.to_string()), None),
        };
        let chosen = other.filter(|other| choice.device() == other.device()).unwrap_or(cpu);
        Ok(Compiled { choice: Some(choice), ..chosen })
    }

    /// What a model takes where it is to be computed; what is needed for that is given back.
    fn latency(&self, compiled: &Compiled) -> Result<Latency, Error> {
        let plan = compiled.device_plan()?;
        Ok(Runner::new(self, plan, &compiled.model, compiled.precision)?.latency()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GPU: Device = Device::Cuda(None);

    fn choice(cpu: Latency, other: Latency) -> Choice {
        Choice::Measured { cpu, other, device: GPU }
    }

    #[test]
    fn what_is_chosen_is_told_in_a_line() {
        let (slow, fast) = (Latency { alone: 2.0, queued: 90.0 }, Latency { alone: 0.25, queued: 4.0 });
        assert_eq!(
            choice(slow, fast).to_string(),
            "cuda computes: cpu 2.000 ms alone and 90.000 ms for a full batch, cuda 0.250 ms alone and 4.000 ms for a full batch"
        );
        assert!(choice(fast, slow).to_string().starts_with("cpu computes: cpu 0.250 ms"));
        assert_eq!(Choice::OnlyCpu("there is no driver".to_owned()).to_string(), "cpu computes: there is no driver");
    }

    #[test]
    fn nothing_is_gained_by_what_is_equal_or_no_number() {
        let cpu = Latency { alone: 1.0, queued: 10.0 };
        for other in [cpu, Latency { alone: f64::NAN, ..cpu }, Latency { queued: f64::INFINITY, ..cpu }] {
            assert_eq!(choice(cpu, other).device(), Device::Cpu, "{other:?}");
        }
    }

    fn latency() -> impl Strategy<Value = Latency> {
        (1e-3..1e4, 1e-3..1e4).prop_map(|(alone, queued)| Latency { alone, queued })
    }

    proptest! {
        #[test]
        fn what_is_slower_at_both_is_never_chosen(cpu in latency(), alone in 1.001..10.0, queued in 1.001..10.0) {
            let slower = Latency { alone: cpu.alone * alone, queued: cpu.queued * queued };
            prop_assert_eq!(choice(cpu, slower).device(), Device::Cpu);
            prop_assert_eq!(choice(slower, cpu).device(), GPU);
        }

        #[test]
        fn what_gets_faster_stays_chosen(
            cpu in latency(), other in latency(), alone in 0.1..1.0, queued in 0.1..1.0,
        ) {
            let faster = |one: Latency| Latency { alone: one.alone * alone, queued: one.queued * queued };
            let chosen = choice(cpu, other).device();
            let with_faster = match chosen {
                GPU => choice(cpu, faster(other)),
                Device::Cpu | Device::Cuda(_) => choice(faster(cpu), other),
            };
            prop_assert_eq!(with_faster.device(), chosen);
        }
    }
}
