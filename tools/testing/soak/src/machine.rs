// SPDX-License-Identifier: GPL-2.0

//! The machine without programs: modules, counters, and kernel diagnostics.

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::Path,
    thread::sleep,
    time::Duration, //
};
use support::machine::{
    modprobe,
    pinned_pages, //
};
use vfio_client::{
    pci,
    wait::until, //
};

/// The modules that vm/run loaded: one module and its parameters per line.
const MODULES: &str = "/vm/modules";
/// The devices that vm/run bound to vfio-pci.
const BOUND: &str = "/vm/bind";

/// The modules loaded as dependencies, in the order in which they can be unloaded.
const BROUGHT: [&str; 5] = [
    "vfio_pci_core",
    "mdev",
    "ioasid",
    "iommu_group",
    "vfio_rust",
];

/// The kernel frees some objects shortly after the last close.
const PATIENCE: Duration = Duration::from_secs(30);

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// A machine that can be restored to its initial state.
#[derive(Debug)]
pub struct Machine {
    modules: Vec<Vec<String>>,
    /// The counters without modules.
    bare: BTreeMap<String, i64>,
    /// The number of pinned pages without users of VFIO.
    pinned: i64,
}

impl Machine {
    /// Unloads all modules, records the counters, and loads the modules.
    pub fn new() -> Result<Self> {
        let text = fs::read_to_string(MODULES).context(MODULES)?;
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        let mut machine = Self {
            modules: text.lines().map(words).collect(),
            bare: BTreeMap::new(),
            pinned: pinned_pages()?,
        };
        machine.unload()?;
        machine.bare = machine.counters()?;
        machine.load()?;
        Ok(machine)
    }

    /// Loads all modules, and waits until the devices are bound.
    pub fn load(&self) -> Result<()> {
        for words in &self.modules {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            modprobe(&words)?;
        }
        for device in fs::read_to_string(BOUND)?.lines() {
            let is_bound = || anyhow::Ok(pci::driver(device).as_deref() == Some("vfio-pci"));
            ensure!(
                until(PATIENCE, is_bound)?,
                "{device} was not bound to vfio-pci in time"
            );
        }
        Ok(())
    }

    /// Unloads all modules, which checks that nothing holds a reference.
    pub fn unload(&self) -> Result<()> {
        let named = self.modules.iter().rev().map(|words| words[0].as_str());
        for name in named.chain(BROUGHT) {
            if !Path::new("/sys/module").join(name).exists() {
                continue;
            }
            let mut why = None;
            let goes = || {
                why = modprobe(&["-r", name]).err();
                anyhow::Ok(why.is_none())
            };
            if !until(PATIENCE, goes)? {
                let loaded = self.loaded()?.join("\n");
                return Err(why
                    .context("unloaded only after the timeout")?
                    .context(loaded));
            }
        }
        let left = self.loaded()?;
        ensure!(
            left.is_empty(),
            "these modules are still loaded:\n{}",
            left.join("\n")
        );
        Ok(())
    }

    /// Returns the lines of /proc/modules for the VFIO modules.
    fn loaded(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string("/proc/modules")?;
        let is_ours = |line: &&str| {
            let name = line.split(' ').next().unwrap_or_default();
            BROUGHT.contains(&name) || self.modules.iter().any(|words| words[0] == name)
        };
        Ok(text.lines().filter(is_ours).map(str::to_owned).collect())
    }

    /// Returns the counters that can be read without modules.
    fn counters(&self) -> Result<BTreeMap<String, i64>> {
        let mut values = BTreeMap::from([("pinned pages".to_owned(), pinned_pages()?)]);
        for (name, folder) in [
            ("groups of the IOMMU", "/sys/kernel/iommu_groups"),
            ("files in /dev/vfio", "/dev/vfio"),
            ("mediated devices", "/sys/bus/mdev/devices"),
        ] {
            values.insert(name.to_owned(), entries(folder)?);
        }
        for line in fs::read_to_string("/proc/slabinfo")?.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            if ["vfio", "iommu_group", "ioasid", "mdev", "pamu"]
                .iter()
                .any(|word| name.contains(word))
            {
                values.insert(format!("slab {name}"), 1);
            }
        }
        Ok(values)
    }

    /// Checks that the counters have their initial values.
    pub fn check(&self) -> Result<()> {
        let is_same = || anyhow::Ok(self.counters()? == self.bare);
        if until(PATIENCE, is_same)? {
            return Ok(());
        }
        let now = self.counters()?;
        let names: Vec<_> = now.keys().chain(self.bare.keys()).collect();
        let changed = names
            .iter()
            .find(|name| now.get(**name) != self.bare.get(**name));
        let name =
            changed.context("the counters had their initial values only after the timeout")?;
        bail!(
            "{name}: expected {:?}, got {:?}",
            self.bare.get(*name),
            now.get(*name)
        )
    }

    /// Checks that no page is still pinned after all programs have ended.
    pub fn check_pins(&self) -> Result<()> {
        let is_same = || anyhow::Ok(pinned_pages()? == self.pinned);
        let same = until(PATIENCE, is_same)?;
        ensure!(
            same,
            "expected {} pinned pages, got {}",
            self.pinned,
            pinned_pages()?
        );
        Ok(())
    }
}

/// Returns the number of entries of a directory; 0 if it does not exist.
fn entries(folder: impl AsRef<Path>) -> Result<i64> {
    match fs::read_dir(folder.as_ref()) {
        Ok(entries) => Ok(entries.count() as i64),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context(folder.as_ref().display().to_string()),
    }
}

/// Checks that kmemleak finds no leaks. Does nothing if the kernel has no kmemleak.
pub fn check_leaks() -> Result<()> {
    if !Path::new(KMEMLEAK).exists() {
        return Ok(());
    }
    // kmemleak only reports objects that are some seconds old.
    fs::write(KMEMLEAK, "scan").context("kmemleak is disabled")?;
    sleep(Duration::from_secs(6));
    fs::write(KMEMLEAK, "scan").context("kmemleak is disabled")?;
    let found = fs::read_to_string(KMEMLEAK)?;
    ensure!(found.is_empty(), "kmemleak reports leaks:\n{found}");
    Ok(())
}

/// Taint flags of the kernel: bad page, oops, warning, soft lockup.
const DEFECTS: u64 = (1 << 5) | (1 << 7) | (1 << 9) | (1 << 14);

/// Checks that the kernel has not reported a defect.
pub fn check_taint() -> Result<()> {
    let taint: u64 = fs::read_to_string("/proc/sys/kernel/tainted")?
        .trim()
        .parse()?;
    ensure!(
        taint & DEFECTS == 0,
        "the kernel is tainted by {:#x}",
        taint & DEFECTS
    );
    Ok(())
}

/// Makes the kernel log the stacks of blocked tasks and the locks that are held.
pub fn blocked_tasks() -> Result<()> {
    fs::write("/proc/sys/kernel/sysrq", "1")?;
    for key in ["w", "d"] {
        fs::write("/proc/sysrq-trigger", key)?;
        sleep(Duration::from_secs(5));
    }
    Ok(())
}
