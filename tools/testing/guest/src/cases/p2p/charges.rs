// SPDX-License-Identifier: GPL-2.0

//! Who is charged for the log of what an accelerator writes: the process that began it, whoever has the
//! accelerator write.

use super::open;
use crate::{
    harness::cases,
    mdev::{
        DMA_LOGGING_REPORT,
        DMA_LOGGING_START,
        GET,
        SET,
        feature, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::{
        self,
        Command as Process, //
    },
    thread::sleep,
    time::Duration,
};
use vfio_client::{
    Bytes,
    Device,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status, //
};

cases! {
    #[memory_cgroups]
    log_is_charged_to_its_beginner,
}

const CGROUPS: &str = "/sys/fs/cgroup";

/// A cgroup, which is removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let root = Path::new(CGROUPS);
        if !root.join("cgroup.procs").exists() {
            let status = Process::new("mount")
                .args(["-t", "cgroup2", "cgroup2", CGROUPS])
                .status()?;
            ensure!(status.success(), "mount: {status}");
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        let folder = root.join(name);
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Moves this process into a cgroup.
    fn enter(folder: &Path) -> Result<()> {
        let procs = folder.join("cgroup.procs");
        fs::write(&procs, process::id().to_string()).with_context(|| procs.display().to_string())
    }

    /// Bytes of the kernel's objects that are charged to it.
    fn kernel_memory(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.stat"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("slab_unreclaimable "));
        Ok(line.context("no slab_unreclaimable")?.parse()?)
    }

    /// Waits for its memory to become what is expected: statistics are a moment late.
    fn wait_for(&self, expected: impl Fn(u64) -> bool) -> Result<u64> {
        for _ in 0..100 {
            let bytes = self.kernel_memory()?;
            if expected(bytes) {
                return Ok(bytes);
            }
            sleep(Duration::from_millis(100));
        }
        self.kernel_memory()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let left = Self::enter(Path::new(CGROUPS)).and_then(|()| Ok(fs::remove_dir(&self.0)?));
        if let Err(error) = left {
            eprintln!("{}: {error:?}", self.0.display());
        }
    }
}

/// How far apart entries are that share no memory of the log: 4096 pages.
const STEP: u64 = 4096 * PAGE_SIZE as u64;
const STEPS: u64 = 1024;
/// At least so much is needed for each.
const BYTES: u64 = 512;

fn start(device: &Device) -> Result<()> {
    let range = Memory::anonymous(PAGE_SIZE)?;
    range.write_u64(0, 0);
    range.write_u64(8, STEPS * STEP);
    let mut data = Bytes::new()
        .u64(PAGE_SIZE as u64)
        .u32(1)
        .u32(0)
        .u64(range.addr());
    assert_eq!(feature(device, SET | DMA_LOGGING_START, &mut data), Ok(0));
    Ok(())
}

/// Reports all in so large pages that a few bits do.
fn report(device: &Device) -> Result<u64> {
    let bits = Memory::anonymous(STEPS as usize / 8)?;
    let mut data = Bytes::new()
        .u64(0)
        .u64(STEPS * STEP)
        .u64(STEP)
        .u64(bits.addr());
    assert_eq!(feature(device, GET | DMA_LOGGING_REPORT, &mut data), Ok(0));
    let words = (0..STEPS as usize / 64).map(|word| bits.read_u64(8 * word));
    Ok(words.map(|word| u64::from(word.count_ones())).sum())
}

fn log_is_charged_to_its_beginner() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (vgpu, _group, container) = open(&mdev)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for step in 0..STEPS {
        container.map(step * STEP, &memory, MapFlags::ReadWrite)?;
    }
    let cgroup = Cgroup::new("beginner")?;
    Cgroup::enter(&cgroup.0)?;
    start(vgpu.device())?;
    Cgroup::enter(Path::new(CGROUPS))?;
    let before = cgroup.kernel_memory()?;
    for step in 0..STEPS {
        let operands = Operands {
            address: step * STEP,
            length: 1,
            ..Operands::default()
        };
        assert_eq!(vgpu.run(Command::Store, &operands)?, Status::Done);
    }
    let most = before + STEPS * BYTES;
    let charged = cgroup.wait_for(|bytes| bytes >= most)?;
    ensure!(charged >= most, "{before} bytes, then {charged}");
    // What was reported takes no memory any more.
    assert_eq!(report(vgpu.device())?, STEPS);
    let least = before + STEPS * BYTES / 4;
    let left = cgroup.wait_for(|bytes| bytes < least)?;
    ensure!(left < least, "{before} bytes, {charged}, {left} at last");
    Ok(())
}
