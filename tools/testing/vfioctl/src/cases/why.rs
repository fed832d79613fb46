// SPDX-License-Identifier: GPL-2.0

//! `why` and `memlock`.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::fs;

use super::{
    Case,
    HELPER, //
};
use crate::{
    Stack,
    hold::{
        Door,
        Hold,
        hold, //
    },
    machine::{
        DISK,
        EDU,
        NOBODY,
        SHARED,
        SIBLING,
        group,
        has_driver,
        probe,
        set_override,
        shell,
        store, //
    },
    program::{
        expect,
        obstacle,
        vfioctl,
        vfioctl_as, //
    }, //
};

/// Returns the cases.
pub fn cases(stack: Stack) -> Vec<Case> {
    vec![
        ("why::no_driver", Box::new(no_driver)),
        ("why::driver_of_the_host", Box::new(driver)),
        ("why::sibling_in_the_way", Box::new(sibling)),
        (
            "why::open_by_another_process",
            Box::new(move || open(stack)),
        ),
        (
            "why::limit_of_locked_memory",
            Box::new(move || memlock(stack)),
        ),
        ("why::memory_of_another_user", Box::new(hidden_memory)),
        ("why::interrupt_remapping", Box::new(isolation)),
        ("why::user_without_access", Box::new(access)),
    ]
}

fn no_driver() -> Result<()> {
    let found = obstacle(EDU, "", "no-driver")?;
    expect(&found, "help", vec![format!("vfioctl bind {EDU}")])?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let node = format!("/dev/vfio/{}", group(EDU)?);
    vfioctl(&format!("why {EDU}"))?
        .exits(0)?
        .says("can be handed out")?
        .says(&node)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    has_driver(EDU, "")
}

fn driver() -> Result<()> {
    let found = obstacle(DISK, "", "driver")?;
    expect(&found, "driver", "nvme")?;
    expect(&found, "help", vec![format!("vfioctl bind {DISK}")])?;
    let said = vfioctl(&format!("why {DISK}"))?.exits(4)?;
    said.says("can't be handed out")?
        .says(&format!("-> vfioctl bind {DISK}"))?;
    Ok(())
}

/// One device of the group is bound to VFIO, as an administrator does who forgets the other one.
fn sibling() -> Result<()> {
    set_override(SHARED, "vfio-pci")?;
    probe(SHARED)?;
    has_driver(SHARED, "vfio-pci")?;
    let found = obstacle(SHARED, "", "sibling")?;
    expect(&found, "device", SIBLING)?;
    expect(&found, "driver", "virtio-pci")?;
    vfioctl("list")?
        .exits(0)?
        .says(&format!("blocked by {SIBLING}"))?;
    vfioctl(&format!("bind {SHARED}"))?
        .exits(0)?
        .says(&format!("{SIBLING}: virtio-pci -> vfio-pci"))?;
    vfioctl(&format!("why {SHARED}"))?.exits(0)?;
    vfioctl(&format!("restore {SHARED}"))?.exits(0)?;
    has_driver(SIBLING, "virtio-pci")?;
    has_driver(SHARED, "")
}

fn open(stack: Stack) -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let found = obstacle(EDU, "", "open")?;
    expect(&found, "pid", helper.id())?;
    let said = vfioctl(&format!("why {EDU}"))?.exits(4)?;
    let said = said.says(&format!("{HELPER} ({})", helper.id()))?;
    if stack == Stack::Rust {
        // Only these modules tell since when.
        said.says(", for ")?;
    }
    helper.kill()?;
    vfioctl(&format!("why {EDU}"))?.exits(0)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn memlock(stack: Stack) -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let limited = Hold {
        device: EDU,
        door: Door::Group,
        uid: 0,
        map: 32 << 20,
        limit: 8 << 20,
    };
    let (helper, line) = limited.start()?;
    ensure!(
        line.starts_with("not mapped"),
        "expected that the limit applies: {line}"
    );
    let pid = helper.id();
    let found = obstacle(EDU, &format!("--pid {pid} --memory 32M"), "memlock")?;
    expect(&found, "pid", pid)?;
    let said = vfioctl(&format!("memlock {pid} --json"))?
        .exits(4)?
        .json()?;
    expect(&said, "soft", 8 << 20)?;
    expect(&said, "ipc_lock", false)?;
    expect(&said, "source", "memory")?;
    let needed = said["needed"].as_u64().context("expected a number")?;
    ensure!(
        (32 << 20..64 << 20).contains(&needed),
        "expected 32 MiB or a bit more, found {needed}"
    );
    // Only these modules log which process exceeded its limit by what.
    let refused = said["refused"].as_u64();
    ensure!(
        refused.is_some_and(|bytes| bytes > 8 << 20) == (stack == Stack::Rust),
        "expected that the log has what was refused on the modules in Rust: {refused:?}"
    );
    let said = vfioctl(&format!("memlock {pid}"))?.exits(4)?;
    said.says("too low")?
        .says(&format!("prlimit --pid {pid} --memlock="))?;
    vfioctl(&format!("memlock {pid} --memory 4M"))?
        .exits(0)?
        .says("high enough")?;
    helper.kill()?;
    // Root is not limited.
    vfioctl(&format!("why {EDU} --memory 1G"))?.exits(0)?;
    vfioctl(&format!("memlock {}", std::process::id()))?
        .exits(0)?
        .says("CAP_IPC_LOCK")?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// Who may not see the memory of a process gets no answer that it is enough.
fn hidden_memory() -> Result<()> {
    let of_root = std::process::id();
    vfioctl_as(NOBODY, &format!("memlock {of_root}"))?
        .exits(5)?
        .complains("--memory SIZE")?;
    vfioctl_as(NOBODY, &format!("memlock {of_root} --memory 4K"))?.exits(0)?;
    Ok(())
}

/// On the machine of the tests, interrupts are remapped. `run --append intremap=off` changes that.
fn isolation() -> Result<()> {
    let remapped = !fs::read_to_string("/proc/cmdline")?.contains("intremap=off");
    let list = vfioctl("list --json")?.exits(0)?.json()?;
    expect(&list["modules"], "interrupt_remapping", remapped)?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let parameter = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    if !remapped {
        let found = obstacle(EDU, "", "isolation")?;
        let help = found["help"][0].as_str().unwrap_or_default();
        ensure!(help.contains(parameter), "expected {parameter}: {help}");
        shell(help)?;
    }
    vfioctl(&format!("why {EDU}"))?.exits(0)?;
    store(parameter, "N")?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn access() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let found = obstacle(EDU, "--user nobody", "access")?;
    expect(&found, "help", vec![format!("vfioctl allow nobody {EDU}")])?;
    vfioctl(&format!("why {EDU} --user root"))?.exits(0)?;
    vfioctl(&format!("why {EDU} --user nosuchuser"))?.exits(3)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}
