// SPDX-License-Identifier: GPL-2.0

//! The file from which userspace reads a device's state, or to which it writes the state.
//!
//! The file belongs to the bus, not to the driver. Userspace accesses to it reach the data but
//! never the device. So it may stay open for any time.

use core::ops::Range;

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::File,
    new_mutex,
    new_poll_condvar,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        ArcBorrow,
        Mutex,
        UniqueArc, //
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
    bindings::vfio_precopy_info,
    compat::ENOMSG,
    file_ops::{
        poll,
        FileOperations,
        FileTable, //
    },
    uapi::{
        ioctl::VFIO_MIG_GET_PRECOPY_INFO,
        Argument, //
    }, //
};

use super::{
    abi::InfoVersion,
    header::{
        sum,
        Header, //
    },
    DataFile, //
};

/// The data of a file. Both the device and the file hold references to it.
#[pin_data]
pub(super) struct Transfer {
    /// `None` once the device has left the states that have the file. Not held during accesses to
    /// user memory, so that ending the transfer never waits for userspace.
    #[pin]
    stream: Mutex<Option<Stream>>,
    /// Notified when more data can be read.
    #[pin]
    more: PollCondVar,
}

struct Stream {
    header: Header,
    /// The data so far, with capacity for all data. `None` once all data can be read.
    room: Option<UniqueArc<KVVec<u8>>>,
    /// All data, once they can be read.
    outgoing: Option<Arc<KVVec<u8>>>,
    /// The number of bytes that have been read.
    read: usize,
    version: InfoVersion,
}

impl Transfer {
    /// Opens a file. Allocates the memory for all of its data.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENFILE`.
    pub(super) fn open(
        kind: DataFile,
        header: Header,
        version: InfoVersion,
    ) -> Result<(Arc<Self>, ARef<File>)> {
        // Without this flag the kernel warns about more than 2 GiB, a limit that drivers do not
        // know.
        let mut data = KVVec::with_capacity(header.total(), GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;
        if kind == DataFile::Saving {
            data.extend_from_slice(header.as_bytes(), GFP_KERNEL_ACCOUNT)?;
        }
        let stream = Stream {
            header,
            room: Some(UniqueArc::new(data, GFP_KERNEL_ACCOUNT)?),
            outgoing: None,
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
        let file = match kind {
            DataFile::Saving => {
                anon_file::open_stream(&SAVING, NAME, this.clone(), Direction::Read)?
            }
            DataFile::Resuming => {
                anon_file::open_stream(&RESUMING, NAME, this.clone(), Direction::Write)?
            }
        };
        Ok((this, file))
    }

    /// Appends the device's state, which `save` writes to a zeroed buffer, and the checksum. This
    /// completes the data.
    ///
    /// # Errors
    ///
    /// The errors of `save`. Nothing changes on error.
    pub(super) fn save(&self, save: &mut dyn FnMut(&mut [u8]) -> Result) -> Result {
        let mut guard = self.stream.lock();
        let Some(stream) = &mut *guard else {
            return Err(ENODEV);
        };
        let end = stream.header.sum_offset();
        let room = stream.room.as_mut().ok_or(EINVAL)?;
        room.resize(end, 0, GFP_KERNEL_ACCOUNT)?;
        let saved = save(&mut room[Header::SIZE..]);
        if let Err(e) = saved {
            room.truncate(Header::SIZE);
            return Err(e);
        }
        let sum = sum(&room[Header::SIZE..]);
        room.extend_from_slice(&sum, GFP_KERNEL_ACCOUNT)?;
        stream.outgoing = stream.room.take().map(Arc::from);
        drop(guard);
        self.more.notify_all();
        Ok(())
    }

    /// Calls `load` with the state that userspace wrote.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the data are incomplete or the checksum is wrong; the errors of `load`.
    pub(super) fn load(&self, load: &mut dyn FnMut(&[u8]) -> Result) -> Result {
        let guard = self.stream.lock();
        let stream = guard.as_ref().ok_or(ENODEV)?;
        let data = stream.room.as_ref().ok_or(EINVAL)?;
        if data.len() != stream.header.total() {
            return Err(EINVAL);
        }
        let end = stream.header.sum_offset();
        let state = &data[Header::SIZE..end];
        if data[end..] != sum(state) {
            return Err(EINVAL);
        }
        load(state)
    }

    /// Makes the file unusable: all accesses fail with `ENODEV`.
    pub(super) fn end(&self) {
        let stream = self.stream.lock().take();
        drop(stream);
        self.more.notify_all();
    }

    fn read(&self, to: UserPtr, count: usize) -> Result<usize> {
        let (piece, start) = self.with_stream(|stream| stream.next_piece(count))?;
        let bytes = piece.bytes();
        let copied = UserSlice::new(to, bytes.len()).writer().write_slice(bytes);
        if let Err(e) = copied {
            // Make the bytes readable again, unless another thread has continued to read after
            // them.
            self.with_stream(|stream| {
                if stream.read == start + bytes.len() {
                    stream.read = start;
                }
                Err(e)
            })
        } else {
            Ok(bytes.len())
        }
    }

    /// Appends bytes to the data, in pieces of at most a page. If a piece cannot be read from
    /// userspace or is not valid, it accepts only the pieces before it.
    fn write(&self, from: UserPtr, count: usize) -> Result<usize> {
        self.with_stream(|stream| stream.check_room(count))?;
        let mut piece = KVec::with_capacity(count.min(PAGE_SIZE), GFP_KERNEL)?;
        let mut done = 0;
        while done < count {
            piece.clear();
            let from = from.wrapping_byte_add(done);
            let taken = UserSlice::new(from, PAGE_SIZE.min(count - done))
                .read_all(&mut piece, GFP_KERNEL)
                .and_then(|()| self.with_stream(|stream| stream.append(&piece)));
            match taken {
                Ok(()) => done += piece.len(),
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn with_stream<R>(&self, f: impl FnOnce(&mut Stream) -> Result<R>) -> Result<R> {
        match &mut *self.stream.lock() {
            Some(stream) => f(stream),
            None => Err(ENODEV),
        }
    }
}

/// Bytes to be copied to userspace.
enum Piece {
    /// A range of the header.
    Header(Header, Range<usize>),
    /// A range of all data.
    Data(Arc<KVVec<u8>>, Range<usize>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Header(header, range) => &header.as_bytes()[range.clone()],
            Self::Data(data, range) => &data[range.clone()],
        }
    }
}

impl Stream {
    /// Returns the number of bytes that have arrived, or that can be read.
    fn len(&self) -> usize {
        match &self.outgoing {
            Some(data) => data.len(),
            None => self.room.as_ref().map_or(0, |room| room.len()),
        }
    }

    fn is_complete(&self) -> bool {
        self.len() == self.header.total()
    }

    /// Marks up to `count` bytes as read. Returns them and their offset.
    ///
    /// # Errors
    ///
    /// `ENOMSG` if no bytes are available yet: more follow when the device is stopped.
    fn next_piece(&mut self, count: usize) -> Result<(Piece, usize)> {
        let (start, left) = (self.read, self.len() - self.read);
        if left == 0 && count > 0 && !self.is_complete() {
            return Err(ENOMSG);
        }
        let range = start..start + left.min(count);
        self.read = range.end;
        let piece = match &self.outgoing {
            Some(data) => Piece::Data(data.clone(), range),
            None => Piece::Header(self.header.clone(), range),
        };
        Ok((piece, start))
    }

    /// # Errors
    ///
    /// `ENOMEM` if `count` is more than the number of missing bytes.
    fn check_room(&self, count: usize) -> Result {
        let missing = self.header.total() - self.len();
        (count <= missing).then_some(()).ok_or(ENOMEM)
    }

    /// Appends all of the bytes, or none on error.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are more bytes than are missing, `EINVAL` if the header does not match the
    /// device.
    fn append(&mut self, bytes: &[u8]) -> Result {
        self.check_room(bytes.len())?;
        let room = self.room.as_mut().ok_or(EINVAL)?;
        let start = room.len();
        room.extend_from_slice(bytes, GFP_KERNEL_ACCOUNT)?;
        if !self.header.may_be(room) {
            room.truncate(start);
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Returns the number of bytes that can be read before the device is stopped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device is stopped.
    fn initial_bytes(&self) -> Result<u64> {
        if self.is_complete() {
            return Err(EINVAL);
        }
        Ok((self.len() - self.read) as u64)
    }
}

/// Handles `VFIO_MIG_GET_PRECOPY_INFO` with a `struct vfio_precopy_info`.
fn precopy_info(transfer: &Transfer, arg: UserPtr) -> Result<isize> {
    let mut info = vfio_precopy_info::read(arg)?;
    let guard = transfer.stream.lock();
    let stream = guard.as_ref().ok_or(EINVAL)?;
    info.initial_bytes = stream.initial_bytes()?;
    // There is no dirty data: it is all saved when the device is stopped.
    info.dirty_bytes = 0;
    // In version 1 `flags` is returned unchanged.
    if stream.version.is_second() {
        info.flags = 0;
    }
    drop(guard);
    info.write(arg)?;
    Ok(0)
}

/// The operations of the file of a device whose state is saved.
struct Saving;

static SAVING: FileTable<Saving> = FileTable::anonymous();

#[vtable]
impl FileOperations for Saving {
    type OwnerModule = crate::LocalModule;
    type Data = Arc<Transfer>;

    fn ioctl(
        transfer: ArcBorrow<'_, Transfer>,
        _file: &File,
        cmd: u32,
        arg: usize,
    ) -> Result<isize> {
        match cmd {
            VFIO_MIG_GET_PRECOPY_INFO => precopy_info(&transfer, UserPtr::from_addr(arg)),
            _ => Err(ENOTTY),
        }
    }

    fn read(
        transfer: ArcBorrow<'_, Transfer>,
        buf: UserPtr,
        count: usize,
        _pos: &mut i64,
    ) -> Result<usize> {
        transfer.read(buf, count)
    }

    fn poll(transfer: ArcBorrow<'_, Transfer>, file: &File, table: PollTable<'_>) -> u32 {
        table.register_wait(file, &transfer.more);
        match &*transfer.stream.lock() {
            None => poll::READABLE | poll::HANG_UP,
            Some(stream) if stream.is_complete() || stream.read < stream.len() => poll::READABLE,
            Some(_) => 0,
        }
    }
}

/// The operations of the file of a device that loads a state.
struct Resuming;

static RESUMING: FileTable<Resuming> = FileTable::anonymous();

#[vtable]
impl FileOperations for Resuming {
    type OwnerModule = crate::LocalModule;
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
        transfer.write(buf, count)
    }
}
