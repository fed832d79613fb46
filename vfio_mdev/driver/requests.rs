// SPDX-License-Identifier: GPL-2.0

//! The requests of `<linux/vfio.h>` for a device, implemented with the functions of its driver.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::{
    bindings,
    eventfd::EventFd,
    mm::fatal_signal_pending,
    uapi::{
        ioctl,
        Argument, //
    }, //
};

use super::{
    irqs::{
        Action,
        Vectors, //
    },
    region::OFFSET_SHIFT,
    Access,
    Device,
    Index,
    Parent,
    Region,
    Width,
    MAX_VECTORS, //
};
use crate::{
    instance::Instance,
    memory::DeviceMemory, //
};

/// The size in bytes of the buffer for register accesses.
const REGISTER_BUFFER: usize = 256;

/// Handles an ioctl of an open device.
fn ioctl<D: Device>(this: &Instance<D>, cmd: u32, arg: UserPtr) -> Result<isize> {
    match cmd {
        ioctl::VFIO_DEVICE_GET_INFO => get_info::<D>(arg)?,
        ioctl::VFIO_DEVICE_GET_IRQ_INFO => get_irq_info(this, arg)?,
        ioctl::VFIO_DEVICE_SET_IRQS => set_irqs(this, arg)?,
        ioctl::VFIO_DEVICE_RESET => this.reset()?,
        _ => return D::ioctl(this, cmd, arg),
    }
    Ok(0)
}

/// Handles `VFIO_DEVICE_GET_INFO`.
fn get_info<D: Device>(arg: UserPtr) -> Result {
    let mut info = bindings::vfio_device_info::read(arg)?;
    info.flags = D::Parent::API.flag() | bindings::VFIO_DEVICE_FLAGS_RESET;
    info.num_regions = D::Region::COUNT;
    info.num_irqs = D::Irq::COUNT;
    info.write(arg)
}

/// Fills in `VFIO_DEVICE_GET_REGION_INFO`. The core checks `argsz` and copies the result.
fn region_info<D: Device>(device: &D, info: &mut bindings::vfio_region_info) -> Result {
    if info.index >= D::Region::COUNT {
        return Err(EINVAL);
    }
    info.flags = 0;
    info.size = 0;
    info.offset = u64::from(info.index) << OFFSET_SHIFT;
    let Some(region) = D::Region::from_index(info.index).and_then(|index| device.region(index))
    else {
        return Ok(());
    };
    info.size = region.size;
    info.flags = bindings::VFIO_REGION_INFO_FLAG_READ;
    if region.writable {
        info.flags |= bindings::VFIO_REGION_INFO_FLAG_WRITE;
    }
    if region.mappable {
        info.flags |= bindings::VFIO_REGION_INFO_FLAG_MMAP;
    }
    Ok(())
}

/// Returns the number of vectors of an interrupt type, at most [`MAX_VECTORS`].
fn vectors<D: Device>(device: &D, index: u32) -> u32 {
    let count = D::Irq::from_index(index).map_or(0, |irq| device.vectors(irq));
    count.min(MAX_VECTORS)
}

/// Creates the vectors of all interrupt types, without eventfds.
pub(crate) fn all_vectors<D: Device>(device: &D) -> Result<KVec<Pin<KBox<Vectors>>>> {
    let mut all = KVec::with_capacity(D::Irq::COUNT as usize, GFP_KERNEL)?;
    for index in 0..D::Irq::COUNT {
        let count = vectors(device, index) as usize;
        all.push(Vectors::new(count)?, GFP_KERNEL)?;
    }
    Ok(all)
}

/// Handles `VFIO_DEVICE_GET_IRQ_INFO`.
fn get_irq_info<D: Device>(this: &Instance<D>, arg: UserPtr) -> Result {
    let mut info = bindings::vfio_irq_info::read(arg)?;
    if info.index >= D::Irq::COUNT {
        return Err(EINVAL);
    }
    info.count = vectors::<D>(this, info.index);
    info.flags = if info.count > 0 {
        bindings::VFIO_IRQ_INFO_EVENTFD | bindings::VFIO_IRQ_INFO_NORESIZE
    } else {
        0
    };
    info.write(arg)
}

/// Handles `VFIO_DEVICE_SET_IRQS`. Nothing changes on error.
fn set_irqs<D: Device>(this: &Instance<D>, arg: UserPtr) -> Result {
    let mut header = bindings::vfio_irq_set::read(arg)?;
    let vectors = vectors::<D>(this, header.index);
    let size = this.irq_data_size(&mut header, vectors)?;
    if header.flags & bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK
        != bindings::VFIO_IRQ_SET_ACTION_TRIGGER
    {
        return Err(ENOTTY);
    }
    let mut data = KVec::new();
    UserSlice::new(
        arg.wrapping_byte_add(bindings::vfio_irq_set::MIN_SIZE),
        size,
    )
    .read_all(&mut data, GFP_KERNEL)?;
    let (start, count) = (header.start as usize, header.count as usize);
    let action = action(header.flags, start, count, &data)?;
    this.vectors(header.index).ok_or(EINVAL)?.apply(action);
    Ok(())
}

fn action(flags: u32, start: usize, count: usize, data: &[u8]) -> Result<Action> {
    Ok(match flags & bindings::VFIO_IRQ_SET_DATA_TYPE_MASK {
        bindings::VFIO_IRQ_SET_DATA_EVENTFD => {
            let mut eventfds = KVec::with_capacity(count, GFP_KERNEL)?;
            for fd in data.chunks_exact(4) {
                eventfds.push(eventfd([fd[0], fd[1], fd[2], fd[3]])?, GFP_KERNEL)?;
            }
            Action::Set { start, eventfds }
        }
        bindings::VFIO_IRQ_SET_DATA_BOOL => {
            let mut vectors = KVec::with_capacity(count, GFP_KERNEL)?;
            for &wanted in data {
                vectors.push(wanted != 0, GFP_KERNEL)?;
            }
            Action::Trigger { start, vectors }
        }
        _ if count == 0 => Action::DisableAll,
        _ => Action::Trigger {
            start,
            vectors: KVec::from_elem(true, count, GFP_KERNEL)?,
        },
    })
}

/// Returns the eventfd of a file descriptor, or none for -1.
fn eventfd(fd: [u8; 4]) -> Result<Option<EventFd>> {
    match i32::from_ne_bytes(fd) {
        -1 => Ok(None),
        fd => EventFd::from_fd(fd).map(Some),
    }
}

// --- Reading and writing ----------------------------------------------------------------------

/// Returns the region and the offset in it of a position in the device file, and the number of
/// available bytes, at most `count`.
fn locate<D: Device>(
    device: &D,
    pos: i64,
    count: usize,
) -> Result<(D::Region, Region<'_>, u64, usize)> {
    let pos = u64::try_from(pos).map_err(|_| EINVAL)?;
    let index = u32::try_from(pos >> OFFSET_SHIFT).map_err(|_| EINVAL)?;
    let index = D::Region::from_index(index).ok_or(EINVAL)?;
    let region = device.region(index).ok_or(EINVAL)?;
    let offset = pos & ((1 << OFFSET_SHIFT) - 1);
    let left = region.size.checked_sub(offset).ok_or(EINVAL)?;
    if left == 0 && count > 0 {
        return Err(EINVAL);
    }
    Ok((index, region, offset, left.min(count as u64) as usize))
}

/// Reads from a region into user memory. Returns the number of bytes read, which may be less than
/// `count` if the thread is being killed.
fn read<D: Device>(this: &Instance<D>, to: UserPtr, count: usize, pos: i64) -> Result<usize> {
    let (index, region, offset, count) = locate::<D>(this, pos, count)?;
    if let Some(at) = Access::only(offset, count) {
        let value = match region.memory {
            Some(memory) => memory.load(at)?,
            None => D::read(this, index, at)?,
        };
        put(to, at.width, value)?;
        return Ok(count);
    }
    if let Some(memory) = region.memory {
        memory.copy_to_user(offset as usize, to, count)?;
        return Ok(count);
    }
    let mut done = 0;
    while done < count && !(done > 0 && fatal_signal_pending()) {
        let result = read_some(this, index, offset + done as u64, count - done, to, done);
        match result {
            Ok(read) => done += read,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Copies the value of one access to userspace. The size is constant for each width, so that the
/// kernel's buffer need not be checked by hardened usercopy.
#[inline]
fn put(to: UserPtr, width: Width, value: u32) -> Result {
    let mut to = UserSlice::new(to, width as usize).writer();
    match width {
        Width::Byte => to.write(&(value as u8)),
        Width::Word => to.write(&(value as u16).to_le()),
        Width::Long => to.write(&value.to_le()),
    }
}

/// Copies the value of one access from userspace; see [`put`].
#[inline]
fn get(from: UserPtr, width: Width) -> Result<u32> {
    let mut from = UserSlice::new(from, width as usize).reader();
    Ok(match width {
        Width::Byte => from.read::<u8>()?.into(),
        Width::Word => u16::from_le(from.read()?).into(),
        Width::Long => u32::from_le(from.read()?),
    })
}

/// Reads at most [`REGISTER_BUFFER`] bytes of registers. Returns the number of bytes read.
fn read_some<D: Device>(
    this: &Instance<D>,
    index: D::Region,
    offset: u64,
    count: usize,
    to: UserPtr,
    done: usize,
) -> Result<usize> {
    let mut gathered = [0; REGISTER_BUFFER];
    let mut filled = 0;
    let count = count.min(REGISTER_BUFFER);
    while let Some(at) = Access::first(offset + filled as u64, count - filled) {
        let value = match D::read(this, index, at) {
            Ok(value) => value,
            Err(e) if filled == 0 => return Err(e),
            Err(_) => break,
        };
        let end = filled + at.len();
        gathered[filled..end].copy_from_slice(&value.to_le_bytes()[..at.len()]);
        filled = end;
    }
    UserSlice::new(to.wrapping_byte_add(done), filled)
        .writer()
        .write_slice(&gathered[..filled])?;
    Ok(filled)
}

/// Writes to a region from user memory. Returns the number of bytes written, which may be less than
/// `count` if the thread is being killed.
fn write<D: Device>(this: &Instance<D>, from: UserPtr, count: usize, pos: i64) -> Result<usize> {
    let (index, region, offset, count) = locate::<D>(this, pos, count)?;
    if !region.writable {
        return Err(EINVAL);
    }
    if let Some(at) = Access::only(offset, count) {
        let value = get(from, at.width)?;
        match region.memory {
            Some(memory) => memory.store(at, value)?,
            None => D::write(this, index, at, value)?,
        }
        return Ok(count);
    }
    if let Some(memory) = region.memory {
        memory.copy_from_user(offset as usize, from, count)?;
        return Ok(count);
    }
    let mut done = 0;
    while done < count && !(done > 0 && fatal_signal_pending()) {
        let result = write_some(this, index, offset + done as u64, count - done, from, done);
        match result {
            (0, Err(e)) if done == 0 => return Err(e),
            (written, Err(_)) => return Ok(done + written),
            (written, Ok(())) => done += written,
        }
    }
    Ok(done)
}

/// Writes at most [`REGISTER_BUFFER`] bytes of registers. Returns the number of bytes written, and
/// the error that stopped the write.
fn write_some<D: Device>(
    this: &Instance<D>,
    index: D::Region,
    offset: u64,
    count: usize,
    from: UserPtr,
    done: usize,
) -> (usize, Result) {
    let mut gathered = [0; REGISTER_BUFFER];
    let count = count.min(REGISTER_BUFFER);
    let copied = UserSlice::new(from.wrapping_byte_add(done), count)
        .reader()
        .read_slice(&mut gathered[..count]);
    if let Err(e) = copied {
        return (0, Err(e));
    }
    let mut written = 0;
    while let Some(at) = Access::first(offset + written as u64, count - written) {
        let mut value = [0; 4];
        value[..at.len()].copy_from_slice(&gathered[written..written + at.len()]);
        if let Err(e) = D::write(this, index, at, u32::from_le_bytes(value)) {
            return (written, Err(e));
        }
        written += at.len();
    }
    (written, Ok(()))
}

/// Returns the memory and its offset for a mapping of `len` bytes. `page_offset` is the mapping's
/// offset in the device file in pages.
///
/// # Errors
///
/// `EINVAL` if there is no such memory; `EPERM` for a writable mapping of a read-only region.
fn mapped<D: Device>(
    device: &D,
    page_offset: u64,
    len: usize,
    writable: bool,
) -> Result<Mapped<'_>> {
    let pos = page_offset
        .checked_mul(kernel::page::PAGE_SIZE as u64)
        .and_then(|pos| i64::try_from(pos).ok())
        .ok_or(EINVAL)?;
    let (_, region, offset, within) = locate(device, pos, len)?;
    let memory = region.memory.filter(|_| region.mappable).ok_or(EINVAL)?;
    if within < len {
        return Err(EINVAL);
    }
    if writable && !region.writable {
        return Err(EPERM);
    }
    Ok(Mapped {
        memory,
        offset: offset as usize,
        writable: region.writable,
    })
}

/// The memory that a mapping shows.
struct Mapped<'a> {
    memory: &'a DeviceMemory,
    /// The offset of the first byte in the memory.
    offset: usize,
    /// Whether the mapping may ever become writable.
    writable: bool,
}
