//! The precision search: the cheapest assignment of rungs to layers that keeps the end metric within a budget.
//!
//! Layers start at their fastest rung. If that costs too much accuracy, promotions (a layer, to a slower rung) are put
//! into one order, the ladder: most damage removed per time added first. Bisection finds how many of them are needed;
//! then promotions that turn out unneeded are taken back, whole groups first. The ladder's order is only a guess from
//! what each layer does alone: taking back is what mends it where it is wrong.
//!
//! Everything is deterministic: the same figures and answers give the same assignment.

mod ladder;

use std::cmp::Ordering;

use thiserror::Error;

use crate::Rung;
use crate::rung::RUNGS;
use ladder::Ladder;

/// A linear layer as the search sees it. Tables are indexed by `Rung as usize`; entries below `start` are not read.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The fastest rung that the layer can have.
    pub start: Rung,
    /// Time at each rung, in any unit that all layers share; never less on a slower rung.
    pub costs: [f64; RUNGS],
    /// What the layer alone does to the model's output at each rung, best in the unit of [`Evaluation::error`].
    pub damages: [f64; RUNGS],
}

impl Layer {
    /// A layer of which only the damage at its start rung is known: `work` is its number of multiplications, and the
    /// tables follow from [`Rung::time`] and [`Rung::noise`].
    #[must_use]
    pub fn new(start: Rung, work: f64, damage: f64) -> Layer {
        let of_start = if start == Rung::Float { 1.0 } else { start.noise() };
        Layer {
            start,
            costs: Rung::ALL.map(|rung| work * rung.time()),
            damages: Rung::ALL.map(|rung| damage * rung.noise() / of_start),
        }
    }
}

/// What an assignment does to the model, against f32 on the search examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// What the end metric loses, in points; negative where it gains.
    pub drop: f64,
    /// Mean of 1 − cosine of the outputs. Smooth where the metric is a step function, so it breaks ties.
    pub error: f64,
}

/// What the search must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most points that the metric may lose.
    pub max_drop: f64,
    /// Most time that the layers may take, relative to all of them in f32.
    pub max_cost: f64,
    /// Most evaluations; the first is always made.
    pub evaluations: usize,
}

impl Limits {
    /// At most `max_drop` points, at any cost, in at most 40 evaluations.
    #[must_use]
    pub fn new(max_drop: f64) -> Limits {
        Limits { max_drop, max_cost: f64::INFINITY, evaluations: 40 }
    }
}

/// An assignment that was evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The rung of each layer.
    pub assignment: Vec<Rung>,
    /// Time of the layers relative to all of them in f32.
    pub cost: f64,
    /// See [`Evaluation::drop`].
    pub drop: f64,
    /// See [`Evaluation::error`].
    pub error: f64,
}

impl Point {
    /// Which of two points to prefer: the cheaper; at equal cost the one that loses less.
    fn preference(&self, other: &Point) -> Ordering {
        let key = |point: &Point| [point.cost, point.drop, point.error];
        let pairs = key(self).into_iter().zip(key(other));
        pairs.map(|(mine, other)| mine.total_cmp(&other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// How a search ended. `points` are all assignments that were evaluated, in that order.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// An assignment meets the limits.
    Met {
        /// The place in `points` of the cheapest one that does.
        chosen: usize,
        /// The trade-off curve.
        points: Vec<Point>,
    },
    /// None was found that does.
    Refused {
        /// Which limit was in the way.
        refusal: Refusal,
        /// The places in `points` of those that no other beats in both cost and drop, the cheapest first.
        best: Vec<usize>,
        /// The trade-off curve.
        points: Vec<Point>,
    },
}

/// Why a search found no assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The metric loses too much even when every layer computes in f32.
    Drop,
    /// Every assignment found within the metric's budget takes more time than [`Limits::max_cost`].
    Cost,
    /// No evaluation was left to try f32.
    Evaluations,
}

/// Why a search could not be made.
#[derive(Debug, Error)]
pub enum SearchError<E> {
    /// A layer's tables are no costs or damages.
    #[error("layer {layer} of the search: {reason}")]
    Layer {
        /// Its place.
        layer: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// An evaluation gave a drop or an error that is not finite.
    #[error("the drop or the error of an evaluation is not finite: {0:?}")]
    NotFinite(Evaluation),
    /// An evaluation failed.
    #[error(transparent)]
    Evaluation(E),
}

/// Looks for the cheapest assignment that keeps to `limits`, with few calls of `evaluate` and none twice.
///
/// What is chosen is the cheapest of all that was tried and fits. A model that would fit in f32 is refused only for
/// its cost, or where no evaluation is left to see that.
///
/// # Errors
/// A layer's tables or an evaluation hold a value that isn't finite; a cost is negative or falls from a rung to a
/// slower one; or what `evaluate` returns.
pub fn search<E>(
    layers: &[Layer],
    limits: &Limits,
    evaluate: impl FnMut(&[Rung]) -> Result<Evaluation, E>,
) -> Result<Outcome, SearchError<E>> {
    for (place, layer) in layers.iter().enumerate() {
        check(layer).map_err(|reason| SearchError::Layer { layer: place, reason })?;
    }
    let mut run = Run { layers, limits, evaluate, points: Vec::new() };
    let tried_float = run.explore()?;
    Ok(run.outcome(tried_float))
}

fn check(layer: &Layer) -> Result<(), &'static str> {
    let from = layer.start as usize;
    let (costs, damages) = (&layer.costs[from..], &layer.damages[from..]);
    if costs.iter().chain(damages).any(|value| !value.is_finite()) {
        return Err("a cost or a damage is not finite");
    }
    if costs[0] < 0.0 || costs.windows(2).any(|pair| pair[1] < pair[0]) {
        return Err("costs are negative, or fall from a rung to a slower one");
    }
    Ok(())
}

/// A promotion to take back: these layers, each to the rung beside it.
type Retreat = Vec<(usize, Rung)>;

struct Run<'a, F> {
    layers: &'a [Layer],
    limits: &'a Limits,
    evaluate: F,
    points: Vec<Point>,
}

impl<E, F: FnMut(&[Rung]) -> Result<Evaluation, E>> Run<'_, F> {
    /// Evaluates what is worth it, while evaluations are left. Returns whether f32 was tried.
    fn explore(&mut self) -> Result<bool, SearchError<E>> {
        let ladder = Ladder::new(self.layers);
        if self.meets(&ladder.after(0))? == Some(true) {
            return Ok(false);
        }
        match self.meets(&ladder.after(ladder.len()))? {
            None => Ok(false),
            Some(true) => {
                let enough = self.bisect(&ladder)?;
                self.take_back(&ladder, enough)?;
                Ok(true)
            }
            // Nothing can meet the budget. A few points between show what could be had.
            Some(false) => {
                for quarter in 1..4 {
                    self.meets(&ladder.after(ladder.len() * quarter / 4))?;
                }
                Ok(true)
            }
        }
    }

    /// The least number of promotions that meets the budget, as far as evaluations last: none do not, all do.
    fn bisect(&mut self, ladder: &Ladder) -> Result<usize, SearchError<E>> {
        let (mut short, mut enough) = (0, ladder.len());
        while enough - short > 1 {
            let middle = short.midpoint(enough);
            match self.meets(&ladder.after(middle))? {
                Some(true) => enough = middle,
                Some(false) => short = middle,
                None => break,
            }
        }
        Ok(enough)
    }

    /// Takes back promotions while the budget is met: the retreat that saves most time first. A group that can't be
    /// taken back is halved; a layer that can't go back to its start tries the next slower rung.
    fn take_back(&mut self, ladder: &Ladder, enough: usize) -> Result<(), SearchError<E>> {
        let mut current = ladder.after(enough);
        let promoted = ladder.promoted(enough);
        let mut retreats: Vec<Retreat> =
            vec![promoted.into_iter().map(|layer| (layer, self.layers[layer].start)).collect()];
        while let Some(retreat) = self.most_saving(&current, &mut retreats) {
            let mut trial = current.clone();
            for &(layer, rung) in &retreat {
                trial[layer] = trial[layer].min(rung);
            }
            let meets = if self.is_hopeless(&trial) { Some(false) } else { self.meets(&trial)? };
            match meets {
                None => break,
                Some(true) => current = trial,
                Some(false) => retreats.extend(smaller(&retreat, &current)),
            }
        }
        Ok(())
    }

    /// Removes the retreat that saves most time, at equal time does least damage.
    fn most_saving(&self, current: &[Rung], retreats: &mut Vec<Retreat>) -> Option<Retreat> {
        let gain = |retreat: &Retreat| {
            let change = |table: fn(&Layer) -> &[f64; RUNGS]| -> f64 {
                let step = |&(layer, rung): &(usize, Rung)| {
                    let table = table(&self.layers[layer]);
                    table[current[layer] as usize] - table[current[layer].min(rung) as usize]
                };
                retreat.iter().map(step).sum()
            };
            (change(|layer| &layer.costs), change(|layer| &layer.damages))
        };
        let better = |a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).is_gt();
        let mut most = None;
        for (place, retreat) in retreats.iter().enumerate() {
            let gain = gain(retreat);
            if most.as_ref().is_none_or(|(_, best)| better(&gain, best)) {
                most = Some((place, gain));
            }
        }
        most.map(|(place, _)| retreats.remove(place))
    }

    /// Whether an assignment over the budget is known that is nowhere faster than this one. Noise of the metric may
    /// say otherwise, but a search that tries such assignments only finds luck.
    fn is_hopeless(&self, assignment: &[Rung]) -> bool {
        let slower = |point: &Point| point.assignment.iter().zip(assignment).all(|(known, rung)| known >= rung);
        self.points.iter().any(|point| point.drop > self.limits.max_drop && slower(point))
    }

    /// Whether an assignment meets the budget; `None` where it is new and no evaluation is left.
    fn meets(&mut self, assignment: &[Rung]) -> Result<Option<bool>, SearchError<E>> {
        let known = self.points.iter().find(|point| point.assignment == assignment);
        if let Some(point) = known {
            return Ok(Some(point.drop <= self.limits.max_drop));
        }
        if self.points.len() >= self.limits.evaluations.max(1) {
            return Ok(None);
        }
        let evaluation = (self.evaluate)(assignment).map_err(SearchError::Evaluation)?;
        let Evaluation { drop, error } = evaluation;
        if !(drop.is_finite() && error.is_finite()) {
            return Err(SearchError::NotFinite(evaluation));
        }
        self.points.push(Point { assignment: assignment.to_vec(), cost: self.cost(assignment), drop, error });
        Ok(Some(drop <= self.limits.max_drop))
    }

    /// Time of an assignment relative to f32; 1 where the layers take no time at all.
    fn cost(&self, assignment: &[Rung]) -> f64 {
        let time = |rung: &dyn Fn(usize) -> Rung| -> f64 {
            self.layers.iter().enumerate().map(|(place, layer)| layer.costs[rung(place) as usize]).sum()
        };
        let float = time(&|_| Rung::Float);
        if float > 0.0 { time(&|place| assignment[place]) / float } else { 1.0 }
    }

    fn outcome(self, tried_float: bool) -> Outcome {
        let Run { limits, points, .. } = self;
        let within = |point: &Point| point.drop <= limits.max_drop;
        let cheapest = |wanted: &dyn Fn(&Point) -> bool| {
            let places = (0..points.len()).filter(|&place| wanted(&points[place]));
            places.min_by(|&a, &b| points[a].preference(&points[b]))
        };
        if let Some(chosen) = cheapest(&|point| within(point) && point.cost <= limits.max_cost) {
            return Outcome::Met { chosen, points };
        }
        let refusal = match (points.iter().any(within), tried_float) {
            (true, _) => Refusal::Cost,
            (false, true) => Refusal::Drop,
            (false, false) => Refusal::Evaluations,
        };
        Outcome::Refused { refusal, best: undominated(&points), points }
    }
}

/// What to try where a retreat fails: the halves of a group; for one layer the next rung below its present one.
fn smaller(retreat: &Retreat, current: &[Rung]) -> Vec<Retreat> {
    if let &[(layer, rung)] = retreat.as_slice() {
        let next = Rung::ALL.into_iter().find(|&next| next > rung && next < current[layer]);
        return next.into_iter().map(|next| vec![(layer, next)]).collect();
    }
    let (first, second) = retreat.split_at(retreat.len() / 2);
    [first, second].into_iter().filter(|half| !half.is_empty()).map(<[_]>::to_vec).collect()
}

/// Places of the points that no other beats in both cost and drop, the cheapest first.
fn undominated(points: &[Point]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..points.len()).collect();
    places.sort_by(|&a, &b| points[a].preference(&points[b]));
    let mut least = f64::INFINITY;
    places.retain(|&place| {
        let better = points[place].drop < least;
        least = least.min(points[place].drop);
        better
    });
    places
}
