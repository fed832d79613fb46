// SPDX-License-Identifier: GPL-2.0

//! The device features that log DMA writes.

use crate::feature::{
    DMA_LOGGING_REPORT,
    DMA_LOGGING_START,
    DMA_LOGGING_STOP,
    GET,
    SET,
    feature, //
};
use anyhow::Result;
use vfio_client::{
    Bytes, Device, Errno, Memory,
    structures::{
        LoggingControl,
        LoggingRange,
        LoggingReport, //
    },
};

/// The payload of DMA_LOGGING_START: `struct vfio_device_feature_dma_logging_control`.
#[derive(Clone, Copy, Debug)]
pub struct StartLogging {
    /// The size of the page that a bit of a report stands for, in bytes.
    pub page_size: u64,
    /// The number of ranges.
    pub num_ranges: u32,
    /// The address of the ranges.
    pub ranges: u64,
}

impl StartLogging {
    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        Bytes::of(&LoggingControl {
            page_size: self.page_size,
            num_ranges: self.num_ranges,
            __reserved: 0,
            ranges: self.ranges,
        })
    }

    /// Sends the request. Returns the page size that the device chose.
    pub fn send(&self, device: &Device) -> Result<u64, Errno> {
        let mut data = self.bytes();
        let answer = feature(device, SET | DMA_LOGGING_START, &mut data);
        let page_size = match answer {
            Ok(_) => data.get::<LoggingControl>(0).page_size,
            Err(_) => self.page_size,
        };
        let expected = Self { page_size, ..*self }.bytes();
        assert_eq!(data, expected, "only success changes the page size");
        answer.map(|_| page_size)
    }
}

/// Writes ranges of an IOVA and a length to user memory, as an array of
/// `struct vfio_device_feature_dma_logging_range`.
pub fn ranges_in_memory(ranges: &[(u64, u64)]) -> Result<Memory> {
    let range = |&(iova, length)| LoggingRange { iova, length };
    let ranges: Vec<_> = ranges.iter().map(range).collect();
    let memory = Memory::anonymous(size_of_val(&ranges[..]))?;
    memory.write(0, Bytes::of(&ranges[..]).as_ref());
    Ok(memory)
}

/// Starts logging writes to ranges of an IOVA and a length. Returns the page size that the device
/// chose.
pub fn start(device: &Device, page_size: u64, ranges: &[(u64, u64)]) -> Result<Result<u64, Errno>> {
    let memory = ranges_in_memory(ranges)?;
    let start = StartLogging {
        page_size,
        num_ranges: ranges.len() as u32,
        ranges: memory.addr(),
    };
    Ok(start.send(device))
}

/// Stops logging.
pub fn stop(device: &Device) -> Result<i32, Errno> {
    feature(device, SET | DMA_LOGGING_STOP, &mut Bytes::new())
}

/// Reports logged writes to a bitmap in user memory.
pub fn send_report(device: &Device, report: &LoggingReport) -> Result<i32, Errno> {
    feature(device, GET | DMA_LOGGING_REPORT, &mut Bytes::of(report))
}
