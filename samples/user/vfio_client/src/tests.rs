// SPDX-License-Identifier: GPL-2.0

//! All requests of the crate, with a kernel that answers anything.

use crate::{
    AddressSpace, Container, Device, DmaBuffer, Group, Interrupt, Iommu, Iommufd, IovaAllocator,
    IovaRange, MapFlags, Memory, PAGE_SIZE, Register,
    abi::hostile::{
        self,
        Kernel, //
    },
    pamu::{
        self,
        Pamu, //
    },
    pci::Config,
};
use fastrand::Rng;
use std::{
    fs::File,
    os::fd::OwnedFd, //
};

/// Returns a file for an object. No request reaches it.
fn file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Runs a function with many hostile kernels.
fn hostile(run: impl Fn()) {
    // Sizes and counts that are too large, at first such that a function that obeys them ends.
    for number in [0x2_0000, 0, 1, 8, 4096, 1 << 31, u32::MAX] {
        hostile::with(Kernel::Always(number), &run);
    }
    for seed in 0..1000 {
        hostile::with(Kernel::Random(Rng::with_seed(seed)), &run);
    }
}

#[test]
fn containers_survive_any_answer() {
    let container = Container::from_fd(file());
    let memory = Memory::anonymous(3 * PAGE_SIZE).unwrap();
    hostile(|| {
        let _ = container.api_version();
        let _ = container.check_extension(1);
        let _ = container.set_iommu(Iommu::Type1v2);
        if let Ok(info) = container.info() {
            let _ = (info.ranges(), info.dma_avail());
            let bytes: usize = info.caps.iter().map(|cap| cap.body.len()).sum();
            assert!(bytes <= 1 << 20);
        }
        let _ = container.map(0, &memory, MapFlags::Read);
        let _ = container.map_part(0, &memory, PAGE_SIZE, PAGE_SIZE, MapFlags::Write);
        let _ = container.unmap(0, 1);
        let _ = container.unmap_all();
        let _ = container.ranges();
    });
}

#[test]
fn groups_survive_any_answer() {
    let group = Group::from_fd(file());
    let container = Container::from_fd(file());
    hostile(|| {
        let _ = group.status();
        let _ = group.set_container(&container);
        let _ = group.unset_container();
        // No descriptor has such a number.
        assert!(group.device("0000:00:00.0").is_err());
        assert!(pamu::msi_file(&group).is_err());
        assert!(pamu::msi_file_of_container(&container).is_err());
    });
}

#[test]
fn devices_survive_any_answer() {
    let device = Device::from_fd(file());
    let group = Group::from_fd(file());
    let iommufd = Iommufd::from_fd(file());
    let interrupt = Interrupt::new().unwrap();
    hostile(|| {
        if let Ok(info) = device.info() {
            let _ = info.can_reset();
        }
        if let Ok(region) = device.region(0) {
            let _ = device.read(&region, u64::MAX, &mut [0; 4]);
            let _ = device.write(&region, 1, &[0; 4]);
            let _ = device.get(&region, Register::<u32>::at(usize::MAX));
            let _ = device.map_region(&region, 1, 1);
        }
        let _ = device.map_whole(0);
        let _ = device.irq(0);
        let _ = device.enable_irqs(0, &[&interrupt, &interrupt]);
        let _ = device.disable_irqs(0);
        let _ = device.reset();
        let _ = device.hot_reset(&[&group]);
        let _ = device.bind(&iommufd);
        let _ = device.bind_with_token(&iommufd, &[0; 16]);
        let _ = device.attach(1);
        let _ = device.attach_pasid(1, 1);
        let _ = device.detach();
        let _ = device.detach_pasid(1);
        if let Ok(config) = Config::of(&device) {
            let _ = config.enable();
        }
    });
}

#[test]
fn iommufds_survive_any_answer() {
    let iommufd = Iommufd::from_fd(file());
    let memory = Memory::anonymous(PAGE_SIZE).unwrap();
    hostile(|| {
        let _ = iommufd.ioas();
        let _ = iommufd.destroy(1);
        let _ = iommufd.map(1, 0, &memory, MapFlags::ReadWrite);
        let _ = iommufd.map_anywhere(1, &memory, MapFlags::ReadWrite);
        let _ = iommufd.unmap_all(1);
        if let Ok(ranges) = iommufd.iova_ranges(1) {
            assert!(ranges.ranges.len() <= 1 << 16);
        }
        let _ = iommufd.hwpt(1, 2);
        let _ = iommufd.compat_ioas();
        let _ = iommufd.set_compat_ioas(1);
        let _ = iommufd.clear_compat_ioas();
        let _ = iommufd.physical_address(1, 0, 1);
    });
}

#[test]
fn pamus_survive_any_answer() {
    let memory = Memory::anonymous(PAGE_SIZE).unwrap();
    hostile(|| {
        let Ok(pamu) = Pamu::new(Container::from_fd(file())) else {
            return;
        };
        let _ = (
            pamu.geometry(),
            pamu.windows(),
            pamu.stash(),
            pamu.implicit(),
        );
        let _ = pamu.set_geometry(0, u64::MAX);
        let _ = pamu.set_stash(1, 2);
        let _ = pamu.map(0, &memory, MapFlags::ReadWrite);
        let _ = pamu.map_any_banks(0, 1);
        let _ = pamu.bank_count();
        let _ = pamu.map_bank(0, 0, MapFlags::Write);
        let _ = pamu.unmap_bank(0);
        let _ = pamu.window(u32::MAX);
        if let Ok(windows) = pamu.all_windows() {
            assert!(windows.len() <= 1 << 16);
        }
        let _ = pamu.set_violation_event(None);
        let _ = pamu.violation(0);
        let _ = pamu.revive(1);
    });
}

#[test]
fn buffers_survive_any_answer() {
    let container = Container::from_fd(file());
    let all = [IovaRange {
        start: 0,
        end: u64::MAX,
    }];
    hostile(|| {
        let mut iovas = IovaAllocator::new(&container.ranges().unwrap_or_default(), 0);
        let _ = DmaBuffer::new(&container, &mut iovas, 1);
        let mut iovas = IovaAllocator::new(&all, u64::MAX - 4096);
        let _ = DmaBuffer::new(&container, &mut iovas, 1);
    });
}
