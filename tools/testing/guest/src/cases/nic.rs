// SPDX-License-Identifier: GPL-2.0

//! Network controllers in separate slots: features that need more than a plain PCI device.

use crate::{
    env::{
        Setup,
        attached, //
    },
    feature::{
        self,
        BUS_MASTER,
        DMA_BUF,
        GET,
        LOW_POWER_ENTRY,
        LOW_POWER_ENTRY_WITH_WAKEUP,
        LOW_POWER_EXIT,
        PROBE,
        SET,
        ZPCI_ERROR, //
    },
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    fs,
    os::fd::AsRawFd,
    thread,
    time::Duration, //
};
use support::e1000e::{
    MEMORY,
    Nic, //
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci::{
        self,
        Config, //
    },
    raw,
    request,
    structures::{
        HotReset,
        argsz, //
    },
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX, //
    },
    wait::until, //
};
use zerocopy::FromBytes;

cases! {
    loopback_frame,
    msi_after_frame,
    #[rows("K8")] hot_reset_resets_whole_slot,
    #[rows("K8")] hot_reset_needs_all_groups_of_slot,
    #[rows("K9")] closed_device_is_runtime_suspended,
    #[rows("D12")] low_power,
    #[rows("D12")] low_power_with_wakeup,
    #[rows("D17")] features_of_other_drivers,
    #[rows("D17")] dma_buf_holds_device,
}

/// A network controller, which is the first function of its slot.
pub const NIC: &str = "0000:01:00.0";
/// The other function of the slot. It is in the same group.
const OTHER: &str = "0000:01:00.1";

fn frame() -> Vec<u8> {
    let addresses = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    let kind = [0x88, 0xb5];
    let words = (0..120u8).map(|i| i ^ 0x5a);
    addresses.into_iter().chain(kind).chain(words).collect()
}

fn loopback_frame() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let memory = Memory::anonymous(MEMORY)?;
    let nic = Nic::new(&setup.device)?;
    for iova in [0x10_0000, 0x1_0000_0000] {
        setup.container.map(iova, &memory, MapFlags::ReadWrite)?;
        assert_eq!(nic.echo(&memory, iova, &frame())?, frame());
        setup.container.unmap(iova, MEMORY as u64)?;
    }
    // The controller cannot access the memory any more.
    assert!(nic.echo(&memory, 0x10_0000, &frame()).is_err());
    Ok(())
}

fn msi_after_frame() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let nic = Nic::new(&setup.device)?;
    let interrupt = Interrupt::new()?;
    setup
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    for _ in 0..3 {
        nic.interrupt();
        assert_ne!(interrupt.wait(LIMIT)?, 0);
        assert_eq!(nic.causes() & 1, 1);
    }
    setup.device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)?;
    // The link may have come up meanwhile, which raises an interrupt, too.
    interrupt.take()?;
    nic.interrupt();
    assert_eq!(interrupt.wait(Duration::from_millis(50))?, 0);
    Ok(())
}

/// `struct vfio_pci_dependent_device`
#[derive(FromBytes)]
#[repr(C)]
struct Affected {
    group: u32,
    segment: u16,
    bus: u8,
    devfn: u8,
}

/// Returns the devices affected by a reset: group, bus, device and function.
fn hit(device: &Device) -> Result<Vec<(u32, u32)>> {
    const ROOM: usize = 8 * size_of::<Affected>();
    let header = HotReset {
        argsz: argsz::<HotReset>() + ROOM as u32,
        ..HotReset::default()
    };
    let mut bytes = Bytes::of(&header).fill(0, ROOM);
    raw::bytes(device, request::DEVICE_GET_PCI_HOT_RESET_INFO, &mut bytes)?;
    let one = |i| {
        let device: Affected = bytes.get(size_of::<HotReset>() + i * size_of::<Affected>());
        let place = u16::from_le_bytes([device.bus, device.devfn]);
        (device.group, place.into())
    };
    let count = bytes.get::<HotReset>(0).count as usize;
    Ok((0..count).map(one).collect())
}

fn hot_reset_resets_whole_slot() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let number = pci::group_of(NIC)?;
    ensure!(
        number == pci::group_of(OTHER)?,
        "the functions of a slot must share a group"
    );
    assert_eq!(hit(&setup.device)?, [(number, 0x0001), (number, 0x0101)]);
    let other = setup.group.device(OTHER)?;
    let nics = [Nic::new(&setup.device)?, Nic::new(&other)?];
    for nic in &nics {
        nic.set_up();
        assert!(nic.is_set_up());
    }
    setup.device.hot_reset(&[&setup.group])?;
    // Both controllers have lost the settings of their users, and work as before.
    for nic in &nics {
        assert!(nic.is_alive());
        assert!(!nic.is_set_up());
    }
    // The reset fails without the group, and with a file that is not a group.
    assert_eq!(setup.device.hot_reset(&[]).errno(), Errno::EINVAL);
    let null = fs::File::open("/dev/null")?;
    let header = HotReset {
        argsz: argsz::<HotReset>() + size_of::<i32>() as u32,
        flags: 0,
        count: 1,
    };
    let mut bytes = Bytes::of(&header).append(&null.as_raw_fd());
    let reset = raw::bytes(&setup.device, request::DEVICE_PCI_HOT_RESET, &mut bytes);
    assert_eq!(reset, Err(Errno::EINVAL));
    Ok(())
}

fn hot_reset_needs_all_groups_of_slot() -> Result<()> {
    let (_container, group) = attached(NIC, Iommu::Type1v2)?;
    let strange = crate::env::group(crate::env::EDU)?;
    let device = group.device(NIC)?;
    assert_eq!(device.hot_reset(&[&strange]).errno(), Errno::EINVAL);
    // A function without a VFIO driver prevents a reset of the slot.
    pci::unbind(OTHER)?;
    let outcome = device.hot_reset(&[&group]).map_err(|error| error.errno());
    pci::bind(OTHER, "vfio-pci")?;
    assert_eq!(outcome, Err(Errno::EINVAL));
    device.hot_reset(&[&group])?;
    Ok(())
}

fn power(bdf: &str) -> Result<String> {
    let path = pci::sysfs(bdf).join("power/runtime_status");
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn reaches(bdf: &str, state: &str) -> Result<()> {
    let done = until(LIMIT, || anyhow::Ok(power(bdf)? == state))?;
    ensure!(done, "{bdf} is {}, not {state}", power(bdf)?);
    Ok(())
}

fn closed_device_is_runtime_suspended() -> Result<()> {
    reaches(NIC, "suspended")?;
    reaches(OTHER, "suspended")?;
    let (container, group) = attached(NIC, Iommu::Type1v2)?;
    assert_eq!(power(NIC)?, "suspended", "the device is not open");
    let device = group.device(NIC)?;
    assert_eq!(power(NIC)?, "active");
    // The other function stays suspended.
    assert_eq!(power(OTHER)?, "suspended");
    device.info()?;
    drop(device);
    reaches(NIC, "suspended")?;
    drop(container);
    Ok(())
}

fn low_power() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let device = &setup.device;
    for number in [LOW_POWER_ENTRY, LOW_POWER_EXIT] {
        assert_eq!(feature::send(device, PROBE | SET | number, &[]), Ok(0));
        let get = feature::send(device, PROBE | GET | number, &[]);
        assert_eq!(get, Err(Errno::EINVAL));
    }
    feature::send(device, SET | LOW_POWER_EXIT, &[])?;
    feature::send(device, SET | LOW_POWER_ENTRY, &[])?;
    reaches(NIC, "suspended")?;
    let again = feature::send(device, SET | LOW_POWER_ENTRY, &[]);
    assert_eq!(again, Err(Errno::EINVAL));
    // Any request resumes the device, as does access to its configuration space. Then it is
    // suspended again.
    device.info()?;
    assert_eq!(Config::of(device)?.get(pci::VENDOR)?, 0x8086);
    reaches(NIC, "suspended")?;
    feature::send(device, SET | LOW_POWER_EXIT, &[])?;
    assert_eq!(power(NIC)?, "active");
    assert!(Nic::new(device)?.is_alive());
    Ok(())
}

fn low_power_with_wakeup() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let device = &setup.device;
    let enter = |fd: i32| {
        let payload = Bytes::of(&fd).u32(0);
        feature::send(device, SET | LOW_POWER_ENTRY_WITH_WAKEUP, payload.as_ref())
    };
    assert_eq!(enter(-1), Err(Errno::EINVAL));
    assert_eq!(enter(9999), Err(Errno::EBADF));
    let short = feature::send(device, SET | LOW_POWER_ENTRY_WITH_WAKEUP, &[0; 4]);
    assert_eq!(short, Err(Errno::EINVAL));
    let wakeup = Interrupt::new()?;
    enter(wakeup.number())?;
    reaches(NIC, "suspended")?;
    assert_eq!(wakeup.wait(Duration::from_millis(20))?, 0);
    device.info()?;
    assert_eq!(wakeup.wait(LIMIT)?, 1);
    // It is not suspended again unless this is requested.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(power(NIC)?, "active");
    Ok(())
}

fn features_of_other_drivers() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    let device = &setup.device;
    for number in [BUS_MASTER, ZPCI_ERROR] {
        for flags in [PROBE | SET, PROBE | GET, SET, GET] {
            let answer = feature::send(device, flags | number, &[0; 64]);
            assert_eq!(answer, Err(Errno::ENOTTY), "feature {number}");
        }
    }
    assert_eq!(feature::send(device, PROBE | GET | DMA_BUF, &[]), Ok(0));
    let set = feature::send(device, PROBE | SET | DMA_BUF, &[]);
    assert_eq!(set, Err(Errno::EINVAL));
    let buffer = |region: u32, ranges: u32, length: u64| {
        let payload = Bytes::new().u32(region).u32(0).u32(0).u32(ranges);
        let payload = payload.u64(0).u64(length);
        feature::send(device, GET | DMA_BUF, payload.as_ref())
    };
    let page = PAGE_SIZE as u64;
    assert_eq!(buffer(0, 0, page), Err(Errno::EINVAL));
    assert_eq!(buffer(0, 1, 17), Err(Errno::EINVAL));
    assert_eq!(buffer(9, 1, page), Err(Errno::ENODEV));
    Ok(())
}

/// The driver exports device memory and keeps the device registered meanwhile.
fn dma_buf_holds_device() -> Result<()> {
    let setup = Setup::with(NIC, Iommu::Type1v2)?;
    setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let payload = Bytes::new().u32(0).u32(0).u32(0).u32(1);
    let payload = payload.u64(0).u64(PAGE_SIZE as u64);
    let number = feature::send(&setup.device, GET | DMA_BUF, payload.as_ref())?;
    let link = fs::read_link(format!("/proc/self/fd/{number}"))?;
    assert!(link.to_string_lossy().contains("dmabuf"), "{link:?}");
    // The export ends with the last file of the device. Otherwise the device could not be removed.
    drop(setup);
    pci::unbind(NIC)?;
    pci::bind(NIC, "vfio-pci")?;
    nix::unistd::close(number)?;
    Ok(())
}
