// SPDX-License-Identifier: GPL-2.0

//! The other half of the promise: what is not mapped can't be reached.

use crate::{
    command::Command,
    controller::{
        Controller,
        NAMESPACE, //
    },
    kernel_log::KernelLog,
    prp::Prp,
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

/// How long the controller and the kernel's log may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the canaries are filled with.
const CANARY: u8 = 0xa7;

/// How many mapped buffers are watched.
const CANARIES: usize = 16;

/// Sends the controller to an unmapped address, and checks what came of it.
pub fn run(session: &Session) -> Result<()> {
    report::title("Send the controller to an address that is not mapped");
    let before = send(session)?;
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
    Ok(())
}

/// Reads the first page, then once more to an unmapped address; returns the page.
fn send(session: &Session) -> Result<Vec<u8>> {
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
    let prp = Prp::new(iova, PAGE_SIZE, 0).context("one page")?;
    let blocks = (PAGE_SIZE / controller.block_size()) as u16;
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
    Ok(page)
}

/// Checks that the kernel's log tells about a fault of the device at an address.
///
/// Drivers of IOMMUs other than VT-d do not always tell.
fn check_log(session: &Session, log: &mut KernelLog, iova: u64) -> Result<()> {
    let fault = log.wait_for_fault(session.bdf(), PATIENCE)?;
    let Some(fault) = fault else {
        ensure!(!has_vt_d()?, "the kernel's log has no fault of the device");
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

/// Tells whether the machine has the IOMMU of Intel, whose driver logs every fault.
fn has_vt_d() -> Result<bool> {
    let units = std::fs::read_dir("/sys/class/iommu").context("no IOMMU")?;
    let mut names = units.filter_map(|unit| unit.ok()?.file_name().into_string().ok());
    Ok(names.any(|name| name.starts_with("dmar")))
}

/// Resets the controller in the strongest way that it has; returns which.
fn reset(session: &Session) -> Result<&'static str> {
    let device = session.device();
    // There is no interrupt to turn off if the controller was stopped already.
    let _ = device.disable_irqs(VFIO_PCI_MSIX_IRQ_INDEX);
    if device.info()?.can_reset() {
        device.reset()?;
        return Ok("of the function (VFIO_DEVICE_RESET)");
    }
    if device.hot_reset(&[session.group()]).is_ok() {
        return Ok("of the bus (VFIO_DEVICE_PCI_HOT_RESET)");
    }
    // Starting the controller clears CC.EN first, which resets all but the PCI registers.
    Ok("of the controller (CC.EN)")
}
