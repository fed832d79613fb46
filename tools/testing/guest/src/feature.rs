// SPDX-License-Identifier: GPL-2.0

//! Requests for device features.

use vfio_client::{
    Bytes, Device, Errno, raw, request,
    structures::{
        Feature,
        argsz, //
    },
};

pub use vfio_client::uapi::{
    VFIO_DEVICE_FEATURE_BUS_MASTER as BUS_MASTER,
    VFIO_DEVICE_FEATURE_DMA_BUF as DMA_BUF,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT as DMA_LOGGING_REPORT,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_START as DMA_LOGGING_START,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP as DMA_LOGGING_STOP,
    VFIO_DEVICE_FEATURE_GET as GET,
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY as LOW_POWER_ENTRY,
    VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP as LOW_POWER_ENTRY_WITH_WAKEUP,
    VFIO_DEVICE_FEATURE_LOW_POWER_EXIT as LOW_POWER_EXIT,
    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE as MIG_DATA_SIZE,
    VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE as MIG_DEVICE_STATE,
    VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 as MIG_PRECOPY_INFO_V2,
    VFIO_DEVICE_FEATURE_MIGRATION as MIGRATION,
    VFIO_DEVICE_FEATURE_PCI_VF_TOKEN as PCI_VF_TOKEN,
    VFIO_DEVICE_FEATURE_PROBE as PROBE,
    VFIO_DEVICE_FEATURE_SET as SET, //
};

/// Feature: the state of a zPCI device after an error. The bindings lack it.
pub const ZPCI_ERROR: u32 = 13;

/// Sends a feature request whose answer has no data.
pub fn send(device: &Device, flags: u32, data: &[u8]) -> Result<i32, Errno> {
    feature(device, flags, &mut Bytes::new().raw(data))
}

/// Sends a feature request. `data` is replaced by the data that the kernel returns.
pub fn feature(device: &Device, flags: u32, data: &mut Bytes) -> Result<i32, Errno> {
    let size = argsz::<Feature>() + data.len() as u32;
    feature_of_size(device, size, flags, data)
}

/// Sends a feature request with the given `argsz`.
pub fn feature_of_size(
    device: &Device,
    argsz: u32,
    flags: u32,
    data: &mut Bytes,
) -> Result<i32, Errno> {
    let header = Feature { argsz, flags };
    let mut bytes = Bytes::of(&header).raw(data.as_ref());
    let answer = raw::bytes(device, request::DEVICE_FEATURE, &mut bytes);
    assert_eq!(bytes.get::<Feature>(0), header, "the header is only read");
    *data = Bytes::new().raw(&bytes.as_ref()[size_of::<Feature>()..]);
    answer
}
