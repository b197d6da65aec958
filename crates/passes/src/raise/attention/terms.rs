//! Disentangled attention: products of queries with embedded distances, and of keys.

use centuple_graph::{NodeId, Op};
use centuple_tensor::Tensor;

use super::Reason;
use super::operand::{Operand, Rotations};
use super::reading::{Reading, distances_seen};
use super::region::{Region, Survey};
use crate::raise::probe::Probe;

/// What distances add to scores through the content of tokens.
pub(super) struct Terms {
    /// `[2D + 1]` i64: the bucket of each distance.
    pub(super) buckets: Tensor,
    /// `[heads, B, head_dim]`: what queries are multiplied by.
    pub(super) content_to_position: Option<Tensor>,
    /// `[heads, B, head_dim]`: what keys are multiplied by.
    pub(super) position_to_content: Option<Tensor>,
}

/// The products that such an attention adds.
pub(super) fn products(survey: &Survey, region: &Region) -> Vec<NodeId> {
    let (mut found, mut wanted, mut seen) = (Vec::new(), vec![region.scores], vec![region.scores]);
    while let Some(id) = wanted.pop() {
        if id == region.content {
            continue;
        }
        if is_term(survey, id) {
            found.push(id);
            continue;
        }
        for input in survey.live_inputs(id).filter(|input| !seen.contains(input)).collect::<Vec<_>>() {
            seen.push(input);
            wanted.push(input);
        }
    }
    found
}

/// One of the products.
struct Term {
    of_keys: bool,
    /// By head, bucket and column; scaled as the products of queries and keys are not.
    table: Vec<f32>,
    buckets: Vec<usize>,
}

/// Reads what the products with distances add to the scores.
pub(super) fn read(
    reading: &Reading,
    operands: [&Operand; 2],
    scale: f32,
    max_tokens: usize,
    rotations: &mut Rotations,
) -> Result<Terms, Reason> {
    let (heads, head_dim) = (operands[0].heads, operands[0].head_dim);
    let tokens = distances_seen(heads, max_tokens);
    if tokens < max_tokens {
        return Err(format!("the distances of {max_tokens} tokens are too many to look at"));
    }
    let scale = scale * operands[0].factor * operands[1].factor;
    let count = reading.products.len();
    let terms: Vec<Term> = (1..count)
        .map(|which| Term::read(reading, which, operands, scale, tokens, rotations))
        .collect::<Result<_, _>>()?;
    let [queries, keys] = [false, true].map(|of_keys| terms.iter().filter(move |term| term.of_keys == of_keys));
    let (queries, keys): (Vec<_>, Vec<_>) = (queries.collect(), keys.collect());
    if queries.len() > 1 || keys.len() > 1 {
        return Err("several products with distances are added to its scores".to_owned());
    }
    let leading = queries.first().or(keys.first()).ok_or("no product with distances")?;
    let rows = leading.table.len() / (heads * head_dim);
    let tensor = |term: Option<&&Term>| match term {
        Some(term) => {
            let table = term.under(&leading.buckets, [heads, rows, head_dim])?;
            Tensor::from_f32(&[heads, rows, head_dim], &table).map(Some).map_err(|error| error.to_string())
        }
        None => Ok(None),
    };
    let buckets: Vec<i64> = leading.buckets.iter().map(|&bucket| bucket as i64).collect();
    let buckets = Tensor::from_i64(&[buckets.len()], &buckets).map_err(|error| error.to_string())?;
    let (content_to_position, position_to_content) = (tensor(queries.first())?, tensor(keys.first())?);
    Ok(Terms { buckets, content_to_position, position_to_content })
}

impl Term {
    fn read(
        reading: &Reading,
        which: usize,
        operands: [&Operand; 2],
        scale: f32,
        tokens: usize,
        rotations: &mut Rotations,
    ) -> Result<Term, Reason> {
        let survey = reading.survey;
        let [live, positions] = survey.graph.node(reading.products[which]).inputs[..] else {
            return Err("a product with distances has no two operands".to_owned());
        };
        if survey.is_ambient(live) {
            return Err("a product with distances has them first".to_owned());
        }
        let operand = Operand::read(survey, live, false, rotations, tokens)?;
        let of_keys = !operand.reads_as(operands[0]);
        if of_keys && !operand.reads_as(operands[1]) {
            return Err("a product with distances is neither of its queries nor of its keys".to_owned());
        }
        let factor = reading.factor(which)?;
        let table = table(survey, positions, operand.heads, tokens)?;
        let coded = reading.of(tokens, which, |column| (column + 1) as f32)?;
        let distances = coded.by_distance().ok_or("what positions add to its scores is no function of the distance")?;
        if distances.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("its heads see distances differently".to_owned());
        }
        let rows = table.len() / (operand.heads * operand.head_dim).max(1);
        let bucket = |&code: &f32| {
            let place = code / factor - 1.0;
            let bucket = place.round();
            ((place - bucket).abs() < 0.1 && bucket >= 0.0 && (bucket as usize) < rows).then_some(bucket as usize)
        };
        let buckets: Vec<usize> = distances[0]
            .iter()
            .map(bucket)
            .collect::<Option<_>>()
            .ok_or("what positions add to its scores is more than one product")?;
        let share = factor * operand.factor / scale;
        let table = table.into_iter().map(|value| value * share).collect();
        Ok(Term { of_keys, table, buckets })
    }

    /// The table by other buckets.
    fn under(&self, buckets: &[usize], [heads, rows, head_dim]: [usize; 3]) -> Result<Vec<f32>, Reason> {
        let mut own = vec![None; rows];
        for (&bucket, &mine) in buckets.iter().zip(&self.buckets) {
            if own[bucket].replace(mine).is_some_and(|before| before != mine) {
                return Err("its two products with distances know different ones".to_owned());
            }
        }
        let width = self.table.len() / heads.max(1);
        let row = |head: usize, bucket: &Option<usize>| match bucket {
            Some(bucket) => self.table[head * width + bucket * head_dim..][..head_dim].to_vec(),
            None => vec![0.0; head_dim],
        };
        Ok((0..heads).flat_map(|head| own.iter().flat_map(move |bucket| row(head, bucket))).collect())
    }
}

/// The operand `[..., D, B]` of a product by head, bucket and column.
fn table(survey: &Survey, positions: NodeId, heads: usize, tokens: usize) -> Result<Vec<f32>, Reason> {
    let failed = || "its embedded distances can't be computed on a probe".to_owned();
    let mut probe = Probe::new(survey.graph, &[tokens]).ok_or_else(failed)?;
    let value = probe.value(positions).ok_or_else(failed)?;
    let data = value.as_f32().map_err(|_| failed())?;
    let [lead @ .., depth, rows] = value.shape() else { return Err(failed()) };
    let (count, depth, rows) = (lead.iter().product::<usize>(), *depth, *rows);
    if count != heads && count != 1 {
        return Err("its heads share embedded distances".to_owned());
    }
    let block = |head: usize| &data[if count == 1 { 0 } else { head * depth * rows }..][..depth * rows];
    let turned = |head: usize| {
        let block = block(head);
        (0..rows).flat_map(move |row| (0..depth).map(move |column| block[column * rows + row]))
    };
    Ok((0..heads).flat_map(turned).collect())
}

/// Products of live values with values of the layout, between the scores and the products of queries and keys.
fn is_term(survey: &Survey, id: NodeId) -> bool {
    survey.graph.node(id).op == Op::MatMul && survey.live_inputs(id).count() == 1
}
