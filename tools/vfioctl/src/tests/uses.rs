// SPDX-License-Identifier: GPL-2.0

//! What the host uses, and what `bind` and `restore` say to it.

use super::tree::{
    NewPci,
    Tree, //
};
use crate::{
    decide::plan::{
        self,
        Memory,
        Plan, //
    },
    system::host_use::HostUse, //
};

const DEVICE: &str = "0000:06:00.0";
const OTHER: &str = "0000:06:00.1";
const FORCE: &str = "vfioctl bind --force 0000:06:00.0    # if the host can do without it";

/// A device of the host, in group 7.
fn host(driver: &str) -> NewPci<'_> {
    NewPci {
        name: DEVICE,
        group: Some(7),
        driver: Some(driver),
        ..NewPci::default()
    }
}

/// A device that VFIO offers, in group 8.
fn offered() -> NewPci<'static> {
    NewPci {
        name: OTHER,
        group: Some(8),
        driver: Some("vfio-pci"),
        vfio: Some("vfio0"),
        ..NewPci::default()
    }
}

fn bind(tree: &Tree, force: bool) -> Plan {
    let snapshot = tree.snapshot();
    plan::bind(
        &snapshot,
        &snapshot.devices[DEVICE],
        None,
        force,
        &Memory::new(),
    )
}

/// Expects that the first use of the device has this description and this help, and whether
/// `--force` overcomes it.
fn expect(tree: &Tree, text: &str, help: Option<&str>, yields: bool) {
    let plan = bind(tree, false);
    let refusal = plan.refusals.first().unwrap_or_else(|| panic!("{plan:?}"));
    assert_eq!(refusal.text, text);
    assert_eq!(refusal.help.first().map(String::as_str), help);
    assert_eq!(plan.can_be_forced, yields, "{plan:?}");
    assert_eq!(bind(tree, true).refusals.is_empty(), yields);
}

#[test]
fn nodes_that_processes_have_open() {
    let tree = Tree::new();
    let device = tree.pci(host("snd_hda_intel"));
    let sound = |name: &str| format!("{device}/sound/card0/{name}");
    let other = "sys/devices/pci0000:00/0000:00:02.0/drm/card0";
    tree.open_node(9, "/dev/dri/card0", ("char", "226:0"), other);
    assert!(bind(&tree, false).refusals.is_empty());
    tree.open_node(10, "/dev/snd/pcm", ("char", "116:3"), &sound("pcm"));
    let kill = Some("kill 10    # or close it in that process");
    expect(
        &tree,
        "other (10) has its device node /dev/snd/pcm open",
        kill,
        true,
    );
    // A second file of the same process says nothing new.
    tree.write("dev/snd/controlC0", "c 116:9");
    tree.link("sys/dev/char/116:9", &sound("controlC0"));
    tree.raw_link("proc/10/fd/6", "/dev/snd/controlC0");
    assert_eq!(bind(&tree, false).refusals.len(), 1);
}

/// A container can get a node of VFIO under another name.
#[test]
fn files_of_vfio_with_other_names() {
    let tree = Tree::new();
    tree.pci(offered());
    tree.open_node(
        10,
        "/dev/x",
        ("char", "240:8"),
        "sys/devices/virtual/vfio/8",
    );
    let snapshot = tree.snapshot();
    let plan = plan::restore(&snapshot, &snapshot.devices[OTHER], &Memory::new());
    assert_eq!(plan.refusals[0].pid, Some(10));
}

#[test]
fn disks_that_processes_have_open() {
    let tree = Tree::new();
    let device = tree.pci(host("nvme"));
    tree.disk(&device, "nvme0n1", "259:0\n");
    let disk = format!("{device}/block/nvme0n1");
    tree.open_node(10, "/dev/nvme0n1", ("block", "259:0"), &disk);
    let kill = Some("kill 10    # or close it in that process");
    expect(&tree, "other (10) has its disk nvme0n1 open", kill, false);
}

#[test]
fn loop_devices_on_disks() {
    let tree = Tree::new();
    let device = tree.pci(host("nvme"));
    tree.disk(&device, "nvme0n1", "259:0\n");
    tree.disk("sys/devices/virtual", "loop0", "7:0\n");
    let file = "sys/devices/virtual/block/loop0/loop/backing_file";
    tree.write(file, "/var/lib/image\n");
    assert!(bind(&tree, false).refusals.is_empty());
    tree.write(file, "/dev/nvme0n1\n");
    let help = Some("lsblk /dev/loop0");
    expect(&tree, "loop0 is made of its disk nvme0n1", help, false);
    tree.write(
        "proc/self/mountinfo",
        "1 1 7:0 / /mnt rw - ext4 /dev/loop0 rw\n",
    );
    let texts = bind(&tree, false).refusals;
    assert_eq!(texts[1].text, "its disk loop0 is mounted at /mnt");
}

/// The list of mounts has a btrfs with the name of one member, and that may be a link.
#[test]
fn members_of_a_file_system_with_another_name() {
    let tree = Tree::new();
    let device = tree.pci(host("nvme"));
    tree.disk(&device, "nvme0n1", "259:0\n");
    tree.link(
        "sys/fs/btrfs/ABCD/devices/nvme0n1",
        "sys/class/block/nvme0n1",
    );
    tree.write(
        "proc/self/mountinfo",
        "1 1 0:31 / / rw - btrfs /dev/mapper/a rw\n",
    );
    let text = "its disk nvme0n1 is part of the mounted file system ABCD";
    expect(&tree, text, Some("findmnt UUID=ABCD"), false);
}

#[test]
fn hibernation() {
    let tree = Tree::new();
    let device = tree.pci(host("nvme"));
    tree.disk(&device, "nvme0n1", "259:0\n");
    tree.write("sys/power/resume", "0:0\n");
    assert!(bind(&tree, false).refusals.is_empty());
    tree.write("sys/power/resume", "259:0\n");
    let text = "the machine resumes from its disk nvme0n1 after hibernation";
    expect(&tree, text, Some("echo 0:0 >/sys/power/resume"), true);
}

/// The directory of the interfaces is there, but shows none.
#[test]
fn interfaces_of_other_namespaces() {
    let tree = Tree::new();
    let device = tree.pci(NewPci {
        class: 0x02_0000,
        ..host("e1000e")
    });
    assert!(bind(&tree, false).refusals.is_empty());
    std::fs::create_dir(tree.path(&format!("{device}/net"))).unwrap();
    let text = "its network interface is in another network namespace, for example that of a \
                container";
    expect(
        &tree,
        text,
        Some("lsns --type net    # stop the container"),
        true,
    );
    let interface = format!("{device}/net/eth0");
    tree.write(&format!("{interface}/mtu"), "1500");
    tree.link("sys/class/net/eth0", &interface);
    assert!(bind(&tree, false).refusals.is_empty());
    // The addresses of the host are not visible from a container.
    tree.raw_link("proc/1/ns/net", "net:[1]");
    tree.raw_link("proc/self/ns/net", "net:[1]");
    assert!(bind(&tree, false).refusals.is_empty());
    std::fs::remove_file(tree.path("proc/self/ns/net")).unwrap();
    tree.raw_link("proc/self/ns/net", "net:[2]");
    expect(
        &tree,
        text,
        Some("lsns --type net    # stop the container"),
        true,
    );
}

#[test]
fn root_over_the_network() {
    let tree = Tree::new();
    let device = tree.pci(host("e1000e"));
    let interface = format!("{device}/net/eth0");
    let bridge = "sys/devices/virtual/net/br0";
    tree.write(&format!("{bridge}/mtu"), "1500");
    tree.link("sys/class/net/br0", bridge);
    tree.link(&format!("{interface}/master"), bridge);
    tree.link(&format!("{interface}/upper_br0"), bridge);
    tree.link("sys/class/net/eth0", &interface);
    let route = "Iface\nbr0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n";
    tree.write("proc/net/route", route);
    tree.write("proc/1/mountinfo", "1 1 0:2 / / rw - ext4 /dev/sda rw\n");
    let help = Some("ip link set eth0 nomaster");
    expect(&tree, "br0 uses its network interface eth0", help, true);
    tree.write(
        "proc/1/mountinfo",
        "1 1 0:2 / / rw - nfs4 server:/root rw\n",
    );
    let forced = bind(&tree, true);
    let text = "the root file system is mounted over the network from server:/root, perhaps by its \
                network interface eth0";
    assert_eq!(forced.refusals[0].text, text);
}

#[test]
fn root_on_a_disk_of_another_machine() {
    let refuses = |mountinfo: &str, disk: &str, transport: &str| {
        let tree = Tree::new();
        let device = tree.pci(host("e1000e"));
        tree.link("sys/class/net/eth0", &format!("{device}/net/eth0"));
        tree.write(&format!("{device}/net/eth0/mtu"), "1500");
        let route = "Iface\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n";
        tree.write("proc/net/route", route);
        tree.write("proc/1/mountinfo", mountinfo);
        tree.write("dev/sda1", "");
        tree.write(&format!("{disk}/size"), "1");
        tree.write(&format!("{disk}/../../transport"), transport);
        tree.link("sys/dev/block/8:1", disk);
        tree.link("sys/class/block/sda1", disk);
        // A volume on it.
        tree.link("sys/devices/virtual/block/dm-0/slaves/sda1", disk);
        tree.link("sys/dev/block/253:0", "sys/devices/virtual/block/dm-0");
        let forced = bind(&tree, true);
        forced
            .refusals
            .iter()
            .any(|refusal| refusal.text.contains("over the network"))
    };
    let root = "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
    let iscsi = "sys/devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sda/sda1";
    let fabric = "sys/devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1/nvme0n1p1";
    let nbd = "sys/devices/virtual/block/nbd0/nbd0p1";
    let local = "sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p1";
    assert!(refuses(root, iscsi, ""));
    assert!(refuses(root, fabric, "tcp\n"));
    assert!(refuses(root, nbd, ""));
    assert!(!refuses(root, local, "pcie\n"));
    let volume = "1 1 253:0 / / rw - ext4 /dev/mapper/root rw\n";
    assert!(refuses(volume, iscsi, ""));
    assert!(!refuses(volume, local, "pcie\n"));
    let several = "1 1 0:30 / / rw - btrfs /dev/sda1 rw\n";
    assert!(refuses(several, iscsi, ""));
    let programs = "1 1 0:2 / / rw - tmpfs none rw\n2 1 8:1 / /usr rw - ext4 /dev/sda1 rw\n";
    assert!(refuses(programs, iscsi, ""));
    let other = "1 1 0:2 / / rw - tmpfs none rw\n2 1 8:1 / /srv rw - ext4 /dev/sda1 rw\n";
    assert!(!refuses(other, iscsi, ""));
}

#[test]
fn interfaces_on_top_are_removed_by_their_names() {
    let tree = Tree::new();
    let device = tree.pci(host("e1000e"));
    let interface = format!("{device}/net/eth0");
    tree.link("sys/class/net/eth0", &interface);
    let vlan = "sys/devices/virtual/net/eth0.5";
    tree.link(&format!("{interface}/upper_eth0.5"), vlan);
    let help = Some("ip link delete eth0.5");
    expect(&tree, "eth0.5 uses its network interface eth0", help, true);
}

#[test]
fn keyboards() {
    let tree = Tree::new();
    let device = tree.pci(host("xhci_hcd"));
    let input = |keys: &str| {
        let path = device.trim_start_matches("sys");
        let text = format!(
            "I: Bus=0019\nN: Name=\"Power Button\"\nS: Sysfs=/devices/x/input0\nB: KEY=10000000000000 0\n\n\
             I: Bus=0003\nN: Name=\"A Keyboard\"\nS: Sysfs={path}/usb1/input/input3\nB: KEY={keys}\n\n"
        );
        tree.write("proc/bus/input/devices", text);
    };
    input("70000 0 0 0 0");
    assert!(bind(&tree, false).refusals.is_empty());
    input("1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe");
    expect(
        &tree,
        "the keyboard 'A Keyboard' is connected to it",
        Some(FORCE),
        true,
    );
}

#[test]
fn frame_buffers() {
    let tree = Tree::new();
    let device = tree.pci(host("amdgpu"));
    let buffer = format!("{device}/graphics/fb0");
    tree.write(&format!("{buffer}/dev"), "29:0");
    tree.link("sys/class/graphics/fb0", &buffer);
    tree.write("sys/class/graphics/fbcon/rotate", "0");
    tree.write(
        "sys/class/vtconsole/vtcon1/name",
        "(M) frame buffer device\n",
    );
    tree.write("sys/class/vtconsole/vtcon1/bind", "0\n");
    assert!(bind(&tree, false).refusals.is_empty());
    tree.write("sys/class/vtconsole/vtcon1/bind", "1\n");
    let text = "the console is on its frame buffer fb0";
    expect(&tree, text, Some(FORCE), true);
}

/// A physical function of the host with a virtual function that a guest has.
#[test]
fn virtual_functions_that_are_open() {
    let tree = Tree::new();
    let device = tree.pci(host("igb"));
    tree.write(&format!("{device}/sriov_numvfs"), "1\n");
    let function = tree.pci(offered());
    tree.link(&format!("{function}/physfn"), &device);
    let help = "echo 0 >/sys/bus/pci/devices/0000:06:00.0/sriov_numvfs";
    let text = "it has 1 virtual function, which would vanish";
    expect(&tree, text, Some(help), true);
    tree.process(10, "qemu", "/dev/vfio/8");
    let forced = bind(&tree, true);
    assert_eq!(forced.refusals.len(), 1);
    assert_eq!(
        forced.refusals[0].text,
        "qemu (10) uses 0000:06:00.1, which would vanish"
    );
}

/// A physical function that VFIO offers: the kernel would wait until the guest ends.
#[test]
fn restore_of_a_physical_function() {
    let tree = Tree::new();
    let device = tree.pci(NewPci {
        driver: Some("vfio-pci"),
        vfio: Some("vfio1"),
        ..host("")
    });
    tree.write(&format!("{device}/sriov_numvfs"), "1\n");
    let function = tree.pci(offered());
    tree.link(&format!("{function}/physfn"), &device);
    let refusals = || {
        let snapshot = tree.snapshot();
        plan::restore(&snapshot, &snapshot.devices[DEVICE], &Memory::new()).refusals
    };
    assert!(refusals().is_empty());
    tree.process(10, "qemu", "/dev/vfio/8");
    assert_eq!(refusals()[0].pid, Some(10));
}

/// A disk of a virtual function vanishes with the physical function.
#[test]
fn disks_of_virtual_functions() {
    let tree = Tree::new();
    let device = tree.pci(host("nvme"));
    let function = tree.pci(NewPci {
        name: OTHER,
        group: Some(8),
        ..host("nvme")
    });
    tree.link(&format!("{function}/physfn"), &device);
    tree.disk(&function, "nvme1n1", "259:1\n");
    tree.write(
        "proc/self/mountinfo",
        "1 1 259:1 / /mnt rw - ext4 /dev/nvme1n1 rw\n",
    );
    let text = "its disk nvme1n1 is mounted at /mnt";
    expect(&tree, text, Some("umount /mnt"), false);
}

#[test]
fn mediated_devices() {
    const UUID: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    let tree = Tree::new();
    let device = tree.pci(host("gpu"));
    let folder = format!("{device}/{UUID}");
    tree.link(&format!("{folder}/subsystem"), "sys/bus/mdev");
    tree.link(&format!("sys/bus/mdev/devices/{UUID}"), &folder);
    tree.link(
        &format!("sys/kernel/iommu_groups/9/devices/{UUID}"),
        &folder,
    );
    tree.link(
        &format!("{folder}/iommu_group"),
        "sys/kernel/iommu_groups/9",
    );
    let text = "it has 1 mediated device, which would vanish";
    let help = Some("vfioctl mdev list    # then vfioctl mdev remove");
    expect(&tree, text, help, true);
    tree.process(10, "qemu", "/dev/vfio/9");
    let forced = bind(&tree, true);
    assert_eq!(
        forced.refusals[0].text,
        format!("qemu (10) uses {UUID}, which would vanish")
    );
}

/// vfio-pci does not take a bridge whose class is another one than that of most.
#[test]
fn bridges_by_their_bus() {
    let tree = Tree::new();
    let bridge = NewPci {
        name: OTHER,
        class: 0x06_0700,
        driver: Some("yenta_cardbus"),
        ..host("")
    };
    tree.pci(host("e1000e"));
    let folder = tree.pci(bridge);
    tree.write(&format!("{folder}/secondary_bus_number"), "2\n");
    assert_eq!(bind(&tree, false).devices, [DEVICE]);
}

#[test]
fn commands_are_quoted() {
    let by = "a'b".to_owned();
    let used = HostUse::Stack {
        interface: "$(reboot)".into(),
        by,
        master: true,
    };
    assert_eq!(used.help().unwrap(), "ip link set '$(reboot)' nomaster");
}
