// SPDX-License-Identifier: GPL-2.0

//! The cases.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::pty::{
    Winsize,
    openpty, //
};
use std::{
    fs::{
        self,
        File, //
    },
    io::{
        Read,
        Write, //
    },
    os::unix::fs::OpenOptionsExt,
    process::Command,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread, //
};

use nvme_read::{
    controller::Controller,
    reader,
    session::Session, //
};

use crate::{
    Stack,
    hold::{
        Hold,
        hold, //
    },
    machine::{
        DISK,
        EDU,
        NIC,
        NOBODY,
        SHARED,
        SIBLING,
        VGA,
        disk,
        driver,
        group,
        has_driver,
        has_override,
        interface,
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
    },
};

type Case = Box<dyn FnOnce() -> Result<()> + Send>;

/// Returns all cases.
pub fn all(stack: Stack) -> Vec<(&'static str, Case)> {
    let mut cases: Vec<(&'static str, Case)> = vec![
        (
            "list::devices_and_drivers",
            Box::new(move || list_devices(stack)),
        ),
        (
            "list::while_a_device_comes_and_goes",
            Box::new(list_while_devices_vanish),
        ),
        ("names::all_names_of_a_device", Box::new(names)),
        ("status::not_found_usage_permission", Box::new(statuses)),
        ("why::no_driver", Box::new(why_no_driver)),
        ("why::driver_of_the_host", Box::new(why_driver)),
        ("why::sibling_in_the_way", Box::new(why_sibling)),
        (
            "why::open_by_another_process",
            Box::new(move || why_open(stack)),
        ),
        (
            "why::limit_of_locked_memory",
            Box::new(move || why_memlock(stack)),
        ),
        ("why::interrupt_remapping", Box::new(why_isolation)),
        ("why::user_without_access", Box::new(why_access)),
        ("bind::use_and_restore", Box::new(bind_use_restore)),
        ("bind::whole_group", Box::new(bind_group)),
        ("bind::refuses_a_mounted_disk", Box::new(bind_mounted)),
        ("bind::refuses_a_swap_area", Box::new(bind_swap)),
        (
            "bind::refuses_a_disk_that_is_claimed",
            Box::new(bind_claimed),
        ),
        (
            "bind::refuses_an_address_unless_forced",
            Box::new(bind_address),
        ),
        ("bind::refuses_the_console", Box::new(bind_console)),
        ("bind::refuses_another_model", Box::new(bind_model)),
        ("bind::dry_run_changes_nothing", Box::new(bind_dry_run)),
        (
            "bind::unknown_driver_changes_nothing",
            Box::new(bind_unknown_driver),
        ),
        ("bind::failure_is_undone", Box::new(bind_failure)),
        ("bind::stale_driver_override", Box::new(bind_stale_override)),
        ("restore::left_over_new_id", Box::new(restore_new_id)),
        ("restore::without_memory", Box::new(restore_forgotten)),
        ("restore::refuses_an_open_device", Box::new(restore_open)),
        ("holders::files_of_a_process", Box::new(holders)),
        ("allow::a_user_opens_the_device", Box::new(allow)),
        ("persist::rule_and_unit", Box::new(persist)),
        ("mdev::create_and_remove", Box::new(move || mdev(stack))),
        ("top::containers", Box::new(move || top(stack))),
        ("top::live_view", Box::new(top_live)),
        ("graph::text_and_picture", Box::new(graph)),
    ];
    match stack {
        Stack::C => cases.push(("peers::group_and_split", Box::new(no_peers))),
        Stack::Rust => cases.push(("peers::group_and_split", Box::new(peers))),
    }
    cases
}

fn list_devices(stack: Stack) -> Result<()> {
    let said = vfioctl("list")?.exits(0)?;
    for (device, kind, driver) in [
        (DISK, "NVMe disk", "nvme"),
        (SIBLING, "other", "virtio-pci"),
        (NIC, "network", "e1000e"),
    ] {
        let line = said.out.lines().find(|line| line.contains(device));
        let line = line.with_context(|| format!("expected a line with {device}:\n{}", said.out))?;
        ensure!(
            line.contains(kind) && line.contains(driver),
            "expected {kind} and {driver}: {line}"
        );
    }
    let list = vfioctl("list --json")?.exits(0)?.json()?;
    expect(&list["modules"], "vfio_in_rust", stack == Stack::Rust)?;
    expect(&list["modules"], "type1_in_rust", stack == Stack::Rust)?;
    expect(&list["modules"], "interrupt_remapping", true)?;
    let groups = list["groups"].as_array().context("expected groups")?;
    let number = group(SHARED)?;
    let shared = groups.iter().find(|group| group["id"] == number);
    let shared = shared.with_context(|| format!("expected group {number}"))?;
    expect(shared, "viable", false)?;
    expect(shared, "blocking", vec![SIBLING])?;
    let members = shared["members"].as_array().context("expected members")?;
    let names: Vec<_> = members
        .iter()
        .map(|member| member["name"].clone())
        .collect();
    ensure!(
        names == [SHARED, SIBLING],
        "expected both devices of the group: {names:?}"
    );
    expect(&members[1], "state", "host")
}

fn list_while_devices_vanish() -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturb = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) || rounds == 0 {
                store(format!("/sys/bus/pci/devices/{EDU}/remove"), "1")?;
                store("/sys/bus/pci/rescan", "1")?;
                rounds += 1;
            }
            Ok::<_, anyhow::Error>(rounds)
        });
        let list = || {
            for _ in 0..10 {
                vfioctl("list --json")?.exits(0)?.json()?;
                let why = vfioctl(&format!("why {EDU}"))?;
                let status = if why.err.contains("there is no device") {
                    3
                } else {
                    4
                };
                why.exits(status)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let listed = list();
        stop.store(true, Ordering::Relaxed);
        let disturbed = disturb
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        listed.and(disturbed.map(|_| ()))
    })
}

fn names() -> Result<()> {
    let number = group(DISK)?.to_string();
    let path = format!("/sys/bus/pci/devices/{DISK}");
    for name in [DISK, "00:04.0", &number, &path] {
        let verdict = vfioctl(&format!("why {name} --json"))?.exits(4)?.json()?;
        expect(&verdict, "device", DISK)?;
    }
    Ok(())
}

fn statuses() -> Result<()> {
    for command in [
        "why 00:1e.7",
        "bind 4711",
        "holders x",
        "memlock 999999",
        "restore 00:1e.7",
    ] {
        vfioctl(command)?.exits(3)?.complains("there is no")?;
    }
    vfioctl("list --nonsense")?.exits(2)?;
    vfioctl("why")?.exits(2)?;
    vfioctl_as(NOBODY, &format!("bind {DISK}"))?
        .exits(5)?
        .complains("run it as root")?;
    vfioctl_as(NOBODY, "list")?.exits(0)?.says(DISK)?;
    has_driver(DISK, "nvme")
}

fn why_no_driver() -> Result<()> {
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

fn why_driver() -> Result<()> {
    let found = obstacle(DISK, "", "driver")?;
    expect(&found, "driver", "nvme")?;
    expect(&found, "help", vec![format!("vfioctl bind {DISK}")])?;
    let said = vfioctl(&format!("why {DISK}"))?.exits(4)?;
    said.says("can't be handed out")?
        .says(&format!("-> vfioctl bind {DISK}"))?;
    Ok(())
}

/// One device of the group is bound to VFIO, as an administrator does who forgets the other one.
fn why_sibling() -> Result<()> {
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

fn why_open(stack: Stack) -> Result<()> {
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

fn why_memlock(stack: Stack) -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let limited = Hold {
        device: EDU,
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

/// On the machine of the tests, interrupts are remapped. `run --append intremap=off` changes that.
fn why_isolation() -> Result<()> {
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

fn why_access() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let found = obstacle(EDU, "--user nobody", "access")?;
    expect(&found, "help", vec![format!("vfioctl allow nobody {EDU}")])?;
    vfioctl(&format!("why {EDU} --user root"))?.exits(0)?;
    vfioctl(&format!("why {EDU} --user nosuchuser"))?.exits(3)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// Returns the checksum of the disk, as a program reads it through VFIO.
fn checksum() -> Result<String> {
    let session = Session::open(DISK)?;
    let mut controller = Controller::new(&session)?;
    Ok(reader::read_all(&mut controller, 128 << 10, 4)?.sha256)
}

fn bind_use_restore() -> Result<()> {
    let image = disk()?;
    fs::write(&image, b"vfioctl was here".repeat(1000))?;
    shell("sync")?;
    vfioctl(&format!("bind {DISK}"))?
        .exits(0)?
        .says(&format!("{DISK}: nvme -> vfio-pci"))?;
    has_driver(DISK, "vfio-pci")?;
    vfioctl(&format!("why {DISK}"))?.exits(0)?;
    vfioctl(&format!("bind {DISK}"))?
        .exits(0)?
        .says("already")?;
    let sum = checksum()?;
    vfioctl(&format!("restore {DISK}"))?
        .exits(0)?
        .says(&format!("{DISK}: vfio-pci -> nvme"))?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")?;
    disk()?;
    shell(&format!("sha256sum {} | grep -q ^{sum}", image.display()))
        .context("expected that the host and the program read the same")?;
    vfioctl(&format!("restore {DISK}"))?
        .exits(0)?
        .says("not bound to VFIO")?;
    Ok(())
}

fn bind_group() -> Result<()> {
    vfioctl(&format!("bind {}", group(SIBLING)?))?.exits(0)?;
    for device in [SHARED, SIBLING] {
        has_driver(device, "vfio-pci")?;
    }
    drop(hold(SHARED)?);
    vfioctl(&format!("restore {SIBLING}"))?.exits(0)?;
    has_driver(SHARED, "")?;
    has_driver(SIBLING, "virtio-pci")
}

/// Expects that `bind` refuses a device for a reason that `why` gives, too.
fn refused(device: &str, expected: &str) -> Result<()> {
    let before = driver(device);
    vfioctl(&format!("bind {device}"))?
        .exits(4)?
        .complains(expected)?;
    has_driver(device, &before)?;
    obstacle(device, "", "host-use")?;
    vfioctl(&format!("why {device}"))?
        .exits(4)?
        .says(expected)?;
    Ok(())
}

fn bind_mounted() -> Result<()> {
    let disk = disk()?;
    shell(&format!(
        "mke2fs {0} && mkdir -p '/mnt/a b' && mount {0} '/mnt/a b'",
        disk.display()
    ))?;
    let outcome = refused(DISK, "its disk nvme0n1 is mounted at /mnt/a b").and_then(|()| {
        let forced = vfioctl(&format!("bind --force {DISK}"))?;
        forced.exits(4)?.complains("umount '/mnt/a b'")?;
        vfioctl("list")?.exits(0)?.says("mounted at")?;
        vfioctl(&format!("persist {DISK}"))?.exits(4)?;
        Ok(())
    });
    shell("umount '/mnt/a b'")?;
    outcome?;
    vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    Ok(())
}

fn bind_swap() -> Result<()> {
    let disk = disk()?;
    shell(&format!("mkswap {0} && swapon {0}", disk.display()))?;
    let outcome = refused(DISK, "the host swaps to its disk nvme0n1");
    shell(&format!("swapoff {}", disk.display()))?;
    outcome
}

/// As a file system does that has no entry in the list of mounts for each of its disks.
fn bind_claimed() -> Result<()> {
    let claim = File::options()
        .read(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(disk()?)?;
    refused(DISK, "its disk nvme0n1 is in use")?;
    drop(claim);
    vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    Ok(())
}

fn bind_address() -> Result<()> {
    let interface = interface()?;
    shell(&format!(
        "ifconfig {interface} 192.0.2.1 netmask 255.255.255.0 up"
    ))?;
    refused(
        NIC,
        &format!("its network interface {interface} has the address 192.0.2.1"),
    )?;
    refused(NIC, "packets to 192.0.2.0/24 are routed")?;
    vfioctl(&format!("bind --force {NIC}"))?.exits(0)?;
    has_driver(NIC, "vfio-pci")?;
    vfioctl(&format!("restore {NIC}"))?.exits(0)?;
    has_driver(NIC, "e1000e")?;
    vfioctl(&format!("bind --dry-run {NIC}"))?.exits(0)?;
    Ok(())
}

fn bind_console() -> Result<()> {
    refused(VGA, "the console is on it")
}

fn bind_model() -> Result<()> {
    vfioctl(&format!("bind --expect 1234:5678 {DISK}"))?
        .exits(4)?
        .complains("1b36:0010")?;
    has_driver(DISK, "nvme")
}

fn bind_dry_run() -> Result<()> {
    let said = vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    let said = said.says(&format!(
        "echo vfio-pci >/sys/bus/pci/devices/{DISK}/driver_override\n"
    ))?;
    said.says("/sys/bus/pci/drivers/nvme/unbind\n")?
        .says(">/sys/bus/pci/drivers_probe\n")?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")
}

fn bind_unknown_driver() -> Result<()> {
    let said = vfioctl(&format!("bind --driver nosuchdriver {DISK}"))?.exits(6)?;
    said.complains("modprobe nosuchdriver")?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")
}

/// A driver that does not accept the device.
fn bind_failure() -> Result<()> {
    let said = vfioctl(&format!("bind --driver virtio-pci {DISK}"))?.exits(1)?;
    said.complains("nothing was changed")?
        .complains("virtio-pci did not take")?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")?;
    vfioctl(&format!("restore {DISK}"))?
        .exits(0)?
        .says("not bound to VFIO")?;
    Ok(())
}

fn bind_stale_override() -> Result<()> {
    for stale in ["nosuchdriver", "vfio-pci"] {
        set_override(DISK, stale)?;
        vfioctl(&format!("bind {DISK}"))?.exits(0)?;
        has_driver(DISK, "vfio-pci")?;
        vfioctl(&format!("restore {DISK}"))?.exits(0)?;
        has_driver(DISK, "nvme")?;
        has_override(DISK, "")?;
    }
    // One that names the driver that was bound is not stale.
    set_override(DISK, "nvme")?;
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "nvme")
}

/// The name of a helper process: it is started as `/proc/self/exe`.
const HELPER: &str = "exe";

const NEW_ID: &str = "/sys/bus/pci/drivers/vfio-pci/new_id";
const REMOVE_ID: &str = "/sys/bus/pci/drivers/vfio-pci/remove_id";
const STATE: &str = "/run/vfioctl/devices.json";

fn restore_new_id() -> Result<()> {
    let model = "1b36 0010";
    store(NEW_ID, model)?;
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    has_driver(DISK, "nvme")?;
    // Without knowledge of the driver, the kernel would choose vfio-pci again.
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    fs::remove_file(STATE)?;
    let restored = vfioctl(&format!("restore {DISK}"))?
        .exits(0)
        .and(has_driver(DISK, "nvme"));
    // It may be gone already.
    let _ = store(REMOVE_ID, model);
    restored
}

fn restore_forgotten() -> Result<()> {
    vfioctl(&format!("bind {SHARED}"))?.exits(0)?;
    fs::remove_file(STATE)?;
    vfioctl(&format!("restore {SHARED}"))?.exits(0)?;
    has_driver(SHARED, "")?;
    has_driver(SIBLING, "virtio-pci")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    fs::write(STATE, "{ damaged")?;
    vfioctl(&format!("restore {EDU}"))?
        .exits(1)?
        .complains("its contents are damaged")?;
    fs::remove_file(STATE)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    has_driver(EDU, "")
}

fn restore_open() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl(&format!("restore {EDU}"))?.exits(4)?;
    said.complains(&format!("({})", helper.id()))?;
    has_driver(EDU, "vfio-pci")?;
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn holders() -> Result<()> {
    vfioctl("holders")?.exits(0)?.says("No process")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl("holders --json")?.exits(0)?.json()?;
    let files = said.as_array().context("expected an array")?;
    let of = |kind: &str| files.iter().find(|file| file["file"] == kind);
    for kind in ["group", "device", "container"] {
        let file = of(kind).with_context(|| format!("expected a {kind}:\n{said:#}"))?;
        expect(file, "pid", helper.id())?;
        expect(file, "command", HELPER)?;
        expect(file, "uid", 0)?;
    }
    expect(of("group").unwrap_or(&said), "group", group(EDU)?)?;
    expect(of("device").unwrap_or(&said), "device", EDU)?;
    vfioctl(&format!("holders {EDU}"))?
        .exits(0)?
        .says(&format!("device {EDU}"))?;
    // A file that vfioctl has inherited does not make it a user of the group.
    let inherits = format!("vfioctl holders {NIC} 5<>/dev/vfio/{}", group(NIC)?);
    vfioctl(&format!("bind {NIC}"))?.exits(0)?;
    shell(&format!("{inherits} | grep 'No process'"))?;
    vfioctl(&format!("restore {NIC}"))?.exits(0)?;
    vfioctl(&format!("holders {DISK}"))?
        .exits(0)?
        .says("No process")?;
    helper.finish()?;
    vfioctl("holders")?.exits(0)?.says("No process")?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn allow() -> Result<()> {
    vfioctl(&format!("allow nobody {EDU}"))?
        .exits(4)?
        .complains("vfioctl bind")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let nobody = Hold {
        device: EDU,
        uid: NOBODY,
        map: 4096,
        limit: 0,
    };
    let denied = nobody.start()?.1;
    ensure!(
        denied.contains("EACCES"),
        "expected that nobody may not open it: {denied}"
    );
    for options in ["", "--owner"] {
        vfioctl(&format!("allow {options} nobody {EDU}"))?.exits(0)?;
        vfioctl(&format!("why {EDU} --user nobody"))?.exits(0)?;
        let mapped = nobody.start()?.1;
        ensure!(
            mapped == "mapped",
            "expected that nobody can use it: {mapped}"
        );
        vfioctl(&format!("allow --remove nobody {EDU}"))?.exits(0)?;
        let denied = nobody.start()?.1;
        ensure!(
            denied.contains("EACCES"),
            "expected that nobody may no longer open it: {denied}"
        );
    }
    vfioctl(&format!("allow nosuchuser {EDU}"))?.exits(3)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn persist() -> Result<()> {
    let rule = format!("/etc/udev/rules.d/40-vfioctl-{SHARED}.rules");
    vfioctl(&format!("persist {SHARED}"))?
        .exits(0)?
        .says(&rule)?;
    let text = fs::read_to_string(&rule)?;
    for device in [SHARED, SIBLING] {
        ensure!(
            text.contains(&format!("KERNEL==\"{device}\"")),
            "expected {device}:\n{text}"
        );
    }
    vfioctl(&format!("persist --remove {SHARED}"))?.exits(0)?;
    vfioctl(&format!("persist --remove {SHARED}"))?.exits(3)?;
    let said = vfioctl(&format!("persist --by systemd --print {DISK}"))?.exits(0)?;
    let line = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.with_context(|| format!("expected ExecStart:\n{}", said.out))?;
    shell(line).context("expected that the unit's command works")?;
    has_driver(DISK, "vfio-pci")?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    Ok(())
}

/// Returns a type of mediated device that the machine has, and its parent.
fn kind(stack: Stack) -> (&'static str, &'static str) {
    match stack {
        Stack::C => ("mtty-1", "mtty"),
        Stack::Rust => ("vgpu_p2p-p2p-1x", "vgpu_p2p"),
    }
}

fn mdev(stack: Stack) -> Result<()> {
    let (kind, parent) = kind(stack);
    let uuid = "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a01";
    vfioctl("mdev types")?.exits(0)?.says(kind)?.says(parent)?;
    vfioctl("mdev list")?
        .exits(0)?
        .says("no mediated devices")?;
    vfioctl("mdev create nosuchtype")?.exits(3)?;
    vfioctl(&format!("mdev create {kind} --uuid x"))?.exits(2)?;
    vfioctl(&format!("mdev create {kind} --uuid {uuid}"))?
        .exits(0)?
        .says(uuid)?;
    vfioctl(&format!("mdev create {kind} --uuid {uuid}"))?.exits(4)?;
    let list = vfioctl("mdev list --json")?.exits(0)?.json()?;
    expect(&list[0], "name", uuid)?;
    expect(&list[0]["mdev"], "parent", parent)?;
    expect(&list[0]["mdev"], "type", kind)?;
    vfioctl(&format!("why {}", uuid.to_uppercase()))?.exits(0)?;
    vfioctl(&format!("bind {uuid}"))?
        .exits(0)?
        .says("already")?;
    let number = list[0]["group"].as_u64().context("expected a group")?;
    let open = File::options()
        .read(true)
        .write(true)
        .open(format!("/dev/vfio/{number}"))?;
    vfioctl(&format!("mdev remove {uuid}"))?
        .exits(4)?
        .complains("guest-vfioctl")?;
    drop(open);
    vfioctl(&format!("mdev remove {uuid}"))?.exits(0)?;
    let random = vfioctl(&format!("mdev create {kind} --parent {parent}"))?.exits(0)?;
    vfioctl(&format!("mdev remove {}", random.out.trim()))?.exits(0)?;
    vfioctl("mdev list")?
        .exits(0)?
        .says("no mediated devices")?;
    vfioctl(&format!("mdev remove {uuid}"))?.exits(3)?;
    vfioctl(&format!("mdev remove {DISK}"))?
        .exits(4)?
        .complains("no mediated device")?;
    Ok(())
}

fn create(kind: &str) -> Result<String> {
    let said = vfioctl(&format!("mdev create {kind}"))?.exits(0)?;
    Ok(said.out.trim().to_owned())
}

fn no_peers() -> Result<()> {
    let (a, b) = (create("mtty-1")?, create("mtty-1")?);
    vfioctl("peers list")?
        .exits(0)?
        .says("No device can have peers")?;
    vfioctl(&format!("peers group {a} {b}"))?
        .exits(6)?
        .complains("vfio.ko")?;
    vfioctl(&format!("mdev remove {a}"))?.exits(0)?;
    vfioctl(&format!("mdev remove {b}"))?.exits(0)?;
    Ok(())
}

fn peers() -> Result<()> {
    let (a, b) = (create("vgpu_p2p-p2p-1x")?, create("vgpu_p2p-p2p-1x")?);
    let groups = || {
        let list = vfioctl("mdev list --json")?.exits(0)?.json()?;
        Ok::<_, anyhow::Error>((list[0]["group"].clone(), list[1]["group"].clone()))
    };
    let apart = |(first, second)| first != second;
    ensure!(apart(groups()?), "expected two groups at first");
    vfioctl(&format!("peers group {a} {b}"))?
        .exits(0)?
        .says(&a)?;
    ensure!(!apart(groups()?), "expected one group");
    let list = vfioctl("peers list --json")?.exits(0)?.json()?;
    ensure!(
        list.as_object().is_some_and(|groups| groups.len() == 1),
        "expected one group:\n{list:#}"
    );
    vfioctl(&format!("peers split {b}"))?.exits(0)?;
    ensure!(apart(groups()?), "expected two groups in the end");
    for device in [a, b] {
        vfioctl(&format!("mdev remove {device}"))?.exits(0)?;
    }
    Ok(())
}

fn top(stack: Stack) -> Result<()> {
    vfioctl("top --batch --count 1")?
        .exits(0)?
        .says("No container")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl("top --json --count 2 --delay 0.1")?.exits(0)?;
    let looks: Vec<&str> = said.out.lines().collect();
    ensure!(looks.len() == 2, "expected two lines:\n{}", said.out);
    let look: serde_json::Value = serde_json::from_str(looks[1]).context("expected JSON")?;
    expect(&look, "from_debugfs", stack == Stack::Rust)?;
    let container = &look["containers"][0];
    expect(container, "pid", helper.id())?;
    expect(container, "groups", vec![group(EDU)?])?;
    expect(container, "locked", 1 << 20)?;
    if stack == Stack::Rust {
        expect(&container["detail"], "mappings", 1)?;
        expect(&container["detail"], "mapped", 1 << 20)?;
        expect(&container["detail"], "maps", 1)?;
    }
    vfioctl("top --batch -n 1")?
        .exits(0)?
        .says(HELPER)?
        .says("1 MiB")?;
    vfioctl("top --delay=-1")?.exits(2)?;
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// Runs the live view of `top` on a terminal, presses keys, and returns what it has drawn.
fn live(arguments: &[&str], keys: &[u8]) -> Result<String> {
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None)?;
    let mut child = Command::new("vfioctl")
        .arg("top")
        .args(arguments)
        .env("TERM", "xterm")
        .stdin(terminal.slave.try_clone()?)
        .stdout(terminal.slave)
        .spawn()?;
    let mut terminal = File::from(terminal.master);
    terminal.write_all(keys)?;
    // The end is an error, since the other side of the terminal is closed.
    let mut drawn = Vec::new();
    let _ = terminal.read_to_end(&mut drawn);
    let drawn = String::from_utf8_lossy(&drawn).into_owned();
    let status = child.wait()?;
    ensure!(
        status.success(),
        "expected that 'top' succeeds: {status}\n{drawn:?}"
    );
    for sequence in ["\x1b[?1049h", "\x1b[?1049l"] {
        ensure!(drawn.contains(sequence), "expected {sequence:?}: {drawn:?}");
    }
    Ok(drawn)
}

fn top_live() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let drawn = live(&["--count", "2", "--delay", "0.1"], b"")?;
    // Blanks are not drawn: the cursor jumps over them.
    for text in ["container", "COMMAND", HELPER, "MiB", "quit,"] {
        ensure!(drawn.contains(text), "expected '{text}': {drawn:?}");
    }
    // A key ends it long before the next look.
    live(&["--delay", "1000"], b"q")?;
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn graph() -> Result<()> {
    let said = vfioctl("graph")?.exits(0)?;
    said.says("dmar0\n")?
        .says(&format!("group {}", group(SHARED)?))?
        .says("─ 0000:00:05.1")?;
    vfioctl("graph --only-vfio")?
        .exits(0)?
        .says("There are no groups to show")?;
    vfioctl("graph --svg /tmp/graph.svg")?.exits(0)?;
    let picture = fs::read_to_string("/tmp/graph.svg")?;
    for part in ["<svg", DISK, "[nvme]", "</svg>"] {
        ensure!(picture.contains(part), "expected '{part}':\n{picture}");
    }
    Ok(())
}
