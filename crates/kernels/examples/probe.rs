#![allow(unsafe_code)]
use centuple_kernels::*;
use std::time::Instant;
struct A(Vec<f32>, usize, usize);
impl A {
    fn new(n: usize) -> A {
        let v = vec![0f32; n + 16];
        let o = v.as_ptr().align_offset(64);
        A(v, o, n)
    }
    fn s(&mut self) -> &mut [f32] {
        &mut self.0[self.1..self.1 + self.2]
    }
}
fn main() {
    let threads: usize = std::env::args().nth(1).map_or(1, |v| v.parse().unwrap());
    let isa: Isa = std::env::args().nth(2).map_or(Isa::best(), |v| v.parse().unwrap());
    let pool = ThreadPool::new(threads).unwrap();
    let k = Kernels::new(isa).unwrap();
    let gb = ceiling::giga_bytes_per_second(&pool, 128 << 20).unwrap();
    println!("isa {isa} threads {threads} mem {gb:.1} GB/s");
    for m in [1usize, 4, 8, 16, 32, 64, 128, 1024, 2048] {
        for (n, kk) in [(1152usize, 384usize), (384, 384), (1536, 384), (384, 1536), (3072, 768), (768, 3072)] {
            let st = row_stride(kk);
            let so = row_stride(n);
            let mut a = A::new(m * st);
            for (i, x) in a.s().iter_mut().enumerate() {
                *x = (i % 7) as f32 * 0.1 - 0.3
            }
            let mut w = A::new(packed_len(n, kk));
            for (i, x) in w.s().iter_mut().enumerate() {
                *x = (i % 5) as f32 * 0.1 - 0.2
            }
            let mut o = A::new(m * so);
            let am = Matrix::new(a.s(), m, kk, st).unwrap();
            let bm = PackedMatrix::new(w.s(), n, kk).unwrap();
            let op = o.s().as_mut_ptr() as usize;
            let bias = vec![0.1f32; n];
            let act = if n == 4 * kk { Some(Activation::Gelu) } else { None };
            let mut t = vec![];
            let reps = ((2e9 / (m * n * kk) as f64) as usize).clamp(10, 2000);
            let ce = ceiling::giga_macs_per_second(k, &pool).unwrap();
            for _ in 0..reps {
                let s = Instant::now();
                pool.run(&|w: &Worker| {
                    let (r, p) = if m >= 64 { (w.share(m), 0..bm.panels()) } else { (0..m, w.share(bm.panels())) };
                    let mut out =
                        unsafe { MatrixMut::from_raw_parts((op as *mut f32).add(r.start * so), r.len(), n, so) };
                    k.gemm(
                        am.slice_rows(r).unwrap(),
                        bm,
                        p,
                        &Epilogue { bias: Some(&bias), activation: act, residual: None },
                        &mut out,
                    )
                    .unwrap();
                })
                .unwrap();
                t.push(s.elapsed().as_secs_f64());
            }
            t.sort_by(f64::total_cmp);
            let g = |x: f64| (m * n * kk) as f64 / x / 1e9;
            println!(
                "m {m:5} n {n:5} k {kk:5}: best {:7.1} median {:7.1} GMAC/s, ceiling {ce:6.1}: {:4.1} % / {:4.1} %  {:.1} us {:.1} GB/s",
                g(t[0]),
                g(t[reps / 2]),
                100. * g(t[0]) / ce,
                100. * g(t[reps / 2]) / ce,
                t[0] * 1e6,
                (n * kk * 4) as f64 / t[0] / 1e9
            );
        }
    }
}
