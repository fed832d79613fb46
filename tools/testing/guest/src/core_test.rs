// SPDX-License-Identifier: GPL-2.0

//! The test driver that calls the functions exported by the core; see
//! `tools/testing/modules/vfio_core_test.h`.

use crate::env::attached;
use anyhow::{
    Context,
    Result, //
};
use std::{
    array::from_fn,
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    raw, //
};
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// The name of the first device.
pub const NAME: &str = "vfio_core_test.0";
/// The name of the second device.
pub const SECOND: &str = "vfio_core_test.1";

/// The file is a group file.
pub const IS_GROUP: i32 = 1 << 0;
/// The file is a group file or a device file.
pub const IS_VALID: i32 = 1 << 1;
/// No device reached through the file can bypass the caches.
pub const ENFORCED_COHERENT: i32 = 1 << 2;
/// The group contains the first device of the driver.
pub const HAS_DEV: i32 = 1 << 3;

/// The two devices are in one set.
pub const SET_IS_SHARED: i32 = 1 << 0;
/// The set contains the first device.
pub const SET_FINDS_FIRST: i32 = 1 << 1;
/// The set contains the second device.
pub const SET_FINDS_SECOND: i32 = 1 << 2;
/// The bit position of the number of open files.
pub const SET_OPEN_SHIFT: i32 = 8;

/// The extension that the driver's backend supports.
pub const EXTENSION: u32 = 0x7e57;
/// The backend's answer for the extension.
pub const ANSWER: i32 = 5;

/// A request for the driver's backend.
#[derive(Clone, Copy)]
pub enum Backend {
    /// Unregister the backend.
    Unregister = 0,
    /// Register the backend.
    Register = 1,
    /// Register a backend with only one of two callbacks that belong together.
    RegisterHalf = 2,
}

/// `struct core_test_next_state`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct NextState {
    flags: u32,
    current: u32,
    target: u32,
    next: u32,
}

/// `struct core_test_irqs`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawIrqs {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    vectors: u32,
    types: u32,
    no_size: u32,
    size: u64,
}

/// `struct core_test_listen`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Listen {
    fd: i32,
    flags: u32,
}

/// `struct core_test_counts`
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Counts {
    handler: u32,
    thread: u32,
}

/// `struct core_test_caps`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Caps {
    count: u32,
    shift: u32,
    sizes: [u32; 4],
    size: u32,
    pad: u32,
    chain: [u8; 256],
}

/// `struct core_test_combine`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Combine {
    count: u32,
    wanted: u32,
    ranges: [[u64; 2]; 8],
}

/// The arguments of `vfio_set_irqs_validate_and_prepare()`.
#[derive(Clone, Copy, Debug)]
pub struct Irqs {
    /// The size of the request.
    pub argsz: u32,
    /// The action and the type of the data.
    pub flags: u32,
    /// The interrupt index.
    pub index: u32,
    /// The first vector.
    pub start: u32,
    /// The number of vectors.
    pub count: u32,
    /// The number of vectors of the device.
    pub vectors: u32,
    /// The number of interrupt types of the device.
    pub types: u32,
    /// The driver takes no data.
    pub no_size: bool,
}

/// The driver's file.
#[derive(Debug)]
pub struct CoreTest(File);

const fn number(n: u32) -> u32 {
    ((b'C' as u32) << 8) | n
}

impl CoreTest {
    /// Opens the driver's file.
    pub fn open() -> Result<Self> {
        File::open("/dev/vfio_core_test")
            .map(Self)
            .context("/dev/vfio_core_test")
    }

    /// Returns what the core reports about a file.
    pub fn file(&self, fd: impl AsFd) -> Result<i32, Errno> {
        // CAST: A descriptor is not negative.
        let fd = fd.as_fd().as_raw_fd() as u64;
        raw::value(&self.0, number(0), fd)
    }

    /// Returns whether the first device refers to a virtual machine.
    pub fn has_machine(&self) -> Result<bool, Errno> {
        Ok(raw::none(&self.0, number(1))? == 1)
    }

    /// Registers a second VFIO device for a PCI device.
    pub fn offer(&self, bdf: &str) -> Result<i32, Errno> {
        let mut name = Bytes::new().raw(bdf.as_bytes()).fill(0, 32 - bdf.len());
        raw::bytes(&self.0, number(2), &mut name)
    }

    /// Registers or unregisters the backend.
    pub fn backend(&self, what: Backend) -> Result<i32, Errno> {
        raw::value(&self.0, number(3), what as u64)
    }

    /// Returns the next state on the way from one state to another, for a device with the given
    /// features.
    pub fn next_state(&self, flags: u32, current: u32, target: u32) -> Result<u32, Errno> {
        let mut bytes = Bytes::of(&NextState {
            flags,
            current,
            target,
            next: 99,
        });
        raw::bytes(&self.0, number(4), &mut bytes)?;
        Ok(bytes.get::<NextState>(0).next)
    }

    /// Returns the data size of a request.
    pub fn irqs(&self, irqs: &Irqs) -> Result<u64, Errno> {
        let mut bytes = Bytes::of(&RawIrqs {
            argsz: irqs.argsz,
            flags: irqs.flags,
            index: irqs.index,
            start: irqs.start,
            count: irqs.count,
            vectors: irqs.vectors,
            types: irqs.types,
            no_size: irqs.no_size.into(),
            size: u64::MAX,
        });
        raw::bytes(&self.0, number(5), &mut bytes)?;
        Ok(bytes.get::<RawIrqs>(0).size)
    }

    /// Listens to an eventfd. With `thread`, the thread function runs, too.
    pub fn listen(&self, fd: i32, thread: bool) -> Result<i32, Errno> {
        let mut bytes = Bytes::of(&Listen {
            fd,
            flags: thread.into(),
        });
        raw::bytes(&self.0, number(6), &mut bytes)
    }

    /// Stops listening.
    pub fn ignore(&self) -> Result<i32, Errno> {
        raw::none(&self.0, number(7))
    }

    /// Waits until the thread function has finished.
    pub fn flush(&self) -> Result<i32, Errno> {
        raw::none(&self.0, number(8))
    }

    /// Returns whether the driver's slot is in use.
    pub fn listening(&self) -> Result<bool, Errno> {
        Ok(raw::none(&self.0, number(9))? == 1)
    }

    /// Returns how often the handler and the thread function have run since the last call.
    pub fn counts(&self) -> Result<(u32, u32), Errno> {
        let mut bytes = Bytes::of(&Counts::default());
        raw::bytes(&self.0, number(10), &mut bytes)?;
        let Counts { handler, thread } = bytes.get(0);
        Ok((handler, thread))
    }

    /// Returns the properties of the device set of the two devices.
    pub fn set(&self) -> Result<i32, Errno> {
        raw::none(&self.0, number(11))
    }

    /// Assigns a device to a set while another thread waits for the lock of its own set.
    pub fn set_held(&self) -> Result<i32, Errno> {
        raw::none(&self.0, number(14))
    }

    /// Builds a capability chain with the given sizes, numbered from 1.
    pub fn caps(&self, sizes: &[u32], shift: u32) -> Result<Bytes, Errno> {
        let mut bytes = Bytes::of(&Caps {
            count: sizes.len() as u32,
            shift,
            sizes: from_fn(|i| sizes.get(i).copied().unwrap_or(0)),
            size: 0,
            pad: 0,
            chain: [0; 256],
        });
        raw::bytes(&self.0, number(12), &mut bytes)?;
        let Caps { size, chain, .. } = bytes.get(0);
        Ok(Bytes::new().raw(&chain[..size as usize]))
    }

    /// Combines ranges, given by their first and last address, until at most `wanted` are left.
    pub fn combine(&self, ranges: &[(u64, u64)], wanted: u32) -> Result<Vec<(u64, u64)>, Errno> {
        let mut bytes = Bytes::of(&Combine {
            count: ranges.len() as u32,
            wanted,
            ranges: from_fn(|i| ranges.get(i).copied().unwrap_or_default().into()),
        });
        raw::bytes(&self.0, number(13), &mut bytes)?;
        let Combine { count, ranges, .. } = bytes.get(0);
        let ranges = ranges.map(|[start, last]| (start, last));
        Ok(ranges[..count as usize].to_vec())
    }
}

/// One of the devices, in a new container.
#[derive(Debug)]
pub struct Bare {
    /// The device.
    pub device: Device,
    /// Its group.
    pub group: Group,
    _container: Container,
}

impl Bare {
    /// Opens a device.
    pub fn open(name: &str) -> Result<Self> {
        let (container, group) = attached(name, Iommu::Type1v2)?;
        Ok(Self {
            device: group.device(name)?,
            group,
            _container: container,
        })
    }
}
