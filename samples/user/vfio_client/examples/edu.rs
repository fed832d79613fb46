// SPDX-License-Identifier: GPL-2.0

//! A driver in a program: it drives QEMU's device `edu`, which copies memory by DMA and interrupts.
//!
//! ```sh
//! edu 0000:00:03.0
//! ```

#![deny(unsafe_code)]

use std::{
    env,
    time::Duration, //
};
use vfio_client::{
    DmaBuffer, Errno, Error, Group, Interrupt, Iommu, IovaAllocator, Register, Result, pci,
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX, //
    },
};

// The registers of the device, as its manual (docs/specs/edu.rst in QEMU) lists them.
const IDENTIFICATION: Register<u32> = Register::at(0x00);
const INTERRUPT_STATUS: Register<u32> = Register::at(0x24);
const INTERRUPT_ACKNOWLEDGE: Register<u32> = Register::at(0x64);
const DMA_SOURCE: Register<u64> = Register::at(0x80);
const DMA_DESTINATION: Register<u64> = Register::at(0x88);
const DMA_COUNT: Register<u64> = Register::at(0x90);
const DMA_COMMAND: Register<u64> = Register::at(0x98);

const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const WITH_INTERRUPT: u64 = 4;

/// The address of the buffer in the device.
const DEVICE_BUFFER: u64 = 0x4_0000;

const TEXT: &[u8] = b"through the device and back";

fn main() -> Result {
    let address = env::args().nth(1).unwrap_or_else(|| "0000:00:03.0".into());

    // The group of the device, in an address space of its own.
    let group = Group::open(pci::group_of(&address)?)?;
    let container = group.attach(Iommu::Type1v2)?;
    let device = group.device(&address)?;

    // The registers, as memory of this process.
    pci::Config::of(&device)?.enable()?;
    let registers = device.map_whole(VFIO_PCI_BAR0_REGION_INDEX)?;
    println!("identification: {:#x}", registers.get(IDENTIFICATION));

    // Interrupts arrive at an eventfd.
    let interrupt = Interrupt::new()?;
    device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;

    // A page of memory, which the device finds at an address of its own, the iova.
    let mut iovas = IovaAllocator::new(&container.info()?.ranges(), 0x10_0000);
    let buffer = DmaBuffer::new(&container, &mut iovas, 4096)?;
    println!(
        "memory for DMA: {} bytes at iova {:#x}",
        buffer.len(),
        buffer.iova()
    );

    // The device copies the first half of the page into itself, and from there to the second half.
    let half = buffer.iova() + 2048;
    let copy = |source, destination, direction| -> Result {
        registers.set(DMA_SOURCE, source);
        registers.set(DMA_DESTINATION, destination);
        registers.set(DMA_COUNT, TEXT.len() as u64);
        registers.set(DMA_COMMAND, START | WITH_INTERRUPT | direction);
        if interrupt.wait(Duration::from_secs(10))? == 0 {
            return Err(Error::new("wait for an interrupt", Errno::ETIMEDOUT));
        }
        registers.set(INTERRUPT_ACKNOWLEDGE, registers.get(INTERRUPT_STATUS));
        Ok(())
    };
    buffer.write(0, TEXT);
    copy(buffer.iova(), DEVICE_BUFFER, 0)?;
    copy(DEVICE_BUFFER, half, TO_MEMORY)?;

    let copied = buffer.to_vec(2048, TEXT.len());
    println!("the device copied: {}", String::from_utf8_lossy(&copied));
    Ok(())
}
