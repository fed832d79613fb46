// SPDX-License-Identifier: GPL-2.0

//! The requests of a bound device: regions, DMA and interrupts.

use super::{
    Attached,
    WithoutDriver,
    bound,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        Setup, //
    },
    feature::{
        self,
        GET,
        MIGRATION, //
    },
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::time::Duration;
use support::PAGE;
use vfio_client::{
    Bytes, Errno, Interrupt, IovaRange, MapFlags, Memory, PAGE_SIZE,
    edu::Edu,
    pci::{
        self,
        Config, //
    },
    raw, request,
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_CONFIG_REGION_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX,
        VFIO_PCI_MSIX_IRQ_INDEX, //
    },
};

cases! {
    #[rows("D4", "D5")] #[requires(containers)] answers_are_those_of_the_group_device,
    #[rows("D4")] unknown_requests,
    #[rows("D6")] features,
    #[rows("D20", "D21")] regions_can_be_read_written_and_mapped,
    #[rows("D20")] region_mapping_outlives_file,
    dma_before_attach_is_blocked,
    dma_through_ioas,
    dma_outside_of_mappings_is_blocked,
    dma_follows_access_of_mapping,
    dma_at_far_addresses,
    mapping_before_attach,
    iova_ranges_exclude_interrupts,
    #[rows("T-U16")] memory_is_free_after_unmap,
    two_devices_reach_the_same_memory,
    msi_of_device,
    msi_after_dma,
    msix_vectors,
    interrupts_end_with_file,
}

const NEVER: Duration = Duration::from_millis(60);

fn answers_are_those_of_the_group_device() -> Result<()> {
    for bdf in [EDU, NVME] {
        let setup = Setup::with(bdf, vfio_client::Iommu::Type1v2)?;
        let info = setup.device.info()?;
        let regions: Vec<_> = (0..info.regions).map(|i| setup.device.region(i)).collect();
        let irqs: Vec<_> = (0..info.irqs).map(|i| setup.device.irq(i)).collect();
        drop(setup);
        let (device, _iommufd) = bound(bdf)?;
        assert_eq!(device.info()?, info);
        for (i, expected) in regions.into_iter().enumerate() {
            assert_eq!(device.region(i as u32), expected, "region {i}");
        }
        for (i, expected) in irqs.into_iter().enumerate() {
            assert_eq!(device.irq(i as u32), expected, "index {i}");
        }
    }
    Ok(())
}

fn unknown_requests() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    for nr in [
        request::GET_API_VERSION,
        request::GROUP_GET_STATUS,
        request::number(21),
        request::UNKNOWN,
    ] {
        assert_eq!(raw::none(&device, nr), Err(Errno::ENOTTY), "{nr:#x}");
    }
    Ok(())
}

fn features() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let mut data = Bytes::new().fill(0, 8);
    let migration = feature::feature(&device, GET | MIGRATION, &mut data);
    assert_eq!(migration, Err(Errno::ENOTTY));
    let unknown = feature::feature(&device, GET | 0xfff, &mut data);
    assert_eq!(unknown, Err(Errno::ENOTTY));
    let flags = feature::feature(&device, 1 << 20, &mut data);
    assert_eq!(flags, Err(Errno::EINVAL));
    Ok(())
}

fn regions_can_be_read_written_and_mapped() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let config = Config::of(&device)?;
    assert_eq!(config.get(pci::ID)?, 0x11e8_1234);
    config.enable()?;
    let region = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let mut word = [0; 4];
    device.write(&region, 4, &0x1234_5678_u32.to_le_bytes())?;
    device.read(&region, 4, &mut word)?;
    assert_eq!(u32::from_le_bytes(word), !0x1234_5678);
    assert!(Edu::new(&device)?.is_alive());
    let config = device.region(VFIO_PCI_CONFIG_REGION_INDEX)?;
    let mapped = Memory::from_file(&device, config.offset, PAGE_SIZE, true);
    assert_eq!(mapped.errno(), Errno::EINVAL);
    Ok(())
}

fn region_mapping_outlives_file() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let edu = Edu::new(&device)?;
    drop((device, iommufd));
    // The mapping holds the file.
    assert!(edu.is_alive());
    let other = open(EDU)?;
    let bind = other.bind(&vfio_client::Iommufd::open()?);
    assert_eq!(bind.errno(), Errno::EINVAL);
    drop(edu);
    bound(EDU)?;
    Ok(())
}

fn dma_before_attach_is_blocked() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let edu = Edu::new(&device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for iova in [0, 0x10_0000, memory.addr()] {
        assert!(!reaches(&edu, &memory, iova)?, "iova {iova:#x}");
    }
    Ok(())
}

fn dma_through_ioas() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let (from, to) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    attached.map(0x10_0000, &from)?;
    let chosen = attached
        .iommufd
        .map_anywhere(attached.ioas, &to, MapFlags::ReadWrite)?;
    let bytes: Vec<_> = (0..PAGE_SIZE).map(|i| ((i * 31) >> 3) as u8).collect();
    from.write(0, &bytes);
    edu.load(0x10_0000, PAGE)?;
    edu.store(chosen, PAGE)?;
    assert!(to.to_vec(0, PAGE_SIZE) == bytes, "other bytes arrived");
    Ok(())
}

fn dma_outside_of_mappings_is_blocked() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(3 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 0x77);
    attached.iommufd.map_part(
        attached.ioas,
        0x10_1000,
        &memory,
        PAGE_SIZE,
        PAGE_SIZE,
        MapFlags::ReadWrite,
    )?;
    for iova in [0x10_0000, 0x10_2000, 0x7000_0000, memory.addr(), 0x100_0000] {
        edu.store(iova, 64)?;
    }
    assert!(memory.to_vec(0, memory.len()).iter().all(|b| *b == 0x77));
    attached.iommufd.unmap(attached.ioas, 0x10_1000, PAGE)?;
    edu.store(0x10_1000, 64)?;
    assert!(memory.to_vec(0, memory.len()).iter().all(|b| *b == 0x77));
    Ok(())
}

fn dma_follows_access_of_mapping() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let (readable, writable) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    let iommufd = &attached.iommufd;
    iommufd.map(attached.ioas, 0x10_0000, &readable, MapFlags::Read)?;
    iommufd.map(attached.ioas, 0x20_0000, &writable, MapFlags::Write)?;
    readable.fill(0, PAGE_SIZE, 0x11);
    edu.load(0x10_0000, PAGE)?;
    readable.fill(0, PAGE_SIZE, 0x22);
    edu.store(0x10_0000, PAGE)?;
    assert_eq!(readable.read_u8(0), 0x22, "the device cannot write it");
    edu.store(0x20_0000, PAGE)?;
    assert_eq!(writable.read_u8(0), 0x11, "the device can write it");
    Ok(())
}

fn dma_at_far_addresses() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let ranges = attached.iommufd.iova_ranges(attached.ioas)?.ranges;
    let top = ranges.last().map_or(0, |range| range.end - PAGE + 1);
    for iova in [0, 0xfef0_0000, 0x1_0000_0000, top] {
        attached.map(iova, &memory)?;
        assert!(reaches(&edu, &memory, iova)?, "iova {iova:#x}");
        attached.iommufd.unmap(attached.ioas, iova, PAGE)?;
        assert!(!reaches(&edu, &memory, iova)?, "iova {iova:#x}");
    }
    Ok(())
}

fn mapping_before_attach() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    let edu = Edu::new(&device)?;
    assert!(!reaches(&edu, &memory, 0x10_0000)?);
    device.attach(ioas)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    Ok(())
}

fn iova_ranges_exclude_interrupts() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    let all = IovaRange {
        start: 0,
        end: u64::MAX,
    };
    assert_eq!(iommufd.iova_ranges(ioas)?.ranges, [all]);
    device.attach(ioas)?;
    let limited = iommufd.iova_ranges(ioas)?;
    assert_eq!(limited.alignment, PAGE);
    let has = |iova| {
        limited
            .ranges
            .iter()
            .any(|r| r.start <= iova && iova <= r.end)
    };
    assert!(has(0) && has(0xfedf_ffff) && has(0xfef0_0000));
    assert!(!has(0xfee0_0000) && !has(0xfeef_ffff));
    device.detach()?;
    let after = iommufd.iova_ranges(ioas)?;
    assert!(
        after
            .ranges
            .iter()
            .any(|r| r.start <= 0xfee0_0000 && r.end >= 0xfee0_0000)
    );
    Ok(())
}

fn memory_is_free_after_unmap() -> Result<()> {
    let before = support::machine::pinned_pages()?;
    let attached = Attached::new()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    attached.map(0, &memory)?;
    assert_eq!(support::machine::pinned_pages()?, before + 64);
    assert_eq!(attached.iommufd.unmap_all(attached.ioas)?, 64 * PAGE);
    assert_eq!(support::machine::pinned_pages()?, before);
    attached.map(0, &memory)?;
    drop(attached.device);
    // The mapping stays, and needs no pages without a device.
    assert_eq!(support::machine::pinned_pages()?, before);
    Ok(())
}

fn two_devices_reach_the_same_memory() -> Result<()> {
    let _sibling = WithoutDriver::new()?;
    let first = Attached::new()?;
    let second = open(SHARED)?;
    second.bind(&first.iommufd)?;
    second.attach(first.ioas)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    first.map(0x10_0000, &memory)?;
    let (one, two) = (Edu::new(&first.device)?, Edu::new(&second)?);
    assert!(reaches(&one, &memory, 0x10_0000)?);
    assert!(reaches(&two, &memory, 0x10_0000)?);
    second.detach()?;
    assert!(reaches(&one, &memory, 0x10_0000)?);
    assert!(!reaches(&two, &memory, 0x10_0000)?);
    Ok(())
}

fn msi_of_device() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let edu = Edu::new(&device)?;
    let interrupt = Interrupt::new()?;
    device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    edu.raise(5);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(edu.acknowledge(), 5);
    device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)?;
    edu.raise(6);
    assert_eq!(interrupt.wait(NEVER)?, 0);
    edu.acknowledge();
    Ok(())
}

fn msi_after_dma() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0, &memory)?;
    let interrupt = Interrupt::new()?;
    attached
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    edu.start_store_irq(0, PAGE);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(edu.acknowledge(), 0x100);
    Ok(())
}

fn msix_vectors() -> Result<()> {
    let (device, _iommufd) = bound(NVME)?;
    let count = device.irq(VFIO_PCI_MSIX_IRQ_INDEX)?.count;
    assert!(count > 1);
    let interrupts = [Interrupt::new()?, Interrupt::new()?];
    let both: Vec<_> = interrupts.iter().collect();
    device.enable_irqs(VFIO_PCI_MSIX_IRQ_INDEX, &both)?;
    device.disable_irqs(VFIO_PCI_MSIX_IRQ_INDEX)?;
    Ok(())
}

fn interrupts_end_with_file() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let interrupt = Interrupt::new()?;
    device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    drop(device);
    let (device, _iommufd) = bound(EDU)?;
    let edu = Edu::new(&device)?;
    edu.raise(1);
    assert_eq!(interrupt.wait(NEVER)?, 0);
    edu.acknowledge();
    device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    edu.acknowledge();
    Ok(())
}
