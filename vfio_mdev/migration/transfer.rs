// SPDX-License-Identifier: GPL-2.0

//! The file by which a program reads a device's state, or writes it.
//!
//! It belongs to the bus, not to the driver: what a program does with it reaches the data, and never the
//! device. So it may be kept open as long as one likes.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::File,
    ioctl::_IO,
    new_mutex,
    new_poll_condvar,
    prelude::*,
    sync::{
        aref::ARef,
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        ArcBorrow,
        Mutex, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::{
    anon_file::{
        self,
        Direction, //
    },
    file_ops::{
        poll,
        FileOperations,
        FileTable, //
    }, //
};

use super::{
    header::{
        sum,
        Header, //
    },
    Session, //
};
use crate::abi::migration::InfoVersion;

/// `VFIO_MIG_GET_PRECOPY_INFO`
const GET_PRECOPY_INFO: u32 = _IO(b';' as u32, 121);

/// A file's data. The device and the file refer to them.
#[pin_data]
pub(crate) struct Transfer {
    /// `None` once the device has left the states that have the file. Accesses of user memory happen
    /// with the lock held.
    #[pin]
    stream: Mutex<Option<Stream>>,
    /// Signalled when there is more to be read.
    #[pin]
    more: PollCondVar,
}

struct Stream {
    header: Header,
    /// What there is so far. Has room for all.
    data: KVVec<u8>,
    /// How much of it was read.
    read: usize,
    version: InfoVersion,
}

impl Transfer {
    /// Makes a file. There is memory for everything that will ever be in it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENFILE`.
    pub(crate) fn open(
        session: Session,
        header: Header,
        version: InfoVersion,
    ) -> Result<(Arc<Self>, ARef<File>)> {
        let mut data = KVVec::with_capacity(header.total(), GFP_KERNEL_ACCOUNT)?;
        if session == Session::Saving {
            data.extend_from_slice(header.as_bytes(), GFP_KERNEL_ACCOUNT)?;
        }
        let stream = Stream {
            header,
            data,
            read: 0,
            version,
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                stream <- new_mutex!(Some(stream), "vfio_mdev::Transfer"),
                more <- new_poll_condvar!("vfio_mdev::Transfer::more"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        const NAME: &CStr = c"mdev_mig";
        let file = match session {
            Session::Saving => {
                anon_file::open_stream(&SAVING, NAME, this.clone(), Direction::Read)?
            }
            Session::Resuming => {
                anon_file::open_stream(&RESUMING, NAME, this.clone(), Direction::Write)?
            }
        };
        Ok((this, file))
    }

    /// Adds the device's state, which `save` writes to a buffer of zeroes: then all is there.
    ///
    /// # Errors
    ///
    /// Those of `save`, which change nothing.
    pub(crate) fn save(&self, save: &mut dyn FnMut(&mut [u8]) -> Result) -> Result {
        let mut guard = self.stream.lock();
        let Some(stream) = &mut *guard else {
            return Err(ENODEV);
        };
        let end = stream.header.sum_offset();
        stream.data.resize(end, 0, GFP_KERNEL_ACCOUNT)?;
        let saved = save(&mut stream.data[Header::SIZE..]);
        if let Err(e) = saved {
            stream.data.truncate(Header::SIZE);
            return Err(e);
        }
        let sum = sum(&stream.data[Header::SIZE..]);
        stream.data.extend_from_slice(&sum, GFP_KERNEL_ACCOUNT)?;
        drop(guard);
        self.more.notify_all();
        Ok(())
    }

    /// Gives `load` the state that the program wrote.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it isn't complete, or isn't what was sent; those of `load`.
    pub(crate) fn load(&self, load: &mut dyn FnMut(&[u8]) -> Result) -> Result {
        let guard = self.stream.lock();
        let stream = guard.as_ref().ok_or(ENODEV)?;
        if !stream.is_complete() {
            return Err(EINVAL);
        }
        let end = stream.header.sum_offset();
        let state = &stream.data[Header::SIZE..end];
        if stream.data[end..] != sum(state) {
            return Err(EINVAL);
        }
        load(state)
    }

    /// Makes the file useless: all accesses fail with `ENODEV`.
    pub(crate) fn end(&self) {
        let stream = self.stream.lock().take();
        drop(stream);
        self.more.notify_all();
    }
}

impl Stream {
    fn is_complete(&self) -> bool {
        self.data.len() == self.header.total()
    }

    fn read(&mut self, to: UserPtr, count: usize) -> Result<usize> {
        let left = &self.data[self.read..];
        if left.is_empty() && count > 0 && !self.is_complete() {
            // For now: more comes when the device is stopped.
            return Err(ENOMSG);
        }
        let count = left.len().min(count);
        UserSlice::new(to, count)
            .writer()
            .write_slice(&left[..count])?;
        self.read += count;
        Ok(count)
    }

    /// Takes bytes that follow those which are there, or none of them.
    fn write(&mut self, from: UserPtr, count: usize) -> Result<usize> {
        let start = self.data.len();
        if count > self.header.total() - start {
            return Err(ENOMEM);
        }
        self.data.resize(start + count, 0, GFP_KERNEL_ACCOUNT)?;
        let taken = UserSlice::new(from, count)
            .reader()
            .read_slice(&mut self.data[start..])
            .and_then(|()| match self.header.may_be(&self.data) {
                true => Ok(count),
                false => Err(EINVAL),
            });
        if taken.is_err() {
            self.data.truncate(start);
        }
        taken
    }

    /// How many bytes can be read before the device is stopped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is stopped.
    fn initial_bytes(&self) -> Result<u64> {
        if self.is_complete() {
            return Err(EINVAL);
        }
        Ok((self.data.len() - self.read) as u64)
    }
}

/// Answers `VFIO_MIG_GET_PRECOPY_INFO`: a `struct vfio_precopy_info`.
fn precopy_info(transfer: &Transfer, arg: UserPtr) -> Result<isize> {
    const SIZE: usize = 24;
    let [argsz, flags, ..]: [u32; 6] = UserSlice::new(arg, SIZE).reader().read()?;
    if (argsz as usize) < SIZE {
        return Err(EINVAL);
    }
    let guard = transfer.stream.lock();
    let stream = guard.as_ref().ok_or(EINVAL)?;
    let initial = stream.initial_bytes()?;
    // In the first version the flags come back as they were.
    let flags = if stream.version.is_second() { 0 } else { flags };
    drop(guard);
    let answer = [
        u64::from(flags) << 32 | u64::from(argsz),
        initial,
        0, // No state changes without being in it once the device is stopped.
    ];
    UserSlice::new(arg, SIZE).writer().write(&answer)?;
    Ok(0)
}

/// The file of a device that is saved.
struct Saving;

static SAVING: FileTable<Saving> = FileTable::anonymous();

#[vtable]
impl FileOperations for Saving {
    type Data = Arc<Transfer>;

    fn ioctl(
        transfer: ArcBorrow<'_, Transfer>,
        _file: &File,
        cmd: u32,
        arg: usize,
    ) -> Result<isize> {
        match cmd {
            GET_PRECOPY_INFO => precopy_info(&transfer, UserPtr::from_addr(arg)),
            _ => Err(ENOTTY),
        }
    }

    fn read(
        transfer: ArcBorrow<'_, Transfer>,
        buf: UserPtr,
        count: usize,
        _pos: &mut i64,
    ) -> Result<usize> {
        match &mut *transfer.stream.lock() {
            Some(stream) => stream.read(buf, count),
            None => Err(ENODEV),
        }
    }

    fn poll(transfer: ArcBorrow<'_, Transfer>, file: &File, table: PollTable<'_>) -> u32 {
        table.register_wait(file, &transfer.more);
        match &*transfer.stream.lock() {
            None => poll::READABLE | poll::HANG_UP,
            Some(stream) if stream.is_complete() || stream.read < stream.data.len() => {
                poll::READABLE
            }
            Some(_) => 0,
        }
    }
}

/// The file of a device that gets another one's state.
struct Resuming;

static RESUMING: FileTable<Resuming> = FileTable::anonymous();

#[vtable]
impl FileOperations for Resuming {
    type Data = Arc<Transfer>;

    fn ioctl(
        _transfer: ArcBorrow<'_, Transfer>,
        _file: &File,
        _cmd: u32,
        _arg: usize,
    ) -> Result<isize> {
        Err(ENOTTY)
    }

    fn write(
        transfer: ArcBorrow<'_, Transfer>,
        buf: UserPtr,
        count: usize,
        _pos: &mut i64,
    ) -> Result<usize> {
        match &mut *transfer.stream.lock() {
            Some(stream) => stream.write(buf, count),
            None => Err(ENODEV),
        }
    }
}
