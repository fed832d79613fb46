// SPDX-License-Identifier: GPL-2.0

//! Handwritten histories: which of them device files, groups and iommufds can explain.

#![allow(missing_docs, reason = "a test")]

use linear::{
    checker::{
        Verdict,
        check, //
    },
    defects::Rules,
    device_files::{
        model::{
            Model,
            State, //
        },
        op::{
            Device,
            Door,
            File,
            Given,
            Group,
            Op,
            UNKNOWN,
            mark, //
        },
    },
    history::Entry,
    op::{
        Answer,
        Call, //
    },
    shrink::shrink,
};
use vfio_client::Errno;

/// A history under construction.
#[derive(Clone, Default)]
struct History {
    entries: Vec<Entry<Call<Op>, Answer>>,
    time: u64,
}

/// A request of a thread, and its answer.
type Sent = (u8, Op, Answer);

impl History {
    /// Appends requests, one after the other.
    fn then(mut self, requests: &[Sent]) -> Self {
        for request in requests {
            self = self.at_once(std::slice::from_ref(request));
        }
        self
    }

    /// Appends concurrent requests after all others.
    fn at_once(mut self, requests: &[Sent]) -> Self {
        let end = self.time + 2 * requests.len() as u64;
        for (nth, (thread, op, answer)) in (0..).zip(requests) {
            let call = Call {
                process: thread % 2,
                thread: *thread,
                op: *op,
            };
            let entry = Entry::new(call, self.time + nth, end - nth, answer.clone());
            self.entries.push(entry);
        }
        self.time = end + 1;
        self
    }

    fn verdict(&self, rules: Rules) -> Verdict {
        check(&Model { rules }, &State::default(), &self.entries, 100_000)
    }

    #[track_caller]
    fn is_fine(&self, rules: Rules) {
        let verdict = self.verdict(rules);
        assert!(matches!(verdict, Verdict::Linearizable(_)), "{verdict:?}");
    }

    #[track_caller]
    fn is_wrong(&self, rules: Rules) {
        assert!(self.verdict(rules).is_violation());
    }

    #[track_caller]
    fn is_fine_on_both(&self) {
        self.is_fine(Rules::Strict);
        self.is_fine(Rules::C);
    }

    #[track_caller]
    fn is_wrong_on_both(&self) {
        self.is_wrong(Rules::Strict);
        self.is_wrong(Rules::C);
    }
}

fn ok(thread: u8, op: Op) -> Sent {
    (thread, op, Ok(Vec::new()))
}

fn fails(thread: u8, op: Op, errno: Errno) -> Sent {
    (thread, op, Err(errno))
}

fn open(device: Device) -> Op {
    Op::OpenFile(device, File::Own)
}

fn close(device: Device) -> Op {
    Op::CloseFile(device, File::Own)
}

fn bind(device: Device, iommufd: u8) -> Op {
    Op::Bind {
        device,
        file: File::Own,
        given: Given::Iommufd(iommufd),
        unwritable: false,
        token: false,
    }
}

fn attach(device: Device, ioas: u8) -> Op {
    Op::Attach {
        device,
        file: File::Own,
        ioas,
        pasid: false,
        unwritable: false,
    }
}

fn detach(device: Device) -> Op {
    Op::Detach {
        device,
        file: File::Own,
        pasid: false,
    }
}

fn info(device: Device) -> Op {
    Op::Info(device, Door::File(File::Own))
}

fn read() -> Op {
    Op::Read(Door::File(File::Own))
}

fn open_group(group: Group) -> Op {
    Op::OpenGroup(group, File::Own)
}

fn close_group(group: Group) -> Op {
    Op::CloseGroup(group, File::Own)
}

fn join(group: Group, iommufd: u8) -> Op {
    Op::SetContainer(group, File::Own, Given::Iommufd(iommufd))
}

fn get_device(device: Device) -> Op {
    Op::GetDevice(device, File::Own)
}

/// Threads 0 and 1 with the file of a device, which the first one has bound to iommufd 0.
fn bound(device: Device) -> History {
    History::default().then(&[
        ok(0, open(device)),
        ok(1, open(device)),
        ok(0, bind(device, 0)),
    ])
}

/// Thread 0 with a device that was opened through its group, which is in iommufd 0.
fn in_group(device: Device) -> History {
    History::default().then(&[
        ok(0, open_group(device.group())),
        ok(0, join(device.group(), 0)),
        ok(0, get_device(device)),
    ])
}

const EDU: Device = Device::Edu;

#[test]
fn one_of_two_binds_works() {
    let both = History::default().then(&[ok(0, open(EDU)), ok(1, open(EDU))]);
    let once = [ok(0, bind(EDU, 0)), fails(1, bind(EDU, 1), Errno::EINVAL)];
    both.clone().at_once(&once).is_fine_on_both();
    let twice = [ok(0, bind(EDU, 0)), ok(1, bind(EDU, 1))];
    both.clone().at_once(&twice).is_wrong_on_both();
    let never = [
        fails(0, bind(EDU, 0), Errno::EINVAL),
        fails(1, bind(EDU, 1), Errno::EINVAL),
    ];
    both.at_once(&never).is_wrong_on_both();
}

#[test]
fn only_the_bound_file_gives_access() {
    bound(EDU).then(&[ok(0, info(EDU))]).is_fine_on_both();
    let refused = fails(1, info(EDU), Errno::EINVAL);
    bound(EDU).then(&[refused]).is_fine_on_both();
    bound(EDU).then(&[ok(1, info(EDU))]).is_wrong_on_both();
    let lost = fails(0, info(EDU), Errno::EINVAL);
    bound(EDU).then(&[lost]).is_wrong_on_both();
}

#[test]
fn group_and_device_file_exclude_each_other() {
    let busy = |thread, op| fails(thread, op, Errno::EBUSY);
    let group = open_group(Group::Edu);
    bound(EDU).then(&[busy(1, group)]).is_fine_on_both();
    bound(EDU).then(&[ok(1, group)]).is_wrong_on_both();
    let closed = bound(EDU).then(&[ok(0, close(EDU))]);
    closed.clone().then(&[ok(1, group)]).is_fine_on_both();
    closed.then(&[busy(1, group)]).is_wrong_on_both();
    let open = History::default().then(&[ok(0, open(EDU)), ok(1, group)]);
    open.clone()
        .then(&[busy(0, bind(EDU, 0))])
        .is_fine_on_both();
    open.then(&[ok(0, bind(EDU, 0))]).is_wrong_on_both();
}

#[test]
fn a_bind_that_fails_excludes_the_group_meanwhile() {
    let bad = Op::Bind {
        device: EDU,
        file: File::Own,
        given: Given::Closed,
        unwritable: false,
        token: false,
    };
    let busy = fails(1, open_group(Group::Edu), Errno::EBUSY);
    let history = History::default().then(&[ok(0, open(EDU))]);
    history
        .clone()
        .at_once(&[fails(0, bad, Errno::EBADF), busy.clone()])
        .is_fine_on_both();
    history
        .then(&[fails(0, bad, Errno::EBADF), busy])
        .is_wrong_on_both();
}

#[test]
fn a_file_gives_access_after_its_id_was_written() {
    // While thread 0 binds its file, thread 1 sees that the device is open, and that the shared
    // file does not give access yet.
    let shared = |op: fn(File) -> Op| op(File::Shared);
    let open_both = History::default().then(&[
        ok(0, shared(|file| Op::OpenFile(EDU, file))),
        ok(1, open(EDU)),
    ]);
    let bind_shared = shared(|file| Op::Bind {
        device: EDU,
        file,
        given: Given::Iommufd(0),
        unwritable: false,
        token: false,
    });
    let mut history = open_both;
    let start = history.time;
    history = history.then(&[
        fails(1, bind(EDU, 0), Errno::EINVAL),
        fails(
            1,
            shared(|file| Op::Info(EDU, Door::File(file))),
            Errno::EINVAL,
        ),
    ]);
    let call = Call {
        process: 0,
        thread: 0,
        op: bind_shared,
    };
    let end = history.time;
    history
        .entries
        .push(Entry::new(call, start, end, Ok(vec![])));
    history.is_fine(Rules::Strict);
    history.is_wrong(Rules::C);
}

#[test]
fn devices_of_a_group_share_iommufd_and_ioas() {
    let (first, second) = (Device::First, Device::Second);
    let bound = bound(first).then(&[ok(2, open(second))]);
    let elsewhere = fails(2, bind(second, 1), Errno::EPERM);
    bound.clone().then(&[elsewhere]).is_fine_on_both();
    bound
        .clone()
        .then(&[ok(2, bind(second, 1))])
        .is_wrong_on_both();
    let attached = bound.then(&[ok(2, bind(second, 0)), ok(0, attach(first, 0))]);
    let other = fails(2, attach(second, 1), Errno::EINVAL);
    attached
        .clone()
        .then(&[other.clone(), ok(2, attach(second, 0))])
        .is_fine_on_both();
    attached
        .clone()
        .then(&[ok(2, attach(second, 1))])
        .is_wrong_on_both();
    // Both change over together, so the second one cannot be attached to the former IOAS.
    let over = attached.then(&[ok(2, attach(second, 0)), ok(0, attach(first, 1))]);
    let again = [ok(2, detach(second)), ok(2, attach(second, 1))];
    over.clone().then(&again).is_fine_on_both();
    let former = [ok(2, detach(second)), ok(2, attach(second, 0))];
    over.then(&former).is_wrong_on_both();
}

#[test]
fn an_emulated_device_reads_the_ioas_to_which_it_is_attached() {
    let device = Device::Emulated;
    let marked = |ioas| (0, read(), Ok(vec![mark(0, ioas)]));
    let none = fails(0, read(), Errno::ENOENT);
    let attached = bound(device).then(&[none.clone(), ok(0, attach(device, 0))]);
    attached
        .clone()
        .then(&[marked(0), ok(0, attach(device, 1)), marked(1)])
        .is_fine_on_both();
    attached
        .clone()
        .then(&[ok(0, attach(device, 1)), marked(0)])
        .is_wrong_on_both();
    attached
        .clone()
        .then(&[ok(0, detach(device)), marked(0)])
        .is_wrong_on_both();
    let unknown = fails(0, attach(device, UNKNOWN), Errno::ENOENT);
    attached
        .clone()
        .then(&[unknown, marked(0)])
        .is_fine_on_both();
    // It has no IOAS for a moment while it changes over.
    attached
        .clone()
        .at_once(&[ok(0, attach(device, 1)), none.clone()])
        .is_fine_on_both();
    attached
        .at_once(&[ok(0, attach(device, 0)), none])
        .is_wrong_on_both();
}

#[test]
fn an_open_device_keeps_its_group_open_but_in_c() {
    let closed = in_group(EDU).then(&[ok(0, close_group(Group::Edu))]);
    let again = closed.clone().then(&[ok(1, open_group(Group::Edu))]);
    again.is_wrong(Rules::Strict);
    again.is_fine(Rules::C);
    let busy = closed
        .clone()
        .then(&[fails(1, open_group(Group::Edu), Errno::EBUSY)]);
    busy.is_fine(Rules::Strict);
    busy.is_wrong(Rules::C);
    let after = closed.then(&[ok(0, Op::CloseDevice(EDU)), ok(1, open_group(Group::Edu))]);
    after.is_fine_on_both();
}

#[test]
fn a_device_is_not_opened_in_two_iommufds_but_in_c() {
    let group = Group::Edu;
    let moved = in_group(EDU).then(&[
        ok(0, Op::UnsetContainer(group, File::Own)),
        ok(0, join(group, 1)),
    ]);
    let again = moved.clone().then(&[ok(0, get_device(EDU))]);
    again.is_wrong(Rules::Strict);
    again.is_fine(Rules::C);
    let busy = moved.then(&[fails(0, get_device(EDU), Errno::EBUSY)]);
    busy.is_fine(Rules::Strict);
    busy.is_wrong(Rules::C);
}

#[test]
fn an_attach_whose_id_is_not_written_is_undone() {
    let device = Device::Emulated;
    let bad = Op::Attach {
        device,
        file: File::Own,
        ioas: 1,
        pasid: false,
        unwritable: true,
    };
    let history = bound(device).then(&[ok(0, attach(device, 0)), fails(0, bad, Errno::EFAULT)]);
    let marked = |ioas| (0, read(), Ok(vec![mark(0, ioas)]));
    let none = fails(0, read(), Errno::ENOENT);
    history.clone().then(&[none]).is_fine_on_both();
    history.clone().then(&[marked(0)]).is_wrong_on_both();
    history.then(&[marked(1)]).is_wrong_on_both();
}

#[test]
fn what_is_left_of_a_history_is_short() {
    let mut history = History::default().then(&[ok(0, open(EDU)), ok(1, open(EDU))]);
    for _ in 0..10 {
        history = history.then(&[
            fails(0, info(EDU), Errno::EINVAL),
            fails(1, info(EDU), Errno::EINVAL),
        ]);
    }
    history = history.at_once(&[ok(0, bind(EDU, 0)), ok(1, bind(EDU, 1))]);
    history.is_wrong_on_both();
    let model = Model {
        rules: Rules::Strict,
    };
    let core = shrink(&model, &State::default(), &history.entries);
    assert_eq!(core.needed.len(), 2);
    assert!(core.others.len() <= 2, "{:?}", core.others);
}

/// The checker fails if the model of one stack judges the other one's answers.
#[test]
fn the_models_differ() {
    let closed = in_group(EDU).then(&[ok(0, close_group(Group::Edu))]);
    for answer in [Ok(Vec::new()), Err(Errno::EBUSY)] {
        let history = closed.clone().then(&[(1, open_group(Group::Edu), answer)]);
        let fine = [Rules::Strict, Rules::C]
            .into_iter()
            .filter(|rules| matches!(history.verdict(*rules), Verdict::Linearizable(_)));
        assert_eq!(fine.count(), 1);
    }
}
