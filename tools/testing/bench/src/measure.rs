// SPDX-License-Identifier: GPL-2.0

//! Measurement and output of figures.

use anyhow::{
    Context,
    Result, //
};
use std::{
    sync::OnceLock,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// The number of measurements of an operation, after one that is discarded.
pub const REPETITIONS: usize = 5;

/// The time for the kernel to finish background work before each measurement; that work would be
/// counted otherwise. While the processor is idle the guest's clock jumps ahead, so waiting costs
/// nothing.
const SETTLE: Duration = Duration::from_secs(2);

/// Parts of the names of the wanted figures. If there are none, all figures are wanted.
static WANTED: OnceLock<Vec<String>> = OnceLock::new();

/// Limits the figures to those whose names contain one of `parts`.
pub fn want(parts: Vec<String>) {
    WANTED.get_or_init(|| parts);
}

/// Returns whether a figure is wanted.
pub fn is_wanted(name: &str) -> bool {
    WANTED.get().is_none_or(|parts| {
        parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
    })
}

/// Returns whether any figure of a title is wanted: `TITLE: FIGURE`, or the title alone if there are
/// no further figures.
pub fn is_wanted_any(title: &str, figures: &[&str]) -> bool {
    if figures.is_empty() {
        return is_wanted(title);
    }
    let mut names = figures.iter().map(|figure| format!("{title}: {figure}"));
    names.any(|name| is_wanted(&name))
}

/// Prints all samples of a figure, if it is wanted.
pub fn print(name: &str, samples: &[u64]) {
    if is_wanted(name) {
        let samples: Vec<_> = samples.iter().map(u64::to_string).collect();
        println!("{name}\t{}", samples.join(" "));
    }
}

/// Returns the duration of `op` in nanoseconds.
pub fn time(op: impl FnOnce() -> Result<()>) -> Result<u64> {
    let start = Instant::now();
    op()?;
    Ok(start.elapsed().as_nanos() as u64) // CAST: This runs for less than 500 years.
}

/// Waits until the kernel is idle.
pub fn settle() {
    thread::sleep(SETTLE);
}

/// Returns samples of each of the figures that `op` returns.
pub fn samples<const N: usize>(
    repetitions: usize,
    mut op: impl FnMut() -> Result<[u64; N]>,
) -> Result<[Vec<u64>; N]> {
    op()?;
    let mut samples = [const { Vec::new() }; N];
    for _ in 0..repetitions {
        settle();
        for (samples, sample) in samples.iter_mut().zip(op()?) {
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// Measures `times` executions of an operation, and prints the cost of one.
pub fn each(name: &str, times: u64, mut op: impl FnMut() -> Result<()>) -> Result<()> {
    if !is_wanted(name) {
        return Ok(());
    }
    let [costs] = samples(REPETITIONS, || {
        let all = time(|| (0..times).try_for_each(|_| op()))?;
        Ok([all / times])
    })
    .with_context(|| name.to_owned())?;
    print(name, &costs);
    Ok(())
}

/// Measures two alternating operations. Prints the cost of each and their sum.
pub fn turns(
    name: &str,
    parts: [&str; 2],
    times: u64,
    mut first: impl FnMut() -> Result<()>,
    mut second: impl FnMut() -> Result<()>,
) -> Result<()> {
    let [one, other] = parts;
    let names = [one.to_owned(), other.to_owned(), parts.join("+")];
    let names = names.map(|part| format!("{name}: {part}"));
    if !names.iter().any(|name| is_wanted(name)) {
        return Ok(());
    }
    let costs: [Vec<u64>; 3] = samples(REPETITIONS, || {
        let mut sums = [0; 2];
        for _ in 0..times {
            sums[0] += time(&mut first)?;
            sums[1] += time(&mut second)?;
        }
        let [first, second] = sums.map(|sum| sum / times);
        Ok([first, second, first + second])
    })
    .with_context(|| name.to_owned())?;
    for (name, costs) in names.iter().zip(&costs) {
        print(name, costs);
    }
    Ok(())
}
