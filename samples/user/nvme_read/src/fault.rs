// SPDX-License-Identifier: GPL-2.0

//! Shows that the device cannot reach memory that is not mapped.

use crate::{
    command::Command,
    controller::{
        Controller,
        NAMESPACE, //
    },
    kernel_log::KernelLog,
    prp::{
        self,
        Prp, //
    },
    reader::read_first_page,
    report,
    session::Session,
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::time::{
    Duration,
    Instant, //
};
use vfio_client::{
    PAGE_SIZE,
    uapi::VFIO_PCI_MSIX_IRQ_INDEX, //
};

/// Timeout for the controller and for the kernel log.
const PATIENCE: Duration = Duration::from_secs(3);

/// The fill byte of the canary buffers.
const CANARY: u8 = 0xa7;

/// The number of mapped canary buffers.
const CANARIES: usize = 16;

/// Lets the controller access an unmapped address and checks the result. Returns the address.
pub fn run(session: &Session) -> Result<u64> {
    report::title("Send the controller to an address that is not mapped");
    let (iova, before) = send(session)?;
    let time = Instant::now();
    let how = reset(session)?;
    report::line(
        "reset",
        &format!("{how}, {}", report::duration(time.elapsed())),
    );
    let mut controller = Controller::new(session)?;
    let after = read_first_page(&mut controller)?;
    ensure!(after == before, "the first page is another one after reset");
    report::line(
        "again",
        "the controller starts and reads the same first page as before",
    );
    Ok(iova)
}

/// Reads the first page, then reads it again to an unmapped address. Returns that address, and the
/// page.
fn send(session: &Session) -> Result<(u64, Vec<u8>)> {
    let mut controller = Controller::new(session)?;
    let page = read_first_page(&mut controller)?;
    ensure!(
        page.iter().any(|byte| *byte != CANARY),
        "the disk starts with the bytes that are looked for"
    );
    let canaries = (0..CANARIES)
        .map(|_| {
            let buffer = session.dma(PAGE_SIZE)?;
            buffer.fill(0, PAGE_SIZE, CANARY);
            Ok(buffer)
        })
        .collect::<Result<Vec<_>>>()?;
    let iova = session.unmapped_iova(PAGE_SIZE as u64)?;
    let unmapped = session.container().unmap(iova, PAGE_SIZE as u64)?;
    ensure!(unmapped == 0, "something was mapped at {iova:#x}");
    report::line(
        "command",
        &format!(
            "read the first page to {iova:#x}, which is not mapped; {CANARIES} mapped pages are \
             watched"
        ),
    );

    let mut log = KernelLog::follow()?;
    let prp = Prp::new(iova, prp::PAGE_SIZE, 0).context("one page")?;
    let blocks = (prp::PAGE_SIZE / controller.block_size()) as u16;
    let time = Instant::now();
    controller.submit(&Command::read(NAMESPACE, 0, blocks, &prp), 1)?;
    let done = controller.wait(PATIENCE)?;
    report::line(
        "controller",
        &match done.first() {
            Some(completion) => format!(
                "completes the command after {}: {}",
                report::duration(time.elapsed()),
                completion.describe()
            ),
            None => "does not complete the command".to_owned(),
        },
    );

    check_log(session, &mut log, iova)?;
    for (i, buffer) in canaries.iter().enumerate() {
        let bytes = buffer.to_vec(0, PAGE_SIZE);
        let hit = bytes.iter().position(|byte| *byte != CANARY);
        ensure!(hit.is_none(), "page {i} was written at byte {hit:?}");
    }
    report::line(
        "check",
        &format!(
            "no byte arrived in {} bytes of mapped memory",
            CANARIES * PAGE_SIZE
        ),
    );
    Ok((iova, page))
}

/// Checks that the kernel log reports a fault of the device at `iova`.
///
/// Only the drivers of VT-d and of the SMMUv3 are known to log a fault; other IOMMU drivers may log
/// none.
fn check_log(session: &Session, log: &mut KernelLog, iova: u64) -> Result<()> {
    let fault = log.wait_for_fault(session.bdf(), PATIENCE)?;
    let Some(fault) = fault else {
        ensure!(
            !has_logging_iommu()?,
            "the kernel's log has no fault of the device"
        );
        report::line("IOMMU", "its driver logs nothing");
        return Ok(());
    };
    report::line("IOMMU", &fault.line);
    match fault.address {
        Some(address) => {
            ensure!(address == iova, "the fault is at {address:#x}");
            report::line("check", "the fault is of this device, at this address");
        }
        None => report::line("check", "the fault is of this device"),
    }
    Ok(())
}

/// Returns whether the machine has an IOMMU whose driver logs faults.
fn has_logging_iommu() -> Result<bool> {
    let units = std::fs::read_dir("/sys/class/iommu").context("no IOMMU")?;
    let mut names = units.filter_map(|unit| unit.ok()?.file_name().into_string().ok());
    Ok(names.any(|name| name.starts_with("dmar") || name.starts_with("smmu3")))
}

/// Resets the controller with the strongest method available. Returns the method.
fn reset(session: &Session) -> Result<&'static str> {
    let device = session.device();
    // This fails if the interrupts are already disabled because the controller was stopped.
    let _ = device.disable_irqs(VFIO_PCI_MSIX_IRQ_INDEX);
    if device.info()?.can_reset() {
        device.reset()?;
        return Ok("of the function (VFIO_DEVICE_RESET)");
    }
    if device.hot_reset(&[session.group()]).is_ok() {
        return Ok("of the bus (VFIO_DEVICE_PCI_HOT_RESET)");
    }
    // Starting the controller first clears CC.EN, which resets everything except the PCI registers.
    Ok("of the controller (CC.EN)")
}
