// SPDX-License-Identifier: GPL-2.0

//! Counts what requests of VFIO cost, inside of a virtual machine.
//!
//! The machine is to run one instruction a nanosecond, so that the clock counts instructions. Each
//! line of output is the name of an operation, a tab, and the median of its cost.
//!
//! Requests are prepared beforehand: what is counted is the system call, with the look of
//! [`vfio_client::raw`] at its addresses, which is the same for all modules.

#![forbid(unsafe_code)]

mod ops;

use anyhow::{
    Context,
    Result, //
};
use ops::Bench;
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// How often an operation is measured, after one time that does not count.
const REPETITIONS: usize = 5;

/// How long the kernel may take before each time to end what it does in the background, which else
/// would be counted. While the processor is idle this clock leaps, so it costs nothing.
const SETTLE: Duration = Duration::from_secs(2);

/// Returns the median of what `op` measures.
fn median<const N: usize>(mut op: impl FnMut() -> Result<[u64; N]>) -> Result<[u64; N]> {
    op()?;
    let runs = (0..REPETITIONS)
        .map(|_| {
            thread::sleep(SETTLE);
            op()
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(std::array::from_fn(|part| {
        let mut values: Vec<_> = runs.iter().map(|run| run[part]).collect();
        values.sort_unstable();
        values[REPETITIONS / 2]
    }))
}

/// Measures an operation, done `times` in a row, and prints what one of them costs.
fn each(name: &str, times: u64, mut op: impl FnMut() -> Result<()>) -> Result<()> {
    let [cost] = median(|| {
        let start = Instant::now();
        for _ in 0..times {
            op()?;
        }
        Ok([nanoseconds(start) / times])
    })
    .with_context(|| name.to_owned())?;
    println!("{name}\t{cost}");
    Ok(())
}

/// Measures two operations which take turns.
fn turns(
    names: [&str; 2],
    times: u64,
    mut first: impl FnMut() -> Result<()>,
    mut second: impl FnMut() -> Result<()>,
) -> Result<()> {
    let costs = median(|| {
        let mut sums = [0; 2];
        for _ in 0..times {
            let start = Instant::now();
            first()?;
            sums[0] += nanoseconds(start);
            let start = Instant::now();
            second()?;
            sums[1] += nanoseconds(start);
        }
        Ok(sums.map(|sum| sum / times))
    })
    .with_context(|| names.join(", "))?;
    for (name, cost) in names.iter().zip(costs) {
        println!("{name}\t{cost}");
    }
    Ok(())
}

fn nanoseconds(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64 // CAST: This runs for less than 500 years.
}

fn main() -> Result<()> {
    let bdf = std::env::args()
        .nth(1)
        .context("which device? usage: guest-bench BDF")?;
    let bench = Bench::new(&bdf)?;
    bench.container()?;
    bench.group()?;
    let attached = bench.attach()?;
    attached.device()?;
    attached.page()?;
    attached.memory("256 MiB of 4 KiB pages", false)?;
    attached.memory("256 MiB of huge pages", true)
}
