// SPDX-License-Identifier: GPL-2.0

//! Device classes, character device numbers, and character devices that are created at run time.
//!
//! C headers: [`include/linux/cdev.h`](srctree/include/linux/cdev.h),
//! [`include/linux/device/class.h`](srctree/include/linux/device/class.h)

use kernel::{
    device::Device,
    error::to_result,
    ffi::c_char,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    file_ops::{
        FileTable,
        Node,
        Numbered,
        OpenNode,
        OpenNumber, //
    },
    ida::Ida, //
};

/// The directory below `/dev` for the nodes of a class.
pub trait DevFolder {
    /// The directory, without leading or trailing slash.
    const FOLDER: &'static CStr;
}

/// A device class. Keep it as a `static`.
#[repr(transparent)]
pub struct Class(Opaque<bindings::class>);

// SAFETY: This crate only reads a registered class; the driver core protects what it writes.
unsafe impl Sync for Class {}
// SAFETY: As above.
unsafe impl Send for Class {}

impl Class {
    /// Returns a class whose devices have their nodes in `F::FOLDER`.
    pub const fn new<F: DevFolder>(name: &'static CStr) -> Self {
        let mut class: bindings::class = pin_init::zeroed();
        class.name = kernel::str::as_char_ptr_in_const_context(name);
        class.devnode = Some(devnode_callback::<F>);
        Self(Opaque::new(class))
    }

    /// Returns the C object, for a `struct device` of the class.
    pub fn as_ptr(&'static self) -> *const bindings::class {
        self.0.get()
    }

    /// Registers the class in sysfs until the result is dropped.
    pub fn register(&'static self) -> Result<ClassRegistration> {
        // SAFETY: The class is a static, so it outlives its registration.
        to_result(unsafe { bindings::class_register(self.0.get()) })?;
        Ok(ClassRegistration(self))
    }
}

/// # Safety
///
/// Only the driver core calls this function, with a valid device.
unsafe extern "C" fn devnode_callback<F: DevFolder>(
    dev: *const bindings::device,
    _mode: *mut bindings::umode_t,
) -> *mut c_char {
    // SAFETY: The driver core passes a valid device, and `Device` is a transparent wrapper.
    let dev = unsafe { Device::<kernel::device::Normal>::from_raw(dev.cast_mut()) };
    // SAFETY: The format matches its two strings. The caller frees the result.
    unsafe {
        bindings::kasprintf(
            bindings::GFP_KERNEL,
            c"%s/%s".as_char_ptr(),
            F::FOLDER.as_char_ptr(),
            dev.name().as_char_ptr(),
        )
    }
}

/// The registration of a class in sysfs. Dropping it unregisters the class.
pub struct ClassRegistration(&'static Class);

impl Drop for ClassRegistration {
    fn drop(&mut self) {
        // SAFETY: The class was registered when this value was created.
        unsafe { bindings::class_unregister(self.0 .0.get()) }
    }
}

/// All character device numbers of a dynamic major.
///
/// # Invariants
///
/// This value owns `first` and the [`MINORS`] numbers starting at it.
struct Major {
    first: bindings::dev_t,
}

/// The number of minors of a major.
pub(crate) const MINORS: u32 = 1 << bindings::MINORBITS;

impl Major {
    fn new(name: &'static CStr) -> Result<Self> {
        let mut first = 0;
        // SAFETY: Both pointers are valid for the call.
        to_result(unsafe {
            bindings::alloc_chrdev_region(&mut first, 0, MINORS, name.as_char_ptr())
        })?;
        // INVARIANT: The call above succeeded.
        Ok(Self { first })
    }

    fn number(&self, minor: u32) -> Result<bindings::dev_t> {
        if minor >= MINORS {
            return Err(ERANGE);
        }
        Ok(self.first + minor)
    }
}

impl Drop for Major {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::unregister_chrdev_region(self.first, MINORS) }
    }
}

/// Device numbers for [`NodeRegistration`]s.
#[pin_data]
pub struct NodeNumbers {
    major: Major,
    #[pin]
    minors: Mutex<Ida>,
}

impl NodeNumbers {
    /// Allocates a major number, which `/proc/devices` shows as `name`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all majors are in use; `ENOMEM`.
    pub fn new(name: &'static CStr) -> Result<Arc<Self>> {
        let major = Major::new(name)?;
        Arc::pin_init(
            pin_init!(Self {
                major,
                minors <- new_mutex!(Ida::new(), "node_numbers"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the number with the lowest minor that no other [`NodeNumber`] has.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ERANGE` or `ENOSPC` if all minors are in use.
    pub fn alloc(numbers: &Arc<Self>) -> Result<NodeNumber> {
        let minor = numbers.minors.lock().alloc()?;
        // Before the check, so that a minor that is too large is freed again.
        let number = NodeNumber {
            minor,
            numbers: numbers.clone(),
        };
        numbers.major.number(minor)?;
        Ok(number)
    }
}

/// A number of a [`NodeNumbers`]. It can be allocated again when this value is dropped.
///
/// # Invariants
///
/// `minor` is allocated from `numbers`.
pub struct NodeNumber {
    minor: u32,
    numbers: Arc<NodeNumbers>,
}

impl NodeNumber {
    fn as_raw(&self) -> bindings::dev_t {
        self.numbers.major.first + self.minor
    }
}

impl Drop for NodeNumber {
    fn drop(&mut self) {
        self.numbers.minors.lock().free(self.minor);
    }
}

/// The character devices of all numbers of a major. A number can be opened, whether a device in
/// sysfs has it or not, until this value is dropped.
///
/// # Invariants
///
/// The pointer is to a `struct cdev` that was added with the numbers of `major`, which has no other
/// one, and this value owns one reference to it.
pub struct NumberedNodes {
    cdev: core::ptr::NonNull<bindings::cdev>,
    major: Arc<Major>,
}

// SAFETY: The C structure may be used from any thread.
unsafe impl Send for NumberedNodes {}
// SAFETY: As above.
unsafe impl Sync for NumberedNodes {}

impl NumberedNodes {
    /// Allocates a major number, which `/proc/devices` shows as `name`, and lets files of `table` be
    /// opened by all of its numbers.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all majors are in use; `ENOMEM`.
    pub fn new<F: OpenNumber>(
        table: &'static FileTable<F, Numbered>,
        name: &'static CStr,
    ) -> Result<Self> {
        let major = Arc::new(Major::new(name)?, GFP_KERNEL)?;
        // SAFETY: There are no requirements.
        let cdev = core::ptr::NonNull::new(unsafe { bindings::cdev_alloc() }).ok_or(ENOMEM)?;
        // SAFETY: Only this function has the structure, which is initialised. The table is static.
        // `major` owns the numbers, and is dropped after the structure.
        let added = unsafe {
            (*cdev.as_ptr()).ops = table.as_ptr();
            (*cdev.as_ptr()).owner = (*table.as_ptr()).owner;
            bindings::cdev_add(cdev.as_ptr(), major.first, MINORS)
        };
        // INVARIANT: This owns the reference of `cdev_alloc`. If adding it has failed, `cdev_del`
        // only drops the reference.
        let this = Self { cdev, major };
        to_result(added).map(|()| this)
    }

    /// Returns the number with the minor `minor`, for a device in sysfs.
    ///
    /// # Errors
    ///
    /// `ERANGE` if `minor` is too large.
    pub fn number(&self, minor: u32) -> Result<DevNumber> {
        Ok(DevNumber {
            number: self.major.number(minor)?,
            _major: self.major.clone(),
        })
    }
}

impl Drop for NumberedNodes {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::cdev_del(self.cdev.as_ptr()) };
    }
}

/// A number of a [`NumberedNodes`]. Nobody else gets its major before it and its clones are dropped.
#[derive(Clone)]
pub struct DevNumber {
    number: bindings::dev_t,
    _major: Arc<Major>,
}

impl DevNumber {
    /// Returns the C value.
    pub fn as_raw(&self) -> bindings::dev_t {
        self.number
    }
}

/// A character device with its device in sysfs, and the value that its files are opened with.
#[repr(C)]
pub(crate) struct NodeInner<T> {
    dev: Opaque<bindings::device>,
    cdev: Opaque<bindings::cdev>,
    data: T,
}

impl<T> NodeInner<T> {
    /// # Safety
    ///
    /// `cdev` is a field of a `NodeInner<T>` that stays alive for `'a`.
    pub(crate) unsafe fn from_cdev<'a>(cdev: *mut bindings::cdev) -> &'a T {
        // SAFETY: By this function's contract.
        unsafe { &(*kernel::container_of!(Opaque::cast_from(cdev), Self, cdev)).data }
    }

    /// # Safety
    ///
    /// Only the driver core calls this function, with the device of a `NodeInner<T>` that has no
    /// references left.
    unsafe extern "C" fn release_callback(dev: *mut bindings::device) {
        // SAFETY: By this function's contract; `NodeRegistration::new` leaked the box.
        drop(unsafe {
            KBox::from_raw(kernel::container_of!(Opaque::cast_from(dev), Self, dev).cast_mut())
        });
    }
}

/// A character device. It can be opened until this value is dropped.
///
/// Files that are open then stay valid: they keep the memory of the node, but not its registration.
///
/// # Invariants
///
/// The pointer is to a node that was added by `cdev_device_add`, and this value owns one reference
/// to its device.
pub struct NodeRegistration<T> {
    node: core::ptr::NonNull<NodeInner<T>>,
    _class: Arc<ClassRegistration>,
    _number: NodeNumber,
}

// SAFETY: The C parts may be used from any thread; `T` is `Send` and `Sync`.
unsafe impl<T: Send + Sync> Send for NodeRegistration<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for NodeRegistration<T> {}

impl<T: Send + Sync + 'static> NodeRegistration<T> {
    /// Creates the node `name` of `class` with `number`. Its files belong to `table`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or an error of sysfs.
    pub fn new<F: OpenNode<Node = T>>(
        class: Arc<ClassRegistration>,
        table: &'static FileTable<F, Node>,
        number: NodeNumber,
        name: &CStr,
        data: T,
    ) -> Result<Self> {
        let node = KBox::init(
            init!(NodeInner {
                dev <- pin_init::init_zeroed(),
                cdev <- pin_init::init_zeroed(),
                data,
            }),
            GFP_KERNEL,
        )?;
        let node = KBox::into_raw(node);
        // SAFETY: Only this function has the node, and it is zeroed.
        let (dev, cdev) = unsafe { ((*node).dev.get(), (*node).cdev.get()) };
        // SAFETY: `dev` is zeroed memory that lives until `release_callback`. So does `cdev`,
        // because `cdev_device_add` makes it hold a reference to the device.
        unsafe {
            bindings::device_initialize(dev);
            (*dev).devt = number.as_raw();
            (*dev).class = class.0.as_ptr();
            (*dev).release = Some(NodeInner::<T>::release_callback);
            bindings::cdev_init(cdev, table.as_ptr());
            (*cdev).owner = (*table.as_ptr()).owner;
        }
        // SAFETY: The device is initialised and has no name yet.
        let named = unsafe { bindings::dev_set_name(dev, c"%s".as_char_ptr(), name.as_char_ptr()) };
        to_result(named)
            // SAFETY: Both are initialised and not added yet.
            .and_then(|()| to_result(unsafe { bindings::cdev_device_add(cdev, dev) }))
            // SAFETY: Drops the reference of `device_initialize`, which frees the node.
            .inspect_err(|_| unsafe { bindings::put_device(dev) })?;
        // INVARIANT: The node was just added, and takes over the reference of `device_initialize`.
        Ok(Self {
            // SAFETY: `KBox::into_raw` doesn't return a null pointer.
            node: unsafe { core::ptr::NonNull::new_unchecked(node) },
            _class: class,
            _number: number,
        })
    }
}

impl<T> Drop for NodeRegistration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; this value's reference keeps the node beyond
        // `cdev_device_del`.
        unsafe {
            let node = self.node.as_ref();
            let dev = node.dev.get();
            bindings::cdev_device_del(node.cdev.get(), dev);
            bindings::put_device(dev);
        }
    }
}
