// SPDX-License-Identifier: GPL-2.0

//! `why`, on a machine in each state.

use super::tree::{
    NewPci,
    Tree, //
};
use crate::{
    decide::why::{
        Asker,
        Reason,
        User,
        Verdict,
        why, //
    },
    system::{
        limits::Limits,
        log::LimitExceeded, //
    },
};

const DEVICE: &str = "0000:06:00.0";

/// A device that VFIO offers, in group 7.
fn ready() -> NewPci<'static> {
    NewPci {
        name: DEVICE,
        group: Some(7),
        driver: Some("vfio-pci"),
        class: 0x02_0000,
        vfio: Some("vfio0"),
    }
}

/// Adds the device, bound to a driver of the host. Returns its folder.
fn of_host(tree: &Tree, driver: &'static str) -> String {
    tree.pci(NewPci {
        driver: Some(driver),
        vfio: None,
        ..ready()
    })
}

fn ask(tree: &Tree, asker: &Asker) -> Verdict {
    let snapshot = tree.snapshot();
    why(&snapshot, &snapshot.devices[DEVICE], asker)
}

fn reasons(tree: &Tree) -> Vec<Reason> {
    let verdict = ask(tree, &Asker::default());
    verdict
        .obstacles
        .iter()
        .map(|obstacle| obstacle.reason)
        .collect()
}

#[test]
fn ready_device() {
    let tree = Tree::new();
    tree.pci(ready());
    let verdict = ask(&tree, &Asker::default());
    assert!(verdict.ready, "{verdict:?}");
    assert_eq!(verdict.nodes, [std::path::Path::new("/dev/vfio/7")]);
}

#[test]
fn driver_of_the_host() {
    let tree = Tree::new();
    of_host(&tree, "e1000e");
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles.len(), 1);
    assert_eq!(verdict.obstacles[0].reason, Reason::Driver);
    assert_eq!(verdict.obstacles[0].driver.as_deref(), Some("e1000e"));
    assert_eq!(verdict.obstacles[0].help, ["vfioctl bind 0000:06:00.0"]);
}

#[test]
fn no_driver_and_no_group() {
    let tree = Tree::new();
    let device = NewPci {
        driver: None,
        vfio: None,
        ..ready()
    };
    tree.pci(device);
    assert_eq!(reasons(&tree), [Reason::NoDriver]);
    let tree = Tree::empty();
    tree.pci(NewPci {
        group: None,
        ..device
    });
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles[0].reason, Reason::NoIommu);
    assert!(verdict.obstacles[0].help[0].contains("intel_iommu=on"));
}

#[test]
fn siblings() {
    let tree = Tree::new();
    tree.pci(ready());
    let sibling = |name, driver, class| NewPci {
        name,
        driver,
        class,
        vfio: None,
        ..ready()
    };
    // These do not count: a bridge with the driver of ports, and a device without a driver.
    tree.pci(sibling("0000:00:1c.0", Some("pcieport"), 0x06_0400));
    tree.pci(sibling("0000:06:00.2", None, 0));
    tree.pci(sibling("0000:06:00.3", Some("pci-stub"), 0));
    assert_eq!(reasons(&tree), []);
    tree.pci(sibling("0000:06:00.1", Some("snd_hda_intel"), 0x04_0300));
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles.len(), 1);
    assert_eq!(verdict.obstacles[0].reason, Reason::Sibling);
    assert_eq!(verdict.obstacles[0].device, "0000:06:00.1");
    assert_eq!(
        verdict.obstacles[0].driver.as_deref(),
        Some("snd_hda_intel")
    );
}

#[test]
fn a_bridge() {
    let tree = Tree::new();
    tree.pci(NewPci {
        driver: Some("pcieport"),
        class: 0x06_0400,
        vfio: None,
        ..ready()
    });
    assert_eq!(reasons(&tree), [Reason::Bridge]);
}

#[test]
fn mounted_disks() {
    let tree = Tree::new();
    let host = NewPci {
        driver: Some("nvme"),
        vfio: None,
        ..ready()
    };
    let device = tree.pci(host);
    tree.disk(&device, "nvme0n1", "259:0\n");
    assert_eq!(reasons(&tree), [Reason::Driver]);
    tree.write(
        "proc/self/mountinfo",
        "36 35 259:0 / /mnt/a\\040b rw - ext4 /dev/nvme0n1 rw\n",
    );
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles[0].reason, Reason::HostUse);
    assert_eq!(verdict.obstacles[0].help, ["umount '/mnt/a b'"]);
    tree.write("proc/self/mountinfo", "");
    tree.write(
        "proc/swaps",
        "Filename Type\n/dev/nvme0n1 partition 1 0 -2\n",
    );
    assert_eq!(reasons(&tree), [Reason::HostUse, Reason::Driver]);
}

#[test]
fn disks_below_other_block_devices() {
    let tree = Tree::new();
    let device = of_host(&tree, "ahci");
    tree.disk(&device, "sda", "8:0\n");
    tree.disk("sys/devices/virtual", "dm-0", "253:0\n");
    tree.link(
        &format!("{device}/block/sda/holders/dm-0"),
        "sys/devices/virtual/block/dm-0",
    );
    tree.write(
        "proc/self/mountinfo",
        "1 1 253:0 / / rw - ext4 /dev/mapper/root rw\n",
    );
    let verdict = ask(&tree, &Asker::default());
    let texts: Vec<&str> = verdict.obstacles.iter().map(|o| o.text.as_str()).collect();
    assert_eq!(texts[0], "dm-0 is made of its disk sda");
    assert_eq!(texts[1], "its disk dm-0 is mounted at /");
}

/// A disk of NVMe with several paths is not below one of its controllers.
#[test]
fn disks_with_several_paths() {
    let tree = Tree::new();
    let device = of_host(&tree, "nvme");
    let controller = format!("{device}/nvme/nvme0");
    tree.write(&format!("{controller}/state"), "live");
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    tree.link(&format!("{subsystem}/nvme0"), &controller);
    tree.write(&format!("{subsystem}/nvme0n1/dev"), "259:0");
    tree.link("sys/class/block/nvme0n1", &format!("{subsystem}/nvme0n1"));
    tree.write(
        "proc/self/mountinfo",
        "1 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n",
    );
    assert_eq!(reasons(&tree), [Reason::HostUse, Reason::Driver]);
}

/// The number of the device in the list of mounts is not that of the disk, as with btrfs.
#[test]
fn disks_of_a_file_system_on_several() {
    let tree = Tree::new();
    let device = of_host(&tree, "ahci");
    tree.disk(&device, "sda", "8:0\n");
    tree.disk("sys/devices/pci0000:00/0000:00:17.0", "sdb", "8:16\n");
    for disk in ["sda", "sdb"] {
        tree.link(
            &format!("sys/fs/btrfs/UUID/devices/{disk}"),
            &format!("sys/class/block/{disk}"),
        );
    }
    tree.write(
        "proc/self/mountinfo",
        "1 1 0:31 / /data rw - btrfs /dev/sdb rw\n",
    );
    assert_eq!(reasons(&tree), [Reason::HostUse, Reason::Driver]);
}

#[test]
fn network_interfaces() {
    let tree = Tree::new();
    let device = of_host(&tree, "e1000e");
    let interface = format!("{device}/net/eth0");
    tree.write(&format!("{interface}/mtu"), "1500");
    tree.link("sys/class/net/eth0", &interface);
    let address = |text: &str| format!("{text} 02 40 20 80     eth0\n");
    tree.write(
        "proc/net/if_inet6",
        address("fe80000000000000000000000000a001"),
    );
    assert_eq!(reasons(&tree), [Reason::Driver]);
    tree.write(
        "proc/net/if_inet6",
        address("20010db8000000000000000000000001"),
    );
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles[0].help, ["ip address flush dev eth0"]);
    tree.write("proc/net/if_inet6", "");
    tree.write(
        "proc/net/route",
        "Iface\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n",
    );
    let verdict = ask(&tree, &Asker::default());
    assert!(
        verdict.obstacles[0].text.contains("default route"),
        "{verdict:?}"
    );
    tree.write("proc/net/route", "");
    tree.link(
        &format!("{interface}/master"),
        "sys/devices/virtual/net/br0",
    );
    tree.link(
        &format!("{interface}/upper_br0"),
        "sys/devices/virtual/net/br0",
    );
    tree.link(
        &format!("{interface}/upper_eth0.5"),
        "sys/devices/virtual/net/eth0.5",
    );
    let verdict = ask(&tree, &Asker::default());
    let texts: Vec<&str> = verdict.obstacles.iter().map(|o| o.text.as_str()).collect();
    assert_eq!(texts[0], "eth0.5 uses its network interface eth0");
    assert_eq!(texts[1], "br0 uses its network interface eth0");
    assert_eq!(texts.len(), 3);
}

#[test]
fn virtual_functions() {
    let tree = Tree::new();
    let device = of_host(&tree, "igb");
    tree.write(&format!("{device}/sriov_numvfs"), "0\n");
    assert_eq!(reasons(&tree), [Reason::Driver]);
    tree.write(&format!("{device}/sriov_numvfs"), "2\n");
    let verdict = ask(&tree, &Asker::default());
    let help = "echo 0 >/sys/bus/pci/devices/0000:06:00.0/sriov_numvfs";
    assert_eq!(verdict.obstacles[0].reason, Reason::HostUse);
    assert_eq!(verdict.obstacles[0].help, [help]);
}

#[test]
fn consoles() {
    let tree = Tree::new();
    let device = of_host(&tree, "serial");
    tree.write(&format!("{device}/boot_vga"), "1\n");
    tree.write(&format!("{device}/tty/ttyS4/dev"), "4:68");
    tree.link("sys/class/tty/ttyS4", &format!("{device}/tty/ttyS4"));
    tree.write("sys/class/tty/console/active", "tty0 ttyS4\n");
    assert_eq!(
        reasons(&tree),
        [Reason::HostUse, Reason::HostUse, Reason::Driver]
    );
}

#[test]
fn open_groups() {
    for file in ["/dev/vfio/7", "/dev/vfio/devices/vfio0"] {
        let tree = Tree::new();
        tree.pci(ready());
        tree.process(9, "other", "/dev/vfio/8");
        tree.process(10, "qemu", file);
        let verdict = ask(&tree, &Asker::default());
        assert_eq!(verdict.obstacles.len(), 1, "{verdict:?}");
        assert_eq!(verdict.obstacles[0].reason, Reason::Open);
        assert_eq!(verdict.obstacles[0].pid, Some(10));
    }
}

#[test]
fn open_devices() {
    let tree = Tree::new();
    tree.pci(ready());
    tree.process(10, "qemu", "anon_inode:[vfio-device]");
    let info = "pos: 0\nvfio-device-syspath: /sys/devices/pci0000:00/0000:06:00.0\n";
    tree.write("proc/10/fdinfo/5", info);
    assert_eq!(reasons(&tree), [Reason::Open]);
}

/// A file that is in flight between two processes is in no process.
#[test]
fn groups_that_only_debugfs_shows_open() {
    let tree = Tree::new();
    tree.pci(ready());
    let text = "viable: yes\nin a container: no\nopen: by qemu (11), for 5 s\n";
    tree.write("sys/kernel/debug/vfio/groups/7", text);
    let verdict = ask(&tree, &Asker::default());
    assert_eq!(verdict.obstacles[0].pid, Some(11));
    assert_eq!(
        verdict.obstacles[0].text,
        "qemu (11) has group 7 open, for 5 s"
    );
}

#[test]
fn isolation() {
    let tree = Tree::new();
    tree.pci(ready());
    tree.write("proc/interrupts", " 4: 10 IO-APIC 4-edge ttyS0\n");
    assert_eq!(reasons(&tree), [Reason::Isolation]);
    tree.write(
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "Y\n",
    );
    assert_eq!(reasons(&tree), []);
    tree.write(
        "sys/kernel/iommu_groups/7/reserved_regions",
        "0x1000 0x1fff direct\n",
    );
    assert_eq!(reasons(&tree), [Reason::ReservedRegion]);
}

#[test]
fn missing_modules_and_nodes() {
    let tree = Tree::new();
    tree.pci(ready());
    std::fs::remove_dir_all(tree.path("sys/module/vfio_iommu_type1")).unwrap();
    std::fs::remove_file(tree.path("dev/vfio/7")).unwrap();
    assert_eq!(reasons(&tree), [Reason::NoBackend, Reason::NoNode]);
    tree.write("dev/iommu", "");
    tree.write("dev/vfio/devices/vfio0", "");
    assert_eq!(reasons(&tree), []);
}

#[test]
fn locked_memory() {
    let tree = Tree::new();
    tree.pci(ready());
    let limits = Limits {
        pid: 5,
        soft: Some(8 << 20),
        locked: 4 << 20,
        ..Limits::default()
    };
    let mut asker = Asker {
        limits: Some(limits),
        ..Asker::default()
    };
    let verdict = ask(&tree, &asker);
    assert!(verdict.ready);
    assert!(verdict.notes[0].contains("8 MiB"));
    asker.memory = Some(4 << 20);
    assert!(ask(&tree, &asker).ready);
    asker.memory = Some((4 << 20) + 1);
    assert_eq!(ask(&tree, &asker).obstacles[0].reason, Reason::Memlock);
    // What the log says about a process counts only for that process.
    asker.memory = None;
    asker.exceeded = vec![LimitExceeded {
        pid: Some(5),
        command: None,
        needed: Some(9 << 20),
    }];
    assert!(ask(&tree, &asker).ready);
    asker.is_program = true;
    assert_eq!(ask(&tree, &asker).obstacles[0].reason, Reason::Memlock);
}

#[test]
fn access() {
    let tree = Tree::new();
    tree.pci(ready());
    let user = |uid| User {
        name: "alice".into(),
        uid,
        gids: Vec::new(),
    };
    set_mode(&tree, "dev/vfio/7", 0o600);
    let mut asker = Asker {
        user: Some(user(12345)),
        ..Asker::default()
    };
    let verdict = ask(&tree, &asker);
    assert_eq!(verdict.obstacles[0].reason, Reason::Access);
    assert_eq!(
        verdict.obstacles[0].help,
        ["vfioctl allow alice 0000:06:00.0"]
    );
    asker.user = Some(user(0));
    assert!(ask(&tree, &asker).ready);
    // A file of the device is of no use without that of IOMMUFD.
    asker.user = Some(user(12345));
    set_mode(&tree, "dev/vfio/devices/vfio0", 0o666);
    set_mode(&tree, "dev/iommu", 0o600);
    let verdict = ask(&tree, &asker);
    assert_eq!(verdict.obstacles[0].text, "alice may not open /dev/vfio/7");
    set_mode(&tree, "dev/iommu", 0o666);
    assert!(ask(&tree, &asker).ready);
    // Neither is the node of the group without that of containers.
    std::fs::remove_file(tree.path("dev/vfio/devices/vfio0")).unwrap();
    set_mode(&tree, "dev/vfio/7", 0o666);
    set_mode(&tree, "dev/vfio/vfio", 0o600);
    let verdict = ask(&tree, &asker);
    assert_eq!(
        verdict.obstacles[0].text,
        "alice may not open /dev/vfio/vfio"
    );
}

fn set_mode(tree: &Tree, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    tree.write(name, "");
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(tree.path(name), permissions).unwrap();
}
