// SPDX-License-Identifier: GPL-2.0

//! The real PAMUs, as a device tree names them.
//!
//! One node, `fsl,pamu`, stands for all PAMUs of an SoC: its memory is their pages of registers, one
//! after the other, its first interrupt that of access violations. Turning them on takes the SoC's
//! global utilities, too ([`guts`]), where each PAMU is bypassed after reset.
//!
//! Errata: A-005982 is in [`Pamu::enable`](crate::pamu), A-003638 in the handling of violations.
//! A-004510 wants a local access window with a coherence domain of its own around the tables;
//! that isn't done, so the revisions that have it are refused.

mod guts;

pub(crate) use guts::Guts;

use kernel::{
    device::Core,
    driver,
    io::{
        mem::DevresIoMem,
        Io, //
    },
    irq::{
        IrqReturn,
        ThreadedHandler,
        ThreadedRegistration, //
    },
    of,
    platform,
    prelude::*,
    sync::Arc, //
};

use kernel_ext::iommu_driver::GroupKind;

use crate::{
    abi::{
        self,
        SYSTEM, //
    },
    firmware,
    pamu::Pamu,
    parameters,
    registers::{
        Register,
        PAGE, //
    },
    system::{
        Listener,
        Settings,
        System, //
    },
    tables::Tables, //
};

/// Memory of registers.
pub(crate) trait Space: Send + Sync {
    /// The 32 bits at `offset`, as a little-endian machine reads them; `None` when it is gone.
    fn read(&self, offset: usize) -> Option<u32>;

    /// Writes 32 bits as a little-endian machine does, unless it is gone.
    fn write(&self, offset: usize, value: u32);
}

impl Space for DevresIoMem {
    fn read(&self, offset: usize) -> Option<u32> {
        let memory = self.try_access()?;
        Io::try_read32(&*memory, offset).ok()
    }

    fn write(&self, offset: usize, value: u32) {
        if let Some(memory) = self.try_access() {
            // The offset is one of a register, in a page that is there.
            let _ = Io::try_write32(&*memory, value, offset);
        }
    }
}

/// A big-endian register in little-endian words, and the other way round.
fn swapped(value: u32) -> u32 {
    value.swap_bytes()
}

/// The page of one PAMU.
struct Page<S> {
    space: Arc<S>,
    base: usize,
}

impl<S: Space> Pamu for Page<S> {
    fn read(&self, register: Register) -> u32 {
        // Of a device that is gone, nothing is pending.
        let value = self.space.read(self.base + register as usize);
        value.map_or(0, swapped)
    }

    fn write(&self, register: Register, value: u32) {
        self.space
            .write(self.base + register as usize, swapped(value));
    }

    fn drain(&self) {
        // There is no command for it: the caches of entries see what the processors write.
    }
}

/// The driver of `fsl,pamu`.
pub(crate) struct Driver;

/// What handles access violations.
pub(crate) struct Handler(Listener);

impl ThreadedHandler for Handler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// The PAMUs while the driver is bound.
#[pin_data]
pub(crate) struct Bound<'a> {
    #[pin]
    _interrupt: ThreadedRegistration<'a, Handler>,
    _published: Published,
}

/// The system of the machine, as long as this lives.
struct Published(Arc<System>);

impl Drop for Published {
    fn drop(&mut self) {
        let published = SYSTEM.lock().take();
        drop(published);
        // Who still has a LIODN keeps the tables, but the registers go now.
        self.0.disable();
    }
}

kernel::of_device_table!(
    OF_TABLE,
    <Driver as platform::Driver>::IdInfo,
    [(of::DeviceId::new(c"fsl,pamu"), ())]
);

impl platform::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Bound<'bound>;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let published = Published(start(pdev)?);
            let handler = Handler(Listener::new(published.0.clone())?);
            Ok(try_pin_init!(Bound {
                _published: published,
                _interrupt <- abi::violation_interrupt(pdev, handler),
            }))
        })
    }
}

/// Turns the PAMUs on.
fn start(pdev: &platform::Device<Core<'_>>) -> Result<Arc<System>> {
    let dev = pdev.as_ref();
    let guts = guts::get().ok_or(EPROBE_DEFER)?;
    if guts.has_a_004510() {
        dev_err!(
            dev,
            "this SoC needs a workaround (erratum A-004510) that isn't implemented\n"
        );
        return Err(ENODEV);
    }
    let memory = pdev.io_request_by_index(0).ok_or(ENODEV)?.iomap()?;
    let count = Io::size(&memory) / PAGE;
    let pages = Arc::new(memory.into_devres()?, GFP_KERNEL)?;
    let mut pamus: KVec<Arc<dyn Pamu>> = KVec::new();
    for number in 0..count {
        let page = Page {
            space: pages.clone(),
            base: number * PAGE,
        };
        pamus.push(Arc::new(page, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    // Until a program has a device, the kernel drives it, and the devices' bus addresses are physical.
    let open = match dev.fwnode() {
        Some(node) => firmware::all_liodns(node)?,
        None => KVec::new(),
    };
    let banks = firmware::banks(dev)?;
    let mut published = SYSTEM.lock();
    if published.is_some() {
        return Err(EBUSY);
    }
    let settings = Settings {
        max_windows: parameters::MAX_WINDOWS.get(),
        open: &open,
        groups: GroupKind::Iommu,
    };
    let system = System::new(pamus, Tables::new(parameters::limits())?, banks, settings)?;
    guts.stop_bypassing(count);
    dev_info!(
        dev,
        "{count} PAMUs, {} LIODNs open for the kernel's drivers\n",
        open.len()
    );
    *published = Some(system.clone());
    Ok(system)
}

/// The drivers of the PAMUs and of the global utilities.
#[pin_data]
pub(crate) struct Drivers {
    #[pin]
    pamu: driver::Registration<platform::Adapter<Driver>>,
    #[pin]
    guts: driver::Registration<platform::Adapter<guts::Driver>>,
}

impl Drivers {
    /// Registers them.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            guts <- driver::Registration::new(c"vfio_pamu_guts", module),
            pamu <- driver::Registration::new(c"vfio_pamu", module),
        })
    }
}

#[kunit_tests(vfio_pamu_mmio)]
mod tests {
    use kernel::sync::atomic::Relaxed;

    use super::*;

    use crate::{
        abi::{
            Contiguous,
            Physical, //
        },
        registers::{
            avs1,
            pc,
            pics, //
        },
        tables::{
            Limits,
            Table,
            Tables, //
        },
    };

    /// Memory in the place of registers, which then can be looked at as bytes.
    impl Space for Contiguous {
        fn read(&self, offset: usize) -> Option<u32> {
            self.words()
                .get(offset / 4)
                .map(|word| u32::from_le(word.load(Relaxed)))
        }

        fn write(&self, offset: usize, value: u32) {
            if let Some(word) = self.words().get(offset / 4) {
                word.store(value.to_le(), Relaxed);
            }
        }
    }

    fn pamus() -> Result<(Arc<Contiguous>, [Page<Contiguous>; 2])> {
        let space = Arc::new(Contiguous::new(1)?, GFP_KERNEL)?;
        let pages = [0, PAGE].map(|base| Page {
            space: space.clone(),
            base,
        });
        Ok((space, pages))
    }

    #[test]
    fn registers_are_big_endian_and_in_their_page() -> Result {
        let (space, pages) = pamus()?;
        for (register, _) in Register::ALL {
            pages[1].write(*register, 0x1234_0000 | *register as u32);
        }
        for (register, _) in Register::ALL {
            let offset = *register as u64;
            let value = 0x1234_0000 | *register as u32;
            assert_eq!(pages[1].read(*register), value);
            assert_eq!(
                Physical.load(space.phys() + PAGE as u64 + offset),
                Some(value)
            );
            assert_eq!(pages[0].read(*register), 0);
        }
        Ok(())
    }

    #[test]
    fn enabling_tells_the_tables() -> Result {
        let (_, pages) = pamus()?;
        let tables = Tables::new(Limits {
            liodns: 70,
            secondaries: 10,
        })?;
        let pamu: &dyn Pamu = &pages[1];
        pamu.enable(&tables);
        for (table, high) in [
            (Table::Primaries, [Register::Ppbah, Register::Pplah]),
            (Table::Secondaries, [Register::Spbah, Register::Splah]),
            (Table::Mappings, [Register::Obah, Register::Olah]),
        ] {
            let (base, limit) = tables.bounds(table);
            let all = Register::ALL.iter().map(|(register, _)| *register);
            for (high, value) in Iterator::zip(high.into_iter(), [base, limit]) {
                let low = all
                    .clone()
                    .find(|low| *low as u16 == high as u16 + 4)
                    .ok_or(EINVAL)?;
                assert_eq!(pamu.read(high), (value >> 32) as u32);
                assert_eq!(pamu.read(low), value as u32);
            }
        }
        assert_eq!(
            pamu.read(Register::Pc),
            pc::PE | pc::OCE | pc::SPCC | pc::PPCC
        );
        assert_eq!(pamu.read(Register::Pics), pics::AV_ENABLE);
        pamu.disable();
        assert_eq!(pamu.read(Register::Pc), pc::PGC);
        Ok(())
    }

    #[test]
    fn violations_are_read_and_cleared() -> Result {
        let (_, pages) = pamus()?;
        let pamu: &dyn Pamu = &pages[0];
        assert!(pamu.take_violation(0).is_none());
        pamu.write(Register::Pics, pics::AV | pics::AV_ENABLE);
        pamu.write(Register::Avs1, 0x0123 << 16 | avs1::AV | 0x80);
        pamu.write(Register::Avah, 0x5);
        pamu.write(Register::Aval, 0x6000);
        pamu.write(Register::Poeal, 0x40);
        let report = pamu.take_violation(0).ok_or(EINVAL)?;
        assert_eq!((report.liodn(), report.address), (0x123, 0x5_0000_6000));
        assert_eq!(report.entry, 0x40);
        // Memory keeps what is written: the bits that clear, and no LIODN.
        assert_eq!(pamu.read(Register::Avs1), avs1::AV | 0x80);
        pamu.acknowledge(false);
        assert_eq!(pamu.read(Register::Pics), pics::AV);
        Ok(())
    }
}
