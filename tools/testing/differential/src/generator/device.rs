// SPDX-License-Identifier: GPL-2.0

//! Requests to devices.

use super::Generator;
use crate::{
    machine::{
        DEVICES,
        EDU,
        PIN, //
    },
    model::{
        Model,
        Space, //
    },
    request::{
        Request,
        pin::{
            self,
            Ask, //
        },
        words, //
    },
    step::{
        COPIES,
        File,
        Step, //
    },
};
use vfio_client::request;

const PAGE: u64 = 4096;
/// The offset of a PCI device's configuration space in its file.
const CONFIGURATION: u64 = 7 << 40;

impl Generator<'_> {
    /// Chooses a request to an open device.
    pub(super) fn device_step(&mut self, model: &Model) -> Option<Step> {
        let nth = self.pick(&[EDU, 1, 2, PIN, PIN, PIN, PIN, PIN]);
        let copy = self.choices.usize(0..COPIES);
        if !model.devices[nth][copy] {
            return None;
        }
        let file = File::Device(nth, copy);
        if nth == PIN {
            let request = self.pin_request(model.container_of(nth)?);
            return Some(Step::Send {
                file,
                request,
                bitmap: None,
            });
        }
        if self.percent(10) {
            let offset = CONFIGURATION + self.choices.u64(0..64);
            let len = self.pick(&[1, 2, 4, 8, 64]);
            return Some(Step::Read(file, offset, len));
        }
        Some(Step::Send {
            file,
            request: self.pci_request(nth),
            bitmap: None,
        })
    }

    fn pci_request(&mut self, nth: usize) -> Request {
        let random = self.choices.u32(0..96);
        let argsz = |this: &mut Self, usual| this.mostly(usual, 80, &[0, usual - 1, 64, random]);
        let index = self.choices.u32(0..11);
        match self.choices.u32(0..10) {
            0 => {
                let argsz = argsz(self, 16);
                words("info", request::DEVICE_GET_INFO, argsz, &[0xee; 3], 96)
            }
            1..4 => {
                let argsz = argsz(self, 32);
                let given = [0xee, index, 0xee, 0xee, 0xee, 0xee, 0xee];
                words("region", request::DEVICE_GET_REGION_INFO, argsz, &given, 96)
            }
            4 => {
                let argsz = argsz(self, 16);
                let given = [0xee, index, 0xee];
                words("irq", request::DEVICE_GET_IRQ_INFO, argsz, &given, 16)
            }
            5 | 6 => self.irqs_request(index),
            7 | 8 => self.feature_request(),
            _ if nth == EDU => Request::value("reset", request::DEVICE_RESET, 0),
            _ => Request::value("request", request::UNKNOWN, 0),
        }
    }

    /// Chooses a SET_IRQS request. Most are invalid, and none contains an eventfd.
    fn irqs_request(&mut self, index: u32) -> Request {
        let data = self.pick(&[1, 2, 1 | 2, 0, 4]);
        let action = self.pick(&[8, 16, 32, 32, 8 | 16]);
        let flags = data | action | self.mostly(0, 90, &[64, 1 << 31]);
        let start = self.mostly(0, 70, &[1, 2, u32::MAX]);
        let count = self.mostly(0, 40, &[1, 2, 5, 64, u32::MAX]);
        // The data are descriptors; -1 means none.
        let given = [flags, index, start, count, u32::MAX, u32::MAX];
        let argsz = self.mostly(28, 70, &[0, 19, 20, 21, 24]);
        words("irqs", request::DEVICE_SET_IRQS, argsz, &given, 28)
    }

    fn feature_request(&mut self) -> Request {
        // Excludes the features that put the device to sleep.
        let feature = self.pick(&[0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 100, 0xffff]);
        let flags = self.pick(&[
            1 << 16,
            1 << 17,
            3 << 16,
            4 << 16,
            5 << 16,
            6 << 16,
            7 << 16,
        ]);
        let flags = flags | feature | self.mostly(0, 90, &[1 << 19, 1 << 31]);
        let argsz = self.mostly(64, 70, &[0, 7, 8, 16, 24]);
        let given = [flags, 0, 0, 0, 0, 0, 0];
        words("feature", request::DEVICE_FEATURE, argsz, &given, 64)
    }

    fn pin_request(&mut self, space: &Space) -> Request {
        let dmas = space.twins.dmas();
        let (start, size) = match dmas.is_empty() {
            true => (0x10_0000, 16 * PAGE),
            false => {
                let dma = &dmas[self.choices.usize(0..dmas.len())];
                (dma.iova, dma.size)
            }
        };
        let page = self.choices.u64(0..(size / PAGE).clamp(1, 1024));
        let inside = start.wrapping_add(page * PAGE);
        let iova = self.mostly(inside, 92, &[0, start.wrapping_sub(PAGE), u64::MAX - 4095]);
        let count = self.choices.u32(1..5);
        let count = self.mostly(count, 92, &[0, 16, 64, 512, 513]);
        let prot = self.mostly(3, 50, &[0, 1, 2]);
        match self.choices.u32(0..100) {
            0..40 => pin::ask(Ask::Pin, iova, count, prot, 0, &[]),
            40..55 => pin::ask(Ask::Unpin, iova, count, 0, 0, &[]),
            55..62 => {
                let word = self.choices.u64(..);
                pin::ask(Ask::Poke, iova, 1, 0, word, &[])
            }
            62..92 => self.transfer_request(iova),
            92..96 => pin::count(Ask::Pinned),
            _ => pin::count(Ask::Unmaps),
        }
    }

    /// Chooses a read or write by the driver, with any alignment, possibly across the ends of
    /// mappings.
    fn transfer_request(&mut self, iova: u64) -> Request {
        let iova = iova.wrapping_add(self.choices.u64(0..PAGE));
        let short = self.choices.usize(0..64);
        let len = self.mostly(short, 80, &[4096, 5000, 8192, 20_000]);
        if self.percent(50) {
            let byte = self.choices.u8(..);
            return pin::ask(Ask::Write, iova, len as u32, 0, 0, &vec![byte; len]);
        }
        pin::ask(Ask::Read, iova, len as u32, 0, 0, &vec![0xa5; len])
    }
}

/// The device without an IOMMU is the last one; the others are PCI devices.
const _: () = assert!(PIN == DEVICES.len() - 1);
