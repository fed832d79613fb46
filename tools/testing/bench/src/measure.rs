// SPDX-License-Identifier: GPL-2.0

//! How figures come about.

use anyhow::{
    Context,
    Result, //
};
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

/// Prints a figure.
pub fn print(name: &str, value: u64) {
    println!("{name}\t{value}");
}

/// Returns how long `op` takes, in nanoseconds.
pub fn time(op: impl FnOnce() -> Result<()>) -> Result<u64> {
    let start = Instant::now();
    op()?;
    Ok(start.elapsed().as_nanos() as u64) // CAST: This runs for less than 500 years.
}

/// Waits until the kernel has nothing to do.
pub fn settle() {
    thread::sleep(SETTLE);
}

/// Returns the median of each of the figures that `op` gives.
pub fn median<const N: usize>(
    repetitions: usize,
    mut op: impl FnMut() -> Result<[u64; N]>,
) -> Result<[u64; N]> {
    op()?;
    let runs = (0..repetitions)
        .map(|_| {
            settle();
            op()
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(std::array::from_fn(|part| {
        let mut values: Vec<_> = runs.iter().map(|run| run[part]).collect();
        values.sort_unstable();
        values[repetitions / 2]
    }))
}

/// Measures an operation, done `times` in a row, and prints what one of them costs.
pub fn each(name: &str, times: u64, mut op: impl FnMut() -> Result<()>) -> Result<()> {
    let [cost] = median(REPETITIONS, || {
        let all = time(|| (0..times).try_for_each(|_| op()))?;
        Ok([all / times])
    })
    .with_context(|| name.to_owned())?;
    print(name, cost);
    Ok(())
}

/// Measures two operations which take turns; prints what each costs, and both.
pub fn turns(
    name: &str,
    parts: [&str; 2],
    times: u64,
    mut first: impl FnMut() -> Result<()>,
    mut second: impl FnMut() -> Result<()>,
) -> Result<()> {
    let costs = median(REPETITIONS, || {
        let mut sums = [0; 2];
        for _ in 0..times {
            sums[0] += time(&mut first)?;
            sums[1] += time(&mut second)?;
        }
        Ok(sums.map(|sum| sum / times))
    })
    .with_context(|| name.to_owned())?;
    for (part, cost) in parts.iter().zip(costs) {
        print(&format!("{name}: {part}"), cost);
    }
    print(&format!("{name}: {}", parts.join("+")), costs.iter().sum());
    Ok(())
}
