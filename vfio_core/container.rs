// SPDX-License-Identifier: GPL-2.0

//! Containers: address spaces that userspace creates by opening `/dev/vfio/vfio`.
//!
//! A container is unprivileged until a group joins it. When the last group leaves, the container
//! loses its address space. The files of a container, of its groups and of their devices can be
//! closed in any order, because each file holds references to the objects it needs.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::{
        File,
        LocalFile, //
    },
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow,
        Mutex,
        SpinLock, //
    }, //
};
use kernel_ext::{
    anon_file,
    array_vec::SmallVec,
    bindings,
    file_ops::{
        FileOperations,
        FileTable,
        Misc,
        OpenMisc, //
    },
    iommu::Group as IommuGroup,
    iommu_driver::GroupType,
    misc::{
        MiscOptions,
        MiscRegistration, //
    },
    mm::may_warn,
    uapi::ioctl,
};

use crate::iommu_driver::{
    self,
    Iommu,
    IommuDriverRef,
    Member, //
};

/// Which files give userspace access to a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handle {
    /// Only through the file that created it. A process that has a group's file cannot reach the
    /// container through that file.
    File,
    /// Through the files of its groups. The container was created for the first of them.
    Groups,
}

/// A container.
#[pin_data]
pub(crate) struct Container {
    handle: Handle,
    /// The groups in the container. The mutex is held while a group is attached or detached, which
    /// can take long.
    #[pin]
    groups: Mutex<Groups>,
    /// The address space. Changed only with `groups` locked, so it cannot change while the caller
    /// holds that lock. A clone of the `Arc` keeps the address space alive for the duration of a
    /// call, even if groups leave concurrently.
    #[pin]
    iommu: SpinLock<Option<Arc<Iommu>>>,
}

/// The groups in a container.
struct Groups(SmallVec<Member, 1>);

impl Groups {
    fn position(&self, group: &IommuGroup) -> Option<usize> {
        let same = |member: &Member| core::ptr::eq(member.group(), group);
        self.0.iter().position(same)
    }

    /// Returns whether the groups in the container are no-IOMMU groups, or `None` if there are no
    /// groups. No-IOMMU groups cannot share a container with others.
    fn noiommu(&self) -> Option<bool> {
        let member = self.0.first()?;
        Some(member.kind() == GroupType::NoIommu)
    }

    /// Attaches all members to `iommu`. If one attach fails, detaches the members attached before
    /// it.
    fn attach_all(&mut self, iommu: &Arc<Iommu>) -> Result {
        let mut members = self.0.iter_mut();
        let attached = members.try_for_each(|member| member.attach(iommu));
        attached.inspect_err(|_| self.0.iter_mut().rev().for_each(Member::detach))
    }
}

impl Container {
    /// Creates a container without groups.
    pub(crate) fn new(handle: Handle) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                handle,
                groups <- new_mutex!(Groups(SmallVec::new()), "vfio_container::groups"),
                iommu <- new_spinlock!(None, "vfio_container::iommu"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the container of `file`, or `None` if `file` is not a container's file.
    pub(crate) fn from_file(file: &LocalFile) -> Option<ArcBorrow<'_, Self>> {
        FILES.data(file)
    }

    /// Opens a file for a container that was created without one.
    pub(crate) fn open_file(container: Arc<Self>) -> Result<ARef<File>> {
        anon_file::open(&FILES, c"[vfio-container]", container)
    }

    /// Returns whether userspace reaches the container through the files of its groups.
    pub(crate) fn is_reached_by_groups(&self) -> bool {
        self.handle == Handle::Groups
    }

    /// Returns the number of groups in the container.
    pub(crate) fn members(&self) -> usize {
        self.groups.lock().0.len()
    }

    /// Creates an address space unless the container already has one. Its type is `extension`, if
    /// that is given; otherwise type 1 v2 or that of the address space which the container has.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the container has an address space of another type; `ENODEV` if no backend has
    /// the type; the errors of the backend.
    pub(crate) fn ensure_iommu(&self, extension: Option<usize>) -> Result {
        let result = self.set_iommu(extension.unwrap_or(bindings::VFIO_TYPE1v2_IOMMU as usize));
        match self.iommu() {
            Some(iommu) if result == Err(EINVAL) => {
                let fits = extension.is_none_or(|extension| extension == iommu.extension());
                fits.then_some(()).ok_or(EINVAL)
            }
            _ => result,
        }
    }

    /// Returns the current address space.
    pub(crate) fn iommu(&self) -> Option<Arc<Iommu>> {
        self.iommu.lock().clone()
    }

    /// Adds `group` to the container, which gives the group's DMA to the container's user.
    ///
    /// # Errors
    ///
    /// Returns `EPERM` if the group is used by a host driver or another user, or if the container
    /// would hold both groups with and groups without an IOMMU; `EBUSY` if the group is not in its
    /// default domain; `ENOMEM`; other errors of [`Member::claim`]; or the backend's error if the
    /// container already has an address space. On error the group does not join. The log has the
    /// reason for `EPERM`, `EBUSY` and errors of the backend.
    pub(crate) fn attach(&self, group: ARef<IommuGroup>, kind: GroupType) -> Result {
        let mut groups = self.groups.lock();
        let noiommu = kind == GroupType::NoIommu;
        if groups.noiommu().is_some_and(|present| present != noiommu) {
            warn(
                &group,
                "IOMMU groups and no-IOMMU groups cannot share a container; use another container",
            );
            return Err(EPERM);
        }
        let slot = groups.0.slot(GFP_KERNEL_ACCOUNT)?;
        let mut member = Member::claim(group, kind)?;
        if let Some(iommu) = self.iommu() {
            member.attach(&iommu).inspect_err(|&e| {
                if e != EINTR && may_warn() {
                    pr_warn!(
                        "group {}: VFIO_GROUP_SET_CONTAINER failed: attaching the group returned error {}\n",
                        member.group().id(),
                        e.to_errno()
                    );
                }
            })?;
        }
        slot.fill(member);
        Ok(())
    }

    /// Removes `group` if `condition` returns true for the number of groups in the container.
    /// Returns whether the group was removed. Removing the last group also drops the address space.
    pub(crate) fn detach(&self, group: &IommuGroup, condition: impl FnOnce(usize) -> bool) -> bool {
        let mut groups = self.groups.lock();
        let Some(index) = groups.position(group) else {
            return false;
        };
        if !condition(groups.0.len()) {
            return false;
        }
        // A request that finds the address space has begun before the last group leaves it. So it
        // can't be answered by the backend after another one was told that there are no groups.
        let last = (groups.0.len() == 1).then(|| self.iommu.lock().take());
        drop(groups.0.remove(index));
        drop(groups);
        // Dropped without the mutex.
        drop(last);
        true
    }

    fn check_extension(&self, extension: usize) -> Result<isize> {
        if let Some(iommu) = self.iommu() {
            return iommu.ioctl(ioctl::VFIO_CHECK_EXTENSION, extension);
        }
        let noiommu = self.groups.lock().noiommu();
        let mut answer = 0;
        for driver in iommu_driver::all()?.iter() {
            if noiommu.is_some_and(|noiommu| !allowed(driver, noiommu)) {
                continue;
            }
            answer = driver.check_extension(extension);
            if answer > 0 {
                break;
            }
        }
        if answer < 0 {
            return Err(Error::from_errno(answer as i32));
        }
        Ok(answer)
    }

    /// Creates an address space with the first backend that accepts all groups of the container.
    fn set_iommu(&self, extension: usize) -> Result {
        let mut groups = self.groups.lock();
        let (Some(noiommu), None) = (groups.noiommu(), self.iommu()) else {
            return Err(EINVAL);
        };
        let mut result = Err(ENODEV);
        let mut drivers = iommu_driver::all()?;
        while let Some(driver) = drivers.remove(0) {
            if !allowed(&driver, noiommu) || driver.check_extension(extension) <= 0 {
                continue;
            }
            result = driver.open(extension).and_then(|iommu| {
                let iommu = Arc::new(iommu, GFP_KERNEL_ACCOUNT)?;
                groups.attach_all(&iommu)?;
                *self.iommu.lock() = Some(iommu);
                Ok(())
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// Logs why `group` cannot join a container. The message is rate-limited because userspace can
/// trigger it at will.
fn warn(group: &IommuGroup, reason: &str) {
    if may_warn() {
        pr_warn!(
            "group {}: VFIO_GROUP_SET_CONTAINER refused: {}\n",
            group.id(),
            reason
        );
    }
}

/// Returns whether the container may use `driver`: a no-IOMMU container uses only the no-IOMMU
/// backend, and all other containers use only other backends.
#[cfg(CONFIG_VFIO_NOIOMMU)]
fn allowed(driver: &IommuDriverRef, noiommu: bool) -> bool {
    crate::noiommu::is_backend(driver) == noiommu
}

/// Without no-IOMMU support there is no no-IOMMU backend, so all backends are allowed.
#[cfg(not(CONFIG_VFIO_NOIOMMU))]
fn allowed(_driver: &IommuDriverRef, _noiommu: bool) -> bool {
    true
}

/// The file operations of a container.
struct ContainerFile;

static FILES: FileTable<ContainerFile, Misc> = FileTable::misc();

#[vtable]
impl FileOperations for ContainerFile {
    type OwnerModule = crate::LocalModule;
    type Data = Arc<Container>;

    #[inline]
    fn ioctl(
        container: ArcBorrow<'_, Container>,
        _file: &File,
        cmd: u32,
        arg: usize,
    ) -> Result<isize> {
        match cmd {
            ioctl::VFIO_GET_API_VERSION => Ok(bindings::VFIO_API_VERSION as isize),
            ioctl::VFIO_CHECK_EXTENSION => container.check_extension(arg),
            ioctl::VFIO_SET_IOMMU => container.set_iommu(arg).map(|()| 0),
            _ => container.iommu().ok_or(EINVAL)?.ioctl(cmd, arg),
        }
    }
}

impl OpenMisc for ContainerFile {
    fn open() -> Result<Arc<Container>> {
        Container::new(Handle::File)
    }
}

/// The node `/dev/vfio/vfio`, which every user may open. It is not created on a kernel without
/// containers, where IOMMUFD may have created it.
pub(crate) struct ContainerNode {
    _node: Option<Pin<KBox<MiscRegistration>>>,
}

impl ContainerNode {
    /// Creates the node.
    pub(crate) fn new() -> Result<Self> {
        if !cfg!(CONFIG_VFIO_CONTAINER) {
            return Ok(Self { _node: None });
        }
        let options = MiscOptions {
            minor: 196,
            name: c"vfio",
            nodename: c"vfio/vfio",
            mode: 0o666,
        };
        let node = KBox::try_pin_init(MiscRegistration::new(&FILES, options), GFP_KERNEL)?;
        Ok(Self { _node: Some(node) })
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_container)]
mod tests {
    use kernel_ext::iommu::SoftwareGroup;

    use super::*;

    #[test]
    fn group_leaves_if_the_others_agree() -> Result {
        let container = Container::new(Handle::Groups)?;
        let group = |name| SoftwareGroup::new(name).map(ARef::<IommuGroup>::from);
        let (first, second) = (group(c"first")?, group(c"second")?);
        container.attach(first.clone(), GroupType::Emulated)?;
        assert!(!container.detach(&first, |members| members > 1));
        assert!(!container.detach(&second, |_| true));
        container.attach(second.clone(), GroupType::Emulated)?;
        assert_eq!(container.members(), 2);
        assert!(container.detach(&first, |members| members > 1));
        assert!(!container.detach(&second, |members| members > 1));
        assert!(container.detach(&second, |_| true));
        assert_eq!(container.members(), 0);
        Ok(())
    }
}
