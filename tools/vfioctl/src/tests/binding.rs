// SPDX-License-Identifier: GPL-2.0

//! The plans of `bind` and `restore`.

use super::tree::{
    NewPci,
    Tree, //
};
use crate::{
    act::{
        self,
        memory::Locked, //
    },
    decide::plan::{
        self,
        Memory,
        Plan,
        Remembered,
        Step, //
    },
    system::Snapshot, //
};

const DEVICE: &str = "0000:06:00.0";
const SIBLING: &str = "0000:06:00.1";

fn host() -> NewPci<'static> {
    NewPci {
        name: DEVICE,
        group: Some(7),
        driver: Some("e1000e"),
        class: 0x02_0000,
        vfio: None,
    }
}

fn bind(snapshot: &Snapshot, memory: &Memory) -> Plan {
    plan::bind(snapshot, &snapshot.devices[DEVICE], None, false, memory)
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().filter_map(Step::command).collect()
}

fn remembered(driver: Option<&str>) -> Remembered {
    Remembered {
        driver: driver.map(Into::into),
        driver_override: None,
        model: Some("8086:10d3".into()),
    }
}

#[test]
fn bind_takes_the_whole_group_but_bridges() {
    let tree = Tree::new();
    tree.pci(host());
    tree.pci(NewPci {
        name: SIBLING,
        driver: None,
        ..host()
    });
    tree.pci(NewPci {
        name: "0000:00:1c.0",
        driver: Some("pcieport"),
        class: 0x06_0400,
        ..host()
    });
    let plan = bind(&tree.snapshot(), &Memory::new());
    assert_eq!(plan.devices, [DEVICE, SIBLING]);
    assert_eq!(
        commands(&plan),
        [
            "modprobe vfio-pci",
            "echo vfio-pci >/sys/bus/pci/devices/0000:06:00.0/driver_override",
            "echo 0000:06:00.0 >/sys/bus/pci/drivers/e1000e/unbind",
            "echo 0000:06:00.0 >/sys/bus/pci/drivers_probe",
            "echo vfio-pci >/sys/bus/pci/devices/0000:06:00.1/driver_override",
            "echo 0000:06:00.1 >/sys/bus/pci/drivers_probe",
        ]
    );
    let was = remembered(Some("e1000e"));
    let device = DEVICE.to_owned();
    assert!(plan.steps.contains(&Step::Remember { device, was }));
}

#[test]
fn bind_leaves_what_is_offered() {
    let tree = Tree::new();
    tree.pci(NewPci {
        driver: Some("mlx5_vfio_pci"),
        vfio: Some("vfio0"),
        ..host()
    });
    assert!(bind(&tree.snapshot(), &Memory::new()).devices.is_empty());
}

/// The first memory is what to restore, also if a bind is repeated after it was half undone.
#[test]
fn bind_keeps_what_it_remembers() {
    let tree = Tree::new();
    let device = NewPci {
        driver: None,
        ..host()
    };
    tree.pci(device);
    let mut memory = Memory::from([(DEVICE.to_owned(), remembered(Some("e1000e")))]);
    let remembers = |plan: &Plan| {
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::Remember { .. }))
    };
    assert!(!remembers(&bind(&tree.snapshot(), &memory)));
    // Another model has taken the address.
    let model = Some("1234:5678".into());
    memory.insert(
        DEVICE.to_owned(),
        Remembered {
            model,
            ..remembered(None)
        },
    );
    assert!(remembers(&bind(&tree.snapshot(), &memory)));
}

#[test]
fn bind_refuses_disks_even_by_force() {
    let tree = Tree::new();
    let device = tree.pci(host());
    tree.disk(&device, "sda", "8:0\n");
    tree.write(&format!("{device}/boot_vga"), "1\n");
    let snapshot = tree.snapshot();
    let plan = |snapshot: &Snapshot, force| {
        plan::bind(
            snapshot,
            &snapshot.devices[DEVICE],
            None,
            force,
            &Memory::new(),
        )
    };
    assert_eq!(plan(&snapshot, false).refusals.len(), 1);
    let forced = plan(&snapshot, true);
    assert!(forced.refusals.is_empty());
    assert_eq!(forced.notes.len(), 1);
    tree.write("proc/self/mountinfo", "1 1 8:0 / / rw - ext4 /dev/sda rw\n");
    let snapshot = tree.snapshot();
    assert_eq!(plan(&snapshot, false).refusals.len(), 2);
    assert_eq!(plan(&snapshot, true).refusals.len(), 1);
}

fn offered() -> NewPci<'static> {
    NewPci {
        driver: Some("vfio-pci"),
        vfio: Some("vfio0"),
        ..host()
    }
}

fn restore(tree: &Tree, memory: &Memory) -> Plan {
    let snapshot = tree.snapshot();
    plan::restore(&snapshot, &snapshot.devices[DEVICE], memory)
}

/// The override for the time of the probe keeps drivers away to whose `new_id` somebody has written.
#[test]
fn restore_demands_the_driver() {
    let tree = Tree::new();
    tree.pci(offered());
    let memory = Memory::from([(DEVICE.to_owned(), remembered(Some("e1000e")))]);
    let folder = "/sys/bus/pci/devices/0000:06:00.0";
    assert_eq!(
        commands(&restore(&tree, &memory)),
        [
            "modprobe e1000e".to_owned(),
            format!("echo e1000e >{folder}/driver_override"),
            "echo 0000:06:00.0 >/sys/bus/pci/drivers/vfio-pci/unbind".to_owned(),
            "echo 0000:06:00.0 >/sys/bus/pci/drivers_probe".to_owned(),
            format!("echo >{folder}/driver_override"),
        ]
    );
}

#[test]
fn restore_without_driver_and_without_memory() {
    let tree = Tree::new();
    tree.pci(offered());
    let none = Memory::from([(DEVICE.to_owned(), remembered(None))]);
    let is_probe = |step: &Step| matches!(step, Step::Probe { .. });
    assert!(!restore(&tree, &none).steps.iter().any(is_probe));
    let unknown = restore(&tree, &Memory::new());
    let probe = unknown.steps.into_iter().find(is_probe);
    assert!(matches!(probe, Some(Step::Probe { driver: None, .. })));
}

/// A device that has its driver again, or one of the user's choice, keeps it.
#[test]
fn restore_leaves_drivers_of_the_host() {
    let tree = Tree::new();
    tree.pci(host());
    assert!(restore(&tree, &Memory::new()).devices.is_empty());
    let memory = Memory::from([(DEVICE.to_owned(), remembered(Some("igb")))]);
    let plan = restore(&tree, &memory);
    let folder = "/sys/bus/pci/devices/0000:06:00.0";
    assert_eq!(commands(&plan), [format!("echo >{folder}/driver_override")]);
    let device = DEVICE.to_owned();
    assert!(plan.steps.contains(&Step::Forget { device }));
}

#[test]
fn restore_refuses_open_groups() {
    let tree = Tree::new();
    tree.pci(offered());
    tree.process(10, "qemu", "/dev/vfio/7");
    assert_eq!(restore(&tree, &Memory::new()).refusals.len(), 1);
}

/// The files of the tree bind nothing, so the last step fails, and the first ones are undone.
#[test]
fn a_failed_bind_is_undone() {
    let tree = Tree::new();
    let folder = tree.pci(host());
    tree.write("sys/bus/pci/drivers/vfio-pci/unbind", "");
    let system = tree.system();
    let mut locked = Locked::open(&system).unwrap();
    let plan = bind(&tree.snapshot(), &locked.memory);
    let error = act::bind::bind(&system, &plan, &mut locked).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("nothing was changed"), "{text}");
    assert!(text.contains("e1000e was bound to it instead"), "{text}");
    assert_eq!(
        tree.read(&format!("{folder}/driver_override")),
        "\nfio-pci\n"
    );
    assert_eq!(act::memory::read(&system).unwrap(), Memory::new());
}

/// What a failed bind restores is not what an earlier bind remembers, but what was there before.
#[test]
fn a_failed_change_of_the_vfio_driver_is_undone() {
    let tree = Tree::new();
    let folder = tree.pci(offered());
    tree.write(&format!("{folder}/driver_override"), "vfio-pci\n");
    tree.write("sys/bus/pci/drivers/mlx5_vfio_pci/unbind", "");
    let system = tree.system();
    let mut locked = Locked::open(&system).unwrap();
    let memory = Memory::from([(DEVICE.to_owned(), remembered(Some("e1000e")))]);
    locked.memory = memory.clone();
    let snapshot = tree.snapshot();
    let device = &snapshot.devices[DEVICE];
    let plan = plan::bind(&snapshot, device, Some("mlx5_vfio_pci"), false, &memory);
    act::bind::bind(&system, &plan, &mut locked).unwrap_err();
    let demanded = tree.read(&format!("{folder}/driver_override"));
    assert!(demanded.starts_with("vfio-pci\n"), "{demanded}");
    assert_eq!(act::memory::read(&system).unwrap(), memory);
}

#[test]
fn a_signal_between_two_steps_undoes_a_bind() {
    use nix::sys::signal::{
        SigSet,
        Signal,
        raise, //
    };
    let tree = Tree::new();
    tree.pci(host());
    let system = tree.system();
    let mut locked = Locked::open(&system).unwrap();
    let plan = bind(&tree.snapshot(), &locked.memory);
    // It stays pending, as if it had arrived amid a step.
    SigSet::from(Signal::SIGTERM).thread_block().unwrap();
    raise(Signal::SIGTERM).unwrap();
    let error = act::bind::bind(&system, &plan, &mut locked).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("interrupted by a signal"), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
}

/// Users who could open the file could hold the lock, and so prevent every bind.
#[test]
fn only_root_can_lock() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::new();
    tree.write("run/vfioctl/lock", "");
    let path = tree.path("run/vfioctl/lock");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let system = tree.system();
    drop(Locked::open(&system).unwrap());
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
