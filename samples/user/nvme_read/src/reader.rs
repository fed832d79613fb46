// SPDX-License-Identifier: GPL-2.0

//! Reads a whole disk with several commands in flight.

use crate::{
    command::Command,
    controller::{
        Controller,
        NAMESPACE, //
    },
    prp::{
        PAGE_SIZE,
        Prp, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use sha2::{
    Digest,
    Sha256, //
};
use std::time::{
    Duration,
    Instant, //
};
use vfio_client::DmaBuffer;

/// Timeout of a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// The result of a read.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The checksum of the whole disk, in hexadecimal.
    pub sha256: String,
    /// The number of bytes read.
    pub bytes: u64,
    /// The number of bytes per command.
    pub block_size: usize,
    /// The number of commands in flight.
    pub depth: usize,
    /// The number of commands.
    pub commands: u64,
    /// The number of interrupts.
    pub interrupts: u64,
    /// The elapsed time.
    pub time: Duration,
}

/// Buffers of one command in flight.
struct Slot<'s> {
    data: DmaBuffer<'s>,
    list: DmaBuffer<'s>,
    /// The number of bytes that the command reads.
    len: usize,
    done: bool,
}

/// A sequential read of the whole disk.
struct Reader<'c, 's> {
    controller: &'c mut Controller<'s>,
    slots: Vec<Slot<'s>>,
    block_size: usize,
    /// The offset of the first byte that has not been requested yet.
    next: u64,
    total: u64,
    commands: u64,
}

impl Reader<'_, '_> {
    /// Starts to read the next part of the disk into a slot. Returns false at the end of the disk.
    fn start(&mut self, index: usize) -> Result<bool> {
        if self.next == self.total {
            return Ok(false);
        }
        let slot = &mut self.slots[index];
        let len = (self.total - self.next).min(self.block_size as u64) as usize;
        let prp = Prp::new(slot.data.iova(), len, slot.list.iova()).context("block too large")?;
        for (i, entry) in prp.list.iter().enumerate() {
            slot.list.write_u64(8 * i, *entry);
        }
        slot.len = len;
        slot.done = false;
        let size = self.controller.block_size();
        let command = Command::read(
            NAMESPACE,
            self.next / size as u64,
            u16::try_from(len / size)?,
            &prp,
        );
        self.controller.submit(&command, index as u16)?;
        self.next += len as u64;
        self.commands += 1;
        Ok(true)
    }

    /// Waits until the command of a slot completes.
    fn finish(&mut self, index: usize) -> Result<()> {
        while !self.slots[index].done {
            let done = self.controller.wait(PATIENCE)?;
            ensure!(!done.is_empty(), "the controller does not answer");
            for completion in done {
                ensure!(completion.status() == 0, "read: {}", completion.describe());
                let slot = self
                    .slots
                    .get_mut(usize::from(completion.id()))
                    .context("a completion of a command that was not given")?;
                slot.done = true;
            }
        }
        Ok(())
    }
}

/// Reads the whole disk with commands of `block_size` bytes, with `depth` commands in flight.
pub fn read_all(
    controller: &mut Controller<'_>,
    block_size: usize,
    depth: usize,
) -> Result<Outcome> {
    let begin = Instant::now();
    let interrupts = controller.interrupts()?;
    let total = controller.blocks() * controller.block_size() as u64;
    let (_, entries) = controller.entries();
    let depth = depth.clamp(1, entries - 1);
    let session = controller.session();
    let slots = (0..depth)
        .map(|_| {
            Ok(Slot {
                data: session.dma(block_size)?,
                list: session.dma(PAGE_SIZE)?,
                len: 0,
                done: false,
            })
        })
        .collect::<Result<_>>()?;
    let mut reader = Reader {
        controller,
        slots,
        block_size,
        next: 0,
        total,
        commands: 0,
    };
    let mut sha = Sha256::new();
    let mut bytes = vec![0; block_size];
    let mut seen = 0;
    for index in 0..depth {
        reader.start(index)?;
    }
    // The slots are used in turn, so the data arrives in disk order.
    for index in (0..depth).cycle() {
        if seen == total {
            break;
        }
        reader.finish(index)?;
        let slot = &reader.slots[index];
        let part = &mut bytes[..slot.len];
        slot.data.read(0, part);
        sha.update(&*part);
        seen += slot.len as u64;
        reader.start(index)?;
    }
    let commands = reader.commands;
    Ok(Outcome {
        sha256: format!("{:x}", sha.finalize()),
        bytes: seen,
        block_size,
        depth,
        commands,
        interrupts: controller.interrupts()? - interrupts,
        time: begin.elapsed(),
    })
}

/// Reads the first page of the disk.
pub fn read_first_page(controller: &mut Controller<'_>) -> Result<Vec<u8>> {
    let page = controller.session().dma(PAGE_SIZE)?;
    let blocks = (PAGE_SIZE / controller.block_size()) as u16;
    let prp = Prp::new(page.iova(), PAGE_SIZE, 0).context("one page")?;
    controller.submit(&Command::read(NAMESPACE, 0, blocks, &prp), 0)?;
    let done = controller.wait(PATIENCE)?;
    let completion = done.first().context("the controller does not answer")?;
    ensure!(completion.status() == 0, "read: {}", completion.describe());
    Ok(page.to_vec(0, PAGE_SIZE))
}
