//! Normalisation and activation functions.

use centuple_graph::{Activation, Node};

use super::emitter::{float, int, ints};
use super::lower::Exporter;

impl Exporter<'_> {
    pub(super) fn layer_norm(&mut self, node: &Node, epsilon: f32, residual: bool) -> String {
        let mut operands = node.inputs.iter().map(|&input| self.value(input));
        let x = operands.next().unwrap_or_default();
        let rest: Vec<String> = operands.collect();
        let (x, rest) = match (residual, rest.as_slice()) {
            (true, [residual, rest @ ..]) => (self.emitter.node("Add", &[&x, residual]), rest),
            (_, rest) => (x, rest),
        };
        let operands: Vec<&str> = [x.as_str()].into_iter().chain(rest.iter().map(String::as_str)).collect();
        self.emitter.with("LayerNormalization", &operands, vec![int("axis", -1), float("epsilon", epsilon)])
    }

    pub(super) fn rms_norm(&mut self, node: &Node, epsilon: f32, residual: bool) -> String {
        let operands: Vec<String> = node.inputs.iter().map(|&input| self.value(input)).collect();
        let operand = |place: usize| operands.get(place).map_or("", String::as_str);
        let sum = if residual { self.emitter.node("Add", &[operand(0), operand(1)]) } else { operand(0).to_owned() };
        self.scaled_by_root_mean_square(&sum, operand(1 + usize::from(residual)), epsilon)
    }

    /// The norm of each head by itself.
    pub(super) fn head_norm(&mut self, node: &Node, heads: usize, epsilon: f32) -> String {
        let columns = node.fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
        let &[x, gamma] = node.inputs.as_slice() else { return String::new() };
        let (x, gamma) = (self.value(x), self.value(gamma));
        let x = self.reshaped(&x, &[0, 0, heads as i64, (columns / heads.max(1)) as i64]);
        let normal = self.scaled_by_root_mean_square(&x, &gamma, epsilon);
        self.reshaped(&normal, &[0, 0, columns as i64])
    }

    fn scaled_by_root_mean_square(&mut self, x: &str, gamma: &str, epsilon: f32) -> String {
        let two = self.emitter.float(2.0);
        let squares = self.emitter.node("Pow", &[x, &two]);
        let mean = self.emitter.with("ReduceMean", &[&squares], vec![ints("axes", &[-1]), int("keepdims", 1)]);
        let epsilon = self.emitter.float(epsilon);
        let mean = self.emitter.node("Add", &[&mean, &epsilon]);
        let root = self.emitter.node("Sqrt", &[&mean]);
        let normal = self.emitter.node("Div", &[x, &root]);
        self.emitter.node("Mul", &[&normal, gamma])
    }

    /// An activation function as a node of the graph.
    pub(super) fn activation_of(&mut self, node: &Node, activation: Activation) -> String {
        let Some(&x) = node.inputs.first() else { return String::new() };
        if let (true, Some([x, bias])) = (self.fuses(), self.unbiased.get(&x).cloned())
            && let Some(op) = fused_with_bias(activation)
        {
            return self.emitter.fused(op, &[&x, &bias], Vec::new());
        }
        let x = self.value(x);
        self.activate(activation, &x)
    }

    /// An activation function of every element.
    pub(super) fn activate(&mut self, activation: Activation, x: &str) -> String {
        match activation {
            Activation::Gelu if self.fuses() => self.emitter.fused("Gelu", &[x], Vec::new()),
            Activation::Gelu => {
                let root = self.emitter.float(std::f32::consts::SQRT_2);
                let scaled = self.emitter.node("Div", &[x, &root]);
                let erf = self.emitter.node("Erf", &[&scaled]);
                self.half_of_one_more(x, &erf)
            }
            Activation::GeluTanh if self.fuses() => self.emitter.fused("FastGelu", &[x], Vec::new()),
            Activation::GeluTanh => {
                let [three, factor, root] = [3.0, 0.044_715, (2.0 * std::f64::consts::FRAC_1_PI).sqrt() as f32]
                    .map(|value| self.emitter.float(value));
                let cube = self.emitter.node("Pow", &[x, &three]);
                let cube = self.emitter.node("Mul", &[&cube, &factor]);
                let inner = self.emitter.node("Add", &[x, &cube]);
                let inner = self.emitter.node("Mul", &[&inner, &root]);
                let tanh = self.emitter.node("Tanh", &[&inner]);
                self.half_of_one_more(x, &tanh)
            }
            Activation::QuickGelu => self.sigmoid_gate(x, 1.702),
            Activation::Silu => self.sigmoid_gate(x, 1.0),
            Activation::Relu => self.emitter.node("Relu", &[x]),
            Activation::Tanh => self.emitter.node("Tanh", &[x]),
            Activation::Sigmoid => self.emitter.node("Sigmoid", &[x]),
        }
    }

    /// `x · (1 + y) · 0.5`
    fn half_of_one_more(&mut self, x: &str, y: &str) -> String {
        let [one, half] = [1.0, 0.5].map(|value| self.emitter.float(value));
        let more = self.emitter.node("Add", &[y, &one]);
        let product = self.emitter.node("Mul", &[x, &more]);
        self.emitter.node("Mul", &[&product, &half])
    }

    /// `x · sigmoid(slope · x)`
    fn sigmoid_gate(&mut self, x: &str, slope: f32) -> String {
        if self.fuses() {
            return self.emitter.fused("QuickGelu", &[x], vec![float("alpha", slope)]);
        }
        let scaled = if slope == 1.0 {
            x.to_owned()
        } else {
            let slope = self.emitter.float(slope);
            self.emitter.node("Mul", &[x, &slope])
        };
        let sigmoid = self.emitter.node("Sigmoid", &[&scaled]);
        self.emitter.node("Mul", &[x, &sigmoid])
    }
}

/// The operator that adds a bias before its function.
pub(super) fn fused_with_bias(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Gelu => Some("BiasGelu"),
        Activation::GeluTanh => Some("FastGelu"),
        Activation::QuickGelu | Activation::Silu | Activation::Relu | Activation::Tanh | Activation::Sigmoid => None,
    }
}
