// SPDX-License-Identifier: GPL-2.0

//! KVM virtual machines that are linked to groups.

use crate::{
    core_test::{
        Bare,
        CoreTest,
        NAME, //
    },
    env::{
        EDU,
        Setup, //
    },
    harness::cases, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs::{
        self,
        File, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
};
use support::helper::inherited;
use vfio_client::{
    Bytes,
    Errno,
    Interrupt,
    Memory,
    PAGE_SIZE,
    raw, //
};

cases! {
    #[rows("G17")] open_device_holds_kvm,
    #[rows("G17")] device_outlives_kvm_file,
    #[rows("G17")] open_device_keeps_its_kvm,
    #[rows("G17")] kvm_refuses_other_files,
}

const CREATE_VM: u32 = 0xae01;
const CREATE_DEVICE: u32 = 0xc00c_aee0;
const SET_DEVICE_ATTR: u32 = 0x4018_aee1;
/// `KVM_DEV_TYPE_VFIO`
const TYPE_VFIO: u32 = 4;
/// `KVM_DEV_VFIO_FILE`, `KVM_DEV_VFIO_FILE_ADD`, `KVM_DEV_VFIO_FILE_DEL`
const FILE: u32 = 1;
const ADD: u64 = 1;
const DEL: u64 = 2;

/// Returns the number of KVM virtual machines.
fn machines() -> Result<usize> {
    let folder = "/sys/kernel/debug/kvm";
    let folders = fs::read_dir(folder).context(folder)?;
    Ok(folders.flatten().filter(|e| e.path().is_dir()).count())
}

/// A virtual machine with the KVM-VFIO device.
struct Machine {
    vfio: OwnedFd,
    _vm: OwnedFd,
}

impl Machine {
    fn new() -> Result<Self> {
        let kvm = File::open("/dev/kvm").context("/dev/kvm")?;
        let vm = take(raw::none(&kvm, CREATE_VM)?)?;
        let mut device = Bytes::new().u32(TYPE_VFIO).u32(0).u32(0);
        raw::bytes(&vm, CREATE_DEVICE, &mut device)?;
        // CAST: The value is a descriptor.
        let vfio = take(device.get_u32(4) as i32)?;
        Ok(Self { vfio, _vm: vm })
    }

    fn attribute(&self, attribute: u64, file: impl AsFd) -> Result<i32, Errno> {
        let memory = Memory::anonymous(PAGE_SIZE).map_err(|error| error.errno())?;
        // CAST: A descriptor is not negative.
        memory.write_u64(0, file.as_fd().as_raw_fd() as u64);
        let mut bytes = Bytes::new()
            .u32(0)
            .u32(FILE)
            .u64(attribute)
            .u64(memory.addr());
        raw::bytes(&self.vfio, SET_DEVICE_ATTR, &mut bytes)
    }
}

/// Takes ownership of a descriptor that the kernel created.
fn take(number: i32) -> Result<OwnedFd> {
    inherited(&number.to_string())
}

fn open_device_holds_kvm() -> Result<()> {
    let test = CoreTest::open()?;
    let machine = Machine::new()?;
    let group = crate::env::group(NAME)?;
    machine.attribute(ADD, &group)?;
    assert_eq!(machine.attribute(ADD, &group), Err(Errno::EEXIST));
    assert!(!test.has_machine()?, "the device is not open");
    drop(group);
    // KVM holds a reference, so the group cannot be opened by others.
    assert!(crate::env::group(NAME).is_err());
    drop(machine);
    let machine = Machine::new()?;
    let bare = Bare::open(NAME)?;
    machine.attribute(ADD, &bare.group)?;
    assert!(!test.has_machine()?, "the device was opened before");
    let Bare { device, group, .. } = bare;
    drop(device);
    let device = group.device(NAME)?;
    assert!(test.has_machine()?);
    let again = group.device(NAME)?;
    drop(device);
    assert!(test.has_machine()?);
    drop(again);
    assert!(!test.has_machine()?, "the last file released KVM");
    machine.attribute(DEL, &group)?;
    assert_eq!(machine.attribute(DEL, &group), Err(Errno::ENOENT));
    let _device = group.device(NAME)?;
    assert!(!test.has_machine()?, "the group was removed from KVM");
    Ok(())
}

fn device_outlives_kvm_file() -> Result<()> {
    let test = CoreTest::open()?;
    let before = machines()?;
    let machine = Machine::new()?;
    let Bare { device, group, .. } = Bare::open(NAME)?;
    drop(device);
    machine.attribute(ADD, &group)?;
    let device = group.device(NAME)?;
    assert_eq!(machines()?, before + 1);
    drop(machine);
    // The device holds its own reference to the virtual machine.
    assert!(test.has_machine()?);
    drop(device);
    assert!(!test.has_machine()?);
    let _device = group.device(NAME)?;
    assert!(!test.has_machine()?, "the group has no KVM");
    Ok(())
}

fn open_device_keeps_its_kvm() -> Result<()> {
    let test = CoreTest::open()?;
    let machine = Machine::new()?;
    let Bare { device, group, .. } = Bare::open(NAME)?;
    drop(device);
    machine.attribute(ADD, &group)?;
    let device = group.device(NAME)?;
    machine.attribute(DEL, &group)?;
    assert!(test.has_machine()?);
    drop(device);
    assert!(!test.has_machine()?);
    Ok(())
}

fn kvm_refuses_other_files() -> Result<()> {
    let machine = Machine::new()?;
    let setup = Setup::new()?;
    let null = File::open("/dev/null")?;
    assert_eq!(machine.attribute(ADD, &null), Err(Errno::EINVAL));
    let eventfd = Interrupt::new()?;
    assert_eq!(machine.attribute(ADD, &eventfd), Err(Errno::EINVAL));
    let container = machine.attribute(ADD, &setup.container);
    assert_eq!(container, Err(Errno::EINVAL));
    // Real devices can be added, and so can device files.
    machine.attribute(ADD, &setup.group)?;
    machine.attribute(ADD, &setup.device)?;
    setup.group.device(EDU)?.info()?;
    Ok(())
}
