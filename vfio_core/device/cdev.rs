// SPDX-License-Identifier: GPL-2.0

//! Device files, `/dev/vfio/devices/vfioN`: a device that is opened without its group, and used
//! with an iommufd.
//!
//! The file can be opened many times. One of these files can be bound to an iommufd at a time, and
//! only that file gives access to the device. It is bound until it is closed.

use core::mem::offset_of;

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::{
        File,
        LocalFile, //
    },
    mm::virt::VmaNew,
    new_spinlock,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        SetOnce,
        SpinLock, //
    },
    types::ScopeGuard,
    uaccess::UserPtr, //
};
use kernel_ext::{
    anon_file::{
        InodeMapped,
        InodeRef, //
    },
    bindings::{
        self,
        vfio_device_attach_iommufd_pt,
        vfio_device_bind_iommufd,
        vfio_device_detach_iommufd_pt, //
    },
    chardev::{
        DevNumber,
        NumberedNodes, //
    },
    compat::EOPNOTSUPP,
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable,
        Numbered,
        OpenNumber, //
    },
    iommufd::Context,
    module::ModuleRef,
    task::Capability,
    tree::{
        Slot,
        Tree, //
    },
    uapi::{
        self,
        ioctl,
        Argument, //
    }, //
};

use super::{
    abi::NUMBERS,
    file::{
        request,
        show_fdinfo, //
    },
    iommufd::Token,
    registration::{
        Joined,
        RegistrationRef, //
    },
    set::{
        AddressSpace,
        OpenRef,
        Opened, //
    },
    Device, //
};
use crate::{
    group::{
        registry,
        DeviceUser, //
    },
    kvm::Kvm, //
};

static FILES: FileTable<DeviceFile, Numbered> = FileTable::numbered();

/// The numbers of device files, and the devices that have one.
pub(super) struct Numbers {
    nodes: Option<NumberedNodes>,
    /// Indexed by minor number, which is the number in the device's name.
    devices: Tree<u32, NumberedDevice>,
}

/// A device that has a file.
struct NumberedDevice {
    device: ARef<Device>,
    has_iommu: bool,
    _number: DevNumber,
}

impl Numbers {
    pub(super) const fn new() -> Self {
        Self {
            nodes: None,
            devices: Tree::new(),
        }
    }
}

/// Creates the device file of `device`, which is about to be added to sysfs. Until the device is
/// registered, opening the file fails with `ENODEV`. Dropping the result removes the file.
///
/// Returns `None` if the device has no file: on a kernel without device files, and without an IOMMU
/// if IOMMUFD does not support such devices.
///
/// # Errors
///
/// Returns `ENOMEM`.
pub(super) fn publish(
    device: &Joined<'_>,
    has_iommu: bool,
) -> Result<Option<ScopeGuard<DevNumber, impl FnOnce(DevNumber)>>> {
    let supported = has_iommu || cfg!(CONFIG_IOMMUFD_NOIOMMU);
    if !cfg!(CONFIG_VFIO_DEVICE_CDEV) || !supported {
        return Ok(None);
    }
    let (slot, index) = (Slot::new()?, device.index());
    let mut numbers = NUMBERS.lock();
    let nodes = numbers.nodes.as_ref().ok_or(ENODEV)?;
    let number = nodes.number(index)?;
    let entry = NumberedDevice {
        device: (&**device).into(),
        has_iommu,
        _number: number.clone(),
    };
    numbers.devices.insert(slot.fill(index, entry));
    Ok(Some(ScopeGuard::new_with_data(number, move |_| {
        remove(index)
    })))
}

/// Removes the file of the device with this index, if it has one.
pub(super) fn remove(index: u32) {
    let entry = NUMBERS.lock().devices.remove(&index);
    drop(entry);
}

/// Associates the device file `file` with a KVM instance, or removes the association. Does nothing
/// for any other file.
pub(crate) fn set_kvm(file: &LocalFile, kvm: Option<Kvm>) {
    if let Some(open) = FILES.data(file) {
        *open.kvm.lock() = kvm;
    }
}

/// An open device file.
#[pin_data]
pub(crate) struct OpenFile {
    /// Set by the first successful `VFIO_DEVICE_BIND_IOMMUFD`.
    bound: SetOnce<BoundGuard>,
    /// The KVM instance for a driver that needs it, from the bind on.
    #[pin]
    kvm: SpinLock<Option<Kvm>>,
    device: RegistrationRef,
}

/// The references that a device holds while it is bound through its file.
struct Bound {
    device: OpenRef,
    opened: Opened,
    registration: RegistrationRef,
    _driver: ModuleRef,
    user: DeviceUser,
}

/// A [`Bound`]. Dropping it closes and unbinds the device.
type BoundGuard = ScopeGuard<Bound, fn(Bound)>;

impl Bound {
    /// Closes and unbinds the device.
    fn close(mut self) {
        let mut set = self.registration.lock_set();
        set.close(self.device, self.opened);
        set.set_open_by_device_file(false);
        self.user.leave_iommufd();
    }
}

/// Returns the device of `file`, or `None` if `file` is not a device file.
pub(super) fn file_device(file: &LocalFile) -> Option<&Device> {
    Some(&FILES.data(file)?.get_ref().device)
}

impl OpenFile {
    /// Returns what the file holds if it is bound to an iommufd.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL` if it is not.
    fn bound(&self) -> Result<&Bound> {
        Ok(self.bound.as_ref().ok_or(EINVAL)?)
    }

    /// `VFIO_DEVICE_BIND_IOMMUFD`
    fn bind(&self, arg: UserPtr) -> Result {
        let bind = vfio_device_bind_iommufd::read_extensible(arg)?;
        let fd = u32::try_from(bind.iommufd).map_err(|_| EINVAL)?;
        if bind.flags & !bindings::VFIO_DEVICE_BIND_FLAG_TOKEN != 0 {
            return Err(EINVAL);
        }
        // User memory is read before any lock is taken. What it returns is looked at in the order
        // of the C code.
        let token = (bind.flags & bindings::VFIO_DEVICE_BIND_FLAG_TOKEN != 0)
            .then(|| uapi::read(UserPtr::from_addr(bind.token_uuid_ptr as usize)));
        let user = registry::use_device(&self.device)?;
        let bound = self.open(user, token, fd)?;
        // The device is bound to no other file, so nobody can use it before `bound` is stored.
        let out = arg.wrapping_byte_add(offset_of!(vfio_device_bind_iommufd, out_devid));
        uapi::write(out, &bound.opened.id())?;
        self.bound.populate(bound);
        Ok(())
    }

    /// Opens the device for this file, in the iommufd `fd`.
    fn open(
        &self,
        mut user: DeviceUser,
        token: Option<Result<Token>>,
        fd: u32,
    ) -> Result<BoundGuard> {
        let registration = self.device.try_get_registration().ok_or(ENODEV)?;
        let mut set = self.device.lock_set();
        if self.bound.as_ref().is_some() {
            return Err(EINVAL);
        }
        set.match_token(token)?;
        let context = Context::of_fd(fd)?;
        if self.device.open_count() > 0 {
            return Err(EINVAL);
        }
        let driver = self.device.driver_module().ok_or(ENODEV)?;
        user.use_iommufd(&self.device, &context)?;
        let kvm = self.kvm.lock().as_ref().and_then(Kvm::get);
        let (device, opened) = set
            .open(AddressSpace::Iommufd(context), kvm)
            .inspect_err(|_| user.leave_iommufd())?;
        set.set_open_by_device_file(true);
        drop(set);
        let bound = Bound {
            device,
            opened,
            registration,
            _driver: driver,
            user,
        };
        Ok(BoundGuard::new_with_data(bound, Bound::close))
    }
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
fn attach(bound: &Bound, arg: UserPtr) -> Result {
    let mut attach = vfio_device_attach_iommufd_pt::read(arg)?;
    let pasid = match attach.flags {
        0 => None,
        bindings::VFIO_DEVICE_ATTACH_PASID => {
            if bound.device.ops().pasid_attach_ioas.is_none() {
                return Err(EOPNOTSUPP);
            }
            attach.check_argsz(size_of::<vfio_device_attach_iommufd_pt>())?;
            Some(read_pasid(
                arg,
                offset_of!(vfio_device_attach_iommufd_pt, pasid),
            )?)
        }
        _ => return Err(EINVAL),
    };
    let mut set = bound.registration.lock_set();
    match pasid {
        Some(pasid) => set.attach_pasid(&bound.opened, pasid, &mut attach.pt_id),
        None => set.attach_ioas(&bound.opened, &mut attach.pt_id),
    }?;
    drop(set);
    // The set is not locked while user memory is accessed. An attach by another thread meanwhile
    // counts as earlier than this one, and is undone with it.
    let out = arg.wrapping_byte_add(offset_of!(vfio_device_attach_iommufd_pt, pt_id));
    uapi::write(out, &attach.pt_id).inspect_err(|_| detach_from(bound, pasid))
}

/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`
fn detach(bound: &Bound, arg: UserPtr) -> Result {
    let detach = vfio_device_detach_iommufd_pt::read(arg)?;
    let pasid = match detach.flags {
        0 => None,
        bindings::VFIO_DEVICE_DETACH_PASID => {
            if bound.device.ops().pasid_detach_ioas.is_none() {
                return Err(EOPNOTSUPP);
            }
            detach.check_argsz(size_of::<vfio_device_detach_iommufd_pt>())?;
            Some(read_pasid(
                arg,
                offset_of!(vfio_device_detach_iommufd_pt, pasid),
            )?)
        }
        _ => return Err(EINVAL),
    };
    detach_from(bound, pasid);
    Ok(())
}

/// Detaches requests of the device with `pasid`, or those without one.
fn detach_from(bound: &Bound, pasid: Option<u32>) {
    let mut set = bound.registration.lock_set();
    match pasid {
        Some(pasid) => set.detach_pasid(&bound.opened, pasid),
        None => set.detach_ioas(&bound.opened),
    }
}

/// Reads the PASID at `offset` in the argument at `arg`.
fn read_pasid(arg: UserPtr, offset: usize) -> Result<u32> {
    uapi::read(arg.wrapping_byte_add(offset))
}

/// The file operations of a device file.
pub(crate) struct DeviceFile;

impl OpenNumber for DeviceFile {
    /// # Errors
    ///
    /// Returns `ENXIO` if no device has the number; `ENODEV` if the device is being registered or
    /// unregistered; `EPERM` if it has no IOMMU and the caller lacks `CAP_SYS_RAWIO`; `ENOMEM`.
    fn open(minor: u32) -> Result<Pin<KBox<OpenFile>>> {
        let numbers = NUMBERS.lock();
        let entry = numbers.devices.get(&minor).ok_or(ENXIO)?;
        let device = entry.device.try_get_registration().ok_or(ENODEV)?;
        let has_iommu = entry.has_iommu;
        drop(numbers);
        if !has_iommu && !Capability::SysRawio.held() {
            return Err(EPERM);
        }
        KBox::pin_init(
            pin_init!(OpenFile {
                bound: SetOnce::new(),
                kvm <- new_spinlock!(None, "vfio_device_file::kvm"),
                device,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

#[vtable]
impl FileOperations for DeviceFile {
    type OwnerModule = crate::LocalModule;
    type Data = Pin<KBox<OpenFile>>;

    #[inline]
    fn ioctl(open: Pin<&OpenFile>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let open = open.get_ref();
        let user = UserPtr::from_addr(arg);
        if cmd == ioctl::VFIO_DEVICE_BIND_IOMMUFD {
            return open.bind(user).map(|()| 0);
        }
        let bound = open.bound()?;
        let device = &bound.device;
        let _awake = device.resume()?;
        match cmd {
            ioctl::VFIO_DEVICE_ATTACH_IOMMUFD_PT => attach(bound, user).map(|()| 0),
            ioctl::VFIO_DEVICE_DETACH_IOMMUFD_PT => detach(bound, user).map(|()| 0),
            ioctl::VFIO_GROUP_GET_DEVICES => {
                let group = device.group().ok_or(ENODEV)?;
                group.get_devices(user).map(|()| 0)
            }
            _ => request(device, cmd, arg),
        }
    }

    fn read(open: Pin<&OpenFile>, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.get_ref().bound()?.device.read(buf, count, pos)
    }

    fn write(open: Pin<&OpenFile>, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.get_ref().bound()?.device.write(buf, count, pos)
    }

    fn mmap(open: Pin<&OpenFile>, vma: &VmaNew) -> Result {
        open.get_ref().bound()?.device.mmap(vma)
    }

    fn show_fdinfo(open: Pin<&OpenFile>, m: &SeqFile) {
        show_fdinfo(&open.device, m);
    }
}

impl InodeMapped for DeviceFile {
    fn inode<'a>(open: Borrowed<'a, Self>) -> InodeRef<'a> {
        open.get_ref().device.inode()
    }
}

/// Lets device files be opened while the module is loaded. There are none on a kernel without device
/// files.
pub(crate) struct DeviceNodes(());

impl DeviceNodes {
    /// Allocates the device numbers.
    ///
    /// # Errors
    ///
    /// Returns `EBUSY` if all major numbers are in use; `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        if cfg!(CONFIG_VFIO_DEVICE_CDEV) {
            let nodes = NumberedNodes::new(&FILES, c"vfio-dev")?;
            NUMBERS.lock().nodes = Some(nodes);
        }
        Ok(Self(()))
    }
}

impl Drop for DeviceNodes {
    fn drop(&mut self) {
        let nodes = NUMBERS.lock().nodes.take();
        drop(nodes);
    }
}
