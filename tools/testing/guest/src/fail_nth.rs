// SPDX-License-Identifier: GPL-2.0

//! Injects each possible failure of a request, one at a time.

use crate::cases::Injector;
use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use std::{
    fmt::Debug,
    fs,
    ops::Range,
    path::Path, //
};

/// The kind of operation that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Allocations. A request that fails because of them must not have changed anything.
    Allocations,
    /// Copies from and to user memory. A request that fails when it writes its result has done its
    /// work.
    Copies,
}

/// A part of the kernel code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Module(&'static str),
    Function(&'static str),
}

/// The code below which failures are injected. Code of the program or the kernel outside of it is
/// not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    code: Code,
    spared: Option<&'static str>,
}

impl Below {
    const fn code(code: Code) -> Self {
        Self { code, spared: None }
    }

    /// Injects failures below a module.
    pub const fn module(name: &'static str) -> Self {
        Self::code(Code::Module(name))
    }

    /// Injects failures below a kernel function.
    pub const fn function(name: &'static str) -> Self {
        Self::code(Code::Function(name))
    }

    /// Injects no failures below `function`, a kernel function that does not survive them.
    pub const fn but_for(self, function: &'static str) -> Self {
        Self {
            spared: Some(function),
            ..self
        }
    }
}

/// How often a failure was injected into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The request failed.
    pub passed_on: usize,
    /// The request succeeded nevertheless.
    pub endured: usize,
}

/// More failures than any request can have.
const MOST: usize = 4000;
/// On a slow kernel, each of the first `FIRST` failures is injected, and one in `STRIDE` of the
/// others.
const FIRST: usize = 6;
const STRIDE: usize = 7;

/// Returns the numbers of the failures, one for each round.
fn rounds() -> impl Iterator<Item = usize> {
    let slow = Path::new("/sys/kernel/debug/kmemleak").exists();
    let stride = if slow { STRIDE } else { 1 };
    (1..FIRST).chain((FIRST..MOST).step_by(stride))
}

/// All kinds of failures with a stack filter.
const KINDS: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];
/// The depth to which the stack is searched.
const DEPTH: u64 = 32;
const EVERYWHERE: Range<u64> = 0..u64::MAX;
const NOWHERE: Range<u64> = 1..2;
/// The rejected range if no code is rejected.
const NOTHING: Range<u64> = 0..0;

/// Injects a kind of failure only below the `required` code and not below the `rejected` code.
fn restrict(kind: &str, required: &Range<u64>, rejected: &Range<u64>) -> Result<()> {
    for (knob, value) in [
        ("require-start", required.start),
        ("require-end", required.end),
        ("reject-start", rejected.start),
        ("reject-end", rejected.end),
        ("stacktrace-depth", DEPTH),
    ] {
        let path = format!("/sys/kernel/debug/{kind}/{knob}");
        fs::write(&path, format!("{value:#x}")).context(path)?;
    }
    Ok(())
}

/// Returns the address range of a module's code.
fn code_of_module(module: &str) -> Result<Range<u64>> {
    let text = fs::read_to_string("/proc/modules")?;
    let words = text
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let words = words
        .into_iter()
        .find(|words| words.first() == Some(&module));
    let words = words.with_context(|| format!("{module} is not loaded"))?;
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let start = number(words.get(5).context("/proc/modules")?)?;
    let size: u64 = words.get(1).context("/proc/modules")?.parse()?;
    ensure!(start != 0, "the kernel hides its addresses");
    Ok(start..start + size)
}

/// Returns the address range of a kernel function, which ends where the next function begins.
fn code_of_function(name: &str) -> Result<Range<u64>> {
    let text = fs::read_to_string("/proc/kallsyms")?;
    // Each line is an address, a letter and a name.
    let symbol = |line: &str| -> Option<(u64, bool)> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((address, words.nth(1)? == name))
    };
    let symbols: Vec<_> = text.lines().filter_map(symbol).collect();
    let start = symbols.iter().find(|(_, named)| *named);
    let &(start, _) = start.with_context(|| format!("the kernel has no {name}()"))?;
    ensure!(start != 0, "the kernel hides its addresses");
    let after = symbols.iter().map(|&(address, _)| address);
    let end = after.filter(|&address| address > start).min();
    Ok(start..end.context("no function follows in /proc/kallsyms")?)
}

/// Restricts failures until it is dropped.
struct Filter(());

impl Filter {
    fn new(failing: Failing, below: Below) -> Result<Self> {
        let filter = Self(());
        let code = match below.code {
            Code::Module(name) => code_of_module(name)?,
            Code::Function(name) => code_of_function(name)?,
        };
        let spared = below.spared.map_or(Ok(NOTHING), code_of_function)?;
        let (allocations, copies) = match failing {
            Failing::Allocations => (&code, &NOWHERE),
            Failing::Copies => (&NOWHERE, &code),
        };
        let [slab, page, copy] = KINDS;
        restrict(slab, allocations, &spared)?;
        restrict(page, allocations, &spared)?;
        restrict(copy, copies, &spared)?;
        Ok(filter)
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        for kind in KINDS {
            restrict(kind, &EVERYWHERE, &NOTHING).expect("it could be written before");
        }
    }
}

/// A request into which each failure is injected.
pub trait Operation {
    /// The state that the request needs.
    type Before;
    /// What the request returns.
    type Answer: Debug;
    /// The state that a failing request must not change.
    type State: PartialEq + Debug;

    /// Prepares the request.
    fn before(&self) -> Result<Self::Before>;

    /// Sends the request.
    fn request(&self, before: &Self::Before) -> Result<Self::Answer>;

    /// Reads the state that must not change.
    fn state(&self, before: &Self::Before) -> Result<Self::State>;

    /// Checks the effect of the request, and that nothing is left behind.
    fn after(&self, before: Self::Before, answer: Self::Answer) -> Result<()>;
}

/// Makes a request fail once at each possible place, or at some of them on a slow kernel. The
/// request must succeed when it is sent again. A failed allocation must not change the state.
pub fn each_failure<O: Operation>(
    failing: Failing,
    below: Below,
    operation: &O,
) -> Result<Failures> {
    let injector = Injector::new()?;
    let _filter = Filter::new(failing, below)?;
    let mut failures = Failures::default();
    for nth in rounds() {
        let failed = || format!("{failing:?}, number {nth}");
        let before = operation.before().with_context(failed)?;
        let state = operation.state(&before).with_context(failed)?;
        let (answer, injected) = injector.run(nth, || operation.request(&before))?;
        if !injected {
            let answer = answer.with_context(failed)?;
            operation.after(before, answer).with_context(failed)?;
            let Failures { passed_on, endured } = failures;
            eprintln!("{failing:?}: {passed_on} made it fail, {endured} did not");
            return Ok(failures);
        }
        let answer = match answer {
            Ok(answer) => {
                failures.endured += 1;
                answer
            }
            Err(error) => {
                failures.passed_on += 1;
                let now = operation.state(&before).with_context(failed)?;
                ensure!(
                    failing == Failing::Copies || now == state,
                    "{}: it fails with {error:#}, but has changed {state:?} to {now:?}",
                    failed()
                );
                let again = operation.request(&before);
                again.with_context(|| format!("{}: sent again after: {error:#}", failed()))?
            }
        };
        operation.after(before, answer).with_context(failed)?;
    }
    bail!("the request still fails after all attempts")
}
