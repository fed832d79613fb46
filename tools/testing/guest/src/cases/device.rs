// SPDX-License-Identifier: GPL-2.0

//! Device descriptors: information, regions, features and reset.

use crate::{
    env::{
        NVME,
        Setup, //
    },
    feature::{
        GET,
        PROBE,
        SET, //
    },
    harness::{
        Failure,
        cases, //
    },
    requires, //
};
use anyhow::Result;
use vfio_client::{
    Bytes, Errno, Iommu, Memory, PAGE_SIZE,
    edu::{
        self,
        Edu,
        IDENTITY, //
    },
    pci::{
        self,
        COMMAND,
        Config, //
    },
    raw, request,
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_BAR1_REGION_INDEX,
        VFIO_PCI_CONFIG_REGION_INDEX,
        VFIO_PCI_VGA_REGION_INDEX,
        VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, //
    },
};

cases! {
    #[rows("D2")] bind_needs_device_files,
    #[rows("D4")] get_info,
    #[rows("D4")] get_info_argsz,
    #[rows("D4")] unknown_requests,
    #[rows("D4")] reset_only_if_supported,
    #[rows("D4")] hot_reset_on_root_bus,
    #[rows("D5")] get_region_info,
    #[rows("D5")] get_region_info_argsz,
    #[rows("D5")] get_region_info_capabilities,
    #[rows("D6")] feature_errors,
    #[rows("D6")] unknown_feature,
    #[rows("D9")] no_migration,
    #[rows("D13")] no_dma_logging,
    #[rows("D18")] no_precopy_info,
    #[rows("D20")] mmap_region,
    #[rows("D20")] mmap_region_errors,
    #[rows("D20")] mmap_outlives_descriptor,
    #[rows("D21")] read_and_write_config_space,
    #[rows("D21")] read_write_errors,
    #[rows("D21")] read_and_write_bar,
}

/// With device files, the request exists, and the device of a group refuses it.
fn bind_needs_device_files() -> Result<()> {
    let setup = Setup::new()?;
    let (without_argument, valid) = if requires::device_files() {
        (Errno::EFAULT, Errno::EINVAL)
    } else {
        (Errno::ENOTTY, Errno::ENOTTY)
    };
    let mut bind = Bytes::new().u32(24).fill(0, 20);
    assert_eq!(
        raw::bytes(&setup.device, request::DEVICE_BIND_IOMMUFD, &mut bind),
        Err(valid)
    );
    assert_eq!(
        raw::none(&setup.device, request::DEVICE_BIND_IOMMUFD),
        Err(without_argument)
    );
    Ok(())
}

fn get_info() -> Result<()> {
    let setup = Setup::new()?;
    let info = setup.device.info()?;
    assert_eq!((info.flags, info.regions, info.irqs), (2, 9, 5));
    Ok(())
}

fn get_info_argsz() -> Result<()> {
    let setup = Setup::new()?;
    let get = |bytes: &mut Bytes| raw::bytes(&setup.device, request::DEVICE_GET_INFO, bytes);
    for short in [0, 8, 15] {
        let mut bytes = Bytes::new().u32(short).fill(0xaa, 12);
        assert_eq!(get(&mut bytes), Err(Errno::EINVAL));
        assert_eq!(bytes, Bytes::new().u32(short).fill(0xaa, 12));
    }
    let mut old = Bytes::new().u32(16).fill(0, 12).fill(0xaa, 16);
    assert_eq!(get(&mut old), Ok(0));
    assert_eq!(
        old,
        Bytes::new().u32(16).u32(2).u32(9).u32(5).fill(0xaa, 16)
    );
    let mut new = Bytes::new().u32(64).fill(0xaa, 60);
    assert_eq!(get(&mut new), Ok(0));
    assert_eq!(
        new,
        Bytes::new()
            .u32(64)
            .u32(2)
            .u32(9)
            .u32(5)
            .fill(0, 8)
            .fill(0xaa, 40)
    );
    Ok(())
}

fn unknown_requests() -> Result<()> {
    let setup = Setup::new()?;
    for n in [0, 1, 2, 3, 4, 5, 6, 150, 255] {
        let nr = request::number(n);
        let answer = raw::none(&setup.device, nr);
        assert_eq!(answer, Err(Errno::ENOTTY), "request {n}");
    }
    assert_eq!(raw::none(&setup.device, 0x5401), Err(Errno::ENOTTY));
    Ok(())
}

fn reset_only_if_supported() -> Result<()> {
    let setup = Setup::new()?;
    assert!(!setup.device.info()?.can_reset());
    assert_eq!(setup.device.reset().errno(), Errno::EINVAL);
    drop(setup);
    let nvme = Setup::with(NVME, Iommu::Type1v2)?;
    if nvme.device.info()?.can_reset() {
        nvme.device.reset()?;
        let config = Config::of(&nvme.device)?;
        assert_eq!(config.get(COMMAND)? & 4, 0, "DMA is off after a reset");
    } else {
        assert_eq!(nvme.device.reset().errno(), Errno::EINVAL);
    }
    Ok(())
}

fn hot_reset_on_root_bus() -> Result<()> {
    let setup = Setup::new()?;
    let mut info = Bytes::new().u32(12).u32(0).u32(0xaaaa_aaaa);
    assert_eq!(
        raw::bytes(
            &setup.device,
            request::DEVICE_GET_PCI_HOT_RESET_INFO,
            &mut info
        ),
        Err(Errno::ENODEV)
    );
    assert_eq!(info, Bytes::new().u32(12).u32(0).u32(0xaaaa_aaaa));
    assert_eq!(
        setup.device.hot_reset(&[&setup.group]).errno(),
        Errno::ENODEV
    );
    Ok(())
}

fn get_region_info() -> Result<()> {
    let setup = Setup::new()?;
    let bar = setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    assert_eq!((bar.flags, bar.size), (7, 0x10_0000));
    assert_eq!(bar.caps, []);
    let none = setup.device.region(VFIO_PCI_BAR1_REGION_INDEX)?;
    assert_eq!((none.flags, none.size), (0, 0));
    let config = setup.device.region(VFIO_PCI_CONFIG_REGION_INDEX)?;
    assert_eq!((config.flags, config.size), (3, 256));
    for index in [VFIO_PCI_VGA_REGION_INDEX, 9, u32::MAX] {
        assert_eq!(setup.device.region(index).errno(), Errno::EINVAL);
    }
    Ok(())
}

fn get_region_info_argsz() -> Result<()> {
    let setup = Setup::new()?;
    let get = |bytes: &mut Bytes| raw::bytes(&setup.device, request::DEVICE_GET_REGION_INFO, bytes);
    for short in [0, 16, 31] {
        let mut bytes = Bytes::new().u32(short).u32(0).u32(0).fill(0xaa, 20);
        assert_eq!(get(&mut bytes), Err(Errno::EINVAL));
        assert_eq!(bytes, Bytes::new().u32(short).u32(0).u32(0).fill(0xaa, 20));
    }
    let mut bytes = Bytes::new()
        .u32(64)
        .u32(0)
        .u32(7)
        .fill(0, 20)
        .fill(0xaa, 32);
    assert_eq!(get(&mut bytes), Ok(0));
    assert_eq!(bytes.get_u32(0), 64, "argsz as it was");
    assert_eq!(bytes.get_u64(16), 256, "size");
    assert_eq!(&bytes.as_ref()[32..], [0xaa; 32]);
    Ok(())
}

fn get_region_info_capabilities() -> Result<()> {
    let setup = Setup::with(NVME, Iommu::Type1v2)?;
    let bar = setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    assert_eq!(bar.flags, 0xf, "read, write, mmap, capabilities");
    let caps: Vec<_> = bar
        .caps
        .iter()
        .map(|c| (u32::from(c.id), c.version, c.offset))
        .collect();
    assert_eq!(caps, [(VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 32)]);
    // Too small for the capability chain: the kernel returns the required size and writes nothing
    // beyond the structure.
    let mut bytes = Bytes::new().u32(32).fill(0, 28).fill(0xaa, 8);
    assert_eq!(
        raw::bytes(&setup.device, request::DEVICE_GET_REGION_INFO, &mut bytes),
        Ok(0)
    );
    assert_eq!(bytes.get_u32(0), 40, "argsz");
    assert_eq!(bytes.get_u32(4), 0xf, "flags");
    assert_eq!(bytes.get_u32(12), 0, "cap_offset");
    assert_eq!(&bytes.as_ref()[32..], [0xaa; 8]);
    Ok(())
}

fn feature(setup: &Setup, argsz: u32, flags: u32, payload: usize) -> Result<i32, Errno> {
    let mut bytes = Bytes::new().u32(argsz).u32(flags).fill(0xaa, payload);
    let before = bytes.clone();
    let answer = raw::bytes(&setup.device, request::DEVICE_FEATURE, &mut bytes);
    assert_eq!(bytes, before, "nothing comes back");
    answer
}

fn feature_errors() -> Result<()> {
    let setup = Setup::new()?;
    for short in [0, 4, 7] {
        assert_eq!(feature(&setup, short, PROBE | 1, 0), Err(Errno::EINVAL));
    }
    for bit in [1 << 19, 1 << 31] {
        assert_eq!(feature(&setup, 8, PROBE | bit, 0), Err(Errno::EINVAL));
    }
    assert_eq!(feature(&setup, 16, GET | SET | 1, 8), Err(Errno::EINVAL));
    assert_eq!(
        feature(&setup, 16, GET | SET | 0xffff, 8),
        Err(Errno::EINVAL),
        "flags come before the feature"
    );
    Ok(())
}

fn unknown_feature() -> Result<()> {
    let setup = Setup::new()?;
    for flags in [GET, SET, PROBE, PROBE | GET | SET, 0] {
        for number in [0xffff, 0x8000, 100] {
            assert_eq!(feature(&setup, 16, flags | number, 8), Err(Errno::ENOTTY));
        }
    }
    // Only physical functions have the VF token feature.
    assert_eq!(feature(&setup, 24, SET, 16), Err(Errno::ENOTTY));
    assert_eq!(feature(&setup, 8, PROBE | SET, 0), Err(Errno::ENOTTY));
    Ok(())
}

fn no_migration() -> Result<()> {
    let setup = Setup::new()?;
    for number in [1, 2, 9] {
        for flags in [GET, SET, PROBE, PROBE | GET, 0] {
            assert_eq!(feature(&setup, 32, flags | number, 24), Err(Errno::ENOTTY));
        }
        assert_eq!(feature(&setup, 8, GET | number, 0), Err(Errno::ENOTTY));
    }
    Ok(())
}

fn no_dma_logging() -> Result<()> {
    let setup = Setup::new()?;
    for number in [6, 7, 8] {
        for flags in [GET, SET, PROBE, 0] {
            assert_eq!(feature(&setup, 40, flags | number, 32), Err(Errno::ENOTTY));
        }
    }
    Ok(())
}

fn no_precopy_info() -> Result<()> {
    let setup = Setup::new()?;
    for flags in [GET, SET, PROBE, PROBE | SET, 0] {
        assert_eq!(feature(&setup, 8, flags | 12, 0), Err(Errno::EINVAL));
    }
    Ok(())
}

fn mmap_region() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    assert_eq!(edu.id(), IDENTITY);
    assert!(edu.is_alive());
    let bar = setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let second = setup.device.map_region(&bar, 0, PAGE_SIZE)?;
    assert_eq!(second.get(edu::ID), IDENTITY);
    let last = setup
        .device
        .map_region(&bar, bar.size - PAGE_SIZE as u64, PAGE_SIZE)?;
    let _ = last.get(edu::ID);
    Ok(())
}

fn mmap_region_errors() -> Result<()> {
    let setup = Setup::new()?;
    let bar = setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let size = bar.size as usize;
    let map = |offset, len| setup.device.map_region(&bar, offset, len).errno();
    assert_eq!(map(0, size + PAGE_SIZE), Errno::EINVAL);
    assert_eq!(map(bar.size, PAGE_SIZE), Errno::EINVAL);
    assert_eq!(map(PAGE_SIZE as u64, size), Errno::EINVAL);
    for index in [1u64, 5, 6, 7, 8, 9, 1000] {
        assert_eq!(
            Memory::from_file(&setup.device, index << 40, PAGE_SIZE, true).errno(),
            Errno::EINVAL,
            "region {index}"
        );
    }
    Ok(())
}

fn mmap_outlives_descriptor() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    drop(setup);
    // The mapping holds a reference to the open file.
    assert_eq!(edu.id(), IDENTITY);
    let number = pci::group_of(crate::env::EDU)?;
    assert_eq!(vfio_client::Group::open(number).errno(), Errno::EBUSY);
    drop(edu);
    vfio_client::Group::open(number)?;
    Ok(())
}

fn read_and_write_config_space() -> Result<()> {
    let setup = Setup::new()?;
    let config = Config::of(&setup.device)?;
    assert_eq!(config.get(pci::ID)?, 0x11e8_1234);
    config.set(pci::VENDOR, 0x5555)?;
    assert_eq!(config.get(pci::ID)?, 0x11e8_1234, "can't be written");
    assert_eq!(config.get(COMMAND)? & 4, 0, "no DMA until asked for");
    config.enable()?;
    assert_eq!(config.get(COMMAND)? & 6, 6);
    drop(setup);
    // The next user finds the device in its initial state.
    let setup = Setup::new()?;
    let config = Config::of(&setup.device)?;
    assert_eq!(config.get(COMMAND)? & 4, 0);
    Ok(())
}

fn read_write_errors() -> Result<()> {
    let setup = Setup::new()?;
    let mut word = [0xaa; 4];
    for index in [9u64, 1000] {
        assert_eq!(
            raw::pread(&setup.device, &mut word, index << 40),
            Err(Errno::EINVAL)
        );
        assert_eq!(
            raw::pwrite(&setup.device, &word, index << 40),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(
        raw::pread(&setup.device, &mut word, 1 << 63),
        Err(Errno::EINVAL)
    );
    assert_eq!(word, [0xaa; 4]);
    Ok(())
}

fn read_and_write_bar() -> Result<()> {
    let setup = Setup::new()?;
    Config::of(&setup.device)?.enable()?;
    let bar = setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    assert_eq!(setup.device.get(&bar, edu::ID)?, IDENTITY);
    setup.device.set(&bar, edu::LIVENESS, 0x1234_5678)?;
    assert_eq!(setup.device.get(&bar, edu::LIVENESS)?, !0x1234_5678);
    Ok(())
}
