//! Frequencies of rotary positions, and how they are scaled for longer texts than a model was first trained on.
//!
//! Numbers are rounded to f32 where PyTorch rounds them.

use std::f64::consts::PI;

use serde_json::Value;

use crate::ModelError;
use crate::config::Config;

/// How fast the pairs of columns rotate.
#[derive(Clone)]
pub(crate) struct Frequencies {
    /// Angle of each pair at position 1.
    pub(crate) of_pairs: Vec<f32>,
    /// Factor on cosines and sines.
    pub(crate) magnitude: f32,
    /// Most positions that these frequencies are for.
    pub(crate) positions: usize,
}

/// What frequencies are made of besides the scaling.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    /// Columns of a head that are rotated.
    pub(crate) columns: usize,
    /// The field `rope_theta`.
    pub(crate) theta: f64,
    /// The field `max_position_embeddings`.
    pub(crate) positions: usize,
}

impl Base {
    /// `theta^(2t / columns)` of each pair `t`.
    fn periods(self) -> impl Iterator<Item = f32> {
        (0..self.columns / 2).map(move |pair| {
            let exponent = (2 * pair) as f32 / self.columns as f32;
            self.theta.powf(f64::from(exponent)) as f32
        })
    }

    /// Pair `t` rotates by `theta^(-2t / columns)`.
    pub(crate) fn unscaled(self) -> Frequencies {
        self.map(|period| 1.0 / period)
    }

    fn map(self, frequency: impl Fn(f32) -> f32) -> Frequencies {
        Frequencies { of_pairs: self.periods().map(frequency).collect(), magnitude: 1.0, positions: self.positions }
    }

    /// The frequencies that the fields `rope_scaling` and, for `longrope`, `original_max_position_embeddings` ask for.
    ///
    /// # Errors
    /// The kind of scaling is not known, or a number of it is missing or makes no sense.
    pub(crate) fn scaled(self, json: Config, scaling: Option<&Value>) -> Result<Frequencies, ModelError> {
        let Some(fields) = scaling.filter(|scaling| !scaling.is_null()) else { return Ok(self.unscaled()) };
        let named = ["rope_type", "type"].into_iter().filter_map(|key| fields.get(key)).find_map(Value::as_str);
        let scaling = Scaling { json, fields, base: self };
        match named {
            Some("default") => Ok(self.unscaled()),
            Some("linear") => {
                let factor = scaling.number("factor")? as f32;
                Ok(self.map(|period| 1.0 / period / factor))
            }
            Some("dynamic") => scaling.dynamic(),
            Some("yarn") => scaling.yarn(),
            Some("longrope") => scaling.longrope(),
            Some("llama3") => scaling.llama3(),
            other => {
                let other = other.unwrap_or("none");
                Err(json.error(format!(
                    "`rope_scaling`: the `rope_type` \"{other}\" is not supported; default, linear, dynamic, yarn, longrope \
                     and llama3 are"
                )))
            }
        }
    }
}

/// A scaling that the configuration describes.
#[derive(Clone, Copy)]
struct Scaling<'a> {
    json: Config<'a>,
    fields: &'a Value,
    base: Base,
}

impl Scaling<'_> {
    /// A positive number; `None` where it isn't there.
    fn optional(&self, name: &str) -> Result<Option<f64>, ModelError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|number| *number > 0.0 && number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.json.error(format!("`rope_scaling`: `{name}` is {value}, not a positive number"))),
            },
        }
    }

    fn number(&self, name: &str) -> Result<f64, ModelError> {
        self.optional(name)?.ok_or_else(|| self.json.error(format!("`rope_scaling`: it has no `{name}`")))
    }

    /// One number for each pair.
    fn numbers(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let numbers = self.fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let numbers: Vec<f32> = numbers.iter().filter_map(Value::as_f64).map(|number| number as f32).collect();
        if numbers.len() == self.base.columns / 2 {
            return Ok(numbers);
        }
        let pairs = self.base.columns / 2;
        Err(self.json.error(format!("`rope_scaling`: `{name}` is no list of {pairs} numbers")))
    }

    /// Frequencies change beyond the trained length only, where the model isn't used.
    fn dynamic(&self) -> Result<Frequencies, ModelError> {
        let factor = self.number("factor")?;
        let columns = self.base.columns as f64;
        if columns < 4.0 {
            return Err(self.json.error("`rope_scaling`: \"dynamic\" needs heads of at least 4 rotated columns"));
        }
        let positions = self.base.positions as f64;
        let growth = factor * positions / positions - (factor - 1.0);
        let theta = self.base.theta * growth.powf(columns / (columns - 2.0));
        Ok(Base { theta, ..self.base }.unscaled())
    }

    /// Fast pairs stay, slow ones are stretched, those between are mixed (Peng et al. 2023, arXiv:2309.00071).
    fn yarn(&self) -> Result<Frequencies, ModelError> {
        let factor = self.number("factor")?;
        let magnitude = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let magnitude =
            match (self.optional("attention_factor")?, self.optional("mscale")?, self.optional("mscale_all_dim")?) {
                (Some(magnitude), _, _) => magnitude,
                (None, Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
                (None, _, _) => magnitude(1.0),
            };
        let trained = self.optional("original_max_position_embeddings")?.unwrap_or(self.base.positions as f64);
        let columns = self.base.columns as f64;
        let pair_of = |rotations: f64| columns * (trained / (rotations * 2.0 * PI)).ln() / (2.0 * self.base.theta.ln());
        let [mut low, mut high] =
            [self.optional("beta_fast")?.unwrap_or(32.0), self.optional("beta_slow")?.unwrap_or(1.0)].map(pair_of);
        if self.fields.get("truncate").and_then(Value::as_bool).unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(columns - 1.0));
        if low == high {
            high += 0.001;
        }
        let stretched = |pair: usize| ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let mixed = |(pair, period): (usize, f32)| {
            let kept = 1.0 - stretched(pair);
            1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
        };
        let of_pairs = self.base.periods().enumerate().map(mixed).collect();
        Ok(Frequencies { of_pairs, magnitude: magnitude as f32, positions: self.base.positions })
    }

    /// A factor for each pair (Ding et al. 2024, arXiv:2402.13753). Beyond the length of first training there would be other
    /// ones, also for the tokens before; so that length is the longest.
    fn longrope(&self) -> Result<Frequencies, ModelError> {
        let trained = self.json.value.get("original_max_position_embeddings").and_then(Value::as_u64);
        let trained = trained.and_then(|trained| usize::try_from(trained).ok()).filter(|&trained| trained > 0);
        let factor = match trained {
            Some(trained) => self.base.positions as f64 / trained as f64,
            None => self.number("factor")?,
        };
        let positions = trained.unwrap_or(self.base.positions).min(self.base.positions);
        let magnitude = match self.optional("attention_factor")? {
            Some(magnitude) => magnitude,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (trained.unwrap_or(self.base.positions) as f64).ln()).sqrt(),
        };
        self.numbers("long_factor")?;
        let factors = self.numbers("short_factor")?;
        let of_pairs = self.base.periods().zip(factors).map(|(period, factor)| 1.0 / (factor * period)).collect();
        Ok(Frequencies { of_pairs, magnitude: magnitude as f32, positions })
    }

    /// Waves longer than the text of first training are stretched, much shorter ones stay (Llama 3.1).
    fn llama3(&self) -> Result<Frequencies, ModelError> {
        let factor = self.number("factor")? as f32;
        let [low, high] = [self.number("low_freq_factor")?, self.number("high_freq_factor")?];
        let trained = self.number("original_max_position_embeddings")?;
        let [longest, shortest] = [trained / low, trained / high].map(|wave| wave as f32);
        Ok(self.base.map(|period| {
            let frequency = 1.0 / period;
            let wave = (2.0 * PI) as f32 / frequency;
            if wave > longest {
                frequency / factor
            } else if wave < shortest {
                frequency
            } else {
                let kept = (trained as f32 / wave - low as f32) / (high - low) as f32;
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }))
    }
}
