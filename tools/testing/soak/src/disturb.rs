// SPDX-License-Identifier: GPL-2.0

//! Disturbances of the programs: low memory, changing cgroup limits, and offline processors.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use fastrand::Rng;
use nix::{
    fcntl::{
        FallocateFlags,
        fallocate, //
    },
    mount::{
        MsFlags,
        mount, //
    },
};
use std::{
    fs::{
        self,
        File, //
    },
    path::{
        Path,
        PathBuf, //
    },
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use support::cgroup::Cgroup;

/// The mount point of the tmpfs that consumes memory.
const HOG: &str = "/run/hog";

/// The number of bytes allocated at a time.
const CHUNK: i64 = 16 << 20;
/// The size of the pieces. Every other piece is freed.
const PIECE: i64 = 64 << 10;

/// Prepares the disturbances, and exempts this process from the OOM killer. Returns the cgroup
/// whose memory limit [`limit`] changes.
pub fn prepare() -> Result<Cgroup> {
    fs::create_dir(HOG)?;
    let (kind, options) = (Some("tmpfs"), Some("size=100%"));
    mount(kind, HOG, kind, MsFlags::empty(), options).context(HOG)?;
    fs::write("/proc/self/oom_score_adj", "-1000")?;
    // A busy host is slow. A hung task is logged and fails the run; it must not panic, so that the
    // stacks of all other tasks are logged, too.
    fs::write("/proc/sys/kernel/hung_task_timeout_secs", "120")?;
    fs::write("/proc/sys/kernel/hung_task_panic", "0")?;
    Cgroup::new("limited")
}

fn pause(random: &mut Rng, most: u64, end: Instant) {
    let left = end.saturating_duration_since(Instant::now());
    sleep(Duration::from_millis(random.u64(0..most)).min(left));
}

/// Returns the available memory in MiB.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo has no MemAvailable")? / 1024)
}

/// Allocates nearly all memory, fragments the free memory, triggers compaction, and frees
/// everything.
pub fn memory(seed: u64, end: Instant) -> Result<()> {
    let mut random = Rng::with_seed(seed ^ 0x4d45_4d00);
    while Instant::now() < end {
        // With less memory, kmemleak disables itself and the OOM killer kills programs.
        let floor = random.u64(320..800);
        let files = take(floor, end)?;
        pause(&mut random, 2000, end);
        for (_, file) in &files {
            for at in (0..CHUNK).step_by(2 * PIECE as usize) {
                let punch =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(file, punch, at, PIECE)?;
            }
        }
        fs::write("/proc/sys/vm/compact_memory", "1")?;
        pause(&mut random, 1000, end);
        for (path, _) in files {
            fs::remove_file(path)?;
        }
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        pause(&mut random, 3000, end);
    }
    Ok(())
}

/// Allocates memory until `floor` MiB are left.
fn take(floor: u64, end: Instant) -> Result<Vec<(PathBuf, File)>> {
    let mut files = Vec::new();
    while available()? > floor + (CHUNK as u64 >> 20) && Instant::now() < end {
        let path = Path::new(HOG).join(files.len().to_string());
        let file = File::create(&path)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, CHUNK);
        files.push((path, file));
        if taken.is_err() {
            break;
        }
    }
    Ok(files)
}

/// Changes the memory limit of a cgroup between hardly any memory and no limit.
pub fn limit(cgroup: &Cgroup, seed: u64, end: Instant) -> Result<()> {
    let mut random = Rng::with_seed(seed ^ 0x4c49_4d00);
    while Instant::now() < end {
        let name = if random.u8(0..3) == 0 {
            "memory.high"
        } else {
            "memory.max"
        };
        let value = ["1M", "4M", "8M", "16M", "64M", "max", "max"][random.usize(0..7)];
        cgroup.set(name, value)?;
        pause(&mut random, 1500, end);
        cgroup.set(name, "max")?;
        pause(&mut random, 1500, end);
    }
    Ok(())
}

/// Returns the files that set processors online and offline, except that of processor 0.
fn switches() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/devices/system/cpu")? {
        let switch = entry?.path().join("online");
        if switch
            .parent()
            .is_some_and(|folder| folder.ends_with("cpu0"))
        {
            continue;
        }
        if switch.exists()
            && switch
                .parent()
                .is_some_and(|folder| !folder.ends_with("cpu"))
        {
            found.push(switch);
        }
    }
    Ok(found)
}

/// Sets processors offline and online.
pub fn processors(seed: u64, end: Instant) -> Result<()> {
    let mut random = Rng::with_seed(seed ^ 0x4350_5500);
    let switches = switches()?;
    let mut changes = 0;
    while Instant::now() < end {
        let switch = &switches[random.usize(0..switches.len())];
        // This can fail for lack of memory or time.
        changes += u64::from(fs::write(switch, if random.bool() { "0" } else { "1" }).is_ok());
        pause(&mut random, 1000, end);
    }
    ensure!(changes > 0, "no processor went offline or online");
    // Sets all processors online at the end.
    let give_up = Instant::now() + Duration::from_secs(60);
    for switch in &switches {
        while fs::read_to_string(switch)?.trim() != "1" {
            ensure!(
                Instant::now() < give_up,
                "{} stays offline",
                switch.display()
            );
            if fs::write(switch, "1").is_err() {
                sleep(Duration::from_millis(500));
            }
        }
    }
    Ok(())
}
