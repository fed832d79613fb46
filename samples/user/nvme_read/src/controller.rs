// SPDX-License-Identifier: GPL-2.0

//! Controller start-up and command submission.

use crate::{
    command::{
        Command,
        Completion, //
    },
    identify::{
        ControllerPage,
        NamespacePage, //
    },
    prp::{
        MAX_PAGES,
        PAGE_SIZE, //
    },
    queue::Queue,
    registers::Registers,
    session::Session,
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::time::Duration;
use vfio_client::{
    pci::Config,
    uapi::VFIO_PCI_MSIX_IRQ_INDEX, //
};

/// The only namespace that is used.
pub const NAMESPACE: u32 = 1;

const ADMIN_ENTRIES: usize = 16;
const IO_ENTRIES: usize = 64;
const IO_QUEUE: u16 = 1;
const IO_VECTOR: u16 = 1;

/// Timeout of a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running controller with one I/O queue.
#[derive(Debug)]
pub struct Controller<'s> {
    session: &'s Session,
    registers: Registers,
    admin: Queue<'s>,
    io: Queue<'s>,
    page: ControllerPage,
    namespace: NamespacePage,
}

impl<'s> Controller<'s> {
    /// Starts the controller, whatever state it is in.
    pub fn new(session: &'s Session) -> Result<Self> {
        let device = session.device();
        Config::of(device)?.enable()?;
        let registers = Registers::map(device)?;
        registers.disable()?;
        let entries = registers.max_queue_entries();
        let admin = Queue::new(session, 0, ADMIN_ENTRIES.min(entries))?;
        let io = Queue::new(session, IO_QUEUE.into(), IO_ENTRIES.min(entries))?;
        let vectors = device.irq(VFIO_PCI_MSIX_IRQ_INDEX)?.count;
        ensure!(vectors >= 2, "two MSI-X vectors are needed, not {vectors}");
        device.enable_irqs(
            VFIO_PCI_MSIX_IRQ_INDEX,
            &[admin.interrupt(), io.interrupt()],
        )?;
        registers.enable(
            admin.entries(),
            admin.submission_iova(),
            admin.completion_iova(),
        )?;
        let mut controller = Self {
            session,
            registers,
            admin,
            io,
            page: ControllerPage {
                model: String::new(),
                serial: String::new(),
                max_transfer: None,
            },
            namespace: NamespacePage {
                blocks: 0,
                block_size: 0,
            },
        };
        controller.identify()?;
        controller.create_io_queue()?;
        Ok(controller)
    }

    fn identify(&mut self) -> Result<()> {
        let page = self.session.dma(PAGE_SIZE)?;
        self.admin(&Command::identify_controller(page.iova()))
            .context("identify controller")?;
        self.page = ControllerPage::parse(&page);
        page.fill(0, PAGE_SIZE, 0);
        self.admin(&Command::identify_namespace(NAMESPACE, page.iova()))
            .context("identify namespace")?;
        self.namespace = NamespacePage::parse(&page);
        ensure!(self.namespace.blocks > 0, "there is no namespace 1");
        ensure!(
            (512..=PAGE_SIZE).contains(&self.namespace.block_size),
            "blocks of {} bytes are not supported",
            self.namespace.block_size
        );
        Ok(())
    }

    fn create_io_queue(&mut self) -> Result<()> {
        let (entries, sq, cq) = (
            self.io.entries(),
            self.io.submission_iova(),
            self.io.completion_iova(),
        );
        self.admin(&Command::create_completion_queue(
            IO_QUEUE, entries, cq, IO_VECTOR,
        ))
        .context("create completion queue")?;
        self.admin(&Command::create_submission_queue(IO_QUEUE, entries, sq))
            .context("create submission queue")
    }

    /// Runs one admin command to completion.
    fn admin(&mut self, command: &Command) -> Result<()> {
        self.admin.submit(&self.registers, command, 0)?;
        let done = self.admin.wait(&self.registers, PATIENCE)?;
        let completion = done.first().context("the controller does not answer")?;
        ensure!(completion.status() == 0, "{}", completion.describe());
        Ok(())
    }

    /// Submits a command to the I/O queue.
    pub fn submit(&mut self, command: &Command, id: u16) -> Result<()> {
        self.io.submit(&self.registers, command, id)
    }

    /// Waits for completions on the I/O queue. Returns an empty vector on timeout.
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<Completion>> {
        self.io.wait(&self.registers, timeout)
    }

    /// Returns the session.
    pub fn session(&self) -> &'s Session {
        self.session
    }

    /// Returns the version of the specification that the controller implements.
    pub fn version(&self) -> String {
        self.registers.version()
    }

    /// Returns the page that describes the controller.
    pub fn page(&self) -> &ControllerPage {
        &self.page
    }

    /// Returns the maximum number of bytes that one command can transfer.
    pub fn max_transfer(&self) -> usize {
        let ours = (MAX_PAGES - 1) * PAGE_SIZE;
        self.page.max_transfer.map_or(ours, |max| max.min(ours))
    }

    /// Returns the number of blocks on the disk.
    pub fn blocks(&self) -> u64 {
        self.namespace.blocks
    }

    /// Returns the size of a block in bytes.
    pub fn block_size(&self) -> usize {
        self.namespace.block_size
    }

    /// Returns the numbers of entries in the admin queue and in the I/O queue.
    pub fn entries(&self) -> (usize, usize) {
        (self.admin.entries(), self.io.entries())
    }

    /// Returns the number of interrupts that the I/O queue received.
    pub fn interrupts(&mut self) -> Result<u64> {
        self.io.interrupts()
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        // The memory of the queues is freed next, so the controller must stop first. If it does not
        // stop, the IOMMU blocks its DMA.
        let _ = self.registers.disable();
        let _ = self.session.device().disable_irqs(VFIO_PCI_MSIX_IRQ_INDEX);
    }
}
