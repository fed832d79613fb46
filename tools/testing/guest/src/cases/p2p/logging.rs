// SPDX-License-Identifier: GPL-2.0

//! The log of pages written by an accelerator, as the accelerator reports it.

use super::open;
use crate::{
    dma_logging::{
        send_report,
        start,
        stop, //
    },
    feature::{
        DMA_LOGGING_REPORT,
        DMA_LOGGING_START,
        DMA_LOGGING_STOP,
        GET,
        PROBE,
        SET,
        feature, //
    },
    harness::cases,
    requires, //
};
use anyhow::{
    Result,
    bail, //
};
use std::{
    collections::BTreeSet,
    fs::{
        self,
        File, //
    },
};
use support::PAGE;
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    MapFlags,
    Memory,
    PAGE_SIZE,
    structures::LoggingReport, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status,
    Vgpu, //
};

cases! {
    #[rows("D13")] start_and_stop,
    #[rows("D13")] start_ranges,
    #[rows("D13")] start_page_size,
    #[rows("D15")] report_has_exact_pages,
    #[rows("D15")] report_clears_reported_pages,
    #[rows("D15")] reads_are_not_reported,
    #[rows("D15")] report_page_size,
    #[rows("D15")] report_only_sets_bits,
    #[rows("D15")] report_from_any_iova,
    #[rows("D15")] failed_stores_report_written_pages,
    #[rows("D15")] unwritable_bitmap,
    #[rows("D15")] partly_unwritable_bitmap_clears_nothing,
    #[rows("D15")] no_write_is_lost_during_reports,
    reset_keeps_log,
    last_close_stops_logging,
}

const IOVA: u64 = 0x40_0000;
/// The size of user memory, in pages.
const PAGES: usize = 256;

/// An open device and memory that it can write to. The fields are in the order in which they must
/// be dropped.
struct Open {
    vgpu: Vgpu,
    group: Group,
    container: Container,
    _memory: Memory,
    mdev: Mdev,
}

impl Open {
    fn new() -> Result<Self> {
        let mdev = Mdev::with_new_uuid(Kind::Single)?;
        let (vgpu, group, container) = open(&mdev)?;
        let memory = Memory::anonymous(PAGES * PAGE_SIZE)?;
        container.map(IOVA, &memory, MapFlags::ReadWrite)?;
        Ok(Self {
            vgpu,
            group,
            container,
            _memory: memory,
            mdev,
        })
    }

    fn device(&self) -> &Device {
        self.vgpu.device()
    }

    fn run(&self, command: Command, offset: u64, length: usize) -> Result<Status> {
        let operands = Operands {
            address: IOVA + offset,
            length: length as u32,
            ..Operands::default()
        };
        self.vgpu.run(command, &operands)
    }

    /// Writes to user memory from an offset on.
    fn store(&self, offset: u64, length: usize) -> Result<()> {
        assert_eq!(self.run(Command::Store, offset, length)?, Status::Done);
        Ok(())
    }

    /// Starts a log of all the memory.
    fn start(&self) -> Result<()> {
        let all = [(IOVA, PAGES as u64 * PAGE)];
        assert_eq!(start(self.device(), PAGE, &all)?, Ok(PAGE));
        Ok(())
    }

    /// Returns the numbers of the pages that were written to.
    fn written(&self) -> Result<BTreeSet<usize>> {
        let bits = Memory::anonymous(PAGE_SIZE)?;
        let answer = report(self.device(), PAGES as u64, bits.addr());
        assert_eq!(answer, Ok(0));
        let word = |page: usize| bits.read_u64(page / 64 * 8);
        Ok((0..PAGES)
            .filter(|page| (word(*page) >> (page % 64)) & 1 == 1)
            .collect())
    }
}

/// Reports one bit per page of the first `pages` pages to a bitmap.
fn report(device: &Device, pages: u64, bitmap: u64) -> Result<i32, Errno> {
    let report = LoggingReport {
        iova: IOVA,
        length: pages * PAGE,
        page_size: PAGE,
        bitmap,
    };
    send_report(device, &report)
}

/// Returns the first word of the report.
fn first_word(device: &Device, iova: u64, length: u64, page_size: u64) -> Result<u64> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let report = LoggingReport {
        iova,
        length,
        page_size,
        bitmap: bits.addr(),
    };
    assert_eq!(send_report(device, &report), Ok(0), "{report:x?}");
    assert!(bits.to_vec(8, PAGE_SIZE - 8).iter().all(|byte| *byte == 0));
    Ok(bits.read_u64(0))
}

fn start_and_stop() -> Result<()> {
    let open = Open::new()?;
    let device = open.device();
    for flags in [
        SET | PROBE | DMA_LOGGING_START,
        SET | PROBE | DMA_LOGGING_STOP,
        GET | PROBE | DMA_LOGGING_REPORT,
    ] {
        assert_eq!(feature(device, flags, &mut Bytes::new()), Ok(0));
    }
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let report = || report(device, 1, bits.addr());
    assert_eq!(stop(device), Ok(0), "logging is not on");
    assert_eq!(report(), Err(Errno::EINVAL));
    for _ in 0..3 {
        open.start()?;
        let again = start(device, PAGE, &[(IOVA, PAGE)])?;
        assert_eq!(again, Err(Errno::EINVAL), "there is one");
        assert_eq!(report(), Ok(0));
        open.store(0, 1)?;
        assert_eq!(stop(device), Ok(0));
        assert_eq!(report(), Err(Errno::EINVAL));
    }
    open.start()?;
    assert_eq!(open.written()?, [].into(), "the former one is forgotten");
    Ok(())
}

fn start_ranges() -> Result<()> {
    let open = Open::new()?;
    let device = open.device();
    let page = |number: u64| IOVA + number * PAGE;
    for overlapping in [
        [(page(0), PAGE), (page(0), PAGE)],
        [(page(0), 4 * PAGE), (page(3), 2 * PAGE)],
        [(page(2), PAGE), (page(0), 9 * PAGE)],
    ] {
        let answer = start(device, PAGE, &overlapping)?;
        assert_eq!(answer, Err(Errno::EINVAL), "{overlapping:x?}");
    }
    let ranges = [(page(10), 2 * PAGE), (page(4), PAGE), (page(12), PAGE)];
    assert_eq!(start(device, PAGE, &ranges)?, Ok(PAGE));
    open.store(0, 16 * PAGE_SIZE)?;
    assert_eq!(open.written()?, [4, 10, 11, 12].into());
    Ok(())
}

fn start_page_size() -> Result<()> {
    let open = Open::new()?;
    let device = open.device();
    for (wanted, chosen) in [
        (1, PAGE),
        (512, PAGE),
        (PAGE, PAGE),
        (2 * PAGE, 2 * PAGE),
        (1 << 21, 1 << 21),
        (1 << 30, 1 << 30),
        (1 << 40, 1 << 30),
    ] {
        let answer = start(device, wanted, &[(0, 1 << 40)])?;
        assert_eq!(answer, Ok(chosen), "{wanted:#x}");
        stop(device)?;
    }
    Ok(())
}

fn report_has_exact_pages() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    for (offset, length, pages) in [
        (0, 1, 0..=0),
        (PAGE - 1, 2, 0..=1),
        (7 * PAGE, PAGE_SIZE, 7..=7),
        (63 * PAGE + 5, PAGE_SIZE, 63..=64),
        (100 * PAGE, 16 * PAGE_SIZE, 100..=115),
        (255 * PAGE, PAGE_SIZE, 255..=255),
    ] {
        open.store(offset, length)?;
        assert_eq!(open.written()?, pages.collect(), "{length} at {offset:#x}");
    }
    Ok(())
}

fn report_clears_reported_pages() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    open.store(3 * PAGE, 4 * PAGE_SIZE)?;
    // A report clears only the requested range.
    let word = first_word(open.device(), IOVA + 4 * PAGE, 2 * PAGE, PAGE)?;
    assert_eq!(word, 0b11);
    assert_eq!(open.written()?, [3, 6].into());
    assert_eq!(open.written()?, [].into());
    open.store(3 * PAGE, 1)?;
    assert_eq!(open.written()?, [3].into(), "again");
    Ok(())
}

fn reads_are_not_reported() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    assert_eq!(open.run(Command::Load, 0, 4 * PAGE_SIZE)?, Status::Done);
    open.vgpu.memory().write(0, &[1; 4096]);
    assert_eq!(open.written()?, [].into());
    Ok(())
}

fn report_page_size() -> Result<()> {
    let open = Open::new()?;
    let all = PAGES as u64 * PAGE;
    open.start()?;
    for (page_size, word) in [
        (PAGE, (1 << 5) | (1 << 40)),
        (4 * PAGE, (1 << 1) | (1 << 10)),
    ] {
        open.store(5 * PAGE, 1)?;
        open.store(40 * PAGE, 1)?;
        let bits = first_word(open.device(), IOVA, 64 * PAGE, page_size)?;
        assert_eq!(bits, word, "{page_size:#x}");
    }
    stop(open.device())?;

    // A log with larger pages, reported in smaller ones.
    assert_eq!(
        start(open.device(), 4 * PAGE, &[(IOVA, all)])?,
        Ok(4 * PAGE)
    );
    open.store(5 * PAGE, 1)?;
    let half = first_word(open.device(), IOVA, 6 * PAGE, PAGE)?;
    assert_eq!(half, 0b11 << 4);
    assert_eq!(open.written()?, [4, 5, 6, 7].into());
    assert_eq!(open.written()?, [].into());
    Ok(())
}

fn report_only_sets_bits() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    open.store(9 * PAGE, 1)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    bits.write_u64(0, 0b101);
    bits.write_u64(8, u64::MAX);
    let answer = report(open.device(), 128, bits.addr());
    assert_eq!(answer, Ok(0));
    assert_eq!(bits.read_u64(0), (1 << 9) | 0b101);
    assert_eq!(bits.read_u64(8), u64::MAX);
    assert_eq!(bits.read_u64(16), 0);
    Ok(())
}

fn report_from_any_iova() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    open.store(8 * PAGE, 2 * PAGE_SIZE)?;
    // The first bit stands for the page that begins at the requested address.
    let word = first_word(open.device(), IOVA + 5 * PAGE, 16 * PAGE, 4 * PAGE)?;
    assert_eq!(word, 0b11, "pages 5 to 8 and 9 to 12");
    open.store(8 * PAGE, 1)?;
    assert_eq!(first_word(open.device(), 0, 1 << 41, 1 << 40)?, 1);
    open.store(0, 1)?;
    assert_eq!(first_word(open.device(), IOVA, 0, PAGE)?, 0, "no bytes");
    assert_eq!(open.written()?, [0].into());
    Ok(())
}

fn failed_stores_report_written_pages() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    let end = PAGES as u64 * PAGE;
    assert_eq!(open.run(Command::Store, end, 1)?, Status::Fault);
    assert_eq!(
        open.run(Command::Store, end - PAGE, 2 * PAGE_SIZE)?,
        Status::Fault
    );
    assert_eq!(open.written()?, [].into(), "all or nothing");
    Ok(())
}

fn unwritable_bitmap() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    let mut bits = Memory::anonymous(PAGE_SIZE)?;
    bits.protect(true, false)?;
    let report = |address| report(open.device(), 64, address);
    // Where the kernel has bitmaps of its own, the core tries them before it asks the driver.
    let unused = if requires::iommufd() {
        Err(Errno::EFAULT)
    } else {
        Ok(0)
    };
    assert_eq!(report(0), unused, "nothing was written");
    let mut addresses = vec![0, bits.addr(), u64::MAX - 7];
    // Registers can be written, but the kernel's bitmaps can't be there.
    let registers = requires::iommufd().then(registers).transpose()?;
    addresses.extend(registers.iter().map(Memory::addr));
    for address in addresses {
        open.store(0, 1)?;
        assert_eq!(report(address), Err(Errno::EFAULT), "{address:#x}");
    }
    assert_eq!(open.written()?, [0].into(), "it was never told");
    Ok(())
}

/// Maps registers of some PCI device.
fn registers() -> Result<Memory> {
    for device in fs::read_dir("/sys/bus/pci/devices")? {
        let path = device?.path().join("resource0");
        let Ok(file) = File::options().read(true).write(true).open(path) else {
            continue;
        };
        if let Ok(memory) = Memory::from_file(&file, 0, PAGE_SIZE, true) {
            return Ok(memory);
        }
    }
    bail!("no device has registers at its first base address")
}

/// A report that fails clears nothing, because the caller does not look at the bitmap.
fn partly_unwritable_bitmap_clears_nothing() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    // The second page of the bitmap is beyond the end of its file.
    let path = "/tmp/half-a-bitmap";
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    fs::remove_file(path)?;
    file.set_len(PAGE)?;
    let bits = Memory::from_file(&file, 0, 2 * PAGE_SIZE, true)?;
    // There is room for 64 pages before that.
    let address = bits.addr() + PAGE - 8;
    let pages = [0, 7, 63, 64, 100];
    for _ in 0..3 {
        for page in pages {
            open.store(page * PAGE, 1)?;
        }
        let answer = report(open.device(), 128, address);
        assert_eq!(answer, Err(Errno::EFAULT));
        assert_eq!(open.written()?, pages.map(|page| page as usize).into());
        assert_eq!(open.written()?, [].into());
    }
    Ok(())
}

/// Pages written during a report appear in this report or in a later one.
fn no_write_is_lost_during_reports() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    // On a busy machine the device may have written all pages before the second report.
    for _ in 0..20 {
        if reports_while_it_writes(&open)? > 1 {
            return Ok(());
        }
    }
    bail!("never asked while it was writing")
}

/// Makes the device write pages during reports, and checks that each page is told once. Returns
/// the number of reports.
fn reports_while_it_writes(open: &Open) -> Result<u32> {
    let order: Vec<u64> = (0..PAGES as u64).map(|i| i * 89 % PAGES as u64).collect();
    let (mut told, mut rounds) = (BTreeSet::new(), 0);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            for page in &order {
                open.store(page * PAGE, 1)?;
            }
            Ok(())
        });
        while !writer.is_finished() {
            for page in open.written()? {
                assert!(told.insert(page), "page {page} was told twice");
            }
            rounds += 1;
        }
        writer.join().expect("the thread has panicked")
    })?;
    told.extend(open.written()?);
    assert_eq!(told, order.iter().map(|page| *page as usize).collect());
    Ok(rounds)
}

fn reset_keeps_log() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    open.store(2 * PAGE, 1)?;
    open.device().reset()?;
    open.store(4 * PAGE, 1)?;
    assert_eq!(open.written()?, [2, 4].into());
    Ok(())
}

fn last_close_stops_logging() -> Result<()> {
    let open = Open::new()?;
    open.start()?;
    open.store(2 * PAGE, 1)?;
    let Open {
        vgpu,
        group,
        container,
        mdev,
        ..
    } = open;
    let second = group.device(mdev.uuid())?;
    drop(vgpu);
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let report = |device: &Device| report(device, 1, bits.addr());
    assert_eq!(report(&second), Ok(0), "the device is still open");
    drop(second);
    let again = group.device(mdev.uuid())?;
    assert_eq!(report(&again), Err(Errno::EINVAL));
    drop((again, group, container));
    Ok(())
}
