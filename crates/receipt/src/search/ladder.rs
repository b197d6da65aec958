//! The order of promotions.

use super::Layer;
use crate::Rung;

/// One promotion.
struct Step {
    layer: usize,
    to: Rung,
    /// Damage removed per time added.
    gain: f64,
}

/// All promotions from every layer's start to f32, the most useful per time first.
///
/// Of each layer only those rungs take part that lie on the lower convex hull of its damage over its cost: so the
/// gains of a layer fall from rung to rung, and each prefix of the ladder is an assignment that is best for its
/// cost if damages add up.
pub(super) struct Ladder {
    start: Vec<Rung>,
    steps: Vec<Step>,
}

impl Ladder {
    pub(super) fn new(layers: &[Layer]) -> Ladder {
        let mut steps: Vec<Step> = Vec::new();
        for (place, layer) in layers.iter().enumerate() {
            let hull = hull(layer);
            let gains = hull.windows(2).map(|pair| (pair[1], gain(layer, pair[0], pair[1])));
            steps.extend(gains.map(|(to, gain)| Step { layer: place, to, gain }));
        }
        steps.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.layer.cmp(&b.layer)).then(a.to.cmp(&b.to)));
        Ladder { start: layers.iter().map(|layer| layer.start).collect(), steps }
    }

    /// The number of promotions.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The assignment after the first `count` promotions.
    pub(super) fn after(&self, count: usize) -> Vec<Rung> {
        let mut assignment = self.start.clone();
        for step in &self.steps[..count] {
            assignment[step.layer] = assignment[step.layer].max(step.to);
        }
        assignment
    }

    /// The layers that the first `count` promotions touch, in order.
    pub(super) fn promoted(&self, count: usize) -> Vec<usize> {
        let mut layers = Vec::new();
        for step in &self.steps[..count] {
            if !layers.contains(&step.layer) {
                layers.push(step.layer);
            }
        }
        layers
    }
}

/// The rungs from start to f32 on the lower convex hull of damage over cost; both ends are always on it.
fn hull(layer: &Layer) -> Vec<Rung> {
    let mut hull: Vec<Rung> = Vec::new();
    for rung in Rung::ALL.into_iter().filter(|&rung| rung >= layer.start) {
        while let [.., before, last] = hull[..]
            && gain(layer, before, last) <= gain(layer, last, rung)
        {
            hull.pop();
        }
        hull.push(rung);
    }
    hull
}

/// Damage removed per time added; a promotion that takes no time is worth everything if it removes any.
fn gain(layer: &Layer, from: Rung, to: Rung) -> f64 {
    let removed = layer.damages[from as usize] - layer.damages[to as usize];
    let added = layer.costs[to as usize] - layer.costs[from as usize];
    match (added > 0.0, removed > 0.0) {
        (true, _) => removed / added,
        (false, true) => f64::INFINITY,
        (false, false) => 0.0,
    }
}
