// SPDX-License-Identifier: GPL-2.0

//! Containers: address spaces that userspace makes by opening `/dev/vfio/vfio`.
//!
//! A container is without privilege until a group joins it; with the last group it loses its
//! address space again. Its file, the files of its groups and those of their devices may be closed
//! in any order: each holds what it needs.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::{
        File,
        LocalFile, //
    },
    ioctl::_IO,
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
    file_ops::{
        FileOperations,
        FileTable,
        Misc,
        OpenMisc, //
    },
    iommu::{
        DmaOwner,
        Group as IommuGroup, //
    },
    iommu_driver::GroupKind,
    misc::{
        MiscOptions,
        MiscRegistration, //
    },
    mm::may_warn, //
};

use crate::{
    abi::iommu_driver::{
        Driver,
        Iommu,
        CHECK_EXTENSION, //
    },
    backend, //
};

const TYPE: u32 = b';' as u32;
/// `VFIO_GET_API_VERSION`
const GET_API_VERSION: u32 = _IO(TYPE, 100);
/// `VFIO_SET_IOMMU`
const SET_IOMMU: u32 = _IO(TYPE, 102);
/// `VFIO_API_VERSION`
const API_VERSION: isize = 0;

/// What leads a program to a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handle {
    /// The file that made it. A program that has the file of a group in it can't reach it by that.
    File,
    /// The files of its groups: it was made for the first one.
    Groups,
}

/// A container.
#[pin_data]
pub(crate) struct Container {
    handle: Handle,
    /// Who is in it. Held while groups come and go, which may take long.
    #[pin]
    state: Mutex<State>,
    /// Its address space; changed only with `state` held, so a holder of `state` may rely on it.
    /// A reference taken from here keeps the address space through a call, whoever leaves meanwhile.
    #[pin]
    iommu: SpinLock<Option<Arc<Iommu>>>,
}

struct State {
    members: KVec<Member>,
}

/// A group in a container. Dropping it gives the group's DMA back to the kernel.
struct Member {
    group: ARef<IommuGroup>,
    kind: GroupKind,
    _owner: Option<DmaOwner>,
}

impl State {
    fn position(&self, group: &IommuGroup) -> Option<usize> {
        let same = |member: &Member| core::ptr::eq(&*member.group, group);
        self.members.iter().position(same)
    }

    /// Whether members without an IOMMU are in the container; they don't mix with others.
    fn noiommu(&self) -> Option<bool> {
        let member = self.members.first()?;
        Some(member.kind == GroupKind::NoIommu)
    }

    /// Puts all members behind `iommu`, or none.
    fn attach_all(&self, iommu: &Iommu) -> Result {
        for (i, member) in self.members.iter().enumerate() {
            iommu
                .attach(&member.group, member.kind)
                .inspect_err(|_| self.detach_first(i, iommu))?;
        }
        Ok(())
    }

    fn detach_first(&self, count: usize, iommu: &Iommu) {
        for member in self.members.iter().take(count).rev() {
            iommu.detach(&member.group);
        }
    }
}

impl Container {
    /// A container without groups.
    pub(crate) fn new(handle: Handle) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                handle,
                state <- new_mutex!(State { members: KVec::new() }, "vfio_container::state"),
                iommu <- new_spinlock!(None, "vfio_container::iommu"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The container of `file`, if it is one.
    pub(crate) fn from_file(file: &LocalFile) -> Option<ArcBorrow<'_, Self>> {
        FILES.data(file)
    }

    /// A file for a container that was made without one.
    pub(crate) fn open_file(container: Arc<Self>) -> Result<ARef<File>> {
        anon_file::open(&FILES, c"[vfio-container]", container)
    }

    /// Whether the files of its groups lead to it.
    pub(crate) fn is_reached_by_groups(&self) -> bool {
        self.handle == Handle::Groups
    }

    /// How many groups are in it.
    pub(crate) fn members(&self) -> usize {
        self.state.lock().members.len()
    }

    /// Gives the container an address space of the kind `extension`, unless it has one.
    pub(crate) fn ensure_iommu(&self, extension: usize) -> Result {
        match self.set_iommu(extension) {
            Err(e) if e == EINVAL && self.iommu().is_some() => Ok(()),
            result => result,
        }
    }

    /// The address space that the container has now.
    pub(crate) fn iommu(&self) -> Option<Arc<Iommu>> {
        self.iommu.lock().clone()
    }

    /// Lets `group` in, which gives its DMA to the container's user.
    ///
    /// # Errors
    ///
    /// `EPERM` if the group is in use by a host driver or by somebody else, or if groups with and
    /// without IOMMU would mix; `EBUSY` if it is in a foreign domain; what the backend says if the
    /// container has an address space already. The group is then where it was. The log has the
    /// reason.
    pub(crate) fn attach(&self, group: ARef<IommuGroup>, kind: GroupKind) -> Result {
        let mut state = self.state.lock();
        let noiommu = kind == GroupKind::NoIommu;
        if state.noiommu().is_some_and(|present| present != noiommu) {
            warn(
                &group,
                "groups with and without an IOMMU don't mix; take another container",
            );
            return Err(EPERM);
        }
        state.members.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let owner = match kind {
            GroupKind::Iommu => {
                let claimed = DmaOwner::claim(group.clone());
                Some(claimed.inspect_err(|&e| iommu_group::explain_refusal(&group, e))?)
            }
            _ => None,
        };
        let member = Member {
            group: group.clone(),
            kind,
            _owner: owner,
        };
        state.members.push(member, GFP_KERNEL_ACCOUNT)?;
        match self.iommu() {
            Some(iommu) => iommu.attach(&group, kind).inspect_err(|_| {
                warn(
                    &group,
                    "its devices don't fit to what the container has; take another container",
                );
                state.members.pop();
            }),
            None => Ok(()),
        }
    }

    /// Lets `group` out if `agrees` says so, given the number of groups in the container. Returns
    /// whether it did. The last group takes the address space with it.
    pub(crate) fn detach(&self, group: &IommuGroup, agrees: impl FnOnce(usize) -> bool) -> bool {
        let mut state = self.state.lock();
        let Some(index) = state.position(group) else {
            return false;
        };
        if !agrees(state.members.len()) {
            return false;
        }
        let iommu = self.iommu();
        if let Some(iommu) = &iommu {
            iommu.detach(group);
        }
        drop(state.members.remove(index));
        if state.members.is_empty() {
            let last = self.iommu.lock().take();
            drop(state);
            drop(last);
        }
        true
    }

    fn check_extension(&self, extension: usize) -> Result<isize> {
        if let Some(iommu) = self.iommu() {
            return iommu.ioctl(CHECK_EXTENSION, extension);
        }
        let noiommu = self.state.lock().noiommu();
        let mut answer = 0;
        for driver in backend::all()? {
            if noiommu.is_some_and(|noiommu| !allowed(&driver, noiommu)) {
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

    /// Gives the container an address space of the first backend that takes all its groups.
    fn set_iommu(&self, extension: usize) -> Result {
        let state = self.state.lock();
        let (Some(noiommu), None) = (state.noiommu(), self.iommu()) else {
            return Err(EINVAL);
        };
        let mut result = Err(ENODEV);
        for driver in backend::all()? {
            if !allowed(&driver, noiommu) || driver.check_extension(extension) <= 0 {
                continue;
            }
            result = driver.open(extension).and_then(|iommu| {
                let iommu = Arc::new(iommu, GFP_KERNEL_ACCOUNT)?;
                state.attach_all(&iommu)?;
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

/// Says in the log why `group` can't enter a container. A program can cause that at will.
fn warn(group: &IommuGroup, reason: &str) {
    if may_warn() {
        pr_warn!(
            "group {}: VFIO_GROUP_SET_CONTAINER refused: {}\n",
            group.id(),
            reason
        );
    }
}

/// Containers without IOMMU take the backend that does nothing, and no other container does.
#[cfg(CONFIG_VFIO_NOIOMMU)]
fn allowed(driver: &Driver, noiommu: bool) -> bool {
    crate::noiommu::is_backend(driver) == noiommu
}

/// There is no backend that does nothing.
#[cfg(not(CONFIG_VFIO_NOIOMMU))]
fn allowed(_driver: &Driver, _noiommu: bool) -> bool {
    true
}

/// The file of a container.
struct ContainerFile;

static FILES: FileTable<ContainerFile, Misc> = FileTable::misc();

#[vtable]
impl FileOperations for ContainerFile {
    type Data = Arc<Container>;

    fn ioctl(
        container: ArcBorrow<'_, Container>,
        _file: &File,
        cmd: u32,
        arg: usize,
    ) -> Result<isize> {
        match cmd {
            GET_API_VERSION => Ok(API_VERSION),
            CHECK_EXTENSION => container.check_extension(arg),
            SET_IOMMU => container.set_iommu(arg).map(|()| 0),
            _ => container.iommu().ok_or(EINVAL)?.ioctl(cmd, arg),
        }
    }
}

impl OpenMisc for ContainerFile {
    fn open() -> Result<Arc<Container>> {
        Container::new(Handle::File)
    }
}

/// Registers `/dev/vfio/vfio`, which anybody may open.
pub(crate) fn register() -> impl PinInit<MiscRegistration, Error> {
    MiscRegistration::new(
        &FILES,
        MiscOptions {
            minor: 196,
            name: c"vfio",
            nodename: c"vfio/vfio",
            mode: 0o666,
        },
    )
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_container)]
mod tests {
    use super::*;

    #[test]
    fn group_leaves_if_the_others_agree() -> Result {
        let container = Container::new(Handle::Groups)?;
        let (first, second) = (IommuGroup::alloc()?, IommuGroup::alloc()?);
        container.attach(first.clone(), GroupKind::Emulated)?;
        assert!(!container.detach(&first, |members| members > 1));
        assert!(!container.detach(&second, |_| true));
        container.attach(second.clone(), GroupKind::Emulated)?;
        assert_eq!(container.members(), 2);
        assert!(container.detach(&first, |members| members > 1));
        assert!(!container.detach(&second, |members| members > 1));
        assert!(container.detach(&second, |_| true));
        assert_eq!(container.members(), 0);
        Ok(())
    }
}
