// SPDX-License-Identifier: GPL-2.0

//! A sequential model of device files, groups, a container and iommufds.
//!
//! The behaviour is that of `device_cdev.c`, `group.c`, `iommufd.c` and `vfio_main.c`, and of
//! IOMMUFD, which attaches all devices of a group to one page table.
//!
//! Some requests take several steps on both stacks, because they take several locks in turn, and
//! other requests can see what is between them:
//!
//! * BIND_IOMMUFD first excludes users of the group, then opens the device. If that fails, it lets
//!   the group be opened again.
//! * The close of a bound file first closes the device, then lets the group be opened again.
//! * The last close of a device that was opened through its group first closes the device, then
//!   drops the reference to the group's file, perhaps the last one.
//! * A device without an IOMMU that changes over to another IOAS has none for a moment.
//! * An attach whose id cannot be written is undone.
//!
//! One request takes a further step on the Rust modules only: BIND_IOMMUFD writes the id after it
//! has opened the device, and without a lock. The file gives access when that is done.

use super::op::{
    Ask,
    Device,
    Door,
    File,
    Flaw,
    Given,
    Group,
    IOASES,
    IOMMUFDS,
    Op,
    UNKNOWN,
    mark, //
};
use crate::{
    checker,
    defects::Rules,
    op::{
        Answer,
        Call as CallOf, //
    },
};
use vfio_client::Errno;

/// A request and its sender.
pub type Call = CallOf<Op>;

/// What an open device uses for DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// The container.
    Container,
    /// An iommufd.
    Iommufd(u8),
}

/// An open device file: that which all threads share, or that of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FileId {
    Shared,
    Of(u8),
}

impl FileId {
    fn new(call: &Call, file: File) -> Self {
        match file {
            File::Own => Self::Of(call.thread),
            File::Shared => Self::Shared,
        }
    }
}

/// The state of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct GroupState {
    /// Whether the group has an open file.
    is_open: bool,
    /// The number of descriptors of that file.
    descriptors: u8,
    /// The number of devices that hold a reference to that file.
    holders: u8,
    /// What SET_CONTAINER was given.
    space: Option<Space>,
    /// The number of device files that are bound or being bound.
    binds: u8,
}

/// The state of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct DeviceState {
    /// The number of times it is open.
    opens: u8,
    /// What it was first opened in.
    space: Option<Space>,
    /// Whether it holds a reference to the file of its group.
    holds_group: bool,
    /// The device file by which it is open, and whether that file gives access.
    file: Option<(FileId, bool)>,
    /// The IOAS to which it is attached.
    ioas: Option<u8>,
    /// Whether an attach is between its steps, with the lock of the device set held.
    changes: bool,
    /// The number of descriptors of the shared device file.
    descriptors: u8,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    groups: [GroupState; 4],
    devices: [DeviceState; 5],
    /// Whether the container has a backend.
    has_backend: bool,
    /// The IOAS of each iommufd for groups.
    compat: [Option<u8>; IOMMUFDS],
    /// The number of IOASes that each iommufd ever had.
    ioases: [u8; IOMMUFDS],
}

impl Default for State {
    fn default() -> Self {
        Self {
            groups: Default::default(),
            devices: Default::default(),
            has_backend: false,
            compat: [None; IOMMUFDS],
            ioases: [IOASES; IOMMUFDS],
        }
    }
}

/// The progress of a request that takes several steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Local {
    /// It has done nothing.
    #[default]
    Start,
    /// BIND_IOMMUFD has excluded users of the group.
    Excludes,
    /// BIND_IOMMUFD has opened the device.
    Opened,
    /// BIND_IOMMUFD has failed with this error number, and users of the group are still excluded.
    Refused(i32),
    /// The device of a bound file is closed, and users of the group are still excluded.
    Closed,
    /// The device has no IOAS while it changes over to another one.
    Changes,
    /// The attach has worked, but the id cannot be written.
    Undoes,
    /// The device is closed, and the reference to the group's file is not dropped yet.
    DropsGroup,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rules of the modules.
    pub rules: Rules,
}

/// The result of a step: the request fails or succeeds with this answer, or goes on.
enum Step {
    Ends(Answer),
    GoesOn(Local),
    /// It waits for the lock of the device set.
    Waits,
}

fn ok() -> Step {
    Step::Ends(Ok(Vec::new()))
}

fn fails(errno: Errno) -> Step {
    Step::Ends(Err(errno))
}

/// The device is not opened, and the group has to be released.
fn refused(errno: Errno) -> Step {
    Step::GoesOn(Local::Refused(errno as i32))
}

impl State {
    fn group(&mut self, group: Group) -> &mut GroupState {
        &mut self.groups[group as usize]
    }

    fn device(&mut self, device: Device) -> &mut DeviceState {
        &mut self.devices[device as usize]
    }

    /// Returns whether a device of a group with an IOMMU is bound to another iommufd.
    fn is_owned_elsewhere(&self, device: Device, iommufd: u8) -> bool {
        !device.is_emulated()
            && device.members().any(|member| {
                let space = self.devices[member as usize].space;
                space.is_some_and(|space| space != Space::Iommufd(iommufd))
            })
    }

    /// Releases the file of a group if nothing refers to it any more.
    fn release(&mut self, group: Group) {
        let state = self.group(group);
        if state.is_open && state.descriptors == 0 && state.holders == 0 {
            state.is_open = false;
            self.leave(group);
        }
    }

    /// Removes a group from its container or iommufd.
    fn leave(&mut self, group: Group) {
        self.group(group).space = None;
        let in_container = |group: &GroupState| group.space == Some(Space::Container);
        self.has_backend &= self.groups.iter().any(in_container);
    }

    /// Attaches a device that is not attached, or has an IOMMU.
    fn attach(&mut self, device: Device, ioas: u8) -> Result<(), Errno> {
        let members = || device.members();
        if self.device(device).ioas.is_some() {
            // All devices of the group change over.
            for member in members() {
                let attached = &mut self.device(member).ioas;
                *attached = attached.and(Some(ioas));
            }
            return Ok(());
        }
        let differs = |member: Device| {
            let attached = self.devices[member as usize].ioas;
            attached.is_some_and(|attached| attached != ioas)
        };
        if members().any(differs) {
            return Err(Errno::EINVAL);
        }
        self.device(device).ioas = Some(ioas);
        Ok(())
    }

    /// Closes a device for the last time.
    fn close(&mut self, device: Device) {
        let state = self.device(device);
        *state = DeviceState {
            descriptors: state.descriptors,
            ..DeviceState::default()
        };
    }

    /// Returns whether a file gives access to its device.
    fn has_access(&self, call: &Call, device: Device, file: File) -> bool {
        let id = FileId::new(call, file);
        self.devices[device as usize].file == Some((id, true))
    }
}

impl Model {
    /// Executes the next step of a request.
    fn step(&self, state: &mut State, call: &Call, local: &Local) -> Step {
        match call.op {
            Op::OpenFile(device, file) => {
                if file == File::Shared {
                    state.device(device).descriptors = 2;
                }
                ok()
            }
            Op::CloseFile(device, file) => close_file(state, call, device, file, local),
            Op::Bind {
                device,
                file,
                given,
                unwritable,
                token,
            } => {
                let id = FileId::new(call, file);
                let given = (given, token);
                self.bind(state, device, id, given, unwritable, local)
            }
            Op::Flawed(device, file, ask, flaw) => {
                let has_access = state.has_access(call, device, file);
                match ask {
                    // The structure is looked at before the state.
                    Ask::Bind => fails(bind_flaw(flaw)),
                    _ if !has_access => fails(Errno::EINVAL),
                    _ => fails(attach_flaw(device, flaw)),
                }
            }
            Op::Attach {
                device,
                file,
                ioas,
                pasid,
                unwritable,
            } => match local {
                Local::Undoes => {
                    if state.device(device).changes {
                        return Step::Waits;
                    }
                    state.device(device).ioas = None;
                    fails(Errno::EFAULT)
                }
                _ if !state.has_access(call, device, file) => fails(Errno::EINVAL),
                _ if pasid => fails(no_pasid(device, ioas)),
                _ => attach(state, device, ioas, unwritable, local),
            },
            Op::Detach {
                device,
                file,
                pasid,
            } => {
                if !state.has_access(call, device, file) {
                    return fails(Errno::EINVAL);
                }
                if pasid && device.is_emulated() {
                    return fails(Errno::EOPNOTSUPP);
                }
                if state.device(device).changes {
                    return Step::Waits;
                }
                if !pasid {
                    state.device(device).ioas = None;
                }
                ok()
            }
            Op::Info(device, Door::File(file)) if !state.has_access(call, device, file) => {
                fails(Errno::EINVAL)
            }
            // Its driver has no such request.
            Op::Info(Device::Emulated, _) => fails(Errno::ENOTTY),
            Op::Info(..) => ok(),
            Op::Config(device, Door::File(file)) if !state.has_access(call, device, file) => {
                fails(Errno::EINVAL)
            }
            // Its driver has no such function.
            Op::Config(Device::Emulated, _) => fails(Errno::EINVAL),
            Op::Config(..) => ok(),
            Op::Read(Door::File(file))
            | Op::Pin(Door::File(file))
            | Op::Unpin(Door::File(file))
                if !state.has_access(call, Device::Emulated, file) =>
            {
                fails(Errno::EINVAL)
            }
            Op::Unpin(_) => ok(),
            Op::Read(_) | Op::Pin(_) => use_memory(state, call),
            Op::OpenGroup(group, file) => {
                let state = state.group(group);
                if state.is_open || state.binds > 0 {
                    return fails(Errno::EBUSY);
                }
                state.is_open = true;
                state.descriptors = 1 + u8::from(file == File::Shared);
                ok()
            }
            Op::CloseGroup(group, _) => {
                state.group(group).descriptors -= 1;
                state.release(group);
                ok()
            }
            Op::SetContainer(group, _, given) => set_container(state, group, given),
            Op::UnsetContainer(group, _) => {
                let in_container =
                    |device: Device| state.devices[device as usize].space == Some(Space::Container);
                match state.groups[group as usize].space {
                    None => return fails(Errno::EINVAL),
                    Some(Space::Container) if group.devices().any(in_container) => {
                        return fails(Errno::EBUSY);
                    }
                    Some(_) => state.leave(group),
                }
                ok()
            }
            Op::Status(group, _) => {
                let is_bound = |device: Device| state.devices[device as usize].space.is_some();
                Step::Ends(Ok(vec![if state.groups[group as usize].space.is_some() {
                    3
                } else if !group.is_emulated() && group.devices().any(is_bound) {
                    0
                } else {
                    1
                }]))
            }
            Op::GetDevice(device, _) => match self.get_device(state, device) {
                Ok(()) => ok(),
                Err(errno) => fails(errno),
            },
            Op::BindGroupDevice(_) => fails(Errno::EINVAL),
            Op::CloseDevice(device) => close_device(state, device, local),
            Op::SetIommu => {
                let in_container = |group: &GroupState| group.space == Some(Space::Container);
                if state.has_backend || !state.groups.iter().any(in_container) {
                    return fails(Errno::EINVAL);
                }
                state.has_backend = true;
                ok()
            }
            Op::SetCompat(iommufd, ioas) => {
                state.compat[usize::from(iommufd)] = ioas;
                ok()
            }
            Op::Destroy(iommufd, ioas) => {
                let uses = |device: &DeviceState| {
                    device.space == Some(Space::Iommufd(iommufd)) && device.ioas == Some(ioas)
                };
                if state.devices.iter().any(uses) {
                    return fails(Errno::EBUSY);
                }
                ok()
            }
        }
    }

    fn bind(
        &self,
        state: &mut State,
        device: Device,
        file: FileId,
        given: (Given, bool),
        unwritable: bool,
        local: &Local,
    ) -> Step {
        let group = device.group();
        match local {
            Local::Start if state.group(group).is_open => fails(Errno::EBUSY),
            Local::Start => {
                state.group(group).binds += 1;
                Step::GoesOn(Local::Excludes)
            }
            Local::Excludes if state.device(device).changes => Step::Waits,
            Local::Excludes => {
                if let Err(errno) = open_file(state, device, file, given) {
                    return refused(errno);
                }
                match self.rules {
                    // The lock of the device set is held until the id is written.
                    Rules::C if unwritable => {
                        state.close(device);
                        refused(Errno::EFAULT)
                    }
                    Rules::C => {
                        state.device(device).file = Some((file, true));
                        ok()
                    }
                    Rules::Strict => Step::GoesOn(Local::Opened),
                }
            }
            Local::Opened if unwritable => {
                state.close(device);
                refused(Errno::EFAULT)
            }
            Local::Opened => {
                state.device(device).file = Some((file, true));
                ok()
            }
            Local::Refused(errno) => {
                state.group(group).binds -= 1;
                fails(Errno::from_raw(*errno))
            }
            _ => Step::Waits,
        }
    }

    fn get_device(&self, state: &mut State, device: Device) -> Result<(), Errno> {
        let group = device.group();
        let space = state.groups[group as usize].space.ok_or(Errno::EINVAL)?;
        // An emulated group is not isolated, so all of its devices have to agree.
        let matters = |member: &Device| *member == device || group.is_emulated();
        let differs = |member: Device| {
            let former = state.devices[member as usize].space;
            former.is_some_and(|former| former != space)
        };
        if self.rules == Rules::Strict && device.members().filter(matters).any(differs) {
            return Err(Errno::EBUSY);
        }
        if state.device(device).opens > 0 {
            state.device(device).opens += 1;
            return Ok(());
        }
        let ioas = match space {
            Space::Container if !state.has_backend => return Err(Errno::EINVAL),
            Space::Container => None,
            Space::Iommufd(iommufd) => {
                if state.is_owned_elsewhere(device, iommufd) {
                    return Err(Errno::EPERM);
                }
                let compat = state.compat[usize::from(iommufd)].ok_or(Errno::ENODEV)?;
                state.attach(device, compat)?;
                Some(compat)
            }
        };
        // The C modules hold the group's file only for a container.
        let holds_group = self.rules == Rules::Strict || space == Space::Container;
        let opened = state.device(device);
        opened.opens = 1;
        opened.space = Some(space);
        opened.ioas = ioas;
        opened.holds_group = holds_group;
        state.group(group).holders += u8::from(holds_group);
        Ok(())
    }
}

/// Opens a device by its file, which does not give access yet.
fn open_file(
    state: &mut State,
    device: Device,
    file: FileId,
    (given, token): (Given, bool),
) -> Result<(), Errno> {
    if state.device(device).file == Some((file, true)) {
        return Err(Errno::EINVAL);
    }
    if token {
        // Only vfio-pci knows tokens.
        return Err(match device.is_emulated() {
            true => Errno::EINVAL,
            false => Errno::EFAULT,
        });
    }
    let iommufd = match given {
        Given::Iommufd(iommufd) => iommufd,
        Given::Closed => return Err(Errno::EBADF),
        Given::Container | Given::Null => return Err(Errno::EBADFD),
    };
    if state.device(device).opens > 0 {
        return Err(Errno::EINVAL);
    }
    if state.is_owned_elsewhere(device, iommufd) {
        return Err(Errno::EPERM);
    }
    let opened = state.device(device);
    opened.opens = 1;
    opened.space = Some(Space::Iommufd(iommufd));
    opened.file = Some((file, false));
    Ok(())
}

fn close_file(state: &mut State, call: &Call, device: Device, file: File, local: &Local) -> Step {
    if *local == Local::Closed {
        state.group(device.group()).binds -= 1;
        return ok();
    }
    let closed = state.device(device);
    if file == File::Shared {
        closed.descriptors -= 1;
        if closed.descriptors > 0 {
            return ok();
        }
    }
    if closed.file != Some((FileId::new(call, file), true)) {
        return ok();
    }
    state.close(device);
    Step::GoesOn(Local::Closed)
}

/// Returns the error of an attach of a PASID.
fn no_pasid(device: Device, ioas: u8) -> Errno {
    match (device.is_emulated(), ioas) {
        (true, _) => Errno::EOPNOTSUPP,
        (false, UNKNOWN) => Errno::ENOENT,
        // The page table is not compatible with PASIDs.
        (false, _) => Errno::EINVAL,
    }
}

fn attach(state: &mut State, device: Device, ioas: u8, unwritable: bool, local: &Local) -> Step {
    if *local == Local::Changes {
        let attached = state.device(device);
        attached.ioas = Some(ioas);
        attached.changes = false;
    } else {
        let former = state.device(device).ioas;
        if state.device(device).changes {
            return Step::Waits;
        }
        if ioas == UNKNOWN {
            return fails(Errno::ENOENT);
        }
        if device.is_emulated() && former.is_some_and(|former| former != ioas) {
            let attached = state.device(device);
            attached.ioas = None;
            attached.changes = true;
            return Step::GoesOn(Local::Changes);
        }
        if let Err(errno) = state.attach(device, ioas) {
            return fails(errno);
        }
    }
    match unwritable {
        true => Step::GoesOn(Local::Undoes),
        false => ok(),
    }
}

/// Returns the error of a wrong BIND_IOMMUFD.
fn bind_flaw(flaw: Flaw) -> Errno {
    match flaw {
        Flaw::Unreadable => Errno::EFAULT,
        Flaw::Tail => Errno::E2BIG,
        Flaw::Short | Flaw::Flags | Flaw::Value => Errno::EINVAL,
    }
}

/// Returns the error of a wrong attach or detach of a bound device. They ignore what follows the
/// structure, and an attach or detach of a PASID is sent then.
fn attach_flaw(device: Device, flaw: Flaw) -> Errno {
    match flaw {
        Flaw::Unreadable => Errno::EFAULT,
        Flaw::Short | Flaw::Flags => Errno::EINVAL,
        Flaw::Value if device.is_emulated() => Errno::EOPNOTSUPP,
        Flaw::Value => Errno::EINVAL,
        Flaw::Tail => Errno::EINVAL,
    }
}

/// The driver of [`Device::Emulated`] reads or pins the memory with the mark.
fn use_memory(state: &State, call: &Call) -> Step {
    let device = &state.devices[Device::Emulated as usize];
    match (device.space, device.ioas) {
        (Some(Space::Iommufd(iommufd)), Some(ioas)) if ioas < IOASES => {
            let mark = mark(iommufd, ioas);
            Step::Ends(Ok(vec![if matches!(call.op, Op::Pin(_)) {
                1
            } else {
                mark
            }]))
        }
        // Nothing is mapped in the other IOASes, nor in the container.
        (Some(Space::Iommufd(_)), _) => fails(Errno::ENOENT),
        _ => fails(Errno::EINVAL),
    }
}

fn set_container(state: &mut State, group: Group, given: Given) -> Step {
    if given == Given::Closed {
        return fails(Errno::EBADF);
    }
    if state.group(group).space.is_some() {
        return fails(Errno::EINVAL);
    }
    let space = match given {
        Given::Container => {
            let is_bound = |device: Device| state.devices[device as usize].space.is_some();
            if !group.is_emulated() && group.devices().any(is_bound) {
                return fails(Errno::EPERM);
            }
            Space::Container
        }
        Given::Iommufd(iommufd) => {
            let nth = usize::from(iommufd);
            if state.compat[nth].is_none() {
                state.compat[nth] = Some(state.ioases[nth]);
                state.ioases[nth] += 1;
            }
            Space::Iommufd(iommufd)
        }
        _ => return fails(Errno::EBADFD),
    };
    state.group(group).space = Some(space);
    ok()
}

fn close_device(state: &mut State, device: Device, local: &Local) -> Step {
    let group = device.group();
    if *local == Local::DropsGroup {
        state.group(group).holders -= 1;
        state.release(group);
        return ok();
    }
    let closed = state.device(device);
    if closed.opens > 1 {
        closed.opens -= 1;
        return ok();
    }
    let holds_group = closed.holds_group;
    state.close(device);
    match holds_group {
        true => Step::GoesOn(Local::DropsGroup),
        false => ok(),
    }
}

impl Model {
    /// Executes a request alone. Returns its answer, which is certain then.
    pub fn apply(&self, state: &mut State, call: &Call) -> Answer {
        let mut local = Local::Start;
        loop {
            match self.step(state, call, &local) {
                Step::Ends(answer) => return answer,
                Step::GoesOn(next) => local = next,
                // No other request holds a lock.
                Step::Waits => return Err(Errno::EDEADLK),
            }
        }
    }
}

impl checker::Model for Model {
    type State = State;
    type Call = Call;
    type Answer = Answer;
    type Local = Local;

    fn steps(
        &self,
        state: &State,
        call: &Call,
        local: &Local,
        answer: Option<&Answer>,
    ) -> Vec<(State, Option<Local>)> {
        let mut next = state.clone();
        match self.step(&mut next, call, local) {
            Step::Ends(reached) if answer.is_none_or(|answer| *answer == reached) => {
                vec![(next, None)]
            }
            Step::GoesOn(local) if answer.is_none_or(|answer| leads_to(&local, answer)) => {
                vec![(next, Some(local))]
            }
            _ => Vec::new(),
        }
    }

    fn is_observer(&self, call: &Call, answer: Option<&Answer>) -> bool {
        let fails = answer.is_some_and(Result::is_err);
        match call.op {
            Op::Info(..) | Op::Config(..) | Op::Read(_) | Op::Status(..) => true,
            Op::Pin(_) | Op::Unpin(_) | Op::Flawed(..) | Op::BindGroupDevice(_) => true,
            Op::Bind { .. } => answer == Some(&Err(Errno::EBUSY)),
            // Otherwise the device may be detached.
            Op::Attach { .. } => fails && answer != Some(&Err(Errno::EFAULT)),
            Op::Detach { .. } | Op::OpenGroup(..) | Op::SetContainer(..) => fails,
            Op::UnsetContainer(..) | Op::GetDevice(..) | Op::SetIommu => fails,
            _ => false,
        }
    }
}

/// Returns whether a request that has made progress can have an answer. This shortens the search.
fn leads_to(local: &Local, answer: &Answer) -> bool {
    match local {
        Local::Excludes => *answer != Err(Errno::EBUSY),
        Local::Opened => matches!(answer, Ok(_) | Err(Errno::EFAULT)),
        Local::Refused(errno) => *answer == Err(Errno::from_raw(*errno)),
        Local::Changes => matches!(answer, Ok(_) | Err(Errno::EFAULT)),
        Local::Undoes => *answer == Err(Errno::EFAULT),
        Local::Start | Local::Closed | Local::DropsGroup => answer.is_ok(),
    }
}
