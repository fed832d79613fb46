// SPDX-License-Identifier: GPL-2.0

//! Mediated devices of the kernel's samples, and requests for device features.

use anyhow::{
    Context,
    Result, //
};
use std::fs;
use vfio_client::{
    Bytes,
    Device,
    Errno,
    raw,
    request, //
};

pub use vfio_client::mdev::{
    Mdev,
    Open,
    create,
    store,
    type_folder, //
};

/// The UUIDs of devices. Cases do not run concurrently.
pub const UUIDS: [&str; 3] = [
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a01",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a02",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a03",
];

/// Creates an `mtty` and opens it in a new container.
pub fn open_mtty() -> Result<(Mdev, Open)> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    // The caller's variables are dropped last to first: removing an open device would wait
    // forever.
    Ok((mdev, open))
}

/// Reads an attribute of a type.
pub fn type_attribute(name: &str, attribute: &str) -> Result<String> {
    let path = type_folder(name).join(attribute);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Flag of a feature: read it.
pub const GET: u32 = 1 << 16;
/// Flag of a feature: write it.
pub const SET: u32 = 1 << 17;
/// Flag of a feature: ask whether it is supported.
pub const PROBE: u32 = 1 << 18;

/// Feature: the migration capabilities of the device.
pub const MIGRATION: u32 = 1;
/// Feature: the migration state.
pub const MIG_DEVICE_STATE: u32 = 2;
/// Feature: start logging DMA writes.
pub const DMA_LOGGING_START: u32 = 6;
/// Feature: stop logging DMA writes.
pub const DMA_LOGGING_STOP: u32 = 7;
/// Feature: report logged DMA writes.
pub const DMA_LOGGING_REPORT: u32 = 8;
/// Feature: the expected size of the migration data.
pub const MIG_DATA_SIZE: u32 = 9;
/// Feature: the second version of the precopy information.
pub const MIG_PRECOPY_INFO_V2: u32 = 12;

/// Sends a feature request. `data` is replaced by the data that the kernel returns.
pub fn feature(device: &Device, flags: u32, data: &mut Bytes) -> Result<i32, Errno> {
    let argsz = 8 + data.len() as u32;
    feature_of_size(device, argsz, flags, data)
}

/// Sends a feature request with the given `argsz`.
pub fn feature_of_size(
    device: &Device,
    argsz: u32,
    flags: u32,
    data: &mut Bytes,
) -> Result<i32, Errno> {
    let mut bytes = Bytes::new().u32(argsz).u32(flags).raw(data.as_ref());
    let answer = raw::bytes(device, request::DEVICE_FEATURE, &mut bytes);
    assert_eq!(bytes.get_u32(0), argsz, "the header is only read");
    assert_eq!(bytes.get_u32(4), flags, "the header is only read");
    *data = Bytes::new().raw(&bytes.as_ref()[8..]);
    answer
}
