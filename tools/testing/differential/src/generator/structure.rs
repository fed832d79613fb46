// SPDX-License-Identifier: GPL-2.0

//! Opening and closing of containers, groups and devices, and changes of the memory.

use super::Generator;
use crate::{
    machine::{
        DEVICES,
        DISK,
        EDU,
        PIN,
        SHARED, //
    },
    memory::{
        Change,
        PIECES, //
    },
    model::Model,
    request::{
        Request,
        words, //
    },
    step::{
        CONTAINERS,
        COPIES,
        File,
        Step, //
    },
};
use vfio_client::{
    Advice,
    Filling,
    request, //
};

impl Generator<'_> {
    /// Opens, closes or connects files.
    pub(super) fn structure_step(&mut self, model: &Model) -> Option<Step> {
        let slot = self.choices.usize(0..CONTAINERS);
        let group = self.choices.usize(0..DEVICES.len());
        let copy = self.choices.usize(0..COPIES);
        if model.container(slot).is_none() {
            return Some(Step::Open(File::Container(slot)));
        }
        match self.choices.u32(0..100) {
            0..40 => self.join_step(model, slot),
            40..70 => self.device_open_step(model, group, copy),
            70..82 => model.devices[group][copy].then_some(Step::Close(File::Device(group, copy))),
            82..90 => model.group_open(group).then_some(Step::Send {
                file: File::Group(group),
                request: Request::value("unset", request::GROUP_UNSET_CONTAINER, 0),
                bitmap: None,
            }),
            90..94 => model
                .group_open(group)
                .then_some(Step::Close(File::Group(group))),
            94..97 => Some(Step::Close(File::Container(slot))),
            _ => self.percent(20).then_some(Step::Open(File::Group(group))),
        }
    }

    /// Makes a group join a container, or opens the group.
    pub(super) fn join_step(&mut self, model: &Model, slot: usize) -> Option<Step> {
        let shared = self.choices.u32(0..200) == 0;
        let group = if shared {
            SHARED
        } else {
            self.pick(&[EDU, DISK, PIN])
        };
        if !model.group_open(group) {
            // Open devices keep the group open.
            let free = !model.device_open(group) || self.percent(5);
            return free.then_some(Step::Open(File::Group(group)));
        }
        if model.group_joined(group) && self.percent(98) {
            return None;
        }
        // When a group joins, the Rust module rejects pinning memory that another process mapped:
        // see limits.rst.
        let space = model.container(slot)?;
        let foreign = space.twins.dmas().iter().any(|dma| dma.owner != 0);
        if foreign && group != PIN && !space.has_physical() {
            return None;
        }
        let device = self.choices.usize(0..DEVICES.len());
        let mut others = vec![None, Some(File::Null), Some(File::Group(group))];
        if model.devices[device][0] {
            others.push(Some(File::Device(device, 0)));
        }
        let file = self.mostly(Some(File::Container(slot)), 95, &others);
        Some(Step::Join(group, file))
    }

    fn device_open_step(&mut self, model: &Model, group: usize, copy: usize) -> Option<Step> {
        if !model.group_open(group) || model.devices[group][copy] {
            return None;
        }
        if !model.group_joined(group) && self.percent(80) {
            return None;
        }
        let name = match self.choices.u32(0..20) {
            0 => "".to_owned(),
            1 => "x".repeat(5000),
            2 => DEVICES[(group + 1) % DEVICES.len()].to_owned(),
            3 => format!("{} vf_token=1", DEVICES[group]),
            _ => DEVICES[group].to_owned(),
        };
        Some(Step::OpenDevice { group, copy, name })
    }

    /// Chooses a request to a group.
    pub(super) fn group_step(&mut self, model: &Model) -> Option<Step> {
        let group = self.choices.usize(0..DEVICES.len());
        if !model.group_open(group) {
            return None;
        }
        let file = File::Group(group);
        let request = match self.choices.u32(0..10) {
            0..5 => {
                let argsz = self.mostly(8, 70, &[0, 7, 9, 16, u32::MAX]);
                let len = self.mostly(8, 85, &[0, 4, 16]);
                words("status", request::GROUP_GET_STATUS, argsz, &[0xee], len)
            }
            5 => return Some(Step::Read(file, 0, 8)),
            6 => Request::value("name", request::GROUP_GET_DEVICE_FD, 0x1000),
            _ => {
                let nr = request::number(self.choices.u32(0..24));
                let address = self.pick(&[0, 0x1000, 0xffff_8000_0000_0000]);
                // These requests need no structure.
                if matches!(
                    nr,
                    request::GROUP_UNSET_CONTAINER | request::CHECK_EXTENSION | request::SET_IOMMU
                ) {
                    return None;
                }
                Request::value(&format!("request({nr:#x})"), nr, address)
            }
        };
        Some(Step::Send {
            file,
            request,
            bitmap: None,
        })
    }

    /// Changes a piece of the memory, whether it is mapped for devices or not.
    pub(super) fn memory_step(&mut self) -> Step {
        let piece = self.choices.u64(0..PIECES);
        let first = self.choices.u64(0..512);
        let count = self.choices.u64(1..=512 - first);
        let change = match self.choices.u32(0..100) {
            0..25 => Change::Fill(self.pick(&[
                Filling::Private,
                Filling::Private,
                Filling::Shared,
                Filling::Huge,
                Filling::Nothing,
            ])),
            25..33 => Change::File,
            33..42 => Change::Registers,
            42..65 => {
                let (readable, writable) =
                    self.pick(&[(true, true), (true, true), (true, false), (false, false)]);
                Change::Protect(first, count, readable, writable)
            }
            _ => {
                let advice =
                    self.pick(&[Advice::Discard, Advice::Huge, Advice::Read, Advice::Write]);
                Change::Advise(first, count, advice)
            }
        };
        Step::Memory(piece, change)
    }
}
