// SPDX-License-Identifier: GPL-2.0

//! The platform driver of the PAMUs that a device tree describes.
//!
//! One `fsl,pamu` node describes all PAMUs of an SoC. Its memory region consists of their register
//! pages, one after the other. Its first interrupt is that of access violations. After reset each
//! PAMU is bypassed; the bypass is controlled by the SoC's global utilities ([`guts`]).
//!
//! Errata: [`Pamu::enable`](crate::pamu) implements the workaround of A-005982, and the violation
//! handler that of A-003638. A-004510 requires a local access window around the tables with its own
//! coherence domain. That isn't implemented, so the driver rejects affected revisions.

#[allow(unsafe_code)]
mod abi;
mod guts;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;

pub(crate) use abi::init_lock;
use guts::InEffect;

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

use kernel_ext::iommu_driver::GroupType;

use crate::{
    firmware,
    iommu,
    pamu::Pamu,
    registers::REGISTERS_SIZE,
    system::{
        Registration,
        Settings,
        System,
        ViolationHandler, //
    },
    tables::Tables, //
};

/// A range of big-endian registers.
trait RegisterSpace: Send + Sync {
    /// Reads 32 bits at `offset` as little-endian. Returns `None` if the device is gone.
    fn read(&self, offset: usize) -> Option<u32>;

    /// Writes 32 bits as little-endian. Does nothing if the device is gone.
    fn write(&self, offset: usize, value: u32);
}

impl RegisterSpace for DevresIoMem {
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
struct RegisterPage<S> {
    space: Arc<S>,
    base: usize,
}

/// The driver of `fsl,pamu`.
pub(crate) struct Driver;

/// The interrupt of access violations.
pub(crate) struct Interrupt(ViolationHandler);

impl ThreadedHandler for Interrupt {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.interrupt();
        IrqReturn::Handled
    }
}

/// The PAMUs while their driver is bound.
#[pin_data]
pub(crate) struct Bound<'a> {
    // Fields are dropped in order.
    #[pin]
    _interrupt: ThreadedRegistration<'a, Interrupt>,
    _iommu: iommu::Registration,
    _pamus: InEffect,
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
            let pamus = start(pdev)?;
            let system = pamus.registration().system().clone();
            let interrupt = Interrupt(ViolationHandler::new(system.clone())?);
            Ok(try_pin_init!(Bound {
                _interrupt <- abi::violation_interrupt(pdev, interrupt),
                // Last of what can fail: from here on, programs can get the devices.
                _iommu: iommu::Registration::new(system, pdev.as_ref())?,
                _pamus: pamus.keep(),
            }))
        })
    }
}

/// Enables and registers the PAMUs, and stops to bypass them.
fn start(pdev: &platform::Device<Core<'_>>) -> Result<InEffect> {
    let dev = pdev.as_ref();
    let guts = guts::get().ok_or(EPROBE_DEFER)?;
    if guts.has_a_004510()? {
        dev_err!(
            dev,
            "unsupported SoC revision: the workaround for erratum A-004510 is not implemented\n"
        );
        return Err(ENODEV);
    }
    let memory = pdev.io_request_by_index(0).ok_or(ENODEV)?.iomap()?;
    let count = Io::size(&memory) / REGISTERS_SIZE;
    let pages = Arc::new(memory.into_devres()?, GFP_KERNEL)?;
    let mut pamus: KVec<Arc<dyn Pamu>> = KVec::new();
    for number in 0..count {
        let page = RegisterPage {
            space: pages.clone(),
            base: number * REGISTERS_SIZE,
        };
        pamus.push(Arc::new(page, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    let open = abi::TreeLiodns::of(dev)?;
    let banks = firmware::banks(dev)?;
    let registration = Registration::of_this_module(|| {
        let settings = Settings::from_parameters(open.liodns(), GroupType::Iommu);
        System::new(pamus, Tables::from_parameters()?, banks, settings)
    })?;
    let pamus = InEffect::new(guts, count, registration)?;
    dev_info!(
        dev,
        "{count} PAMUs, {} LIODNs may access all memory until they are claimed\n",
        open.count()
    );
    Ok(pamus)
}

/// The drivers of the PAMUs and of the global utilities.
#[pin_data]
pub(crate) struct Drivers {
    #[pin]
    pamu: driver::Registration<abi::Permanent<Driver>>,
    #[pin]
    guts: driver::Registration<abi::Permanent<guts::Driver>>,
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

#[kunit_tests(vfio_pamu_platform_driver)]
mod tests {
    use kernel::sync::atomic::Relaxed;

    use super::{
        testing::{
            clearing_pamus,
            pamus,
            register,
            register_or_skip,
            Stuck, //
        },
        *, //
    };

    use crate::{
        paace::{
            Aperture,
            Attributes, //
        },
        registers::{
            avs1,
            pc,
            pics,
            Register, //
        },
        system::{
            Pamus,
            SystemRef, //
        },
        tables::{
            writer::Shut,
            ContiguousPages,
            Table,
            TableSizes, //
        },
    };

    #[test]
    fn registers_are_big_endian_and_in_their_page() -> Result {
        let (space, pages) = pamus()?;
        for (register, _) in Register::ALL {
            pages[1].set(*register, 0x1234_0000 | *register as u32);
        }
        for (register, _) in Register::ALL {
            let offset = *register as usize;
            let value = 0x1234_0000 | *register as u32;
            assert_eq!(pages[1].read(*register), value);
            let word = &space.words()[(REGISTERS_SIZE + offset) / 4];
            assert_eq!(u32::from_be(word.load(Relaxed)), value);
            assert_eq!(pages[0].read(*register), 0);
        }
        Ok(())
    }

    #[test]
    fn enabling_writes_the_table_addresses() -> Result {
        let (_, [_, page]) = pamus()?;
        let tables = Tables::new(TableSizes {
            liodns: 70,
            spaaces: 10,
        })?;
        let pamu: Arc<dyn Pamu> = Arc::new(page, GFP_KERNEL)?;
        let mut all = KVec::new();
        all.push(pamu.clone(), GFP_KERNEL)?;
        let pamus = Pamus::new(all, tables.clone())?;
        assert!(Pamus::new(KVec::new(), tables.clone()).is_err());
        pamus.enable(0);
        for (table, high) in [
            (Table::Ppaact, [Register::Ppbah, Register::Pplah]),
            (Table::Spaact, [Register::Spbah, Register::Splah]),
            (Table::Omt, [Register::Obah, Register::Olah]),
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
        // This acknowledges an interrupt that the boot loader left behind.
        assert_eq!(pamu.read(Register::Pics), pics::AV | pics::AV_ENABLE);
        pamu.disable();
        assert_eq!(pamu.read(Register::Pc), pc::PGC);
        Ok(())
    }

    #[test]
    fn violations_are_read_and_cleared() -> Result {
        let (_, pages) = pamus()?;
        let pamu: &dyn Pamu = &pages[0];
        assert!(pamu.take_violation(0).is_none());
        pages[0].set(Register::Pics, pics::AV | pics::AV_ENABLE);
        pages[0].set(Register::Avs1, 0x0123 << 16 | avs1::AV | 0x80);
        pages[0].set(Register::Avah, 0x5);
        pages[0].set(Register::Aval, 0x6000);
        pages[0].set(Register::Poeal, 0x40);
        let report = pamu.take_violation(0).ok_or(EINVAL)?;
        assert_eq!((report.liodn(), report.address), (0x123, 0x5_0000_6000));
        assert_eq!(report.entry, 0x40);
        // Memory keeps the value written, including the write-one-to-clear bits, and has no LIODN.
        assert_eq!(pamu.read(Register::Avs1), avs1::AV | 0x80);
        pamu.acknowledge(false);
        assert_eq!(pamu.read(Register::Pics), pics::AV);
        Ok(())
    }

    #[test]
    fn interrupt_without_a_violation_is_acknowledged() -> Result {
        let (_, [page, _]) = clearing_pamus()?;
        let pamu: &dyn Pamu = &page;
        for armed in [0, pics::AV_ENABLE] {
            page.put(Register::Avs1, 3 << avs1::LIODN_SHIFT | avs1::WAV);
            page.put(Register::Pics, pics::AV | armed);
            assert_eq!(pamu.recorded_liodn(), None);
            assert!(pamu.take_violation(0).is_none());
            assert_eq!(pamu.read(Register::Pics), armed);
        }
        Ok(())
    }

    /// A caller that polls doesn't wait for the thread of the interrupt.
    #[test]
    fn polling_handles_a_violation_before_its_interrupt() -> Result {
        let (space, [observer, _]) = clearing_pamus()?;
        let Some(registration) = register_or_skip(space, &[])? else {
            return Ok(());
        };
        let system = registration.system();
        let mut liodn = system.claim(3, None)?;
        let entries = liodn.prepare(1)?;
        liodn.configure(Aperture::DEFAULT, entries, Attributes::default())?;
        liodn.enable()?;
        let status = 3 << avs1::LIODN_SHIFT | avs1::WAV | avs1::AV;
        observer.put(Register::Avs1, status);
        // Nothing is pending.
        system.poll();
        assert!(liodn.violation().is_none());
        observer.put(Register::Pics, pics::AV | pics::AV_ENABLE);
        system.poll();
        assert!(liodn.violation().is_some());
        let pamu: &dyn Pamu = &observer;
        assert!(pamu.is_armed());
        // The interrupt handles those of a LIODN that is off.
        observer.put(Register::Avs1, status);
        observer.put(Register::Pics, pics::AV | pics::AV_ENABLE);
        system.poll();
        assert_eq!(pamu.read(Register::Avs1), status);
        Ok(())
    }

    /// A device may have made an access just before its LIODN was shut.
    #[test]
    fn stale_violations_do_not_stop_the_next_owner() -> Result {
        let (space, [observer, _]) = clearing_pamus()?;
        let Some(registration) = register_or_skip(space, &[3])? else {
            return Ok(());
        };
        let system = registration.system();
        let handler = ViolationHandler::new(system.clone())?;
        let raise = |armed| {
            observer.put(
                Register::Avs1,
                3 << avs1::LIODN_SHIFT | avs1::WAV | avs1::AV,
            );
            observer.put(Register::Pics, pics::AV | armed);
        };
        let is_on = || {
            system
                .entry(3)
                .is_some_and(|entry| entry.is_open(Shut::Entry))
        };
        for armed in [0, pics::AV_ENABLE] {
            system.block(3)?;
            raise(armed);
            system.open(3)?;
            handler.interrupt();
            system.unmask_interrupts();
            assert!(is_on());
            // One that is made now does.
            raise(pics::AV_ENABLE);
            handler.interrupt();
            assert!(!is_on());

            let mut liodn = system.claim(3, None)?;
            let entries = liodn.prepare(1)?;
            liodn.configure(Aperture::DEFAULT, entries, Attributes::default())?;
            raise(armed);
            liodn.enable()?;
            handler.interrupt();
            assert!(is_on() && liodn.violation().is_none());
            // Enabling it again doesn't hide one.
            raise(pics::AV_ENABLE);
            liodn.enable()?;
            handler.interrupt();
            assert!(!is_on() && liodn.violation().is_some());
        }
        Ok(())
    }

    /// The registers of a PAMU are unmapped after its registration was dropped.
    #[test]
    fn unregistered_pamus_are_disabled() -> Result {
        let (space, [observer, _]) = pamus()?;
        let Some(registration) = register_or_skip(space, &[])? else {
            return Ok(());
        };
        assert_ne!(observer.read(Register::Pc) & pc::PE, 0);
        // A container keeps the PAMUs and their tables.
        let container = SystemRef::get().ok_or(ENODEV)?;
        drop(registration);
        assert!(SystemRef::get().is_none());
        assert_eq!(observer.read(Register::Pc), pc::PGC);
        // Others would open the LIODNs that the container has.
        assert_eq!(register(pamus()?.0, &[]).err(), Some(EBUSY));
        drop(container);
        assert!(register(pamus()?.0, &[]).is_ok());
        Ok(())
    }

    /// The devices of the kernel's drivers would reach nothing.
    #[test]
    fn failed_probe_bypasses_the_pamus_again() -> Result {
        const BYPASS: usize = 0x604;
        for (kept, used, bypassed) in [
            (false, false, 0xffff_0000_u32),
            (false, true, 0x7fff_0000),
            (true, false, 0x7fff_0000),
        ] {
            let (space, [observer, _]) = pamus()?;
            let guts = Arc::new(guts::Guts::new(ContiguousPages::new(0)?), GFP_KERNEL)?;
            guts.space().write(BYPASS, swapped(0xffff_0000));
            let Some(registration) = register_or_skip(space, &[])? else {
                return Ok(());
            };
            let pamus = InEffect::new(guts.clone(), 1, registration)?;
            assert_eq!(guts.space().read(BYPASS).map(swapped), Some(0x7fff_0000));
            let container = SystemRef::get().filter(|_| used);
            drop(if kept { pamus.keep() } else { pamus });
            assert_eq!(guts.space().read(BYPASS).map(swapped), Some(bypassed));
            assert_eq!(observer.read(Register::Pc), pc::PGC);
            drop(container);
        }
        Ok(())
    }

    /// Nothing would be isolated.
    #[test]
    fn pamus_that_stay_bypassed_are_refused() -> Result {
        for (value, error) in [(None, ENXIO), (Some(u32::MAX), EIO)] {
            let Some(registration) = register_or_skip(pamus()?.0, &[])? else {
                return Ok(());
            };
            let guts = Arc::new(guts::Guts::new(Stuck(value)), GFP_KERNEL)?;
            assert_eq!(guts.has_a_004510().err(), value.is_none().then_some(ENXIO));
            let refused = InEffect::new(guts, 1, registration);
            assert_eq!(refused.err(), Some(error));
            assert!(SystemRef::get().is_none());
        }
        Ok(())
    }

    #[test]
    fn one_registration_at_a_time() -> Result {
        let Some(first) = register_or_skip(pamus()?.0, &[])? else {
            return Ok(());
        };
        assert_eq!(register(pamus()?.0, &[]).err(), Some(EBUSY));
        assert!(SystemRef::get().is_some());
        drop(first);
        assert!(SystemRef::get().is_none());
        Ok(())
    }
}
