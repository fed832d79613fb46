// SPDX-License-Identifier: GPL-2.0

//! Plans of rounds with device files, groups and iommufds.
//!
//! A thread skips the requests of its plan for which it has no open file.
//!
//! The fuzzer sends [`Sequence`]s, which have no rounds and no concurrent requests.

use super::op::{
    ASKS,
    Ask,
    DEVICES,
    Device,
    Door,
    FLAWS,
    File,
    Flaw,
    Given,
    Group,
    IOMMUFDS,
    Op,
    UNKNOWN, //
};
use crate::{
    defects::Rules,
    plan::{
        Plan,
        Thread, //
    },
};
use fastrand::Rng;

/// A source of choices.
pub trait Choose {
    /// Returns a number below `end`, which is not zero.
    fn below(&mut self, end: u32) -> u32;
}

impl Choose for Rng {
    fn below(&mut self, end: u32) -> u32 {
        self.u32(0..end)
    }
}

/// The parameters of a round.
#[derive(Debug)]
struct Chooser<C> {
    choices: C,
    /// The devices that the round uses.
    devices: Vec<Device>,
    /// Those whose file all threads share.
    shared_files: Vec<Device>,
    /// The group whose file all threads share.
    shared_group: Option<Group>,
    /// Whether emulated groups are given the container, and whether they are given iommufds.
    emulated: (bool, bool),
}

/// Creates the plan of a round.
pub fn plan(seed: u64, number: u64, rules: Rules) -> Plan<Op> {
    let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    rng.u64(..);
    let mut devices = match rng.u32(0..10) {
        0..3 => vec![Device::Edu],
        3..6 => vec![Device::First, Device::Second],
        6..8 => vec![Device::Emulated],
        8 => vec![Device::Mediated],
        _ => Vec::new(),
    };
    while devices.len() < 2 && (devices.is_empty() || rng.u32(0..4) == 0) {
        let device = DEVICES[rng.usize(0..DEVICES.len())];
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    let emulated = emulated(rng.bool(), rules);
    let mut chooser = Chooser {
        choices: rng,
        devices,
        shared_files: Vec::new(),
        shared_group: None,
        emulated,
    };
    let prologue = chooser.prologue();
    let threads = chooser.threads();
    let epilogue = chooser.epilogue();
    Plan {
        prologue,
        threads,
        epilogue,
        closes: None,
    }
}

/// Requests of several threads that are sent one after the other.
#[derive(Debug)]
pub struct Sequence<C>(Chooser<C>);

/// The number of threads of a sequence.
pub const THREADS: u8 = 3;

impl<C: Choose> Sequence<C> {
    /// Creates a sequence of requests to all devices.
    pub fn new(mut choices: C, rules: Rules) -> Self {
        let emulated = emulated(choices.below(2) == 0, rules);
        Self(Chooser {
            choices,
            devices: DEVICES.to_vec(),
            shared_files: Vec::new(),
            shared_group: None,
            emulated,
        })
    }

    /// Returns the next request and its thread.
    pub fn request(&mut self) -> (u8, Op) {
        let chooser = &mut self.0;
        let thread = chooser.choices.below(THREADS.into()) as u8;
        let op = match chooser.percent(50) {
            true => chooser.file_op(),
            false => chooser.group_op(),
        };
        (thread, op)
    }

    /// Returns the source of choices.
    pub fn choices(&self) -> &C {
        &self.0.choices
    }
}

/// Returns whether emulated groups are given the container, and whether they are given iommufds.
/// One that leaves its iommufd for a container crashes C.
fn emulated(with_container: bool, rules: Rules) -> (bool, bool) {
    match rules {
        Rules::C => (with_container, !with_container),
        Rules::Strict => (true, true),
    }
}

impl<C: Choose> Chooser<C> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.choices.below(from.len() as u32) as usize]
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.choices.below(100) < chance
    }

    /// Returns one of a range of numbers.
    fn number(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.choices.below((range.end() - range.start() + 1) as u32) as usize
    }

    fn device(&mut self) -> Device {
        let devices = self.devices.clone();
        self.pick(&devices)
    }

    fn iommufd(&mut self) -> u8 {
        self.pick(&[0, 0, 0, 1])
    }

    fn prologue(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for iommufd in 0..IOMMUFDS as u8 {
            if self.percent(40) {
                ops.push(Op::SetCompat(iommufd, Some(0)));
            }
        }
        for device in self.devices.clone() {
            if self.percent(60) {
                self.shared_files.push(device);
                ops.push(Op::OpenFile(device, File::Shared));
            }
        }
        let device = self.device();
        let is_in_group = self.percent(35);
        if is_in_group {
            let group = device.group();
            self.shared_group = Some(group);
            ops.push(Op::OpenGroup(group, File::Shared));
            if self.percent(60) {
                let given = self.given(group);
                ops.push(Op::SetContainer(group, File::Shared, given));
                ops.push(Op::SetIommu);
            }
        } else if self.shared_files.contains(&device) && self.percent(40) {
            ops.push(Op::Bind {
                device,
                file: File::Shared,
                given: Given::Iommufd(0),
                unwritable: false,
                token: false,
            });
            if self.percent(50) {
                ops.push(self.attach(device, File::Shared));
            }
        }
        ops
    }

    fn threads(&mut self) -> Vec<Thread<Op>> {
        let count = self.number(3..=8);
        let most = if count > 6 { 4 } else { 5 };
        let mut threads: Vec<_> = (0..count).map(|nth| self.thread(nth, most)).collect();
        // The descriptors of the second process are closed by one of its threads.
        if let Some(last) = threads.iter_mut().rev().find(|thread| thread.process == 1) {
            last.ops.extend(self.close_shared());
        }
        threads
    }

    fn close_shared(&self) -> Vec<Op> {
        let files = self.shared_files.iter();
        let files = files.map(|device| Op::CloseFile(*device, File::Shared));
        let group = self.shared_group.iter();
        files
            .chain(group.map(|group| Op::CloseGroup(*group, File::Shared)))
            .collect()
    }

    /// Plans a thread, which uses device files or a group, and in the end closes what it opened.
    fn thread(&mut self, nth: usize, most: usize) -> Thread<Op> {
        let device = self.device();
        let is_in_group = match self.shared_group {
            Some(_) => self.percent(75),
            None => self.percent(30),
        };
        let mut ops = Vec::new();
        if is_in_group {
            let group = device.group();
            if self.shared_group != Some(group) {
                ops.push(Op::OpenGroup(group, File::Own));
                let given = self.given(group);
                ops.push(Op::SetContainer(group, File::Own, given));
            }
        } else if !self.shared_files.contains(&device) || self.percent(50) {
            ops.push(Op::OpenFile(device, File::Own));
        }
        for _ in 0..self.number(3..=most) {
            let is_usual = self.percent(85);
            let op = match is_in_group == is_usual {
                true => self.group_op(),
                false => self.file_op(),
            };
            ops.push(op);
        }
        ops.extend(closing(&ops));
        Thread {
            process: u8::from(nth % 3 == 2),
            ops,
        }
    }

    /// Chooses the file of a device.
    fn file(&mut self, device: Device) -> File {
        match self.shared_files.contains(&device) && self.percent(60) {
            true => File::Shared,
            false => File::Own,
        }
    }

    /// Chooses the file of a group.
    fn group_file(&mut self, group: Group) -> File {
        match self.shared_group == Some(group) {
            true => File::Shared,
            false => File::Own,
        }
    }

    /// Chooses the argument of SET_CONTAINER.
    fn given(&mut self, group: Group) -> Given {
        if self.percent(6) {
            return self.pick(&[Given::Null, Given::Closed]);
        }
        let (container, iommufd) = match group.is_emulated() {
            true => self.emulated,
            false => (true, true),
        };
        match container && (!iommufd || self.percent(25)) {
            true => Given::Container,
            false => Given::Iommufd(self.iommufd()),
        }
    }

    /// Chooses how to reach an open device.
    fn door(&mut self, device: Device) -> Door {
        match self.percent(40) {
            true => Door::Group,
            false => Door::File(self.file(device)),
        }
    }

    fn bind(&mut self, device: Device) -> Op {
        let iommufd = Given::Iommufd(self.iommufd());
        let given = match self.percent(90) {
            true => iommufd,
            false => self.pick(&[Given::Container, Given::Null, Given::Closed]),
        };
        Op::Bind {
            device,
            file: self.file(device),
            given,
            unwritable: self.percent(6),
            token: self.percent(4),
        }
    }

    /// Chooses a request with a wrong structure. A longer one is wrong only for BIND_IOMMUFD.
    fn flawed(&mut self, device: Device) -> Op {
        let file = self.file(device);
        match (self.pick(&ASKS), self.pick(&FLAWS)) {
            (ask, Flaw::Tail) if ask != Ask::Bind => Op::Flawed(device, file, ask, Flaw::Short),
            (ask, flaw) => Op::Flawed(device, file, ask, flaw),
        }
    }

    /// Chooses a request to the driver of the emulated device.
    fn ask_driver(&mut self) -> Op {
        let door = self.door(Device::Emulated);
        match self.choices.below(5) {
            0..2 => Op::Read(door),
            2..4 => Op::Pin(door),
            _ => Op::Unpin(door),
        }
    }

    fn attach(&mut self, device: Device, file: File) -> Op {
        Op::Attach {
            device,
            file,
            ioas: self.pick(&[0, 0, 0, 1, 1, 1, UNKNOWN]),
            pasid: self.percent(6),
            unwritable: self.percent(6),
        }
    }

    /// Chooses a request to a device file.
    fn file_op(&mut self) -> Op {
        let device = self.device();
        let file = self.file(device);
        match self.choices.below(100) {
            0..8 => Op::OpenFile(device, File::Own),
            8..36 => self.bind(device),
            36..62 => self.attach(device, file),
            62..72 => Op::Detach {
                device,
                file,
                pasid: self.percent(10),
            },
            72..80 => Op::Info(device, Door::File(file)),
            80..82 => Op::Config(device, Door::File(file)),
            82..85 => self.flawed(device),
            85..92 if self.devices.contains(&Device::Emulated) => self.ask_driver(),
            85..99 => Op::CloseFile(device, file),
            _ => self.set_compat(),
        }
    }

    /// Chooses a request to a group, or to a device that was opened through it.
    fn group_op(&mut self) -> Op {
        let device = self.device();
        let group = device.group();
        let file = self.group_file(group);
        match self.choices.below(100) {
            0..10 => Op::OpenGroup(group, File::Own),
            10..26 => Op::SetContainer(group, file, self.given(group)),
            26..32 => Op::SetIommu,
            32..42 => Op::UnsetContainer(group, file),
            42..66 => Op::GetDevice(device, file),
            66..74 => Op::Status(group, file),
            74..79 if self.devices.contains(&Device::Emulated) => self.ask_driver(),
            74..79 => Op::Info(device, Door::Group),
            79..80 => Op::Config(device, Door::Group),
            80..83 => Op::BindGroupDevice(device),
            83..91 => Op::CloseDevice(device),
            91..97 => Op::CloseGroup(group, file),
            _ => self.set_compat(),
        }
    }

    fn set_compat(&mut self) -> Op {
        Op::SetCompat(self.iommufd(), self.pick(&[None, Some(0), Some(1)]))
    }

    /// Closes what is shared. Then nothing may be in use any more: each device can be bound and
    /// attached, each group be opened, and each IOAS be destroyed.
    fn epilogue(&mut self) -> Vec<Op> {
        let mut ops = self.close_shared();
        for device in self.devices.clone() {
            let file = File::Own;
            ops.extend([
                Op::OpenFile(device, file),
                Op::Bind {
                    device,
                    file,
                    given: Given::Iommufd(1),
                    unwritable: false,
                    token: false,
                },
                Op::Attach {
                    device,
                    file,
                    ioas: 1,
                    pasid: false,
                    unwritable: false,
                },
            ]);
            if device == Device::Emulated {
                ops.push(Op::Read(Door::File(file)));
            }
            ops.push(Op::CloseFile(device, file));
            let group = device.group();
            ops.extend([
                Op::OpenGroup(group, file),
                Op::Status(group, file),
                Op::CloseGroup(group, file),
            ]);
        }
        for iommufd in 0..IOMMUFDS as u8 {
            ops.extend([Op::Destroy(iommufd, 0), Op::Destroy(iommufd, 1)]);
        }
        ops
    }
}

/// Returns the requests that close what a thread may have opened, each once for each open.
fn closing(ops: &[Op]) -> Vec<Op> {
    let mut closes: Vec<Op> = Vec::new();
    for op in ops {
        let close = match *op {
            Op::OpenFile(device, File::Own) => Op::CloseFile(device, File::Own),
            Op::OpenGroup(group, File::Own) => Op::CloseGroup(group, File::Own),
            Op::GetDevice(device, _) => Op::CloseDevice(device),
            _ => continue,
        };
        closes.push(close);
    }
    closes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::MOST;

    #[test]
    fn a_plan_can_be_repeated_and_checked() {
        for number in 0..2000 {
            let one = plan(1, number, Rules::Strict);
            let again = plan(1, number, Rules::Strict);
            assert_eq!(format!("{one:?}"), format!("{again:?}"));
            let all = one.prologue.len() + one.len() + one.epilogue.len();
            assert!(all <= MOST, "{all} requests");
        }
    }

    #[test]
    fn c_is_spared() {
        for number in 0..2000 {
            let plan = plan(2, number, Rules::C);
            let ops = || {
                let threads = plan.threads.iter().flat_map(|thread| &thread.ops);
                plan.prologue.iter().chain(threads)
            };
            for group in [Group::Emulated, Group::Mediated] {
                let is_given = |wanted: fn(&Given) -> bool| {
                    ops().any(
                        |op| matches!(op, Op::SetContainer(of, _, given) if *of == group && wanted(given)),
                    )
                };
                let container = is_given(|given| *given == Given::Container);
                assert!(!(container && is_given(|given| matches!(given, Given::Iommufd(_)))));
            }
        }
    }

    #[test]
    fn every_kind_of_request_is_sent() {
        let mut names = std::collections::BTreeSet::new();
        for number in 0..500 {
            for op in plan(1, number, Rules::Strict)
                .threads
                .iter()
                .flat_map(|t| &t.ops)
            {
                let text = format!("{op:?}");
                names.insert(text.split(['(', ' ']).next().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(names.len(), 21, "{names:?}");
    }
}
