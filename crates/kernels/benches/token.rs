//! Attention of one token to keys and values that come from memory, in every precision, at the heads of SmolLM2-135M (nine on three,
//! 64 elements), beside the rate at which the same threads read memory; and beside the kernel for blocks of queries.
//!
//! Each round reads some megabytes and then attends to as many, always others. Figures are the fastest tenth of the rounds: on a
//! machine that others use, the rest measures them.
//! `cargo bench -p centuple-kernels --bench token -- [ISA] [THREADS]`

use std::hint::black_box;
use std::time::Instant;

use centuple_kernels::{
    AttentionBlock, Isa, Kernels, KeyRun, KvForm, KvPrecision, Matrix, MatrixMut, PagedKeys, PositionScores,
    ThreadPool, TokenAttention, attention_scratch,
};

const HEADS: usize = 3;
const SHARED: usize = 3;
const HEAD_DIM: usize = 64;
const LENGTHS: [usize; 5] = [128, 256, 512, 1024, 4096];
const ROUNDS: usize = 40;
/// Words of keys and values: several times the last cache.
const WORDS: usize = (256 << 20) / 4;
/// Words that are read at a time.
const PART: usize = (32 << 20) / 4;

/// Bytes per second at which the threads read some words.
fn read(pool: &ThreadPool, memory: &[f32]) -> f64 {
    let words: &[u64] = bytemuck::cast_slice(memory);
    let start = Instant::now();
    pool.run(&|worker| {
        worker.barrier();
        let part = &words[worker.share(words.len())];
        black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        worker.barrier();
    })
    .expect("nobody panics");
    (8 * words.len()) as f64 / start.elapsed().as_secs_f64()
}

/// Which kernel attends.
#[derive(Clone, Copy)]
enum Way {
    Token,
    /// Told what it will attend to next.
    Told,
    Block,
}

/// Bytes per second of sequences of so many tokens, one behind the other in memory, their pages in no order.
fn attend(pool: &ThreadPool, kernels: Kernels, memory: &[f32], form: KvForm, tokens: usize, way: Way) -> f64 {
    let count = memory.len() / form.page_words();
    let of_sequence = tokens / KvForm::TOKENS;
    let mut pages: Vec<u32> = (0..(count - count % of_sequence) as u32).collect();
    let length = pages.len();
    (0..length).for_each(|at| pages.swap(at, at * 7919 % length));
    let pieces = length / of_sequence * HEADS;
    let queries: Vec<f32> = (0..SHARED * HEAD_DIM).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
    let queries = Matrix::contiguous(&queries, SHARED, HEAD_DIM).expect("it fits");
    let start = Instant::now();
    pool.run(&|worker| {
        let mut scratch = vec![0.0; attention_scratch(tokens, HEAD_DIM, HEAD_DIM)];
        let mut out = vec![0.0; SHARED * HEAD_DIM];
        worker.barrier();
        let keys = |piece: usize| {
            let pages = &pages[piece / HEADS * of_sequence..(piece / HEADS + 1) * of_sequence];
            PagedKeys::new(memory, form, piece % HEADS, pages, tokens).expect("the pages are there")
        };
        for piece in worker.share(pieces) {
            let next = (matches!(way, Way::Told) && piece + 1 < pieces).then(|| (keys(piece + 1), 0));
            let keys = keys(piece);
            let mut out = MatrixMut::contiguous(&mut out, SHARED, HEAD_DIM).expect("it fits");
            match way {
                Way::Token | Way::Told => {
                    let token = TokenAttention { queries, keys, first_key: 0, next, scale: 0.125, soft_cap: None };
                    kernels.attend_token(&token, &mut scratch, &mut out).expect("the shapes fit");
                }
                Way::Block => {
                    let runs: Vec<KeyRun<'_>> = keys.pages().map(KeyRun::Page).collect();
                    let block = AttentionBlock {
                        queries,
                        runs: &runs,
                        first_position: 0,
                        causal: false,
                        window: None,
                        position: PositionScores::None,
                        scale: 0.125,
                        soft_cap: None,
                        mask: None,
                    };
                    kernels.attention(&block, &mut scratch, &mut out).expect("the shapes fit");
                }
            }
            black_box(out.row_mut(0));
        }
        worker.barrier();
    })
    .expect("nobody panics");
    (4 * length * form.page_words()) as f64 / start.elapsed().as_secs_f64()
}

/// The rate that a tenth of the rounds exceeds.
fn best(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() - 1 - rates.len() / 10] / 1e9
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let isa = arguments.first().map_or(Isa::best(), |name| name.parse().expect("an instruction set"));
    let threads = arguments.get(1).map_or(2, |count| count.parse().expect("a number of threads"));
    let kernels = Kernels::new(isa).expect("the instruction set is available");
    let pool = ThreadPool::new(threads).expect("threads start");
    // An ordinary number as one f32, as two f16 and as four i8.
    let memory = vec![f32::from_bits(0x3C00_3800); WORDS];
    println!("{isa}, {threads} threads; GB/s of keys and values");
    for precision in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8] {
        let form = KvForm { precision, heads: HEADS, head_dim: HEAD_DIM };
        for tokens in LENGTHS {
            let mut rates: [Vec<f64>; 4] = Default::default();
            for round in 0..ROUNDS {
                let part = |index: usize| &memory[(4 * round + index) % (WORDS / PART) * PART..][..PART];
                rates[0].push(read(&pool, part(0)));
                rates[1].push(attend(&pool, kernels, part(1), form, tokens, Way::Token));
                rates[2].push(attend(&pool, kernels, part(2), form, tokens, Way::Told));
                rates[3].push(attend(&pool, kernels, part(3), form, tokens, Way::Block));
            }
            let [reading, token, told, block] = rates.each_mut().map(|rates| best(rates));
            println!(
                "{precision:?} {tokens:5} tokens: {token:5.1} of {reading:5.1} that reading takes ({:.0} %); {:.2} µs each; told what comes next {told:.1}; \
                 as a block of queries {block:.1}",
                100.0 * token / reading,
                1e6 * (threads * 4 * form.head_words() * tokens / KvForm::TOKENS) as f64 / (token * 1e9),
            );
        }
    }
}
