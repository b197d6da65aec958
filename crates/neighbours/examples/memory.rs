//! Memory and time of synthetic vectors that all differ: `memory [COUNT [DIMENSION]]`, by default 1,000,000 of 384.
//!
//! The peak is that of the process (VmHWM), so this runs on Linux only.

use std::error::Error;
use std::time::Instant;

use centuple_neighbours::{Leaders, Place};

fn peak() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(1024.0 * kilobytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let count = numbers.next().transpose()?.unwrap_or(1_000_000);
    let dimension = numbers.next().transpose()?.unwrap_or(384);
    let mut leaders = Leaders::new(dimension, 0.9)?;
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let topics: Vec<Vec<f32>> = (0..1000).map(|_| (0..dimension).map(|_| random()).collect()).collect();
    let (begin, base) = (Instant::now(), peak()?);
    let mut kept = 0;
    for number in 1..=count {
        let topic = &topics[number * 7919 % topics.len()];
        let vector: Vec<f32> = topic.iter().map(|value| value + 0.8 * random()).collect();
        kept += usize::from(leaders.place(number as u64, &vector)? == Place::Leader);
        if number % (count / 10).max(1) == 0 {
            let (bytes, seconds) = ((peak()? - base) / number as f64, begin.elapsed().as_secs_f64());
            println!("{number} vectors, {kept} kept: {bytes:.0} bytes each, {seconds:.1} s");
        }
    }
    Ok(())
}
