// SPDX-License-Identifier: GPL-2.0

//! A queue pair: a submission queue and its completion queue.

use crate::{
    command::{
        Command,
        Completion, //
    },
    registers::Registers,
    session::Session,
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    mem::offset_of,
    sync::atomic::{
        Ordering,
        fence, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    DmaBuffer,
    Interrupt,
    Register, //
};
use zerocopy::IntoBytes;

/// A submission queue and its completion queue.
#[derive(Debug)]
pub struct Queue<'s> {
    number: usize,
    entries: usize,
    commands: DmaBuffer<'s>,
    completions: DmaBuffer<'s>,
    interrupt: Interrupt,
    interrupts: u64,
    tail: usize,
    head: usize,
    /// The phase bit of new completions.
    phase: bool,
    pending: usize,
}

impl<'s> Queue<'s> {
    /// Allocates the memory of queue `number`. The caller then registers it with the controller.
    pub fn new(session: &'s Session, number: usize, entries: usize) -> Result<Self> {
        Ok(Self {
            number,
            entries,
            commands: session.dma(entries * size_of::<Command>())?,
            completions: session.dma(entries * size_of::<Completion>())?,
            interrupt: Interrupt::new()?,
            interrupts: 0,
            tail: 0,
            head: 0,
            phase: true,
            pending: 0,
        })
    }

    /// Returns the number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Returns the address of the submission queue.
    pub fn submission_iova(&self) -> u64 {
        self.commands.iova()
    }

    /// Returns the address of the completion queue.
    pub fn completion_iova(&self) -> u64 {
        self.completions.iova()
    }

    /// Returns the interrupt that signals completions.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Returns the number of interrupts received so far, whether or not a call waited for them.
    pub fn interrupts(&mut self) -> Result<u64> {
        self.interrupts += self.interrupt.take()?;
        Ok(self.interrupts)
    }

    /// Submits a command to the controller.
    pub fn submit(&mut self, registers: &Registers, command: &Command, id: u16) -> Result<()> {
        ensure!(self.pending + 1 < self.entries, "the queue is full");
        let at = self.tail * size_of::<Command>();
        self.commands.write(at, command.with_id(id).as_bytes());
        self.tail = (self.tail + 1) % self.entries;
        self.pending += 1;
        // The command must be in memory before the doorbell write.
        fence(Ordering::SeqCst);
        registers.ring_submission(self.number, self.tail);
        Ok(())
    }

    /// Returns the available completions.
    pub fn drain(&mut self, registers: &Registers) -> Vec<Completion> {
        let mut done = Vec::new();
        loop {
            let at = self.head * size_of::<Completion>();
            // The rest of the entry is valid only if the phase bit is that of new completions.
            let state = Register::<u16>::at(at + offset_of!(Completion, state));
            if Completion::phase_of(self.completions.get(state)) != self.phase {
                break;
            }
            let completion = self.completions.read_value(at);
            self.head += 1;
            if self.head == self.entries {
                self.head = 0;
                self.phase = !self.phase;
            }
            self.pending = self.pending.saturating_sub(1);
            done.push(completion);
        }
        if !done.is_empty() {
            // The controller writes the data before the completion, so they must be read in the
            // opposite order.
            fence(Ordering::SeqCst);
            registers.ring_completion(self.number, self.head);
        }
        done
    }

    /// Waits for completions. Returns an empty vector on timeout.
    pub fn wait(&mut self, registers: &Registers, timeout: Duration) -> Result<Vec<Completion>> {
        let start = Instant::now();
        loop {
            let done = self.drain(registers);
            if !done.is_empty() {
                return Ok(done);
            }
            let left = timeout.saturating_sub(start.elapsed());
            match self.interrupt.wait(left)? {
                0 => return Ok(Vec::new()),
                count => self.interrupts += count,
            }
        }
    }
}
