// SPDX-License-Identifier: GPL-2.0

//! Reading a whole disk, with several commands at a time.

use crate::{
    command::Command,
    controller::{
        Controller,
        NAMESPACE, //
    },
    prp::Prp,
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
use vfio_client::{
    DmaBuffer,
    PAGE_SIZE, //
};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was read.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The checksum of the whole disk, in hexadecimal.
    pub sha256: String,
    /// How many bytes were read.
    pub bytes: u64,
    /// How many bytes one command read.
    pub block_size: usize,
    /// How many commands were under way at a time.
    pub depth: usize,
    /// How many commands it took.
    pub commands: u64,
    /// How many interrupts came.
    pub interrupts: u64,
    /// How long it took.
    pub time: Duration,
}

/// Memory for one command under way.
struct Slot<'s> {
    data: DmaBuffer<'s>,
    list: DmaBuffer<'s>,
    /// How many bytes the command reads.
    len: usize,
    done: bool,
}

/// A disk that is being read from its start to its end.
struct Reader<'c, 's> {
    controller: &'c mut Controller<'s>,
    slots: Vec<Slot<'s>>,
    block_size: usize,
    /// The first byte that no command reads yet.
    next: u64,
    total: u64,
    commands: u64,
}

impl Reader<'_, '_> {
    /// Reads the next part of the disk into a slot; returns false at the end of the disk.
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

    /// Waits until the command of a slot is done.
    fn finish(&mut self, index: usize) -> Result<()> {
        while !self.slots[index].done {
            let done = self.controller.wait(PATIENCE)?;
            ensure!(!done.is_empty(), "the controller does not answer");
            for completion in done {
                ensure!(completion.status == 0, "read: {}", completion.describe());
                let slot = self
                    .slots
                    .get_mut(usize::from(completion.id))
                    .context("a completion of a command that was not given")?;
                slot.done = true;
            }
        }
        Ok(())
    }
}

/// Reads all of the disk by commands of `block_size` bytes, `depth` at a time.
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
    // Slots take turns, so their data comes in the order of the disk.
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
    ensure!(completion.status == 0, "read: {}", completion.describe());
    Ok(page.to_vec(0, PAGE_SIZE))
}
