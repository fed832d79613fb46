// SPDX-License-Identifier: GPL-2.0

//! `bind`.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::fcntl::{
    Flock,
    FlockArg, //
};
use std::{
    fs::{
        self,
        File, //
    },
    io::{
        BufRead,
        BufReader, //
    },
    os::unix::fs::PermissionsExt,
    process::{
        Child,
        Command,
        Stdio, //
    },
    thread,
    time::Duration, //
};

use nvme_read::{
    controller::Controller,
    reader,
    session::Session, //
};

use super::Case;
use crate::{
    hold::hold,
    machine::{
        self,
        DISK,
        EDU,
        NIC,
        SHARED,
        SIBLING,
        VGA,
        disk,
        driver,
        group,
        has_driver,
        has_override,
        interface,
        set_override,
        shell,
        store, //
    },
    program::{
        obstacle,
        shell_said,
        vfioctl,
        vfioctl_unread, //
    }, //
};

/// Returns the cases.
pub fn cases() -> Vec<Case> {
    vec![
        ("bind::use_and_restore", Box::new(use_restore)),
        ("bind::whole_group", Box::new(whole_group)),
        ("bind::refuses_a_mounted_disk", Box::new(mounted)),
        ("bind::refuses_a_swap_area", Box::new(swap)),
        ("bind::refuses_a_disk_that_is_claimed", Box::new(claimed)),
        ("bind::refuses_an_address_unless_forced", Box::new(address)),
        ("bind::refuses_the_console", Box::new(console)),
        ("bind::refuses_another_model", Box::new(model)),
        ("bind::dry_run_changes_nothing", Box::new(dry_run)),
        (
            "bind::unknown_driver_changes_nothing",
            Box::new(unknown_driver),
        ),
        ("bind::failure_is_undone", Box::new(failure)),
        ("bind::stale_driver_override", Box::new(stale_override)),
        ("bind::failed_change_of_the_driver", Box::new(failed_change)),
        ("bind::refuses_an_open_disk", Box::new(opened)),
        ("bind::races_with_a_mount", Box::new(racing_mount)),
        ("bind::refuses_a_disk_below_a_loop_device", Box::new(looped)),
        (
            "bind::refuses_an_interface_of_a_container",
            Box::new(namespace),
        ),
        (
            "bind::refuses_a_function_in_use",
            Box::new(virtual_function),
        ),
        ("bind::read_only_sysfs", Box::new(read_only)),
        ("bind::output_without_reader", Box::new(unread)),
        ("bind::files_of_root", Box::new(files)),
        ("bind::waits_for_another_call", Box::new(lock)),
    ]
}

/// Returns the checksum of the disk, as a program reads it through VFIO.
fn checksum() -> Result<String> {
    let session = Session::open(DISK)?;
    let mut controller = Controller::new(&session)?;
    Ok(reader::read_all(&mut controller, 128 << 10, 4)?.sha256)
}

fn use_restore() -> Result<()> {
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

fn whole_group() -> Result<()> {
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

fn mounted() -> Result<()> {
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

fn swap() -> Result<()> {
    let disk = disk()?;
    shell(&format!("mkswap {0} && swapon {0}", disk.display()))?;
    let outcome = refused(DISK, "the host swaps to its disk nvme0n1");
    shell(&format!("swapoff {}", disk.display()))?;
    outcome
}

/// A file system that is mounted in another mount namespace only, as in a container.
fn claimed() -> Result<()> {
    let disk = disk()?;
    shell(&format!("mke2fs {0} && mkdir -p /mnt", disk.display()))?;
    let mount = format!("mount {} /mnt && echo mounted && read line", disk.display());
    let mut container = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = expect_line(&mut container, "mounted").and_then(|()| {
        let said = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!said.contains("nvme0n1"), "expected no mount here:\n{said}");
        refused(DISK, "its disk nvme0n1 is in use")?;
        vfioctl(&format!("persist {DISK}"))?
            .exits(4)?
            .complains("its disk nvme0n1 is in use")?;
        vfioctl(&format!("persist --by systemd --force {DISK}"))?.exits(4)?;
        Ok(())
    });
    drop(container.stdin.take());
    container.wait()?;
    outcome?;
    vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    Ok(())
}

/// Expects the first line that a process prints.
fn expect_line(process: &mut Child, expected: &str) -> Result<()> {
    let out = process.stdout.as_mut().context("expected an output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    ensure!(line.trim_end() == expected, "expected '{expected}': {line}");
    Ok(())
}

/// A disk that somebody mounts after it was found unused stays.
fn racing_mount() -> Result<()> {
    const STOP: &str = "/tmp/stop";
    const LOST: &str = "/tmp/lost";
    let disk = disk()?;
    shell(&format!("mke2fs {} && mkdir -p /mnt", disk.display()))?;
    // Ends when the disk is gone.
    let mounts = format!(
        "while [ ! -e {STOP} ] && mount /dev/nvme0n1 /mnt; do \
             sleep 0.05; [ -e /sys/block/nvme0n1 ] || touch {LOST}; \
             umount /mnt; sleep 0.05; \
         done 2>/dev/null"
    );
    for _ in 0..5 {
        machine::disk()?;
        let mut mounts = Command::new("sh").args(["-c", &mounts]).spawn()?;
        let mut bound = false;
        for _ in 0..10 {
            let said = vfioctl(&format!("bind {DISK}"))?;
            bound = said.status == 0;
            if bound {
                break;
            }
            said.exits(4)?;
        }
        fs::write(STOP, "")?;
        mounts.wait()?;
        fs::remove_file(STOP)?;
        if bound {
            vfioctl(&format!("restore {DISK}"))?.exits(0)?;
        }
        ensure!(
            fs::remove_file(LOST).is_err(),
            "expected that a mounted disk stays"
        );
    }
    Ok(())
}

/// As a QEMU does that gives a whole disk to its guest, or a database.
fn opened() -> Result<()> {
    let mut process = Command::new("sleep")
        .arg("1000")
        .stdin(File::open(disk()?)?)
        .spawn()?;
    let expected = format!("sleep ({}) has its disk nvme0n1 open", process.id());
    let outcome = refused(DISK, &expected).and_then(|()| {
        let forced = vfioctl(&format!("bind --force {DISK}"))?;
        forced
            .exits(4)?
            .complains(&format!("kill {}", process.id()))?;
        Ok(())
    });
    process.kill()?;
    process.wait()?;
    outcome?;
    vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    Ok(())
}

/// The kernel neither links a loop device with the disk below it, nor claims the disk.
fn looped() -> Result<()> {
    let disk = disk()?;
    shell(&format!(
        "mke2fs {0} && losetup /dev/loop0 {0} && mkdir -p /mnt && mount /dev/loop0 /mnt",
        disk.display()
    ))?;
    let outcome = refused(DISK, "loop0 is made of its disk nvme0n1")
        .and_then(|()| refused(DISK, "its disk loop0 is mounted at /mnt"));
    shell("umount /mnt; losetup -d /dev/loop0")?;
    outcome?;
    vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    Ok(())
}

/// The network interface of a container.
fn namespace() -> Result<()> {
    let interface = interface()?;
    let mut container = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo there && read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = expect_line(&mut container, "there").and_then(|()| {
        shell(&format!(
            "ip link set dev {interface} netns {}",
            container.id()
        ))?;
        refused(NIC, "its network interface is in another network namespace")
    });
    drop(container.stdin.take());
    container.wait()?;
    // The kernel gives the interface back a moment later.
    for _ in 0..600 {
        if machine::interface().is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    outcome?;
    vfioctl(&format!("bind --dry-run {NIC}"))?.exits(0)?;
    Ok(())
}

fn address() -> Result<()> {
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

fn console() -> Result<()> {
    refused(VGA, "the console is on it")
}

fn model() -> Result<()> {
    vfioctl(&format!("bind --expect 1234:5678 {DISK}"))?
        .exits(4)?
        .complains("1b36:0010")?;
    has_driver(DISK, "nvme")
}

fn dry_run() -> Result<()> {
    let said = vfioctl(&format!("bind --dry-run {DISK}"))?.exits(0)?;
    let said = said.says(&format!(
        "echo vfio-pci >/sys/bus/pci/devices/{DISK}/driver_override\n"
    ))?;
    said.says("/sys/bus/pci/drivers/nvme/unbind\n")?
        .says(">/sys/bus/pci/drivers_probe\n")?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")
}

fn unknown_driver() -> Result<()> {
    let said = vfioctl(&format!("bind --driver nosuchdriver {DISK}"))?.exits(6)?;
    said.complains("modprobe nosuchdriver")?;
    has_driver(DISK, "nvme")?;
    has_override(DISK, "")
}

/// A driver that does not accept the device.
fn failure() -> Result<()> {
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

/// A change from one VFIO driver to another one does not give the device to the host.
fn failed_change() -> Result<()> {
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    let said = vfioctl(&format!("bind --driver virtio-pci {DISK}"))?.exits(1)?;
    said.complains("nothing was changed")?;
    has_driver(DISK, "vfio-pci")?;
    has_override(DISK, "vfio-pci")?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    has_driver(DISK, "nvme")
}

/// As in a container.
fn read_only() -> Result<()> {
    let command = format!("mount -o remount,bind,ro /sys && vfioctl bind {DISK}");
    shell_said(&format!("unshare -m sh -c '{command}'"))?
        .exits(5)?
        .complains("/sys is mounted read-only")?;
    has_driver(DISK, "nvme")?;
    vfioctl(&format!("restore {DISK}"))?
        .exits(0)?
        .says("not bound to VFIO")?;
    Ok(())
}

/// The status tells what happened, whether somebody reads the output or not.
fn unread() -> Result<()> {
    vfioctl_unread(&format!("why {EDU}"))?.exits(4)?;
    vfioctl_unread(&format!("bind {VGA}"))?.exits(4)?;
    // The remark about the override comes before the device is bound.
    set_override(EDU, "nosuchdriver")?;
    vfioctl_unread(&format!("bind {EDU}"))?.exits(0)?;
    has_driver(EDU, "vfio-pci")?;
    vfioctl_unread(&format!("restore {EDU}"))?.exits(0)?;
    has_driver(EDU, "")
}

/// Whatever the umask of root is, others may not change what vfioctl reads and what udev runs.
fn files() -> Result<()> {
    fs::remove_dir_all("/run/vfioctl").or_else(missing)?;
    fs::remove_dir_all("/etc/udev").or_else(missing)?;
    shell(&format!(
        "umask 0 && vfioctl bind {EDU} && vfioctl persist {EDU}"
    ))?;
    let rule = format!("/etc/udev/rules.d/40-vfioctl-{EDU}.rules");
    for (path, expected) in [
        ("/run/vfioctl", 0o755),
        ("/run/vfioctl/lock", 0o600),
        ("/run/vfioctl/devices.json", 0o644),
        ("/etc/udev/rules.d", 0o755),
        (&rule, 0o644),
    ] {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        ensure!(
            mode == expected,
            "expected mode {expected:o} of {path}: {mode:o}"
        );
    }
    vfioctl(&format!("persist --remove {EDU}"))?.exits(0)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

fn missing(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Two calls at once.
fn lock() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let file = File::options().write(true).open("/run/vfioctl/lock")?;
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let mut second = Command::new("vfioctl")
        .args(["restore", EDU])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let err = second.stderr.as_mut().context("expected the errors")?;
    BufReader::new(err).read_line(&mut line)?;
    has_driver(EDU, "vfio-pci")?;
    drop(lock);
    let status = second.wait()?;
    ensure!(status.success(), "expected success: {status}");
    ensure!(
        line.contains("waiting for another vfioctl"),
        "expected that it says that it waits: {line}"
    );
    has_driver(EDU, "")
}

/// A virtual function that a program uses vanishes with the physical function.
fn virtual_function() -> Result<()> {
    let physical = machine::physical_function()?;
    let folder = format!("/sys/bus/pci/devices/{physical}");
    let host = driver(&physical);
    store(format!("{folder}/sriov_numvfs"), "1")?;
    let function = fs::read_link(format!("{folder}/virtfn0"))?;
    let function = function.file_name().context("expected a name")?;
    let function = function.to_string_lossy().into_owned();
    vfioctl(&format!("bind {function}"))?.exits(0)?;
    vfioctl(&format!("persist {function}"))?
        .exits(4)?
        .complains("a virtual function")?;
    vfioctl(&format!("persist --by systemd --print {function}"))?.exits(0)?;
    let refused = refused(&physical, "it has 1 virtual function");
    let helper = hold(&function)?;
    let forced = vfioctl(&format!("bind --force {physical}")).and_then(|said| {
        let uses = format!("({}) uses {function}, which would vanish", helper.id());
        said.exits(4)?.complains(&uses)?;
        has_driver(&physical, &host)
    });
    helper.finish()?;
    vfioctl(&format!("restore {function}"))?.exits(0)?;
    store(format!("{folder}/sriov_numvfs"), "0")?;
    refused.and(forced)
}

fn stale_override() -> Result<()> {
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
