// SPDX-License-Identifier: GPL-2.0

//! Coverage of the VFIO modules by the system calls of this thread, measured with KCOV.

use crate::abi;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    collections::{
        BTreeMap,
        HashSet, //
    },
    fs::{
        self,
        File, //
    },
};
use vfio_client::Memory;

const KCOV: &str = "/sys/kernel/debug/kcov";
/// The number of words in the buffer. Later program counters are lost.
const ENTRIES: usize = 1 << 19;

/// The modules whose coverage is measured.
const MODULES: [&str; 5] = [
    "vfio",
    "vfio_iommu_type1",
    "iommu_group",
    "vfio_rust",
    "mdev",
];

/// A code location between two KCOV calls: its address in one of the VFIO modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point(u64);

impl Point {
    /// Returns a hash of this point and the previous one.
    #[cfg(feature = "engine")]
    pub fn after(self, previous: Self) -> u64 {
        (previous.0.rotate_left(17) ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The code of a module.
#[derive(Debug)]
struct Module {
    name: &'static str,
    /// The functions with their addresses, sorted.
    functions: Vec<(u64, String)>,
    /// The first address after the module's last function.
    end: u64,
    reached: HashSet<u64>,
}

impl Module {
    fn has(&self, address: u64) -> bool {
        let first = self.functions.first().map(|(start, _)| *start);
        first.is_some_and(|start| (start..self.end).contains(&address))
    }

    /// Returns the function that contains an address of this module.
    fn function(&self, address: u64) -> &str {
        let after = self
            .functions
            .partition_point(|(start, _)| *start <= address);
        &self.functions[after - 1].1
    }
}

/// The tracer.
#[derive(Debug)]
pub struct Coverage {
    kcov: File,
    trace: Memory,
    modules: Vec<Module>,
}

impl Coverage {
    /// Sets up tracing of this thread. Only this thread may trace.
    pub fn new() -> Result<Self> {
        let kcov = File::options()
            .read(true)
            .write(true)
            .open(KCOV)
            .context(KCOV)?;
        abi::init_trace(&kcov, ENTRIES as i32).context("KCOV_INIT_TRACE")?;
        let trace = Memory::from_file(&kcov, 0, ENTRIES * 8, true)?;
        let modules = modules(&fs::read_to_string("/proc/kallsyms")?)?;
        ensure!(!modules.is_empty(), "no module of VFIO is loaded");
        Ok(Self {
            kcov,
            trace,
            modules,
        })
    }

    /// Executes `work` and calls `visit` for each point reached, in order.
    pub fn trace<T>(
        &mut self,
        work: impl FnOnce() -> Result<T>,
        mut visit: impl FnMut(Point),
    ) -> Result<T> {
        self.trace.write_u64(0, 0);
        abi::enable(&self.kcov).context("KCOV_ENABLE")?;
        let done = work();
        abi::disable(&self.kcov).context("KCOV_DISABLE")?;
        let count = (self.trace.read_u64(0) as usize).min(ENTRIES - 1);
        for nth in 1..=count {
            let address = self.trace.read_u64(nth * 8);
            if let Some(module) = self.modules.iter_mut().find(|module| module.has(address)) {
                module.reached.insert(address);
                visit(Point(address));
            }
        }
        done
    }

    /// Returns the name of each module, and for each of its functions the number of points reached.
    pub fn reached(&self) -> impl Iterator<Item = (&str, BTreeMap<&str, usize>)> {
        self.modules.iter().map(|module| {
            let mut counts = BTreeMap::new();
            for address in &module.reached {
                *counts.entry(module.function(*address)).or_default() += 1;
            }
            (module.name, counts)
        })
    }

    /// Returns the number of points reached.
    #[cfg(feature = "engine")]
    pub fn count(&self) -> usize {
        self.modules.iter().map(|module| module.reached.len()).sum()
    }
}

/// Parses the kernel's symbol table. Each line has an address, a letter, a name, and the module in
/// brackets.
fn modules(text: &str) -> Result<Vec<Module>> {
    let mut symbols = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if matches!(kind, "t" | "T") {
            let module = words.next().map(|word| word.trim_matches(['[', ']']));
            symbols.push((u64::from_str_radix(address, 16)?, name, module));
        }
    }
    symbols.sort_unstable();
    let mut modules = Vec::new();
    for name in MODULES {
        let is_ours = |symbol: &&(u64, &str, Option<&str>)| symbol.2 == Some(name);
        let functions: Vec<_> = symbols.iter().filter(is_ours).collect();
        let Some((last, ..)) = functions.last() else {
            continue;
        };
        ensure!(*last != 0, "the kernel hides its addresses");
        let next = symbols.partition_point(|(address, ..)| address <= last);
        modules.push(Module {
            name,
            end: symbols.get(next).map_or(u64::MAX, |(address, ..)| *address),
            functions: functions
                .iter()
                .map(|(at, name, _)| (*at, name.to_string()))
                .collect(),
            reached: HashSet::new(),
        });
    }
    Ok(modules)
}
