//! The precision search on synthetic models.

use std::convert::Infallible;

use centuple_receipt::Rung;
use centuple_receipt::rung::RUNGS;
use centuple_receipt::search::{Evaluation, Layer, Limits, Outcome, Point, Refusal, SearchError, search};
use proptest::prelude::*;

/// A model whose layers' true damages are known.
#[derive(Clone, Debug)]
struct Model {
    /// What the search is told.
    layers: Vec<Layer>,
    /// What each layer really does at each rung.
    damages: Vec<[f64; RUNGS]>,
    /// Damage that appears only while both layers are quantised.
    pairs: Vec<(usize, usize, f64)>,
    /// Points that f32 loses already, because of what no layer decides.
    floor: f64,
    /// The metric moves in steps of this size; 0 for a smooth one.
    step: f64,
    /// Largest noise of the metric, in points. A fixed function of the assignment.
    noise: f64,
}

impl Model {
    /// Layers of equal work that do these damages at 7 bits, and of which the search is told the truth.
    fn honest(damages: &[f64]) -> Model {
        let layers: Vec<Layer> = damages.iter().map(|&damage| Layer::new(Rung::Int8Chained, 1.0, damage)).collect();
        let damages = layers.iter().map(|layer| layer.damages).collect();
        Model { layers, damages, pairs: Vec::new(), floor: 0.0, step: 0.0, noise: 0.0 }
    }

    fn evaluate(&self, assignment: &[Rung]) -> Evaluation {
        let own: f64 = assignment.iter().zip(&self.damages).map(|(&rung, damages)| damages[rung as usize]).sum();
        let quantised = |layer: usize| assignment[layer] != Rung::Float;
        let pairs = self.pairs.iter().filter(|pair| quantised(pair.0) && quantised(pair.1));
        let error = own + pairs.map(|pair| pair.2).sum::<f64>();
        let drop = self.floor + error + self.noise * noise(assignment);
        Evaluation { drop: if self.step > 0.0 { (drop / self.step).floor() * self.step } else { drop }, error }
    }

    /// Searches, and checks what holds for every search.
    fn search(&self, limits: &Limits) -> Outcome {
        let mut calls = 0;
        let evaluate = |assignment: &[Rung]| {
            calls += 1;
            Ok::<_, Infallible>(self.evaluate(assignment))
        };
        let outcome = search(&self.layers, limits, evaluate).expect("no evaluation fails");
        let (Outcome::Met { points, .. } | Outcome::Refused { points, .. }) = &outcome;
        assert_eq!(calls, points.len());
        assert!(calls <= limits.evaluations.max(1), "{calls} evaluations");
        let fits = |point: &Point| point.drop <= limits.max_drop && point.cost <= limits.max_cost;
        for (place, point) in points.iter().enumerate() {
            assert!(!points[..place].iter().any(|other| other.assignment == point.assignment), "evaluated twice");
            assert!(point.cost <= 1.0 + 1e-12, "dearer than f32: {}", point.cost);
            assert!(point.assignment.iter().zip(&self.layers).all(|(rung, layer)| *rung >= layer.start));
        }
        match &outcome {
            Outcome::Met { chosen, points } => {
                assert!(fits(&points[*chosen]));
                assert!(points.iter().filter(|point| fits(point)).all(|point| point.cost >= points[*chosen].cost));
            }
            Outcome::Refused { best, points, .. } => {
                assert!(!points.iter().any(fits), "refused although a point fits");
                assert!(!best.is_empty());
                for pair in best.windows(2) {
                    let [cheap, dear] = [&points[pair[0]], &points[pair[1]]];
                    assert!(cheap.cost <= dear.cost && cheap.drop > dear.drop, "{cheap:?} {dear:?}");
                }
            }
        }
        outcome
    }

    /// The assignment that was found.
    fn found(&self, limits: &Limits) -> Vec<Rung> {
        match self.search(limits) {
            Outcome::Met { chosen, points } => points[chosen].assignment.clone(),
            Outcome::Refused { refusal, points, .. } => panic!("{refusal:?} after {} points", points.len()),
        }
    }

    fn cost(&self, assignment: &[Rung]) -> f64 {
        let of = |rung: &dyn Fn(usize) -> Rung| -> f64 {
            self.layers.iter().enumerate().map(|(place, layer)| layer.costs[rung(place) as usize]).sum()
        };
        of(&|place| assignment[place]) / of(&|_| Rung::Float)
    }
}

/// In −1..1, from the assignment alone (Fowler, Noll and Vo's hash).
fn noise(assignment: &[Rung]) -> f64 {
    let byte = |hash: u64, rung: &Rung| (hash ^ *rung as u64).wrapping_mul(0x0100_0000_01b3);
    let mut hash = assignment.iter().fold(0xcbf2_9ce4_8422_2325, byte);
    hash ^= hash >> 29;
    (hash % 20_001) as f64 / 10_000.0 - 1.0
}

/// The layers above their start.
fn promoted(model: &Model, assignment: &[Rung]) -> Vec<usize> {
    (0..assignment.len()).filter(|&layer| assignment[layer] > model.layers[layer].start).collect()
}

/// Models of up to 60 layers with unequal work, some starting at 8 bits, some pairs, and damages over orders of
/// magnitude.
fn models(noise: f64, step: f64) -> impl Strategy<Value = Model> {
    let layer = (prop::bool::weighted(0.2), 0.5..4.0f64, -4.0..0.0f64, -0.5..0.5f64);
    let pair = (0usize..60, 0usize..60, 0.0..0.2f64);
    (prop::collection::vec(layer, 1..60), prop::collection::vec(pair, 0..4)).prop_map(move |(rows, pairs)| {
        let start = |eight| if eight { Rung::Int8 } else { Rung::Int8Chained };
        let layers: Vec<Layer> =
            rows.iter().map(|&(eight, work, damage, _)| Layer::new(start(eight), work, 10f64.powf(damage))).collect();
        let truth = |(layer, row): (&Layer, &(bool, f64, f64, f64))| layer.damages.map(|d| d * 10f64.powf(row.3));
        let damages = layers.iter().zip(&rows).map(truth).collect();
        let count = layers.len();
        let pairs = pairs.into_iter().map(|(a, b, damage)| (a % count, b % count, damage)).collect();
        Model { layers, damages, pairs, floor: 0.0, step, noise }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whenever f32 is within the budget, so is what is found.
    #[test]
    fn the_budget_is_met_where_f32_meets_it(
        model in models(0.0, 0.0), max_drop in 0.0..2.0f64, evaluations in 2usize..60
    ) {
        model.found(&Limits { evaluations, ..Limits::new(max_drop) });
    }

    /// A metric in steps, with noise: the checks of `search` hold, and the same search ends the same way.
    #[test]
    fn noise_and_steps_break_nothing(
        model in models(0.3, 0.1), max_drop in -0.2..1.0f64, max_cost in 0.2..1.2f64, evaluations in 0usize..50
    ) {
        let limits = Limits { max_drop, max_cost, evaluations };
        prop_assert_eq!(model.search(&limits), model.search(&limits));
    }

    /// With evaluations to spare, no layer of the result can have a faster rung.
    #[test]
    fn no_promotion_is_unneeded(model in models(0.0, 0.0), max_drop in 0.0..2.0f64) {
        let found = model.found(&Limits { evaluations: 10_000, ..Limits::new(max_drop) });
        for layer in promoted(&model, &found) {
            let mut faster = found.clone();
            faster[layer] = Rung::ALL[found[layer] as usize - 1];
            prop_assert!(model.evaluate(&faster).drop > max_drop, "layer {layer} of {found:?}");
        }
    }

    /// On few layers whose damages add up the result costs little more than the best of all assignments.
    #[test]
    fn the_result_is_close_to_the_best(model in models(0.0, 0.0), max_drop in 0.0..0.5f64) {
        let count = model.layers.len().min(5);
        let (layers, damages) = (model.layers[..count].to_vec(), model.damages[..count].to_vec());
        let model = Model { layers, damages, pairs: Vec::new(), ..model };
        let all = (0..RUNGS.pow(count as u32)).map(|mut code| {
            let digit = |layer: &Layer| {
                let rung = Rung::ALL[code % RUNGS];
                code /= RUNGS;
                rung.max(layer.start)
            };
            model.layers.iter().map(digit).collect::<Vec<Rung>>()
        });
        let fitting = all.filter(|assignment| model.evaluate(assignment).drop <= max_drop);
        let best = fitting.map(|assignment| model.cost(&assignment)).fold(f64::INFINITY, f64::min);
        let found = model.cost(&model.found(&Limits::new(max_drop)));
        prop_assert!(found <= best * 2.0, "{found} where {best} is possible");
    }

    /// One or two layers that do all the damage are found among up to 144 of which the search is told nothing.
    #[test]
    fn outliers_are_found_even_if_sensitivities_say_nothing(
        count in 2usize..145, first in 0usize..145, second in 0usize..145
    ) {
        let mut outliers = vec![first % count, second % count];
        outliers.sort_unstable();
        outliers.dedup();
        let mut model = Model::honest(&vec![0.001; count]);
        for &outlier in &outliers {
            model.damages[outlier] = [10.0, 9.0, 8.0, 7.0, 0.0];
        }
        let found = model.found(&Limits::new(0.4));
        prop_assert_eq!(promoted(&model, &found), outliers);
    }
}

#[test]
fn a_start_within_the_budget_needs_one_evaluation() {
    let model = Model::honest(&[0.001; 24]);
    let Outcome::Met { chosen: 0, points } = model.search(&Limits::new(0.4)) else { panic!("not met") };
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].assignment, vec![Rung::Int8Chained; 24]);
    assert_eq!(points[0].cost, 0.25);
}

#[test]
fn an_outlier_that_sensitivities_show_is_found_at_once() {
    let mut damages = vec![0.001; 72];
    damages[40] = 3.0;
    let model = Model::honest(&damages);
    let Outcome::Met { chosen, points } = model.search(&Limits::new(0.7)) else { panic!("not met") };
    assert_eq!(promoted(&model, &points[chosen].assignment), [40]);
    assert_eq!(points[chosen].assignment[40], Rung::W8A12);
    assert!(points.len() <= 14, "{} evaluations", points.len());
}

#[test]
fn two_layers_that_only_hurt_together_cost_one_promotion() {
    let mut model = Model::honest(&[0.001; 36]);
    model.pairs = vec![(7, 20, 5.0)];
    let found = model.found(&Limits::new(0.4));
    assert_eq!(promoted(&model, &found).len(), 1);
    assert!([7, 20].contains(&promoted(&model, &found)[0]));
}

#[test]
fn a_floor_above_the_budget_is_refused_with_the_curve() {
    let model = Model { floor: 0.5, ..Model::honest(&[0.1; 12]) };
    let Outcome::Refused { refusal, best, points } = model.search(&Limits::new(0.4)) else { panic!("not refused") };
    assert_eq!((refusal, best.len(), points.len()), (Refusal::Drop, 5, 5));
    assert_eq!(points[best[4]].assignment, vec![Rung::Float; 12]);
}

#[test]
fn a_time_limit_that_no_promotion_keeps_is_refused() {
    let model = Model::honest(&[0.1; 12]);
    let outcome = model.search(&Limits { max_cost: 0.3, ..Limits::new(0.2) });
    let Outcome::Refused { refusal, .. } = outcome else { panic!("not refused") };
    assert_eq!(refusal, Refusal::Cost);
}

#[test]
fn one_evaluation_does_not_tell_whether_f32_would_do() {
    let outcome = Model::honest(&[0.1; 12]).search(&Limits { evaluations: 1, ..Limits::new(0.2) });
    let Outcome::Refused { refusal, .. } = outcome else { panic!("not refused") };
    assert_eq!(refusal, Refusal::Evaluations);
}

#[test]
fn no_layers_are_an_assignment_too() {
    let Outcome::Met { points, .. } = Model::honest(&[]).search(&Limits::new(0.0)) else { panic!("not met") };
    assert_eq!((points.len(), points[0].cost), (1, 1.0));
    let refused = Model { floor: 1.0, ..Model::honest(&[]) }.search(&Limits::new(0.0));
    assert!(matches!(refused, Outcome::Refused { refusal: Refusal::Drop, .. }));
}

#[test]
fn a_drop_that_is_no_number_ends_the_search() {
    let evaluate = |_: &[Rung]| Ok::<_, Infallible>(Evaluation { drop: f64::NAN, error: 0.0 });
    let outcome = search(&[Layer::new(Rung::Int8, 1.0, 0.1)], &Limits::new(1.0), evaluate);
    assert!(matches!(outcome, Err(SearchError::NotFinite(_))));
}

#[test]
fn tables_that_are_no_costs_are_refused() {
    let good = Layer::new(Rung::Int8, 1.0, 0.1);
    let falling = Layer { costs: [0.5, 1.0, 2.0, 1.0, 4.0], ..good.clone() };
    let unknown = Layer { damages: [f64::NAN, f64::NAN, 0.1, f64::NAN, 0.0], ..good.clone() };
    for (bad, reason) in [
        (falling, "costs are negative, or fall from a rung to a slower one"),
        (unknown, "a cost or a damage is not finite"),
    ] {
        let outcome = search(&[good.clone(), bad], &Limits::new(1.0), |_| -> Result<Evaluation, Infallible> {
            unreachable!("nothing is evaluated")
        });
        let Err(SearchError::Layer { layer: 1, reason: found }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(found, reason);
    }
}

#[test]
fn a_failed_evaluation_ends_the_search() {
    let outcome = search(&[Layer::new(Rung::Int8, 1.0, 0.1)], &Limits::new(1.0), |_| Err("out of memory"));
    assert_eq!(outcome.unwrap_err().to_string(), "out of memory");
}
