// SPDX-License-Identifier: GPL-2.0

//! Hardware PAMUs, as a device tree describes them.
//!
//! One `fsl,pamu` node describes all PAMUs of an SoC. Its memory region consists of their register
//! pages, one after the other. Its first interrupt is that of access violations. After reset each
//! PAMU is bypassed; enabling the PAMUs needs the SoC's global utilities ([`guts`]).
//!
//! Errata: [`Pamu::enable`](crate::pamu) implements the workaround of A-005982, and the violation
//! handler that of A-003638. A-004510 requires a local access window around the tables with its own
//! coherence domain. That isn't implemented, so affected revisions are refused.

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

/// The memory of registers.
pub(crate) trait Space: Send + Sync {
    /// Reads 32 bits at `offset` as little-endian. Returns `None` if the device is gone.
    fn read(&self, offset: usize) -> Option<u32>;

    /// Writes 32 bits as little-endian. Does nothing if the device is gone.
    fn write(&self, offset: usize, value: u32);
}

impl Space for DevresIoMem {
    fn read(&self, offset: usize) -> Option<u32> {
        let memory = self.try_access()?;
        Io::try_read32(&*memory, offset).ok()
    }

    fn write(&self, offset: usize, value: u32) {
        if let Some(memory) = self.try_access() {
            // The offset is that of a register, in a page that exists.
            let _ = Io::try_write32(&*memory, value, offset);
        }
    }
}

/// Converts between the big-endian value of a register and a little-endian word.
fn swapped(value: u32) -> u32 {
    value.swap_bytes()
}

/// The register page of one PAMU.
struct Page<S> {
    space: Arc<S>,
    base: usize,
}

impl<S: Space> Pamu for Page<S> {
    fn read(&self, register: Register) -> u32 {
        // Nothing is pending on a device that is gone.
        let value = self.space.read(self.base + register as usize);
        value.map_or(0, swapped)
    }

    fn write(&self, register: Register, value: u32) {
        self.space
            .write(self.base + register as usize, swapped(value));
    }

    fn drain(&self) {
        // There is no drain command: the entry caches are coherent with the processors' writes.
    }
}

/// The driver of `fsl,pamu`.
pub(crate) struct Driver;

/// The handler of access violations.
pub(crate) struct Handler(Listener);

impl ThreadedHandler for Handler {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// The PAMUs while their driver is bound.
#[pin_data]
pub(crate) struct Bound<'a> {
    #[pin]
    _interrupt: ThreadedRegistration<'a, Handler>,
    _published: Published,
}

/// The registered system. Dropping this unregisters it.
struct Published(Arc<System>);

impl Drop for Published {
    fn drop(&mut self) {
        let published = SYSTEM.lock().take();
        drop(published);
        // Owners of LIODNs keep the tables alive, but the registers go away now.
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

/// Enables the PAMUs.
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
    // Until a device is assigned to userspace, a kernel driver uses it, and its bus addresses are
    // physical addresses.
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
    /// Registers the drivers.
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

    /// Memory in place of registers, so that tests can inspect it as bytes.
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
        // Memory keeps the value written, including the write-one-to-clear bits, and has no LIODN.
        assert_eq!(pamu.read(Register::Avs1), avs1::AV | 0x80);
        pamu.acknowledge(false);
        assert_eq!(pamu.read(Register::Pics), pics::AV);
        Ok(())
    }
}
