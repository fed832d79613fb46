// SPDX-License-Identifier: GPL-2.0

//! A copy engine, and the requests of programs to it.

use kernel::{
    device::{
        self,
        Bound, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Mutex, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use kernel_ext::{
    bindings,
    mm::{
        cond_resched,
        fatal_signal_pending, //
    },
    uapi::{
        self,
        ioctl,
        Argument, //
    },
    vfio_device::{
        Device,
        Operations,
        Probe, //
    }, //
};

use pamu_sim::{
    BusMaster,
    Msi, //
};

use crate::registers::{
    self,
    command,
    Registers,
    Words,
    COMMAND,
    DATA,
    DESTINATION,
    LENGTH,
    LIODN,
    MSI_ADDRESS,
    MSI_DATA,
    SOURCE,
    STATUS, //
};

/// The firmware property with the LIODN of an engine.
pub(crate) const LIODN_PROPERTY: &CStr = c"fsl,liodn";

/// The firmware property with the number of the MSI bank that an engine is wired to.
pub(crate) const BANK_PROPERTY: &CStr = c"fsl,msi-bank";

/// The number of bytes that are copied at once.
const BUFFER: usize = 4096;

/// An engine.
#[pin_data]
pub(crate) struct Engine {
    dev: ARef<device::Device>,
    liodn: u32,
    bank: u32,
    /// Locked while a command runs.
    #[pin]
    state: Mutex<State>,
}

/// The state of an engine.
struct State {
    registers: Registers,
    /// The interrupt, if the program has enabled it.
    msi: Option<Msi>,
    buffer: KVec<u8>,
}

impl State {
    /// Puts the engine into its initial state. The interrupt stays enabled.
    fn reset(&mut self, liodn: u32) {
        self.registers = Registers::new(liodn);
        self.show_msi();
    }

    /// Sets the registers of the interrupt.
    fn show_msi(&mut self) {
        let msi = self.msi.as_ref();
        let registers = &mut self.registers;
        registers.set64(MSI_ADDRESS, msi.map_or(0, Msi::address));
        registers.set32(MSI_DATA, msi.map_or(0, Msi::data));
    }

    /// Runs the command in the register.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown command, `ENXIO` for an interrupt that is not enabled, `EFAULT` if
    /// the PAMU refuses an access, `EINTR` if the thread was killed.
    fn run(&mut self) -> Result {
        let registers = &mut self.registers;
        // A LIODN has 16 bits.
        let master = BusMaster::with_liodn(registers.get32(LIODN) as u16)?;
        match registers.get32(COMMAND) {
            command::READ => {
                let mut data = [0; 8];
                master.read(registers.get64(SOURCE), &mut data)?;
                registers.set64(DATA, u64::from_le_bytes(data));
            }
            command::WRITE => {
                let data = registers.get64(DATA).to_le_bytes();
                master.write(registers.get64(DESTINATION), &data)?;
            }
            command::COPY => self.copy(&master)?,
            command::INTERRUPT => {
                let msi = self.msi.as_ref().ok_or(ENXIO)?;
                master.write(msi.address(), &msi.data().to_le_bytes())?;
            }
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    /// Runs the command `COPY`.
    fn copy(&mut self, master: &BusMaster) -> Result {
        let mut source = self.registers.get64(SOURCE);
        let mut destination = self.registers.get64(DESTINATION);
        let mut left = self.registers.get32(LENGTH) as usize;
        while left > 0 {
            let data = &mut self.buffer[..left.min(BUFFER)];
            master.read(source, data)?;
            master.write(destination, data)?;
            if fatal_signal_pending() {
                return Err(EINTR);
            }
            cond_resched();
            source = source.wrapping_add(data.len() as u64);
            destination = destination.wrapping_add(data.len() as u64);
            left -= data.len();
        }
        Ok(())
    }
}

impl Engine {
    fn reset(&self) {
        self.state.lock().reset(self.liodn);
    }

    /// Replaces the interrupt. The former interrupt is freed without the lock.
    fn replace_msi(&self, msi: Option<Msi>) {
        let former = {
            let mut state = self.state.lock();
            let former = core::mem::replace(&mut state.msi, msi);
            state.show_msi();
            former
        };
        drop(former);
    }
}

impl Probe for Engine {
    fn probe(dev: &device::Device<Bound>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let node = dev.fwnode().ok_or(ENODEV)?;
            let liodn: u32 = node.property_read(LIODN_PROPERTY).required_by(dev)?;
            let bank: u32 = node.property_read(BANK_PROPERTY).required_by(dev)?;
            let state = State {
                registers: Registers::new(liodn),
                msi: None,
                buffer: KVec::from_elem(0, BUFFER, GFP_KERNEL)?,
            };
            Ok(try_pin_init!(Self {
                dev: dev.into(),
                liodn,
                bank,
                state <- new_mutex!(state, "pamu_dma::state"),
            }))
        })
    }
}

#[vtable]
impl Operations for Engine {
    const NAME: &'static CStr = c"pamu_dma";

    fn open(this: &Device<Self>) -> Result {
        this.reset();
        Ok(())
    }

    fn close(this: &Device<Self>) {
        this.replace_msi(None);
    }

    fn read(this: &Device<Self>, to: UserPtr, count: usize, pos: i64) -> Result<usize> {
        let words = Words::new(pos, count)?;
        let mut values = [0; 2];
        let values = &mut values[..words.count()];
        values.copy_from_slice(this.state.lock().registers.read(&words));
        let mut to = UserSlice::new(to, count).writer();
        for value in values {
            to.write(&value.to_le())?;
        }
        Ok(count)
    }

    fn write(this: &Device<Self>, from: UserPtr, count: usize, pos: i64) -> Result<usize> {
        let words = Words::new(pos, count)?;
        let mut values = [0; 2];
        let values = &mut values[..words.count()];
        let mut from = UserSlice::new(from, count).reader();
        for value in values.iter_mut() {
            *value = u32::from_le(from.read()?);
        }
        let mut state = this.state.lock();
        state.registers.write(&words, values);
        if words.start_at(COMMAND) {
            let errno = state.run().map_or_else(Error::to_errno, |()| 0);
            state.registers.set32(STATUS, errno.unsigned_abs());
        }
        Ok(count)
    }

    fn ioctl(this: &Device<Self>, cmd: u32, arg: UserPtr) -> Result<isize> {
        match cmd {
            ioctl::VFIO_DEVICE_GET_INFO => get_info(arg)?,
            ioctl::VFIO_DEVICE_GET_IRQ_INFO => get_irq_info(arg)?,
            ioctl::VFIO_DEVICE_SET_IRQS => set_irqs(this, arg)?,
            ioctl::VFIO_DEVICE_RESET => this.reset(),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn region_info(_this: &Device<Self>, info: &mut bindings::vfio_region_info) -> Result {
        if info.index != 0 {
            return Err(EINVAL);
        }
        info.flags = bindings::VFIO_REGION_INFO_FLAG_READ | bindings::VFIO_REGION_INFO_FLAG_WRITE;
        info.size = registers::SIZE as u64;
        info.offset = 0;
        Ok(())
    }
}

/// Handles `VFIO_DEVICE_GET_INFO`.
fn get_info(arg: UserPtr) -> Result {
    let mut info = bindings::vfio_device_info::read(arg)?;
    info.flags = bindings::VFIO_DEVICE_FLAGS_PLATFORM | bindings::VFIO_DEVICE_FLAGS_RESET;
    info.num_regions = 1;
    info.num_irqs = 1;
    info.write(arg)
}

/// Handles `VFIO_DEVICE_GET_IRQ_INFO`.
fn get_irq_info(arg: UserPtr) -> Result {
    let mut info = bindings::vfio_irq_info::read(arg)?;
    if info.index != 0 {
        return Err(EINVAL);
    }
    info.flags = bindings::VFIO_IRQ_INFO_EVENTFD;
    info.count = 1;
    info.write(arg)
}

/// Handles `VFIO_DEVICE_SET_IRQS`, which enables the interrupt with an eventfd, or disables it.
/// Nothing changes on error.
fn set_irqs(this: &Device<Engine>, arg: UserPtr) -> Result {
    let mut set = bindings::vfio_irq_set::read(arg)?;
    let size = this.irq_data_size(&mut set, 1, 1)?;
    if set.flags & bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK != bindings::VFIO_IRQ_SET_ACTION_TRIGGER
    {
        return Err(EINVAL);
    }
    let fd: i32 = match set.flags & bindings::VFIO_IRQ_SET_DATA_TYPE_MASK {
        bindings::VFIO_IRQ_SET_DATA_NONE if set.count == 0 => -1,
        bindings::VFIO_IRQ_SET_DATA_EVENTFD if size == size_of::<i32>() => {
            uapi::read(arg.wrapping_byte_add(bindings::vfio_irq_set::MIN_SIZE))?
        }
        _ => return Err(EINVAL),
    };
    let msi = if fd < 0 {
        None
    } else {
        Some(Msi::new(&this.dev, Some(this.bank), fd)?)
    };
    this.replace_msi(msi);
    Ok(())
}
