// SPDX-License-Identifier: GPL-2.0

//! `VFIO_DEVICE_FEATURE`. The core implements migration and dirty logging; the driver implements
//! all other features.

use core::mem::size_of;

use kernel::{
    fs::file::FileDescriptorReservation,
    page::PAGE_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::{
    bindings,
    iova_bitmap,
    mm::may_warn,
    uapi::{
        self,
        Argument, //
    }, //
};

use super::{
    logging,
    set::OpenRef, //
};

/// Size in bytes of `struct vfio_device_feature` without the payload.
const HEADER_SIZE: usize = bindings::vfio_device_feature::MIN_SIZE;
const GET: u32 = bindings::VFIO_DEVICE_FEATURE_GET;
const SET: u32 = bindings::VFIO_DEVICE_FEATURE_SET;
const PROBE: u32 = bindings::VFIO_DEVICE_FEATURE_PROBE;
const NUMBER: u32 = bindings::VFIO_DEVICE_FEATURE_MASK;

/// A feature request: its flags and the location and size of its payload.
struct Request<'a> {
    device: &'a OpenRef,
    flags: u32,
    payload: UserPtr,
    size: usize,
}

/// Handles the ioctl, whose argument is at `arg`. Not inlined: other requests are more frequent, and
/// need less stack.
#[inline(never)]
pub(super) fn ioctl(device: &OpenRef, arg: UserPtr) -> Result<isize> {
    let header = bindings::vfio_device_feature::read(arg)?;
    let flags = header.flags;
    let size = header.argsz as usize - HEADER_SIZE;
    if flags & !(NUMBER | GET | SET | PROBE) != 0 {
        return Err(EINVAL);
    }
    if flags & PROBE == 0 && flags & (GET | SET) == GET | SET {
        return Err(EINVAL);
    }
    let request = Request {
        device,
        flags,
        payload: arg.wrapping_byte_add(HEADER_SIZE),
        size,
    };
    match flags & NUMBER {
        bindings::VFIO_DEVICE_FEATURE_MIGRATION => request.migration(),
        bindings::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE => request.mig_device_state(),
        bindings::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE => request.mig_data_size(),
        bindings::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 => request.mig_precopy_info_v2(),
        bindings::VFIO_DEVICE_FEATURE_DMA_LOGGING_START => request.dma_logging_start(),
        bindings::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP => request.dma_logging_stop(),
        bindings::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT => request.dma_logging_report(),
        _ => device.feature(flags, request.payload, size),
    }
}

impl Request<'_> {
    /// Returns whether to perform the request, which is false for a probe. `supported` holds the
    /// operations that the feature supports, `T` is its payload.
    fn wanted<T>(&self, supported: u32) -> Result<bool> {
        if self.flags & (GET | SET) & !supported != 0 {
            return Err(EINVAL);
        }
        if self.flags & PROBE != 0 {
            return Ok(false);
        }
        if self.flags & (GET | SET) == 0 || self.size < size_of::<T>() {
            return Err(EINVAL);
        }
        Ok(true)
    }

    fn migration(&self) -> Result<isize> {
        let migration = self.device.migration();
        migration.check()?;
        if self.wanted::<bindings::vfio_device_feature_migration>(GET)? {
            let flags = u64::from(migration.flags());
            let payload = bindings::vfio_device_feature_migration { flags };
            uapi::write(self.payload, &payload)?;
        }
        Ok(0)
    }

    fn mig_device_state(&self) -> Result<isize> {
        let migration = self.device.migration();
        migration.check()?;
        if !self.wanted::<bindings::vfio_device_feature_mig_state>(GET | SET)? {
            return Ok(0);
        }
        let payload: bindings::vfio_device_feature_mig_state = uapi::read(self.payload)?;
        let state = payload.device_state;
        if self.flags & GET != 0 {
            self.write_state(migration.state()?, -1)?;
            return Ok(0);
        }
        let file = match self.device.set_migration_state(state) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.write_state(state, -1)?;
                return Ok(0);
            }
            Err(e) => {
                self.write_state(state, -1)?;
                return Err(e);
            }
        };
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        self.write_state(state, fd.reserved_fd() as i32)?;
        fd.fd_install(file);
        Ok(0)
    }

    fn write_state(&self, device_state: u32, data_fd: i32) -> Result {
        let payload = bindings::vfio_device_feature_mig_state {
            device_state,
            data_fd,
        };
        uapi::write(self.payload, &payload)
    }

    fn mig_data_size(&self) -> Result<isize> {
        self.device.migration().check()?;
        if self.wanted::<bindings::vfio_device_feature_mig_data_size>(GET)? {
            let stop_copy_length = self.device.migration_data_size()?;
            let payload = bindings::vfio_device_feature_mig_data_size { stop_copy_length };
            uapi::write(self.payload, &payload)?;
        }
        Ok(0)
    }

    fn mig_precopy_info_v2(&self) -> Result<isize> {
        if self.device.migration().flags() & bindings::VFIO_MIGRATION_PRE_COPY == 0 {
            return Err(EINVAL);
        }
        if self.wanted::<()>(SET)? {
            self.device.use_precopy_info_v2();
        }
        Ok(0)
    }

    fn dma_logging_start(&self) -> Result<isize> {
        use bindings::vfio_device_feature_dma_logging_range as Range;
        /// The maximum number of ranges: an array of them takes at most one page.
        const MAX_RANGES: usize = PAGE_SIZE / size_of::<Range>();
        logging::check(self.device)?;
        if !self.wanted::<bindings::vfio_device_feature_dma_logging_control>(SET)? {
            return Ok(0);
        }
        let mut control: bindings::vfio_device_feature_dma_logging_control =
            uapi::read(self.payload)?;
        let count = control.num_ranges as usize;
        if count == 0 {
            return Err(EINVAL);
        }
        if count > MAX_RANGES {
            return Err(E2BIG);
        }
        let mut ranges = logging::Ranges::with_capacity(count)?;
        let address = UserPtr::from_addr(control.ranges as usize);
        let mut reader = UserSlice::new(address, count * size_of::<Range>()).reader();
        for _ in 0..count {
            let Range { iova, length } = reader.read()?;
            let misaligned = |value: u64| value & control.page_size.wrapping_sub(1) != 0;
            if misaligned(iova) || misaligned(length) {
                return Err(EINVAL);
            }
            let end = iova.checked_add(length).ok_or(EOVERFLOW)?;
            // The nodes of the ranges have addresses of that size.
            usize::try_from(end).map_err(|_| EOVERFLOW)?;
            ranges.add(iova, end.wrapping_sub(1))?;
        }
        logging::start(self.device, ranges, &mut control.page_size)?;
        let answered = uapi::write(self.payload, &control);
        answered.inspect_err(|_| self.undo_logging_start())?;
        Ok(0)
    }

    /// Stops logging after its result could not be copied to userspace. Userspace sees only that
    /// error.
    fn undo_logging_start(&self) {
        if let Err(e) = logging::stop(self.device) {
            if may_warn() {
                dev_warn!(
                    self.device.parent(),
                    "vfio: the driver failed to stop DMA logging: error {}\n",
                    e.to_errno()
                );
            }
        }
    }

    fn dma_logging_stop(&self) -> Result<isize> {
        logging::check(self.device)?;
        if self.wanted::<()>(SET)? {
            return logging::stop(self.device);
        }
        Ok(0)
    }

    fn dma_logging_report(&self) -> Result<isize> {
        logging::check(self.device)?;
        if !self.wanted::<bindings::vfio_device_feature_dma_logging_report>(GET)? {
            return Ok(0);
        }
        let report: bindings::vfio_device_feature_dma_logging_report = uapi::read(self.payload)?;
        let bitmap = UserPtr::from_addr(report.bitmap as usize);
        let request =
            iova_bitmap::Request::new(report.iova, report.length, report.page_size, bitmap)?;
        logging::report(self.device, &request)?;
        Ok(0)
    }
}
